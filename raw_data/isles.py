"""ISLES 2018: CT perfusion of acute stroke."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from raw_data.dataset import Dataset
from raw_data.files import RawFile


def isles_patient(files: Mapping[str, RawFile], label_path: str) -> str | None:
    """The patient that a scan's JSON sidecar names (two slabs, A and B, may be one patient)."""
    folder = str(PurePosixPath(label_path).parent)
    for path, file in files.items():
        if path.startswith(folder + "/") and path.endswith(".json"):
            named = re.search(r"Train_\d+", file.read().decode("utf-8", errors="replace"))
            if named:
                return named.group()
    return None


ISLES = Dataset(
    modalities=("CT", "CT_CBF", "CT_CBV", "CT_MTT", "CT_Tmax"),
    class_names=("background", "lesion"),
    class_of_label={0: 0, 1: 1},
    validation_cases=20,
    # An older release says MR_ for CT_; CT is a prefix of every modality, so the dots matter.
    pattern=re.compile(
        r"(?:^|/)(?P<case>case_\d+)/SMIR\.Brain\.XX\.O\.(?:(?P<label>OT)|(?P<plain>CT)|(?:CT|MR)_(?P<map>CBF|CBV|MTT|Tmax))"
        r"\.\d+/[^/]+\.nii(?:\.gz)?$"
    ),
    ignored_folders=frozenset({"testing"}),
    layout="TRAINING/case_N/SMIR.Brain.XX.O.<modality>.<id>/*.nii, unpacked or in ISLES2018_Training.zip",
    download="ISLES2018_Training.zip of Zenodo record 17736412",
    patient_of=isles_patient,
)
