"""WMH 2017: white-matter hyperintensities in FLAIR and T1."""

import re

from raw_data.dataset import Recipe
from raw_data.patterns import PatternDataset, folder_of_label

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
    patient_of=folder_of_label,
)
