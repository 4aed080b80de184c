"""KiTS19: kidneys and their tumours in CT."""

import re
from collections.abc import Mapping

from raw_data.dataset import Case, Recipe, says
from raw_data.files import RawFile
from raw_data.patterns import PatternDataset, folder_of_label

N_LABELLED = 210    # the release has 90 cases more, without labels, to be segmented for the challenge


class KitsDataset(PatternDataset):
    """Axes of the files: slices, rows, columns."""

    def cases_in(self, files: Mapping[str, RawFile]) -> list[Case]:
        found, folders = self.match_files(files, self.ignored_folders)
        wanted = [name for name in sorted(found) if "label" in found[name] or int(name.split("_")[1]) < N_LABELLED]
        return [self.build_case(name, folders[name], found[name], files) for name in wanted]

    def modalities_in(self, name: str) -> list[str]:
        """By the release's own name: other data sets' files say CT too."""
        return list(self.modalities) if says(name, "imaging") else []


KITS = KitsDataset(
    name="kits",
    modalities=("CT",),
    class_names=("background", "kidney", "tumour"),
    class_of_label={0: 0, 1: 1, 2: 2},
    recipe=Recipe(
        normalise="clip-zscore", split="parity", all_slices=False, class_shares={"kidney": 0.0189, "tumour": 0.0047},
    ),
    authors_recipe={"resize_labels": "bicubic"},
    authors="region-wise",
    axes=(2, 1, 0),
    pattern=re.compile(r"(?:^|/)(?P<case>case_\d{5})/(?:(?P<modality>imaging)|(?P<label>segmentation))\.nii(?:\.gz)?$"),
    modality_names={"imaging": "CT"},
    ignored_folders=frozenset({"test"}),
    layout="case_NNNNN/{imaging,segmentation}.nii.gz, unpacked or zipped",
    download="KiTS19 (github.com/neheller/kits19)",
    patient_of=folder_of_label,
)
