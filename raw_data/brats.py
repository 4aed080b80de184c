"""BraTS 2018 to 2021: brain tumours in four MR sequences."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from raw_data.dataset import Case, Recipe
from raw_data.files import RawFile
from raw_data.patterns import PatternDataset, folder_of_label
from utils import InputError, parse_rows

GRADES = ("HGG", "LGG")
UNKNOWN = ("", "NA", "N/A", "NAN", "NONE")
Grades = dict[str, list[str]]       # subject -> grades, of every line that names it


class BratsDataset(PatternDataset):
    """The grade of a tumour is the folder above its case (2018, 2019), or in name_mapping.csv (2020), or not known."""

    def cases_in(self, files: Mapping[str, RawFile]) -> list[Case]:
        cases = super().cases_in(files)
        lists = {
            file: read_grades(file) for path, file in files.items() if path.rsplit("/", 1)[-1] == "name_mapping.csv"
        }
        check_lists(cases, lists)
        return [replace(case, image_class=grade_of(case, lists)) for case in cases]

    def build_case(self, case_id: str, folder: str, paths: Mapping[str, str], files: Mapping[str, RawFile]) -> Case:
        case = super().build_case(case_id, folder, paths, files)
        return replace(case, image_class=next((part for part in folder.split("/")[:-1] if part in GRADES), None))


def read_grades(file: RawFile) -> Grades:
    """The grades in a name_mapping.csv, whose other columns are names that a subject has, one for each year.

    ``InputError`` where it has no column of grades, or one of others than HGG and LGG.
    """
    # A spreadsheet program puts a mark before it, and semicolons where a comma is the decimal sign.
    text = file.read().decode("utf-8-sig", errors="replace")
    header = text.partition("\n")[0]
    try:
        rows = parse_rows(text, ";" if ";" in header and "," not in header else ",")
    except ValueError as error:
        raise InputError(f"{file}: expected a readable CSV file, found {error}") from None
    grades: Grades = {}
    for row in rows:
        fields = {str(name).strip().lower(): str(value).strip() for name, value in row.items()}
        if "grade" not in fields or len(fields) < max(2, len(row)):
            raise InputError(f"{file}: expected the columns Grade and BraTS_2020_subject_ID, found {header!r:.80}")
        grade = fields.pop("grade").upper()
        if grade not in (*GRADES, *UNKNOWN):
            raise InputError(f"{file}: expected the grades {' and '.join(GRADES)}, found {grade!r:.40}")
        for name in fields.values():
            grades.setdefault(name, []).extend([grade] if grade in GRADES else [])
    return grades


def check_lists(cases: Sequence[Case], lists: Mapping[RawFile, Grades]) -> None:
    """``InputError`` where lists of grades are there, cases need them, and none is listed: they are of other data."""
    is_needed = lists and any(case.image_class is None for case in cases)
    if is_needed and not any(case.case_id in grades for case in cases for grades in lists.values()):
        expected = f"the grades of cases that are there, such as {cases[0].case_id}"
        raise InputError(f"{next(iter(lists))}: expected {expected}, found none of them")


def grade_of(case: Case, lists: Mapping[RawFile, Grades]) -> str | None:
    """What the folder and the lists say of a case; ``InputError`` where they contradict each other."""
    said = [(grade, str(file)) for file, grades in lists.items() for grade in grades.get(case.case_id, ())]
    if case.image_class:
        said.insert(0, (case.image_class, case.source))
    for grade, place in said:
        if grade != said[0][0]:
            found = f"{said[0][0]} in {said[0][1]} and {grade} in {place}"
            raise InputError(f"{case.case_id}: expected one grade, found {found}")
    return said[0][0] if said else None


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
