"""Signed distance maps and region-wise maps of labels, in mm.

Distances are those of `edt`. `spacing` is in mm, one number per axis in the order of the array's axes; None counts in
voxels. An array is one image; a tensor is a batch of images, whose maps are made on its device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor

from boundary_loss.array_maps import (
    boundary_distances_of_array,
    distance_maps_of_array,
    region_wise_map_of_array,
    signed_map,
)
from boundary_loss.batch_maps import boundary_distances, distance_maps_of_batch, region_wise_map_of_batch
from boundary_loss.transform import Spacing, as_array, as_spacing, edt

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
        return boundary_distances(mask, spacing)
    mask = as_array(mask, "mask", kinds="b")
    return boundary_distances_of_array(mask, as_spacing(spacing, mask.ndim))


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
    return signed_map(mask, as_spacing(spacing, mask.ndim), convention)


@overload
def distance_maps(
    label: np.ndarray, num_classes: int, spacing: Spacing = ..., convention: str = ..., ignore_index: int | None = ...
) -> np.ndarray: ...
@overload
def distance_maps(
    label: Tensor, num_classes: int, spacing: Spacing = ..., convention: str = ..., ignore_index: int | None = ...
) -> Tensor: ...
def distance_maps(
    label: np.ndarray | Tensor,
    num_classes: int,
    spacing: Spacing = None,
    convention: str = "paper",
    ignore_index: int | None = None,
) -> np.ndarray | Tensor:
    """Level-set functions of all classes (Kervadec et al. 2021, Eq. 4): the target phi of the boundary loss.

    A class that is absent, or fills the image, has the zero map; by the authors' convention only one that is absent.

    Args:
        label: integers or bool, values 0 to num_classes - 1: an array (*spatial), which is one image, or a tensor
            (B, *spatial) on any device, which is a batch; 1 to 3 spatial axes.
        num_classes: K.
        spacing: size of a voxel in mm, one number per axis, for a tensor also a tensor (B, ndim); None: 1 each.
        convention: as in `signed_distance`. On other devices than the CPU the authors' distances are float32, and
            one within rounding of an integer may be truncated to the one below.
        ignore_index: the value of voxels whose class is not known. They belong to no class, so that distances are to
            the nearest voxel known to be on the other side, and their maps are NaN. None: there are none.

    Returns:
        (K, *spatial) float32, in mm; channel k is the map of class k. Of a tensor (B, K, *spatial) on its device.

    Raises:
        ValueError: for a dtype or spacing that does not fit, an unknown convention, and, but on other devices than the
            CPU, a class out of range (named).

    Example:
        >>> import numpy as np
        >>> from boundary_loss import distance_maps
        >>> distance_maps(np.array([[0, 1, 1, 1, 0]]), num_classes=2, spacing=(1.0, 2.0))
        array([[[-2.,  2.,  4.,  2., -2.]],
        <BLANKLINE>
               [[ 2., -2., -4., -2.,  2.]]], dtype=float32)
    """
    _check_choice("convention", convention, CONVENTIONS)
    if isinstance(label, Tensor):
        return distance_maps_of_batch(label, num_classes, spacing, convention, ignore_index)
    return distance_maps_of_array(label, num_classes, spacing, convention, ignore_index)


Weight = float | np.ndarray | Tensor


@overload
def region_wise_map(
    label: np.ndarray, num_classes: int, kind: str, spacing: Spacing = ..., alpha: Weight = ..., beta: Weight = ...,
    ignore_index: int | None = ...,
) -> np.ndarray: ...
@overload
def region_wise_map(
    label: Tensor, num_classes: int, kind: str, spacing: Spacing = ..., alpha: Weight = ..., beta: Weight = ...,
    ignore_index: int | None = ...,
) -> Tensor: ...
def region_wise_map(
    label: np.ndarray | Tensor,
    num_classes: int,
    kind: str,
    spacing: Spacing = None,
    alpha: Weight = -1.0,
    beta: Weight = -1.0,
    ignore_index: int | None = None,
) -> np.ndarray | Tensor:
    """Map Z of the region-wise loss (Valverde and Tohka 2022).

    With D the distance of a voxel of class k to the nearest voxel of another class, by kind:

    "rrw"        Eq. 4: -D / max D inside class k, 1 outside; -1 in a class that fills the image
    "boundary"   Eq. 3: the maps of `distance_maps`
    "ac"         Eq. 17: 0 inside, 1 outside
    "cao"        Eq. 29: alpha inside, -beta outside
    "hausdorff"  Eq. 25, exponent 2: 0 inside, squared distance to the class outside, for the squared softmax

    Args:
        label, num_classes, spacing: as in `distance_maps`.
        kind: one of the above.
        alpha, beta: of kind "cao", numbers or arrays (*spatial), of a batch also (B, *spatial). A map that rewards the
            reference needs alpha < -beta: hence the defaults, -1 inside and 1 outside.
        ignore_index: as in `distance_maps`: NaN there, and no part in D or max D.

    Returns:
        (K, *spatial) float32; channel k is the map of class k. Of a tensor (B, K, *spatial) on its device.

    Raises:
        ValueError: for a dtype, shape or spacing that does not fit, an unknown kind, and, but on other devices than the
            CPU, a class out of range (named).

    Example:
        >>> import numpy as np
        >>> from boundary_loss import region_wise_map
        >>> region_wise_map(np.array([[0, 1, 1, 1, 0]]), num_classes=2, kind="rrw")
        array([[[-1. ,  1. ,  1. ,  1. , -1. ]],
        <BLANKLINE>
               [[ 1. , -0.5, -1. , -0.5,  1. ]]], dtype=float32)
    """
    _check_choice("kind", kind, REGION_WISE_KINDS)
    if isinstance(label, Tensor):
        return region_wise_map_of_batch(label, num_classes, kind, spacing, (alpha, beta), ignore_index)
    return region_wise_map_of_array(label, num_classes, kind, spacing, (alpha, beta), ignore_index)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, found {value!r}")
