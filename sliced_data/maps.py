"""Maps of labels that may have ignored voxels: these count in no map, and every map is 0 there."""

from collections.abc import Sequence

import numpy as np

from boundary_loss.distance import distance_maps, region_wise_map
from raw_data.volumes import IGNORED


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
