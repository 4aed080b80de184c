"""BraTS 2018 to 2021: brain tumours in four MR sequences."""

import re
from collections.abc import Mapping

from raw_data.dataset import Case, Recipe
from raw_data.files import RawFile
from raw_data.patterns import PatternDataset, folder_of_label
from utils import InputError, parse_rows

GRADES = ("HGG", "LGG")


class BratsDataset(PatternDataset):
    """The grade of a tumour is the folder above its case (2018, 2019), or in name_mapping.csv (2020), or not known."""

    def build_case(self, case_id: str, folder: str, paths: Mapping[str, str], files: Mapping[str, RawFile]) -> Case:
        case = super().build_case(case_id, folder, paths, files)
        grade = next((part for part in folder.split("/")[:-1] if part in GRADES), None)
        return Case(**vars(case) | {"image_class": grade or listed_grade(case_id, files)})


def listed_grade(case_id: str, files: Mapping[str, RawFile]) -> str | None:
    """The grade of a case in the name_mapping.csv of BraTS 2020."""
    for path, file in files.items():
        if path.rsplit("/", 1)[-1] == "name_mapping.csv":
            try:
                rows = parse_rows(file.read().decode("utf-8", errors="replace"))
            except ValueError as error:
                raise InputError(f"{file}: expected a readable CSV file, found {error}") from None
            for row in rows:
                if case_id in row.values():
                    return row.get("Grade") if row.get("Grade") in GRADES else None
    return None


BRATS = BratsDataset(
    name="brats",
    modalities=("t1", "t1ce", "t2", "flair"),
    class_names=("background", "NCR_NET", "ED", "ET"),
    class_of_label={0: 0, 1: 1, 2: 2, 4: 3},
    # The region-wise paper used the high grade alone.
    recipe=Recipe(
        size=240, normalise="zscore-brain", split="alternate", classes=("HGG",),
        class_shares={"NCR_NET": 0.0016, "ED": 0.0066, "ET": 0.0026},
    ),
    authors_recipe={},
    authors="region-wise",
    image_classes=GRADES,
    # One label of BraTS 2020 is named W39_1998.09.19_Segm.nii.
    pattern=re.compile(
        r"(?:^|/)(?P<case>[^/]+)/(?:(?P=case)_(?P<modality>t1|t1ce|t2|flair)|(?P<label>(?P=case)_seg|[^/]+_Segm))"
        r"\.nii(?:\.gz)?$"
    ),
    modality_names={name: name for name in ("t1", "t1ce", "t2", "flair")},
    ignored_folders=frozenset({
        "miccai_brats_2018_data_validation", "miccai_brats_2019_data_validation", "miccai_brats2020_validationdata",
    }),
    layout="{HGG,LGG}/<case>/<case>_{t1,t1ce,t2,flair,seg}.nii.gz, unpacked or zipped",
    download="the training data of BraTS 2018 (registration with CBICA, Pennsylvania, or Synapse)",
    patient_of=folder_of_label,
)
