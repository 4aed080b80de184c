"""Exact Euclidean distance transforms, signed distance maps and region-wise maps.

Distances are those of SciPy's `distance_transform_edt`: from a voxel's centre to the centre of the nearest
voxel on the other side, so the voxels along a boundary lie one voxel from it, never at 0. `spacing` is in
mm, one value an axis, in the order of the array's axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import edt as edt_package
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import pad

CONVENTIONS = ("paper", "reference")
REGION_WISE_KINDS = ("rrw", "boundary", "ac", "cao", "hausdorff")
_CHUNK_ELEMENTS = 2**26  # float32 values alive at once in the transform on a device: 256 MiB

Spacing = Sequence[float] | Tensor | None


def edt(mask: np.ndarray | Tensor, spacing: Spacing = None) -> np.ndarray | Tensor:
    """Distance in mm of each True element to the nearest False one, 0 on the False ones (SciPy's definition).

    mask: a bool array, transformed whole; or a bool tensor (..., *spatial) on any device, whose last
    len(spacing) axes are spatial and whose other axes are a batch; spacing may then also be a tensor
    (B, ndim), a row for each entry of the first axis. None: every axis is spatial, in voxels. A mask of
    integers is a label map: the distance of each non-zero element to the nearest one of another label.
    Returns float32 of the mask's shape, on its device; where there is nothing to be distant from, +inf.
    Raises ValueError for other dtypes and for a spacing that does not fit the mask.
    """
    if isinstance(mask, Tensor):
        return _transform_batch(mask, spacing)
    mask = _as_array(mask, "mask")
    return _transform(mask, _as_spacing(spacing, mask.ndim))


def unsigned_distance(mask: np.ndarray | Tensor, spacing: Spacing = None) -> np.ndarray | Tensor:
    """Distance in mm to a bool mask's boundary, inside and outside: D_G of Kervadec et al. 2021, Eq. 3.

    Arguments, result and errors as in `edt`. A mask that is empty or full has no boundary: zero everywhere.
    """
    if isinstance(mask, Tensor):
        if mask.dtype != torch.bool:
            raise ValueError(f"mask: expected bool, found {mask.dtype}")
        distances = edt(mask.to(torch.uint8) + 1, spacing)
        return distances.masked_fill_(torch.isinf(distances), 0.0)
    distances = edt(_as_array(mask, "mask", kinds="b").view(np.uint8) + np.uint8(1), spacing)
    if np.isinf(distances.flat[0]):  # with a boundary, no element is infinitely far from it
        distances[...] = 0.0
    return distances


def signed_distance(
    mask: np.ndarray, spacing: Sequence[float] | None, convention: str = "paper"
) -> np.ndarray:
    """Level-set function of a bool mask (Kervadec et al. 2021, Eq. 4): -D inside, +D outside, mm, float32.

    A mask that is empty or full has the zero map. convention="reference" is the authors' code: -(D - 1)
    inside, whatever the spacing, and a 2-D map truncated toward zero.
    """
    _check_choice("convention", convention, CONVENTIONS)
    mask = _as_array(mask, "mask", kinds="b")
    if convention == "reference":
        return _reference_map(mask, _as_spacing(spacing, mask.ndim))
    distances = unsigned_distance(mask, spacing)
    return np.negative(distances, out=distances, where=mask)


def distance_maps(
    label: np.ndarray, num_classes: int, spacing: Sequence[float] | None, convention: str = "paper"
) -> np.ndarray:
    """Level-set functions of all classes (Kervadec et al. 2021, Eq. 4), (K, *spatial) float32, mm.

    A class that is absent, or fills the array, has the zero map. Conventions as in `signed_distance`.
    """
    _check_choice("convention", convention, CONVENTIONS)
    label = _as_label(label, num_classes)
    masks = [label == k for k in range(num_classes)]
    if convention == "reference":
        return np.stack([signed_distance(mask, spacing, convention) for mask in masks])  # (K, *spatial)
    present = [k for k, mask in enumerate(masks) if mask.any()]
    if len(present) > 2:
        return _maps_of_many(label, masks, _as_spacing(spacing, label.ndim))
    maps = np.zeros((num_classes, *label.shape), np.float32)  # (K, *spatial)
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
    """Map Z of the region-wise loss (Valverde and Tohka 2022), (K, *spatial) float32.

    By kind, with D the distance of a voxel of class k to the nearest voxel of another class:
    "rrw"        Eq. 4: -D / max D inside class k, 1 outside; -1 in a class that fills the array
    "boundary"   Eq. 3: the maps of `distance_maps`
    "ac"         Eq. 17: 0 inside, 1 outside
    "cao"        Eq. 29: alpha inside, -beta outside; numbers, or arrays of the label's shape. A map that
                 rewards the reference needs alpha < -beta: hence the defaults, -1 inside and 1 outside
    "hausdorff"  Eq. 25, exponent 2: 0 inside, squared distance to the class outside, for the squared softmax
    """
    _check_choice("kind", kind, REGION_WISE_KINDS)
    label = _as_label(label, num_classes)
    spacing = _as_spacing(spacing, label.ndim)
    if kind == "boundary":
        return distance_maps(label, num_classes, spacing)
    if kind == "hausdorff":
        return np.maximum(distance_maps(label, num_classes, spacing), 0.0) ** 2
    inside = np.stack([label == k for k in range(num_classes)])  # (K, *spatial)
    if kind == "ac":
        return (~inside).astype(np.float32)
    if kind == "cao":
        for name, value in (("alpha", alpha), ("beta", beta)):
            if np.shape(value) not in ((), label.shape):
                raise ValueError(f"{name}: expected a number or shape {label.shape}, found {np.shape(value)}")
        return np.where(inside, alpha, -np.asarray(beta)).astype(np.float32)
    depth = _distance_to_other_class(label, spacing)  # (*spatial)
    depth[np.isinf(depth)] = 1.0
    deepest = np.array([depth[mask].max(initial=0.0) for mask in inside], np.float32)  # (K,)
    return np.where(inside, -depth / deepest[label], np.float32(1.0))


def _maps_of_many(label: np.ndarray, masks: list[np.ndarray], spacing: tuple[float, ...]) -> np.ndarray:
    """The maps of three or more classes: one transform for all insides, one for the outside of each class."""
    inside = _distance_to_other_class(label, spacing)
    maps = np.zeros((len(masks), *label.shape), np.float32)  # (K, *spatial)
    for phi, mask in zip(maps, masks, strict=True):
        if mask.any():
            box = _bounding_box(~mask)
            phi[box] = _transform(~mask[box], spacing)
            np.negative(inside, out=phi, where=mask)
    return maps


def _distance_to_other_class(label: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Distance of each voxel to the nearest one of another class; +inf if there is only one class."""
    dtype = np.uint8 if label.max() < 255 else np.uint32
    return _transform(np.add(label, 1, dtype=dtype, casting="unsafe"), spacing)


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The box of the True elements, a voxel wider where the array allows it: enough for their `edt`.

    Clamped into that box, the nearest False element comes closer and is still False.
    """
    box = []
    for axis in range(mask.ndim):
        hits = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(max(0, hits[0] - 1), hits[-1] + 2))
    return tuple(box)


def _transform(labels: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Distance of each non-zero element to the nearest one of another label, through the edt package."""
    # The package takes the spacings in the order of a C-contiguous array's axes.
    anisotropy = spacing if len(spacing) > 1 else spacing[0]
    labels = np.ascontiguousarray(labels)
    return edt_package.edt(labels, anisotropy=anisotropy, black_border=False, parallel=1)


def _reference_map(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """The authors' signed map; through SciPy in float64, as theirs: truncation would magnify rounding."""
    if mask.all() or not mask.any():
        return np.zeros(mask.shape, np.float32)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    phi = np.where(mask, -(inside - 1.0), outside)
    return (np.trunc(phi) if mask.ndim == 2 else phi).astype(np.float32)


@torch.no_grad()
def _transform_batch(labels: Tensor, spacing: Spacing) -> Tensor:
    """`edt` of a tensor: through the edt package on the CPU, on any other device where it lies."""
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"mask: expected bool or integers, found {labels.dtype}")
    spacing = (1.0,) * labels.ndim if spacing is None else spacing
    batched = isinstance(spacing, Tensor)
    if batched and (spacing.ndim != 2 or labels.ndim == 0 or len(spacing) != len(labels)):
        found = tuple(spacing.shape)
        raise ValueError(f"spacing: expected one row an entry of {tuple(labels.shape)}, found {found}")
    ndim = spacing.shape[1] if batched else len(spacing)
    if not 1 <= ndim <= min(3, labels.ndim - batched):
        raise ValueError(f"spacing: expected 1 to 3 spatial axes of {tuple(labels.shape)}, found {ndim}")
    if labels.device.type != "cpu":
        return _transform_separable(labels, _spacing_rows(spacing, labels.device))
    rows = [_as_spacing(row, ndim) for row in (spacing.tolist() if batched else [spacing])]
    return _transform_on_cpu(labels, rows)


def _transform_on_cpu(labels: Tensor, rows: list[tuple[float, ...]]) -> Tensor:
    """Entry by entry through the edt package; a contiguous tensor is read in place."""
    spatial = labels.shape[labels.ndim - len(rows[0]) :]
    images = labels.contiguous().numpy().reshape(-1, *spatial)  # (N, *spatial)
    distances = np.empty(images.shape, np.float32)
    for i, image in enumerate(images):
        distances[i] = _transform(image, rows[i * len(rows) // len(images)])
    return torch.from_numpy(distances).view(labels.shape)


def _spacing_rows(spacing: Spacing, device: torch.device) -> Tensor:
    """Spacings (B or 1, ndim) on a device; numbers are filled in there, because a copy would wait for it."""
    if isinstance(spacing, Tensor):
        return spacing.to(device, torch.float32, non_blocking=True)
    values = _as_spacing(spacing, len(spacing))
    return torch.stack([torch.full((1,), value, device=device) for value in values], dim=1)


def _transform_separable(labels: Tensor, spacing: Tensor) -> Tensor:
    """`edt` on any device: a scan along the longest axis, then a min-plus product along each other one.

    labels (B, ..., *spatial), spacing (B or 1, ndim). Exact, and never waits for the device.
    """
    ndim = spacing.shape[1]
    axes = sorted(range(-ndim, 0), key=lambda axis: labels.shape[axis], reverse=True)
    squared = _scan(labels.movedim(axes[0], -1), spacing[:, axes[0]]).movedim(-1, axes[0])
    for axis in axes[1:]:
        lines = _min_plus(squared.movedim(axis, -1), labels.movedim(axis, -1), spacing[:, axis])
        squared = lines.movedim(-1, axis)
    return squared.masked_fill(labels == 0, 0.0).sqrt().contiguous()


def _scan(labels: Tensor, spacing: Tensor) -> Tensor:
    """Squared distance of each element to the nearest other label on its line, from the ends of its run."""
    index = torch.arange(labels.shape[-1], device=labels.device, dtype=torch.float32)
    changes = labels[..., 1:] != labels[..., :-1]  # (B, ..., L - 1)
    first = torch.where(pad(changes, (1, 0)), index, -torch.inf).cummax(dim=-1).values  # (B, ..., L)
    last = torch.where(pad(changes, (0, 1)), index, torch.inf).flip(-1).cummin(dim=-1).values.flip(-1)
    steps = torch.minimum(index - first, last - index) + 1.0
    return (steps * spacing.view(-1, *[1] * (labels.ndim - 1))).square()


def _min_plus(squared: Tensor, labels: Tensor, spacing: Tensor) -> Tensor:
    """Minimum over j of (spacing (i - j))^2 + squared[j] (0 if j has another label), for all i of a line."""
    shape, length = squared.shape, squared.shape[-1]
    index = torch.arange(length, device=squared.device, dtype=torch.float32)
    cost = ((index[:, None] - index) * spacing.view(-1, 1, 1)).square().expand(shape[0], -1, -1)  # (B, L, L)
    squared, labels = squared.reshape(shape[0], -1, length), labels.reshape(shape[0], -1, length)  # (B, R, L)
    result = torch.empty_like(squared)
    lines = max(1, _CHUNK_ELEMENTS // length**2)
    for b in range(shape[0]):
        for start in range(0, squared.shape[1], lines):
            rows = slice(start, start + lines)
            same = labels[b, rows, :, None] == labels[b, rows, None, :]  # (R', L, L)
            result[b, rows] = torch.where(same, squared[b, rows, None, :], 0.0).add_(cost[b]).amin(dim=-1)
    return result.view(shape)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, found {value!r}")


def _as_array(array: np.ndarray, name: str, kinds: str = "biu") -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in kinds or array.ndim not in (1, 2, 3) or array.size == 0:
        wanted = "bool" if kinds == "b" else "bool or integers"
        found = f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"{name}: expected {wanted} on 1 to 3 axes, found {found}")
    return array


def _as_label(label: np.ndarray, num_classes: int) -> np.ndarray:
    label = _as_array(label, "label")
    low, high = label.min(), label.max()
    if low < 0 or high >= num_classes:
        raise ValueError(f"label: expected classes 0 to {num_classes - 1}, found {low} to {high}")
    return label.view(np.uint8) if label.dtype == bool else label


def _as_spacing(spacing: Sequence[float] | None, ndim: int) -> tuple[float, ...]:
    values = (1.0,) * ndim if spacing is None else tuple(float(s) for s in spacing)
    if len(values) != ndim or not all(0 < s < np.inf for s in values):
        raise ValueError(f"spacing: expected {ndim} positive values in mm, one an axis, found {values}")
    return values
