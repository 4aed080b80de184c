"""Raw data whose cases differ in spacing, shape and number of slices, in two classes and in three."""

import json
from pathlib import Path

import numpy as np
from raw_files import make_isles, save_nifti, write_description

# Shape and spacing in mm. Validation: case_4 of 5 slices and case_5 of 2.
SCANS = {
    "case_1": ((16, 20, 3), (0.9, 0.8, 5.0)),
    "case_2": ((16, 20, 3), (0.9, 0.8, 5.0)),
    "case_3": ((24, 16, 4), (0.7, 1.1, 4.0)),
    "case_4": ((16, 16, 5), (1.0, 1.5, 6.0)),
    "case_5": ((20, 24, 2), (0.5, 0.75, 3.0)),
}
VAL = ("case_4", "case_5")


def split_file(folder: Path, cases, val) -> Path:
    path = folder / "split.json"
    path.write_text(json.dumps({"train": [case for case in cases if case not in val], "val": list(val)}))
    return path


def make_varied(root: Path) -> Path:
    """ISLES' layout, one class; the first slice of each case has no lesion."""
    for case, (shape, spacing) in SCANS.items():
        make_isles(root, (case,), shape, spacing)
    return root


def make_three_classes(root: Path) -> Path:
    """nnU-Net's layout: a gland, brighter in T2, and in most of its slices a lesion, brighter in ADC."""
    for number, (case, (shape, spacing)) in enumerate(SCANS.items()):
        rng = np.random.default_rng(number)
        label = np.zeros(shape, np.uint8)
        x, y = rng.integers(2, 5, 2)
        label[x : x + 9, y : y + 8] = 1
        label[x + 2 : x + 6, y + 1 : y + 5, 1:] = 2
        for channel, bright in enumerate((label > 0, label == 2)):
            image = rng.integers(1, 100, shape) + 90 * bright
            save_nifti(root / "imagesTr" / f"{case}_{channel:04d}.nii.gz", image.astype(np.uint8), spacing)
        save_nifti(root / "labelsTr" / f"{case}.nii.gz", label, spacing)
    labels = {"background": 0, "gland": 1, "lesion": 2}
    names = {"0": "T2", "1": "ADC"}
    write_description(root, channel_names=names, labels=labels, numTraining=len(SCANS), file_ending=".nii.gz")
    return root
