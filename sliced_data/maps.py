"""Maps that are not on the disk, of labels that may have ignored voxels: these count in no map, and every map is 0
there."""

from collections.abc import Sequence

import numpy as np

from boundary_loss.distance import distance_maps, region_wise_map
from raw_data.volumes import IGNORED
from sliced_data.slices import IN_3D, PartFiles, SlicedCase


def signed_maps(label: np.ndarray, num_classes: int, spacing: Sequence[float], *, convention: str) -> np.ndarray:
    """``distance_maps`` (K, *spatial) float32 of a label with classes and IGNORED."""
    maps = distance_maps(label, num_classes, spacing, convention, ignore_index=IGNORED)
    maps[:, label == IGNORED] = 0   # not NaN: a file with NaN is taken for a damaged one
    return maps


def region_wise_maps(label: np.ndarray, num_classes: int, spacing: Sequence[float], *, kind: str) -> np.ndarray:
    """``region_wise_map`` (K, *spatial) float32 of a label with classes and IGNORED."""
    maps = region_wise_map(label, num_classes, kind, spacing, ignore_index=IGNORED)
    maps[:, label == IGNORED] = 0
    return maps


def compute_maps(files: PartFiles, case: SlicedCase, label: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` (Z, K, H, W) with maps that are not on the disk; label (Z, H, W), whole for maps in 3D."""
    if str(files.maps).endswith(IN_3D):
        # Axes as in slicing: where the authors' map of a full mask begins depends on their order.
        volume = np.moveaxis(label, 0, -1)                                                  # (H, W, Z)
        out[...] = np.moveaxis(compute_map(files, volume, case.spacing), -1, 0)
        return
    for z, one in enumerate(label):
        out[z] = compute_map(files, one, case.spacing[:2])


def compute_map(files: PartFiles, label: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """The map (K, *spatial) of a label (*spatial)."""
    maps = str(files.maps)
    if maps.startswith("phi"):
        return signed_maps(label, files.classes, spacing, convention=files.convention or "paper")
    return region_wise_maps(label, files.classes, spacing, kind=maps.removesuffix(f"-{IN_3D}"))
