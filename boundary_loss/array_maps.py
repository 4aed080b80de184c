"""Distances and maps of one mask or label as an array: what `distance_maps` and its relatives do with arrays.

Through the edt package, and by the authors' convention through SciPy.
"""

from __future__ import annotations

import numpy as np
import scipy  # whose ndimage, a quarter of a second, loads where it is used first
from numpy.typing import ArrayLike

from boundary_loss.transform import Spacing, as_array, as_spacing, transform_array


def boundary_distances_of_array(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """`unsigned_distance` of a bool array."""
    distances = transform_array(mask.view(np.uint8) + np.uint8(1), spacing)
    if np.isinf(distances.flat[0]):  # with a boundary, no element is infinitely far from it
        distances[...] = 0.0
    return distances


def signed_map(
    mask: np.ndarray, spacing: tuple[float, ...], convention: str = "paper", ignored: np.ndarray | None = None
) -> np.ndarray:
    """`signed_distance` of a bool array, False where ignored; distances are to elements that are not ignored."""
    if convention == "authors":
        return _authors_map(mask, spacing, ignored)
    if ignored is not None:
        distances = np.where(mask, -transform_array(mask | ignored, spacing), transform_array(~mask, spacing))
        distances[np.isinf(distances)] = 0.0
        return distances
    distances = boundary_distances_of_array(mask, spacing)
    return np.negative(distances, out=distances, where=mask)


def distance_maps_of_array(
    label: np.ndarray, num_classes: int, spacing: Spacing, convention: str, ignore_index: int | None
) -> np.ndarray:
    """`distance_maps` of one image (*spatial)."""
    label, ignored = _as_label(label, num_classes, ignore_index)
    sizes = as_spacing(spacing, label.ndim)
    masks = [label == k for k in range(num_classes)]
    if convention == "authors" or ignored is not None:
        maps = np.stack([signed_map(mask, sizes, convention, ignored) for mask in masks])   # (K, *spatial)
        return _mark(maps, ignored)
    present = [k for k, mask in enumerate(masks) if mask.any()]
    if len(present) > 2:
        return _maps_of_many(label, masks, sizes)
    maps = np.zeros((num_classes, *label.shape), np.float32)                                # (K, *spatial)
    maps[present[0]] = signed_map(masks[present[0]], sizes)
    for k in present[1:]:  # the way out of one of two classes is the way into the other
        np.negative(maps[present[0]], out=maps[k])
    return maps


def region_wise_map_of_array(
    label: np.ndarray,
    num_classes: int,
    kind: str,
    spacing: Spacing,
    weights: tuple[ArrayLike, ArrayLike],
    ignore_index: int | None,
) -> np.ndarray:
    """`region_wise_map` of one image (*spatial); ``weights`` are its alpha and beta."""
    if kind in ("boundary", "hausdorff"):
        maps = distance_maps_of_array(label, num_classes, spacing, "paper", ignore_index)
        return maps if kind == "boundary" else np.maximum(maps, 0.0) ** 2
    label, ignored = _as_label(label, num_classes, ignore_index)
    sizes = as_spacing(spacing, label.ndim)
    inside = np.stack([label == k for k in range(num_classes)])                             # (K, *spatial)
    if kind == "ac":
        maps = (~inside).astype(np.float32)
    elif kind == "cao":
        maps = _cao_map(inside, *weights)
    else:
        maps = _rectified_map(label, inside, sizes, ignored)
    return _mark(maps, ignored)


def _rectified_map(
    label: np.ndarray, inside: np.ndarray, spacing: tuple[float, ...], ignored: np.ndarray | None
) -> np.ndarray:
    """The "rrw" map of a label (*spatial) and its class masks (K, *spatial)."""
    maps = np.ones(inside.shape, np.float32)                                                # (K, *spatial)
    depth = _distance_to_other_class(label, spacing) if ignored is None else None           # (*spatial)
    for z, mask in zip(maps, inside, strict=True):
        if mask.any():
            own = (transform_array(mask | ignored, spacing) if depth is None else depth)[mask]
            z[mask] = -own / own.max() if np.isfinite(own[0]) else -1.0
    return maps


def _cao_map(inside: np.ndarray, alpha: ArrayLike, beta: ArrayLike) -> np.ndarray:
    """The "cao" map of class masks (K, *spatial)."""
    for name, value in (("alpha", alpha), ("beta", beta)):
        if np.shape(value) not in ((), inside.shape[1:]):
            raise ValueError(f"{name}: expected a number or shape {inside.shape[1:]}, found {np.shape(value)}")
    return np.where(inside, alpha, -np.asarray(beta)).astype(np.float32)


def _maps_of_many(label: np.ndarray, masks: list[np.ndarray], spacing: tuple[float, ...]) -> np.ndarray:
    """The maps of three or more classes: one transform for all insides, one for the outside of each class."""
    inside = _distance_to_other_class(label, spacing)                                       # (*spatial)
    maps = np.zeros((len(masks), *label.shape), np.float32)                                 # (K, *spatial)
    for phi, mask in zip(maps, masks, strict=True):
        if mask.any():
            box = _bounding_box(~mask)
            phi[box] = transform_array(~mask[box], spacing)
            np.negative(inside, out=phi, where=mask)
    return maps


def _distance_to_other_class(label: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Distance of each voxel to the nearest one of another class; +inf if there is only one class."""
    dtype = np.uint8 if label.max() < 255 else np.uint32
    return transform_array(np.add(label, 1, dtype=dtype, casting="unsafe"), spacing)


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The box of the True elements, a voxel wider where the array allows it: enough for their `edt`.

    Clamped into that box, the nearest False element comes closer and is still False.
    """
    box = []
    for axis in range(mask.ndim):
        hits = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(max(0, hits[0] - 1), hits[-1] + 2))
    return tuple(box)


def _authors_map(mask: np.ndarray, spacing: tuple[float, ...], ignored: np.ndarray | None) -> np.ndarray:
    """The authors' signed map; through SciPy in float64, as theirs: truncation would magnify rounding."""
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    outside = scipy.ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = scipy.ndimage.distance_transform_edt(mask if ignored is None else mask | ignored, sampling=spacing)
    phi = np.where(mask, -(inside - 1.0), outside)
    return (np.trunc(phi) if mask.ndim == 2 else phi).astype(np.float32)


def _as_label(
    label: np.ndarray, num_classes: int, ignore_index: int | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The checked label, num_classes where it is ignored, and where that is; None: nowhere."""
    label = as_array(label, "label")
    label = label.view(np.uint8) if label.dtype == bool else label
    ignored = None if ignore_index is None else label == ignore_index                       # (*spatial)
    known = label if ignored is None or not ignored.any() else label[~ignored]
    if known.size and (known.min() < 0 or known.max() >= num_classes):
        also = "" if ignore_index is None else f" or {ignore_index}, which is ignored"
        found = f"{known.min()} to {known.max()}"
        raise ValueError(f"label: expected classes 0 to {num_classes - 1}{also}, found {found}")
    if ignored is None or known is label:
        return label, None
    return np.where(ignored, np.int64(num_classes), label), ignored


def _mark(maps: np.ndarray, ignored: np.ndarray | None) -> np.ndarray:
    if ignored is not None:
        maps[:, ignored] = np.nan
    return maps
