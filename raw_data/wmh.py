"""WMH 2017: white-matter hyperintensities in FLAIR and T1."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from raw_data.dataset import Recipe
from raw_data.files import RawFile
from raw_data.patterns import PatternDataset


def wmh_patient(files: Mapping[str, RawFile], label_path: str) -> str:
    """Each patient was scanned once: the folder of the scan."""
    return PurePosixPath(label_path).parent.name


WMH = PatternDataset(
    name="wmh",
    modalities=("FLAIR", "T1"),
    class_names=("background", "wmh"),
    # Label 2 is other pathology, background to the paper.
    class_of_label={0: 0, 1: 1, 2: 0},
    recipe=Recipe(val=10),
    pattern=re.compile(r"(?:^|/)(?P<case>[^/]+)/(?:pre/(?P<modality>FLAIR|T1)|(?P<label>wmh))\.nii(?:\.gz)?$"),
    modality_names={"FLAIR": "FLAIR", "T1": "T1"},
    ignored_folders=frozenset({"test", "additional_annotations"}),
    layout="<site>/<id>/pre/{FLAIR,T1}.nii.gz and <site>/<id>/wmh.nii.gz, unpacked or zipped",
    download="the training data of the WMH challenge, DataverseNL doi 10.34894/AECRSD",
    patient_of=wmh_patient,
)
