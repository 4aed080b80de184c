"""ISLES 2018: CT perfusion of acute stroke."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from raw_data.dataset import Recipe, says
from raw_data.files import RawFile
from raw_data.patterns import PatternDataset
from utils import InputError

# An older release says MR_ for CT_.
MAPS = ("CBF", "CBV", "MTT", "Tmax")


class IslesDataset(PatternDataset):
    """Perfusion maps are named after the CT that they were computed from."""

    def modalities_in(self, name: str) -> list[str]:
        # "CT" alone is a modality, and the beginning of the others' names.
        found = ["CT"] if says(name, "CT(?!_(?:CB|MT|Tm))") else []
        return found + [f"CT_{name_of_map}" for name_of_map in MAPS if says(name, name_of_map)]


def isles_patient(files: Mapping[str, RawFile], label_path: str) -> str | None:
    """The patient that a scan's JSON sidecar names (two slabs, A and B, may be one patient).

    ``InputError`` where its sidecars name two.
    """
    folder = str(PurePosixPath(label_path).parent)
    named: dict[str, str] = {}
    for path, file in files.items():
        if path.startswith(folder + "/") and path.endswith(".json"):
            found = re.search(r"Train_\d+", file.read().decode("utf-8", errors="replace"))
            if found:
                named.setdefault(found.group(), path)
    if len(named) > 1:
        raise InputError(f"{folder}: expected sidecars of one patient, found {' and '.join(sorted(named.values()))}")
    return next(iter(named), None)


ISLES = IslesDataset(
    name="isles",
    modalities=("CT", *(f"CT_{name}" for name in MAPS)),
    class_names=("background", "lesion"),
    class_of_label={0: 0, 1: 1},
    recipe=Recipe(val=20),
    # CT is a prefix of every modality, so the dots matter.
    pattern=re.compile(
        r"(?:^|/)(?P<case>case_\d+)/SMIR\.Brain\.XX\.O\.(?:(?P<label>OT)|(?P<modality>CT|(?:CT|MR)_(?:CBF|CBV|MTT|Tmax)))"
        r"\.\d+/[^/]+\.nii(?:\.gz)?$"
    ),
    modality_names={"CT": "CT", **{f"{prefix}_{name}": f"CT_{name}" for prefix in ("CT", "MR") for name in MAPS}},
    ignored_folders=frozenset({"testing"}),
    layout="TRAINING/case_N/SMIR.Brain.XX.O.<modality>.<id>/*.nii, unpacked or in ISLES2018_Training.zip",
    download="ISLES2018_Training.zip of Zenodo record 17736412",
    patients="a .json sidecar that names the patient",
    patient_of=isles_patient,
)
