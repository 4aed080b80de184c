"""Maps of labels that may have ignored voxels: there every map is 0, and to the others they are background."""

from collections.abc import Sequence

import numpy as np

from boundary_loss.distance import distance_maps, region_wise_map
from raw_data.volumes import IGNORED


def signed_maps(label: np.ndarray, num_classes: int, spacing: Sequence[float], *, convention: str) -> np.ndarray:
    """``distance_maps`` (K, *spatial) float32 of a label with classes and IGNORED."""
    known, ignored = without_ignored(label)
    maps = distance_maps(known, num_classes, spacing, convention=convention)
    if ignored is not None:
        maps[:, ignored] = 0
    return maps


def region_wise_maps(label: np.ndarray, num_classes: int, spacing: Sequence[float], *, kind: str) -> np.ndarray:
    """``region_wise_map`` (K, *spatial) float32 of a label with classes and IGNORED."""
    known, ignored = without_ignored(label)
    maps = region_wise_map(known, num_classes, kind, spacing=spacing)
    if ignored is not None:
        maps[:, ignored] = 0
    return maps


def without_ignored(label: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The label with background for IGNORED, and where that was; None where it was nowhere."""
    ignored = label == IGNORED
    return (np.where(ignored, np.uint8(0), label), ignored) if ignored.any() else (label, None)
