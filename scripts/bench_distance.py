"""Exact distance maps against SciPy, and steps of the boundary loss that makes them from labels against MONAI's.

    python scripts/bench_distance.py [--masks FOLDER] [--limit N]

Numpy's slices and volumes on the CPU, batches of tensors on the device. Signed maps of masks from FOLDER (NIfTI), or of
generated lesions; SciPy's are two `distance_transform_edt` a mask. All in one process, in turns, the best of five
(slices: of thirty; volumes of over ten million voxels: one run).
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_data import lesions
from bench_metrics import GRIDS, read_masks
from bench_metrics import lesions as volume_lesions
from monai.losses import BoundaryLoss
from scipy import ndimage

from boundary_loss import Boundary
from boundary_loss.distance import distance_maps, edt, signed_distance
from environment.provenance import package_version, processor

ROOT = Path(__file__).resolve().parent.parent


def scipy_map(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    outside, inside = (ndimage.distance_transform_edt(part, sampling=spacing) for part in (~mask, mask))
    return outside - inside


def in_turns(ours: Callable, theirs: Callable, rounds: int) -> tuple[float, float]:
    """The best ms of both, one after the other."""
    times = np.zeros((rounds, 2))
    for turn in times:
        for place, work in enumerate((ours, theirs)):
            start = time.perf_counter()
            work()
            turn[place] = (time.perf_counter() - start) * 1e3
    return tuple(times.min(axis=0))


def against_scipy(mask: np.ndarray, spacing: tuple[float, ...], rounds: int) -> tuple[float, float]:
    return in_turns(lambda: signed_distance(mask, spacing), lambda: scipy_map(mask, spacing), rounds)


def both_classes(mask: np.ndarray, spacing: tuple[float, ...], rounds: int) -> tuple[float, float]:
    """The maps of background and lesion that slicing stores; SciPy's are made a class at a time."""
    label = mask.astype(np.uint8)
    return in_turns(
        lambda: distance_maps(label, 2, spacing), lambda: [scipy_map(label == k, spacing) for k in (0, 1)], rounds
    )


def volumes(folder: Path | None, limit: int) -> list[tuple[str, np.ndarray, tuple[float, ...]]]:
    if folder:
        return [(name, mask, tuple(map(float, spacing))) for name, mask, spacing in read_masks(folder, limit)]
    generator = np.random.default_rng(0)
    return [(name, volume_lesions(shape, spacing, generator), spacing) for name, (shape, spacing) in GRIDS.items()]


def device_row(device: torch.device) -> tuple[str, float, float]:
    masks, spacing = lesions(16, 256) > 0, (0.9, 0.9)
    tensor = torch.from_numpy(masks).to(device)

    def ours() -> None:
        edt(tensor, torch.tensor([spacing] * 16, device=device))
        if device.type == "cuda":
            torch.cuda.synchronize()

    times = in_turns(ours, lambda: [ndimage.distance_transform_edt(one, sampling=spacing) for one in masks], 5)
    return (f"edt of 16 x 256 x 256 on {device.type}", *times)


def step_rows() -> list[tuple[str, float, float]]:
    """ms of a step on the CPU, logits to their gradient, of `Boundary.from_labels` and of MONAI's loss."""
    volume = volume_lesions((128, 128, 64), (1.0, 1.0, 1.0), np.random.default_rng(0))
    rows = []
    for label in (lesions(8, 256), volume[None].astype(np.uint8)):
        target = torch.from_numpy(label).long()
        logits = torch.randn(len(target), 2, *target.shape[1:], requires_grad=True)
        for what, background in (("both classes", True), ("the foreground", False)):
            ours = Boundary(classes=(0, 1) if background else None)
            theirs = BoundaryLoss(softmax=True, to_onehot_y=True, include_background=background)

            def our_step(ours=ours, logits=logits, target=target) -> None:
                torch.autograd.grad(ours.from_labels(logits, target), logits)

            def their_step(theirs=theirs, logits=logits, target=target) -> None:
                torch.autograd.grad(theirs(logits, target), logits)

            grid = " x ".join(map(str, target.shape))
            rows.append((f"{grid}, {what}", *in_turns(our_step, their_step, 15)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=Path, help="folder of NIfTI masks; without it, masks are generated")
    parser.add_argument("--limit", type=int, default=3, help="how many masks of the folder (%(default)s)")
    args = parser.parse_args()
    rows = []
    for name, mask, spacing in volumes(args.masks, args.limit):
        grid = " x ".join(map(str, mask.shape))
        times = against_scipy(mask, spacing, 5 if mask.size < 1e7 else 1)
        rows.append((f"signed map of {name}, {grid}", *times))
        largest = int(mask.sum(axis=(0, 1)).argmax())
        one, plane = np.ascontiguousarray(mask[:, :, largest]), spacing[:2]
        size = f"{one.shape[0]} x {one.shape[1]}"
        rows.append((f"its largest slice, {size}", *against_scipy(one, plane, 30)))
        rows.append((f"maps of both classes of that slice, {size}", *both_classes(one, plane, 30)))
    rows.append(device_row(torch.device("cuda" if torch.cuda.is_available() else "cpu")))
    print(f"{processor()}, scipy {package_version('scipy')}, edt {package_version('edt')}\n")
    print("| what | ours, ms | SciPy, ms | SciPy / ours |\n| --- | --- | --- | --- |")
    print_rows(rows)
    print(f"\nA step from labels, {torch.get_num_threads()} threads, MONAI {package_version('monai')}\n")
    print("| what | ours, ms | MONAI, ms | MONAI / ours |\n| --- | --- | --- | --- |")
    print_rows(step_rows())


def print_rows(rows: list[tuple[str, float, float]]) -> None:
    for name, ours, theirs in rows:
        print(f"| {name} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |")


if __name__ == "__main__":
    main()
