"""Signed distance maps and region-wise maps of labels, in mm.

Distances are those of `edt`. `spacing` is in mm, one number per axis in the order of the array's axes; None counts in
voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from boundary_loss.transform import Spacing, as_array, as_spacing, edt, transform_array

__all__ = [
    "CONVENTIONS",
    "REGION_WISE_KINDS",
    "Spacing",
    "distance_maps",
    "edt",
    "region_wise_map",
    "signed_distance",
    "unsigned_distance",
]

CONVENTIONS = ("paper", "authors")
REGION_WISE_KINDS = ("rrw", "boundary", "ac", "cao", "hausdorff")


@overload
def unsigned_distance(mask: np.ndarray, spacing: Spacing = None) -> np.ndarray: ...
@overload
def unsigned_distance(mask: Tensor, spacing: Spacing = None) -> Tensor: ...
def unsigned_distance(mask: np.ndarray | Tensor, spacing: Spacing = None) -> np.ndarray | Tensor:
    """Distance to the boundary of a mask, inside and outside: D_G of Kervadec et al. 2021, Eq. 3.

    A mask that is empty or full has no boundary: zero everywhere.

    Args:
        mask: bool array or tensor, as in `edt`.
        spacing: as in `edt`.

    Returns:
        float32 of the mask's shape, in mm, on its device.

    Raises:
        ValueError: for other dtypes, and for a spacing that does not fit the mask.
    """
    if isinstance(mask, Tensor):
        if mask.dtype != torch.bool:
            raise ValueError(f"mask: expected bool, found {mask.dtype}")
        batch = edt(mask.to(torch.uint8) + 1, spacing)
        return batch.masked_fill_(torch.isinf(batch), 0.0)
    distances = edt(as_array(mask, "mask", kinds="b").view(np.uint8) + np.uint8(1), spacing)
    if np.isinf(distances.flat[0]):  # with a boundary, no element is infinitely far from it
        distances[...] = 0.0
    return distances


def signed_distance(
    mask: np.ndarray, spacing: Sequence[float] | None = None, convention: str = "paper"
) -> np.ndarray:
    """Level-set function of a mask (Kervadec et al. 2021, Eq. 4): -D inside, +D outside.

    A mask that is empty or full has the zero map.

    Args:
        mask: bool array on 1 to 3 axes.
        spacing: size of a voxel in mm, one number per axis; None: 1 each.
        convention: "paper", or "authors" for their code: -(D - 1) inside whatever the spacing, a 2D map is truncated
            toward zero, and in a full mask D is what SciPy gives: the distance to a voxel that does not exist, at
            index -1 of the first axis and 0 of the others.

    Returns:
        float32 of the mask's shape, in mm.

    Raises:
        ValueError: for an array that is not bool, a spacing that does not fit it, an unknown convention.

    Example:
        >>> import numpy as np
        >>> from boundary_loss import signed_distance
        >>> signed_distance(np.array([[False, True, True, True, False]]), spacing=(1.0, 2.0))
        array([[ 2., -2., -4., -2.,  2.]], dtype=float32)
    """
    _check_choice("convention", convention, CONVENTIONS)
    mask = as_array(mask, "mask", kinds="b")
    if convention == "authors":
        return _authors_map(mask, as_spacing(spacing, mask.ndim))
    distances = unsigned_distance(mask, spacing)
    return np.negative(distances, out=distances, where=mask)


def distance_maps(
    label: np.ndarray, num_classes: int, spacing: Sequence[float] | None = None, convention: str = "paper"
) -> np.ndarray:
    """Level-set functions of all classes (Kervadec et al. 2021, Eq. 4): the target phi of the boundary loss.

    A class that is absent, or fills the array, has the zero map; by the authors' convention only one that is absent.

    Args:
        label: integers or bool (*spatial) on 1 to 3 axes, values 0 to num_classes - 1.
        num_classes: K.
        spacing: size of a voxel in mm, one number per axis; None: 1 each.
        convention: as in `signed_distance`.

    Returns:
        (K, *spatial) float32, in mm; channel k is the map of class k.

    Raises:
        ValueError: for a class out of range (named), a dtype or spacing that does not fit, an unknown convention.

    Example:
        >>> import numpy as np
        >>> from boundary_loss import distance_maps
        >>> distance_maps(np.array([[0, 1, 1, 1, 0]]), num_classes=2, spacing=(1.0, 2.0))
        array([[[-2.,  2.,  4.,  2., -2.]],
        <BLANKLINE>
               [[ 2., -2., -4., -2.,  2.]]], dtype=float32)
    """
    _check_choice("convention", convention, CONVENTIONS)
    label = _as_label(label, num_classes)
    masks = [label == k for k in range(num_classes)]
    if convention == "authors":
        return np.stack([signed_distance(mask, spacing, convention) for mask in masks])     # (K, *spatial)
    present = [k for k, mask in enumerate(masks) if mask.any()]
    if len(present) > 2:
        return _maps_of_many(label, masks, as_spacing(spacing, label.ndim))
    maps = np.zeros((num_classes, *label.shape), np.float32)                                # (K, *spatial)
    maps[present[0]] = signed_distance(masks[present[0]], spacing)
    for k in present[1:]:  # the way out of one of two classes is the way into the other
        np.negative(maps[present[0]], out=maps[k])
    return maps


def region_wise_map(
    label: np.ndarray,
    num_classes: int,
    kind: str,
    spacing: Sequence[float] | None = None,
    alpha: float | np.ndarray = -1.0,
    beta: float | np.ndarray = -1.0,
) -> np.ndarray:
    """Map Z of the region-wise loss (Valverde and Tohka 2022).

    With D the distance of a voxel of class k to the nearest voxel of another class, by kind:

    "rrw"        Eq. 4: -D / max D inside class k, 1 outside; -1 in a class that fills the array
    "boundary"   Eq. 3: the maps of `distance_maps`
    "ac"         Eq. 17: 0 inside, 1 outside
    "cao"        Eq. 29: alpha inside, -beta outside
    "hausdorff"  Eq. 25, exponent 2: 0 inside, squared distance to the class outside, for the squared softmax

    Args:
        label: integers or bool (*spatial) on 1 to 3 axes, values 0 to num_classes - 1.
        num_classes: K.
        kind: one of the above.
        spacing: size of a voxel in mm, one number per axis; None: 1 each.
        alpha, beta: of kind "cao", numbers or arrays (*spatial). A map that rewards the reference needs
            alpha < -beta: hence the defaults, -1 inside and 1 outside.

    Returns:
        (K, *spatial) float32; channel k is the map of class k.

    Raises:
        ValueError: for a class out of range (named), a dtype, shape or spacing that does not fit, an unknown kind.

    Example:
        >>> import numpy as np
        >>> from boundary_loss import region_wise_map
        >>> region_wise_map(np.array([[0, 1, 1, 1, 0]]), num_classes=2, kind="rrw")
        array([[[-1. ,  1. ,  1. ,  1. , -1. ]],
        <BLANKLINE>
               [[ 1. , -0.5, -1. , -0.5,  1. ]]], dtype=float32)
    """
    _check_choice("kind", kind, REGION_WISE_KINDS)
    label = _as_label(label, num_classes)
    sizes = as_spacing(spacing, label.ndim)
    if kind == "boundary":
        return distance_maps(label, num_classes, sizes)
    if kind == "hausdorff":
        return np.maximum(distance_maps(label, num_classes, sizes), 0.0) ** 2
    inside = np.stack([label == k for k in range(num_classes)])                             # (K, *spatial)
    if kind == "ac":
        return (~inside).astype(np.float32)
    if kind == "cao":
        return _cao_map(inside, alpha, beta)
    depth = _distance_to_other_class(label, sizes)                                          # (*spatial)
    depth[np.isinf(depth)] = 1.0
    deepest = np.array([depth[mask].max(initial=0.0) for mask in inside], np.float32)       # (K,)
    return np.where(inside, -depth / deepest[label], np.float32(1.0))


def _cao_map(inside: np.ndarray, alpha: float | np.ndarray, beta: float | np.ndarray) -> np.ndarray:
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


def _authors_map(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """The authors' signed map; through SciPy in float64, as theirs: truncation would magnify rounding."""
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    phi = np.where(mask, -(inside - 1.0), outside)
    return (np.trunc(phi) if mask.ndim == 2 else phi).astype(np.float32)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, found {value!r}")


def _as_label(label: np.ndarray, num_classes: int) -> np.ndarray:
    label = as_array(label, "label")
    low, high = label.min(), label.max()
    if low < 0 or high >= num_classes:
        raise ValueError(f"label: expected classes 0 to {num_classes - 1}, found {low} to {high}")
    return label.view(np.uint8) if label.dtype == bool else label
