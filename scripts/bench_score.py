"""Speed of eval.py score against medpy on pairs of lesion masks in .nii.gz files, as a markdown table.

    python scripts/bench_score.py [--masks FOLDER] [--limit N]

Each mask of FOLDER (NIfTI; without it generated lesions on usual grids) meets a shifted version of itself. Ours: a case
of `eval.py score --lesions`, all metrics and each lesion. medpy: DSC, HD, HD95 and ASSD of the same files read with
nibabel. CPU seconds of one process, reading included.
"""

import argparse
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from bench_metrics import GRIDS, lesions, read_masks, seconds
from medpy.metric import binary

from evaluation.mask_files import MaskPair
from evaluation.scoring import ScoreOptions, score_case
from raw_data.files import RawFile

NAMES = ("dsc", "hd_mm", "hd95_mm", "assd_mm")


def write_mask(path: Path, mask: np.ndarray, spacing: tuple[float, ...]) -> Path:
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), np.diag([*spacing, 1.0])), path)
    return path


def medpy_scores(prediction: Path, reference: Path) -> list[float]:
    images = [nib.load(path) for path in (prediction, reference)]
    spacing = [float(size) for size in images[0].header.get_zooms()]
    pair = [np.asarray(image.dataobj) > 0 for image in images]
    return [binary.dc(*pair), *(metric(*pair, spacing) for metric in (binary.hd, binary.hd95, binary.assd))]


def shifted(mask: np.ndarray) -> np.ndarray:
    return np.roll(mask, (2, 2, 1), axis=(0, 1, 2))


def measure(pair: MaskPair) -> tuple[float, float, float]:
    """Seconds of medpy and ours on a pair of files, and the largest difference between their metrics."""
    medpy_s, theirs = seconds(lambda: medpy_scores(pair.prediction.path, pair.reference.path), 1)
    ours_s, found = seconds(lambda: score_case(pair, options=ScoreOptions(per_lesion=True)), 1)
    return medpy_s, ours_s, max(abs(found.rows[1][key] - value) for key, value in zip(NAMES, theirs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=Path, help="folder of NIfTI masks; without it, masks are generated")
    parser.add_argument("--limit", type=int, default=2, help="how many masks of the folder (%(default)s)")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    masks = read_masks(args.masks, args.limit) if args.masks else [
        (name, lesions(shape, spacing, rng), spacing) for name, (shape, spacing) in GRIDS.items()
    ]
    print("| mask | grid | medpy s | ours s | times | largest difference |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, mask, spacing in masks:
            reference = write_mask(Path(folder) / "reference.nii.gz", mask, spacing)
            prediction = write_mask(Path(folder) / "prediction.nii.gz", shifted(mask), spacing)
            medpy_s, ours_s, difference = measure(MaskPair(name, RawFile(prediction), RawFile(reference)))
            grid = " x ".join(map(str, mask.shape))
            print(f"| {name} | {grid} | {medpy_s:.2f} | {ours_s:.2f} | {medpy_s / ours_s:.0f} | {difference:.1g} |")


if __name__ == "__main__":
    main()
