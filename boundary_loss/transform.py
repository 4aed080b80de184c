"""Exact Euclidean distance transforms of arrays and tensors.

Distances are those of SciPy's `distance_transform_edt`: between the centres of voxels, so the voxels along a boundary
are one voxel from it, never at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import edt as edt_package
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

Spacing = Sequence[float] | Tensor | None

_CHUNK_ELEMENTS = 2**26  # float32 values alive at once in the transform on a device: 256 MiB
_THREADED_ELEMENTS = 2**15  # an image of fewer is done before the threads of the edt package have started


@overload
def edt(mask: np.ndarray, spacing: Spacing = None) -> np.ndarray: ...
@overload
def edt(mask: Tensor, spacing: Spacing = None) -> Tensor: ...
def edt(mask: np.ndarray | Tensor, spacing: Spacing = None) -> np.ndarray | Tensor:
    """Distance of each True element to the nearest False one, 0 on the False ones (SciPy's definition).

    Args:
        mask: a bool array, transformed whole; or a bool tensor (..., *spatial) on any device, whose last
            len(spacing) axes are spatial and whose other axes are a batch. A mask of integers is a label map: the
            distance of each non-zero element to the nearest one of another label.
        spacing: size of an element in mm, one number per spatial axis in the order of the axes; for a tensor also
            a tensor (B, ndim), one row per entry of the first axis. None: every axis is spatial, in voxels.

    Returns:
        float32 of the mask's shape, on its device; +inf where there is nothing to be distant from.

    Raises:
        ValueError: for other dtypes, and for a spacing that does not fit the mask.

    Example:
        >>> import numpy as np
        >>> from boundary_loss import edt
        >>> edt(np.array([[True, True, False]]), spacing=(1.0, 0.5))
        array([[1. , 0.5, 0. ]], dtype=float32)
    """
    if isinstance(mask, Tensor):
        return _transform_tensor(mask, (1.0,) * mask.ndim if spacing is None else spacing)
    mask = as_array(mask, "mask")
    return transform_array(mask, as_spacing(spacing, mask.ndim))


def edt_with_phantom(mask: Tensor, spacing: Sequence[float] | Tensor) -> Tensor:
    """`edt` of a batch (B, C, *spatial), whose full masks have the distances that SciPy gives them.

    Where SciPy finds no False element, it measures to a voxel that does not exist, at index -1 of the first spatial
    axis and 0 of the others.
    """
    distances = edt(mask, spacing)                                                          # (B, C, *spatial)
    sizes = _spacing_rows(spacing, mask.device)                                             # (B or 1, ndim)
    ndim, squared = sizes.shape[1], distances.new_zeros(())
    for axis in range(ndim):
        steps = torch.arange(mask.shape[axis - ndim], device=mask.device) + int(axis == 0)
        steps = steps.view(-1, *[1] * (ndim - 1 - axis))                                    # (L, 1, ...)
        squared = squared + (steps * sizes[:, axis].view(-1, *[1] * (ndim + 1))).square()
    return torch.where(torch.isinf(distances), squared.sqrt(), distances)


def transform_array(labels: np.ndarray, spacing: tuple[float, ...], *, threads: int = 1) -> np.ndarray:
    """Distance of each non-zero element to the nearest one of another label, through the edt package."""
    # The package takes the spacings in the order of a C-contiguous array's axes.
    anisotropy = spacing if len(spacing) > 1 else spacing[0]
    labels = np.ascontiguousarray(labels)
    return edt_package.edt(labels, anisotropy=anisotropy, black_border=False, parallel=threads)


@torch.no_grad()
def _transform_tensor(labels: Tensor, spacing: Sequence[float] | Tensor) -> Tensor:
    """`edt` of a tensor: through the edt package on the CPU, in torch operations on any other device."""
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"mask: expected bool or integers, found {labels.dtype}")
    ndim = _spatial_axes(labels, spacing)
    if labels.device.type != "cpu":
        return _transform_separable(labels, _spacing_rows(spacing, labels.device))
    rows = spacing.tolist() if isinstance(spacing, Tensor) else [spacing]
    return _transform_on_cpu(labels, [as_spacing(row, ndim) for row in rows])


def _spatial_axes(labels: Tensor, spacing: Sequence[float] | Tensor) -> int:
    """How many of the last axes are spatial by the spacing."""
    shape = tuple(labels.shape)
    if isinstance(spacing, Tensor):
        if spacing.ndim != 2 or labels.ndim == 0 or len(spacing) != len(labels):
            raise ValueError(f"spacing: expected one row per entry of {shape}, found {tuple(spacing.shape)}")
        ndim, most = spacing.shape[1], labels.ndim - 1
    else:
        ndim, most = len(spacing), labels.ndim
    if not 1 <= ndim <= min(3, most):
        raise ValueError(f"spacing: expected 1 to 3 spatial axes of {shape}, found {ndim}")
    return ndim


def _transform_on_cpu(labels: Tensor, rows: list[tuple[float, ...]]) -> Tensor:
    """Entry by entry through the edt package; a contiguous tensor is read without a copy."""
    spatial = labels.shape[labels.ndim - len(rows[0]) :]
    images = labels.contiguous().numpy().reshape(-1, *spatial)                              # (N, *spatial)
    distances = np.empty(images.shape, np.float32)                                          # (N, *spatial)
    threads = torch.get_num_threads() if spatial.numel() >= _THREADED_ELEMENTS else 1
    for i, image in enumerate(images):
        distances[i] = transform_array(image, rows[i * len(rows) // len(images)], threads=threads)
    return torch.from_numpy(distances).view(labels.shape)


def _spacing_rows(spacing: Sequence[float] | Tensor, device: torch.device) -> Tensor:
    """Spacings (B or 1, ndim) on a device; numbers are filled in there, because a copy would wait for it."""
    if isinstance(spacing, Tensor):
        return spacing.to(device, torch.float32, non_blocking=True)
    values = as_spacing(spacing, len(spacing))
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
    index = torch.arange(labels.shape[-1], device=labels.device, dtype=torch.float32)       # (L,)
    changes = labels[..., 1:] != labels[..., :-1]                                           # (B, ..., L - 1)
    first = torch.where(pad(changes, (1, 0)), index, -torch.inf).cummax(dim=-1).values      # (B, ..., L)
    last = torch.where(pad(changes, (0, 1)), index, torch.inf).flip(-1).cummin(dim=-1).values.flip(-1)
    steps = torch.minimum(index - first, last - index) + 1.0                                # (B, ..., L)
    return (steps * spacing.view(-1, *[1] * (labels.ndim - 1))).square()


def _min_plus(squared: Tensor, labels: Tensor, spacing: Tensor) -> Tensor:
    """Minimum over j of (spacing (i - j))^2 + squared[j] (0 if j has another label), for all i of a line."""
    shape, length = squared.shape, squared.shape[-1]
    index = torch.arange(length, device=squared.device, dtype=torch.float32)                # (L,)
    cost = ((index[:, None] - index) * spacing.view(-1, 1, 1)).square()                     # (B or 1, L, L)
    cost = cost.expand(shape[0], -1, -1)                                                    # (B, L, L)
    squared, labels = squared.reshape(shape[0], -1, length), labels.reshape(shape[0], -1, length)   # (B, R, L)
    result = torch.empty_like(squared)                                                      # (B, R, L)
    lines = max(1, _CHUNK_ELEMENTS // length**2)
    for b in range(shape[0]):
        for start in range(0, squared.shape[1], lines):
            rows = slice(start, start + lines)
            same = labels[b, rows, :, None] == labels[b, rows, None, :]                     # (R', L, L)
            result[b, rows] = torch.where(same, squared[b, rows, None, :], 0.0).add_(cost[b]).amin(dim=-1)
    return result.view(shape)


def as_array(array: np.ndarray, name: str, kinds: str = "biu") -> np.ndarray:
    """The array, if it is of those NumPy kinds, on 1 to 3 axes and not empty; else ValueError."""
    array = np.asarray(array)
    if array.dtype.kind not in kinds or array.ndim not in (1, 2, 3) or array.size == 0:
        wanted = "bool" if kinds == "b" else "bool or integers"
        found = f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"{name}: expected {wanted} on 1 to 3 axes, found {found}")
    return array


def as_spacing(spacing: Spacing, ndim: int) -> tuple[float, ...]:
    """One positive number per axis (None: ones); else ValueError."""
    try:
        values = (1.0,) * ndim if spacing is None else tuple(float(s) for s in spacing)
    except (TypeError, ValueError):
        raise ValueError(f"spacing: expected {ndim} positive values in mm, one per axis, found {spacing}") from None
    if len(values) != ndim or not all(0 < s < np.inf for s in values):
        raise ValueError(f"spacing: expected {ndim} positive values in mm, one per axis, found {values}")
    return values


def as_batch_spacing(spacing: Spacing, batch: int, ndim: int) -> Sequence[float] | Tensor:
    """The spacing of a batch of images: one number per axis, or a tensor (B, ndim); else ValueError.

    The values of a tensor are looked at on the CPU alone: elsewhere that would wait for the device.
    """
    if not isinstance(spacing, Tensor):
        return as_spacing(spacing, ndim)
    if tuple(spacing.shape) != (batch, ndim):
        found = tuple(spacing.shape)
        raise ValueError(f"spacing: expected {ndim} values in mm or a tensor {(batch, ndim)}, found a tensor {found}")
    if spacing.device.type == "cpu":
        for row in spacing.tolist():
            as_spacing(row, ndim)
    return spacing
