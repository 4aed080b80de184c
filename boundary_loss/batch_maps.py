"""Distances and maps of batches of masks and labels, on the device that these are on.

What `unsigned_distance`, `distance_maps` and `region_wise_map` do with tensors. Nothing here reads a value on the host,
but on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from boundary_loss.array_maps import signed_map
from boundary_loss.targets import check_classes, equals, one_hot
from boundary_loss.transform import Spacing, as_batch_spacing, edt, edt_with_phantom


def boundary_distances(masks: Tensor, spacing: Spacing, ignored: Tensor | None = None) -> Tensor:
    """Distance of each voxel to the nearest one on the other side of its mask; 0 where there is none.

    Args:
        masks: (..., *spatial) bool, False where ignored.
        spacing: as in `edt`.
        ignored: bool, broadcast to the masks: voxels that are on neither side. Their own distance is 0.

    Returns:
        float32 of the masks' shape.
    """
    if ignored is None:
        distances = edt(masks.to(torch.uint8) + 1, spacing)
    else:
        distances = torch.where(masks, edt(masks | ignored, spacing), edt(~masks, spacing))
        distances.masked_fill_(ignored, 0.0)
    return distances.masked_fill_(torch.isinf(distances), 0.0)


def signed_distances(
    masks: Tensor, spacing: Spacing, ignored: Tensor | None = None, *, complementary: bool = False
) -> Tensor:
    """`boundary_distances` of masks (B, C, *spatial), negative inside; of two complementary ones by one transform.

    The way out of one of two classes is the way into the other.
    """
    if complementary:
        phi = signed_distances(masks[:, 1:], spacing, ignored)                              # (B, 1, *spatial)
        return torch.cat([-phi, phi], dim=1)
    distances = boundary_distances(masks, spacing, ignored)
    return torch.where(masks, -distances, distances)


def authors_distances(masks: Tensor, spacing: Sequence[float] | Tensor, ignored: Tensor | None = None) -> Tensor:
    """Signed distances of masks (B, C, *spatial) by the authors' convention; on the CPU through SciPy in float64."""
    if masks.device.type != "cpu":
        return _authors_on_device(masks, spacing, ignored)
    rows = spacing.tolist() if isinstance(spacing, Tensor) else [spacing] * len(masks)
    maps = np.empty(masks.shape, np.float32)                                                # (B, C, *spatial)
    for b, k in np.ndindex(*masks.shape[:2]):
        beside = None if ignored is None else ignored[b, 0].numpy()
        maps[b, k] = signed_map(masks[b, k].numpy(), tuple(rows[b]), "authors", beside)
    return torch.from_numpy(maps)


def _authors_on_device(masks: Tensor, spacing: Sequence[float] | Tensor, ignored: Tensor | None) -> Tensor:
    """`authors_distances` in float32."""
    inside = edt_with_phantom(masks if ignored is None else masks | ignored, spacing)
    phi = torch.where(masks, 1.0 - inside, edt(~masks, spacing))
    phi = phi.masked_fill(torch.isinf(phi), 0.0)  # a class that is absent
    return phi.trunc() if phi.ndim == 4 else phi


def distance_maps_of_batch(
    label: Tensor, num_classes: int, spacing: Spacing, convention: str, ignore_index: int | None
) -> Tensor:
    """`distance_maps` of labels (B, *spatial): (B, K, *spatial)."""
    inside, ignored, spacing = _read(label, num_classes, spacing, ignore_index)
    if convention == "authors":
        maps = authors_distances(inside, spacing, ignored)
    else:
        maps = signed_distances(inside, spacing, ignored, complementary=num_classes == 2)
    return _mark(maps, ignored)


def region_wise_map_of_batch(
    label: Tensor,
    num_classes: int,
    kind: str,
    spacing: Spacing,
    weights: tuple[float | np.ndarray | Tensor, float | np.ndarray | Tensor],
    ignore_index: int | None,
) -> Tensor:
    """`region_wise_map` of labels (B, *spatial): (B, K, *spatial); ``weights`` are its alpha and beta."""
    if kind in ("boundary", "hausdorff"):
        maps = distance_maps_of_batch(label, num_classes, spacing, "paper", ignore_index)
        return maps if kind == "boundary" else maps.clamp_min(0.0).square()
    inside, ignored, spacing = _read(label, num_classes, spacing, ignore_index)
    if kind == "ac":
        return _mark((~inside).float(), ignored)
    if kind == "cao":
        alpha, beta = (_as_weight(name, value, label) for name, value in zip(("alpha", "beta"), weights, strict=True))
        return _mark(torch.where(inside, alpha, -beta), ignored)
    sides = label[:, None].int() + 1 if ignored is None else inside | ignored               # (B, 1 or K, *spatial)
    depth = edt(sides, spacing)
    depth = torch.where(inside, depth.masked_fill_(torch.isinf(depth), 1.0), 0.0)
    deepest = depth.flatten(2).amax(dim=2).view(*depth.shape[:2], *[1] * (label.ndim - 1))  # (B, K, 1, ...)
    return _mark(torch.where(inside, -depth / deepest, 1.0), ignored)


def _read(
    label: Tensor, num_classes: int, spacing: Spacing, ignore_index: int | None
) -> tuple[Tensor, Tensor | None, Sequence[float] | Tensor]:
    """Masks of the classes (B, K, *spatial), ignored voxels (B, 1, *spatial), and the spacing, all checked."""
    if label.is_floating_point() or label.is_complex() or label.ndim not in (2, 3, 4) or label.numel() == 0:
        wanted = "bool or integers (B, *spatial) on 1 to 3 spatial axes"
        raise ValueError(f"label: expected {wanted}, found {label.dtype} of shape {tuple(label.shape)}")
    spacing = as_batch_spacing(spacing, len(label), label.ndim - 1)
    label = label[:, None]                                                                  # (B, 1, *spatial)
    ignored = equals(label, ignore_index)
    check_classes("label", label, ignored, highest=num_classes - 1, ignore_index=ignore_index)
    inside = one_hot(label, tuple(range(num_classes)), torch.bool)                          # (B, K, *spatial)
    return inside if ignored is None else inside & ~ignored, ignored, spacing


def _mark(maps: Tensor, ignored: Tensor | None) -> Tensor:
    return maps if ignored is None else maps.masked_fill_(ignored, torch.nan)


def _as_weight(name: str, value: float | np.ndarray | Tensor, label: Tensor) -> Tensor:
    """A number, or one for each voxel of a label (B, *spatial), as float32 to broadcast to (B, K, *spatial)."""
    shape, whole = tuple(np.shape(value)), tuple(label.shape)
    if shape not in ((), whole, whole[1:]):
        raise ValueError(f"{name}: expected a number or shape {whole[1:]} or {whole}, found {shape}")
    if shape == ():
        return torch.full((), float(value), device=label.device)
    weight = torch.as_tensor(value, dtype=torch.float32, device=label.device)
    return weight[:, None] if shape == whole else weight
