"""Speed of metrics.py against medpy and MONAI on pairs of lesion masks, as a markdown table.

    python scripts/bench_metrics.py [--masks FOLDER] [--limit N] [--repeats R]

Each mask of FOLDER (NIfTI) meets a shifted, an eroded and a dilated version of itself and the next patient's
mask; without a folder, generated lesions and noise on three usual grids do. All implementations run in one
process on the same pairs, one after the other, on one thread; seconds are the process's CPU time, which other
users of the machine disturb least. The best of R runs counts (medpy: one run, it takes seconds). The `times`
columns say how many times faster metrics.py is: `hd95` than medpy's `hd95`, `hd95_max` than MONAI's directed
percentile. `all four s` is `surface_metrics`: HD, both HD95s and ASSD at once.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from medpy.metric import binary
from monai.metrics import compute_hausdorff_distance
from scipy import ndimage

from boundary_loss import metrics

GRIDS = {
    "ISLES": ((256, 256, 22), (0.9, 0.9, 5.0)),
    "WMH": ((240, 240, 48), (0.96, 0.96, 3.0)),
    "1 mm": ((182, 218, 182), (1.0, 1.0, 1.0)),
}
Pair = tuple[str, np.ndarray, np.ndarray, tuple[float, ...]]  # name, pred, ref, spacing in mm
HEADER = (
    "pair", "grid", "surface voxels", "medpy s", "MONAI s", "ours s", "all four s", "times medpy",
    "times MONAI", "medpy - ours mm", "MONAI - ours mm",
)


def read_masks(folder: Path, limit: int) -> list[tuple[str, np.ndarray, tuple[float, ...]]]:
    """Name, mask and spacing in mm (from the header's zooms) of the first masks of a folder."""
    images = [(path.name.split(".")[0], nib.load(path)) for path in sorted(folder.glob("*.nii*"))[:limit]]
    return [(name, np.asanyarray(image.dataobj) > 0, image.header.get_zooms()[:3]) for name, image in images]


def lesions(shape: tuple[int, ...], spacing: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """40 balls of 2 to 8 mm radius, most of them around the middle of the grid."""
    mask = np.zeros(shape, dtype=bool)
    size = np.multiply(shape, spacing)
    axes = np.ogrid[tuple(slice(0, extent) for extent in shape)]
    for _ in range(40):
        centre = np.clip(rng.normal(size / 2, size / 8), 10, size - 10)
        squares = [(axis * s - c) ** 2 for axis, s, c in zip(axes, spacing, centre, strict=True)]
        mask |= sum(squares) <= rng.uniform(2, 8) ** 2
    return mask


def pairs_of(masks: list[tuple[str, np.ndarray, tuple[float, ...]]]) -> Iterator[Pair]:
    """Each mask as reference against three changed versions of itself and the next mask, cropped."""
    for i, (name, mask, spacing) in enumerate(masks):
        yield f"{name}, shifted", np.roll(mask, (1, 2, 2), axis=(0, 1, 2)), mask, spacing
        yield f"{name}, eroded", ndimage.binary_erosion(mask), mask, spacing
        yield f"{name}, dilated", ndimage.binary_dilation(mask), mask, spacing
        other_name, other, _ = masks[(i + 1) % len(masks)]
        shared = tuple(slice(0, min(extents)) for extents in zip(mask.shape, other.shape, strict=True))
        yield f"{name}, {other_name}", other[shared], mask[shared], spacing


def pairs_generated() -> Iterator[Pair]:
    """Four pairs of generated lesions on each grid, and one with noise, as an untrained network predicts."""
    rng = np.random.default_rng(0)
    for name, (shape, spacing) in GRIDS.items():
        masks = [(f"{name} {i}", lesions(shape, spacing, rng), spacing) for i in range(2)]
        yield from list(pairs_of(masks))[:4]
        yield f"{name} 0, noise", rng.random(shape) < 0.05, masks[0][1], spacing


def seconds(function: Callable[[], object], repeats: int) -> tuple[float, object]:
    """CPU time of the best run, and the function's value."""
    best, value = float("inf"), None
    for _ in range(repeats):
        start = time.process_time()
        value = function()
        best = min(best, time.process_time() - start)
    return best, value


def monai_hd95(pred: np.ndarray, ref: np.ndarray, spacing: tuple[float, ...]) -> float:
    """MONAI's larger directed 95th percentile in mm, the conversion to its tensors included."""
    pred, ref = (torch.from_numpy(np.ascontiguousarray(part))[None, None].float() for part in (pred, ref))
    options = {"include_background": True, "percentile": 95, "spacing": list(spacing)}
    return float(compute_hausdorff_distance(pred, ref, **options))


def measure(pred: np.ndarray, ref: np.ndarray, spacing: tuple[float, ...], repeats: int) -> list[float]:
    """The table's numbers of one pair, from `surface voxels` on."""
    spacing = tuple(float(value) for value in spacing)
    medpy_s, medpy = seconds(lambda: binary.hd95(pred, ref, spacing), 1)
    monai_s, monai = seconds(lambda: monai_hd95(pred, ref, spacing), repeats)
    pooled_s, pooled = seconds(lambda: metrics.hd95(pred, ref, spacing), repeats)
    directed_s, directed = seconds(lambda: metrics.hd95_max(pred, ref, spacing), repeats)
    all_s, _ = seconds(lambda: metrics.surface_metrics(pred, ref, spacing), repeats)
    voxels = len(metrics.distances(pred, ref, spacing).pooled)
    ratios = medpy_s / pooled_s, monai_s / directed_s
    return [voxels, medpy_s, monai_s, pooled_s, all_s, *ratios, medpy - pooled, monai - directed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=Path, help="folder of NIfTI masks; without it, masks are generated")
    parser.add_argument("--limit", type=int, default=3, help="how many masks of the folder (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the best counts (%(default)s)")
    args = parser.parse_args()
    if args.masks and not any(args.masks.glob("*.nii*")):
        parser.error(f"{args.masks}: expected NIfTI masks (*.nii, *.nii.gz), found none")
    pairs = pairs_of(read_masks(args.masks, args.limit)) if args.masks else pairs_generated()
    torch.set_num_threads(1)
    print("| " + " | ".join(HEADER) + " |")
    print("|" + " --- |" * len(HEADER))
    rows = []
    for name, pred, ref, spacing in pairs:
        if metrics.outcome(pred, ref) != "scored":
            continue
        rows.append(measure(pred, ref, spacing, args.repeats))
        voxels, medpy_s, monai_s, ours_s, all_s, *ratios, medpy_mm, monai_mm = rows[-1]
        grid = " x ".join(str(extent) for extent in ref.shape)
        times = " | ".join(f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" for ratio in ratios)
        taken = f"{medpy_s:.3f} | {monai_s:.3f} | {ours_s:.4f} | {all_s:.4f}"
        apart = f"{medpy_mm:.1e} | {monai_mm:.1e}"
        print(f"| {name} | {grid} | {voxels} | {taken} | {times} | {apart} |", flush=True)
    print()
    table = np.array(rows)[:, 5:7]
    for name, statistic in (("smallest", np.min), ("median", np.median), ("largest", np.max)):
        medpy, monai = statistic(table, axis=0)
        print(f"{name} ratio: {medpy:.1f} times faster than medpy, {monai:.1f} times than MONAI")


if __name__ == "__main__":
    main()
