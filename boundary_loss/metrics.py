"""Segmentation metrics: pure functions of a prediction and a reference, 2D or 3D, distances in mm.

Masks are arrays or tensors (H, W) or (X, Y, Z) of one shape, zero outside and non-zero inside; `spacing` is the size of
a voxel in mm, one number per axis in the order of the axes. `ignore` is a mask of voxels that are removed from both:
the WMH challenge does so with its label 2. Every metric raises ValueError for masks of different shapes or of other
than two or three axes, and for a spacing of the wrong length or not above 0. Tensors on a device other than the CPU are
measured there, except for lesions, whose components are found on the host.

Empty masks, for every metric:

| pred | ref | outcome | DSC, surface Dice | distances |
| --- | --- | --- | --- | --- |
| some | some | `scored` | measured | measured |
| empty | empty | `both_empty` | 1 | 0 |
| empty | some | `missed` | 0 | the grid's diagonal |
| some | empty | `false_alarm` | 0 | the grid's diagonal |

The diagonal is the norm of shape * spacing of the whole array, as in the authors' code: more than any distance between
two voxel centres of the array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import scipy  # whose ndimage, a quarter of a second, loads where it is used first
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from boundary_loss.surface_distances import bounding_box, device_surface_distances, surface_distances

Mask = ArrayLike | Tensor
Spacing = Sequence[float] | np.ndarray
Counts = TypeVar("Counts", float, np.ndarray, Tensor)


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm from each surface voxel of one mask to the nearest surface voxel of the other.

    With an empty mask, both arrays hold one value: 0 (both masks empty) or the grid's diagonal (one empty).
    """

    pred_to_ref: np.ndarray | Tensor                                        # (N,) float64; tensors float32
    ref_to_pred: np.ndarray | Tensor                                        # (M,) float64; tensors float32
    outcome: str

    @property
    def pooled(self) -> np.ndarray | Tensor:
        """Distances in mm of both directions (N + M,)."""
        if isinstance(self.pred_to_ref, Tensor):
            return torch.cat([self.pred_to_ref, torch.as_tensor(self.ref_to_pred)])
        return np.concatenate([self.pred_to_ref, np.asarray(self.ref_to_pred)])

    @property
    def hd(self) -> float:
        """Hausdorff distance in mm: the largest of both directions."""
        return float(self.pooled.max())

    @property
    def hd95(self) -> float:
        """95th percentile in mm of both directions pooled (medpy)."""
        return _percentile_95(self.pooled)

    @property
    def hd95_max(self) -> float:
        """Larger of the two directions' 95th percentiles in mm (MONAI)."""
        return max(_percentile_95(self.pred_to_ref), _percentile_95(self.ref_to_pred))

    @property
    def assd(self) -> float:
        """Mean in mm of both directions pooled (medpy 0.5)."""
        return float(self.pooled.mean())

    def surface_dice(self, tolerance_mm: float) -> float:
        """Share in [0, 1] of both surfaces' voxels within `tolerance_mm` of the other surface."""
        if not tolerance_mm >= 0:
            raise ValueError(f"expected a tolerance of at least 0 mm, found {tolerance_mm}")
        if self.outcome != "scored":
            return float(self.outcome == "both_empty")
        # A distance equal to the tolerance is within it, whatever the last bits of the two are.
        within = self.pooled <= tolerance_mm * (1 + 1e-5)
        return float(within.sum() / len(within))


def dsc(pred: Mask, ref: Mask, *, ignore: Mask | None = None) -> float:
    """Dice similarity coefficient, 2 |pred and ref| / (|pred| + |ref|).

    Args:
        pred, ref: masks (H, W) or (X, Y, Z).
        ignore: a mask of voxels that are removed from both.

    Returns:
        A number in [0, 1]; 1 if both masks are empty.

    Raises:
        ValueError: for masks of different shapes, or of other than two or three axes.

    Example:
        >>> from boundary_loss import dsc
        >>> dsc(pred=[[0, 1, 1, 1]], ref=[[0, 0, 1, 0]])
        0.5
    """
    pred, ref = as_masks(pred, ref, ignore)
    return float(dsc_from_counts(_count(pred & ref), _count(pred), _count(ref)))


def outcome(pred: Mask, ref: Mask, *, ignore: Mask | None = None) -> str:
    """Which masks are empty: `scored` (none), `both_empty`, `missed` or `false_alarm`."""
    pred, ref = as_masks(pred, ref, ignore)
    if pred.any():
        return "scored" if ref.any() else "false_alarm"
    return "missed" if ref.any() else "both_empty"


def distances(pred: Mask, ref: Mask, spacing: Spacing, *, ignore: Mask | None = None) -> SurfaceDistances:
    """Surface distances in both directions, in mm: what hd, hd95, hd95_max, assd and surface Dice share.

    The surface is medpy's: the mask minus its erosion with connectivity 1, the outside of the array being background.
    A volume of one slice, such as an image, is measured as that slice: in 3D all of its mask would be surface.
    Exact to 1e-4 mm on grids up to 1 m.
    """
    pred, ref = as_masks(pred, ref, ignore)
    sizes = as_spacing(spacing, pred.ndim)
    found = outcome(pred, ref)
    if found != "scored":
        diagonal = np.linalg.norm(np.multiply(pred.shape, sizes))
        value = np.array([0.0 if found == "both_empty" else diagonal])
        return SurfaceDistances(value, value, found)
    if pred.ndim == 3 and 1 in pred.shape:
        flat = pred.shape.index(1)
        pred, ref, sizes = pred.squeeze(flat), ref.squeeze(flat), np.delete(sizes, flat)
    if isinstance(pred, Tensor):
        return SurfaceDistances(*device_surface_distances(pred, torch.as_tensor(ref), sizes), outcome=found)
    return SurfaceDistances(*surface_distances(pred, np.asarray(ref), sizes), outcome=found)


def hd(pred: Mask, ref: Mask, spacing: Spacing, *, ignore: Mask | None = None) -> float:
    """Hausdorff distance in mm: the largest surface distance (medpy's `hd`)."""
    return distances(pred, ref, spacing, ignore=ignore).hd


def hd95(pred: Mask, ref: Mask, spacing: Spacing, *, ignore: Mask | None = None) -> float:
    """95th percentile in mm of both directions' surface distances pooled (medpy's `hd95`, the papers').

    Args:
        pred, ref: masks (H, W) or (X, Y, Z).
        spacing: size of a voxel in mm, one number per axis.
        ignore: a mask of voxels that are removed from both.

    Returns:
        mm; 0 if both masks are empty, the grid's diagonal if one is.

    Raises:
        ValueError: for masks of different shapes, or of other than two or three axes, and for a spacing that does not
            fit them.

    Example:
        >>> from boundary_loss import hd95
        >>> hd95(pred=[[0, 1, 0, 0]], ref=[[0, 0, 0, 1]], spacing=(1.0, 1.5))
        3.0
    """
    return distances(pred, ref, spacing, ignore=ignore).hd95


def hd95_max(pred: Mask, ref: Mask, spacing: Spacing, *, ignore: Mask | None = None) -> float:
    """Larger of the directions' 95th percentiles in mm (MONAI; the WMH challenge, but it erodes in 2D)."""
    return distances(pred, ref, spacing, ignore=ignore).hd95_max


def assd(pred: Mask, ref: Mask, spacing: Spacing, *, ignore: Mask | None = None) -> float:
    """Average symmetric surface distance in mm: the mean over both surfaces' voxels (medpy 0.5's)."""
    return distances(pred, ref, spacing, ignore=ignore).assd


def surface_dice(
    pred: Mask, ref: Mask, spacing: Spacing, tolerance_mm: float, *, ignore: Mask | None = None
) -> float:
    """Share of both surfaces within `tolerance_mm` of the other (Nikolov et al. 2018; voxels, as MONAI)."""
    return distances(pred, ref, spacing, ignore=ignore).surface_dice(tolerance_mm)


def surface_metrics(
    pred: Mask, ref: Mask, spacing: Spacing, *, ignore: Mask | None = None, tolerance_mm: float | None = None
) -> dict[str, float | str]:
    """hd_mm, hd95_mm, hd95_max_mm, assd_mm and outcome from one pass; with a tolerance also surface_dice."""
    found = distances(pred, ref, spacing, ignore=ignore)
    row = {"hd_mm": found.hd, "hd95_mm": found.hd95, "hd95_max_mm": found.hd95_max, "assd_mm": found.assd}
    if tolerance_mm is not None:
        row["surface_dice"] = found.surface_dice(tolerance_mm)
    return {**row, "outcome": found.outcome}


def volume_difference(pred: Mask, ref: Mask, spacing: Spacing, *, ignore: Mask | None = None) -> dict[str, float]:
    """Volumes and their difference: signed (pred - ref), absolute, in per cent of ref (WMH challenge's AVD).

    Keys: volume_pred, volume_ref, volume_difference, absolute_volume_difference, each with `_mm3` (2D: areas, `_mm2`),
    and avd_percent: nan where ref alone is empty, 0 where both are.
    """
    pred, ref = as_masks(pred, ref, ignore)
    voxel = float(np.prod(as_spacing(spacing, pred.ndim)))
    volume_pred, volume_ref = _count(pred) * voxel, _count(ref) * voxel
    difference, unit = volume_pred - volume_ref, f"mm{pred.ndim}"
    relative = abs(difference) / volume_ref if volume_ref else float("nan") if volume_pred else 0.0
    return {
        f"volume_pred_{unit}": volume_pred,
        f"volume_ref_{unit}": volume_ref,
        f"volume_difference_{unit}": difference,
        f"absolute_volume_difference_{unit}": abs(difference),
        "avd_percent": 100 * relative,
    }


def lesion_detection(pred: Mask, ref: Mask, *, ignore: Mask | None = None) -> dict[str, float | int]:
    """Recall, precision and F1 over lesions, and their counts (WMH challenge, Kuijf et al. 2019).

    A lesion is a connected component, diagonals included (connectivity 26 in 3D, 8 in 2D). A lesion of ref is
    detected, and a lesion of pred is true, when it shares a voxel with the other mask. Without lesions in ref the
    recall is 1, without lesions in pred the precision is 1. Keys: lesion_recall, lesion_precision, lesion_f1,
    n_lesions_ref, n_lesions_pred, n_lesions_detected, n_lesions_false, lesion_count_difference (pred - ref).
    """
    pred_mask, ref_mask = (on_host(mask) for mask in as_masks(pred, ref, ignore))
    n_ref, n_detected = _components_hit(ref_mask, pred_mask)
    n_pred, n_true = _components_hit(pred_mask, ref_mask)
    recall = n_detected / n_ref if n_ref else 1.0
    precision = n_true / n_pred if n_pred else 1.0
    return {
        "lesion_recall": recall,
        "lesion_precision": precision,
        "lesion_f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "n_lesions_ref": n_ref,
        "n_lesions_pred": n_pred,
        "n_lesions_detected": n_detected,
        "n_lesions_false": n_pred - n_true,
        "lesion_count_difference": n_pred - n_ref,
    }


def n_components(mask: Mask) -> int:
    """Number of connected components of a mask (H, W) or (X, Y, Z), diagonals included."""
    array = on_host(as_masks(mask, mask, None)[0])
    return _components_hit(array, array)[0]


def intersection_and_sizes(
    pred_label: Tensor, ref_label: Tensor, num_classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Voxels of each class in both label maps, in pred, and in ref, per image; never waits for the device.

    Labels are integers (B, H, W) or (B, D, H, W) on one device; a value outside 0 to num_classes - 1 is not counted.
    Returns three int64 (B, K); summed over the slices of a volume they are the volume's.
    """
    if pred_label.shape != ref_label.shape:
        raise ValueError(f"expected labels of one shape, found {[*pred_label.shape]}, {[*ref_label.shape]}")
    classes = torch.arange(num_classes, device=pred_label.device)[:, None]
    pred = pred_label.flatten(1)[:, None] == classes                        # (B, K, H W)
    ref = ref_label.flatten(1)[:, None] == classes                          # (B, K, H W)
    # int32 sums take about half the time of int64 ones, and no image has 2^31 voxels.
    both, n_pred, n_ref = (part.sum(2, dtype=torch.int32).long() for part in (pred & ref, pred, ref))   # (B, K)
    return both, n_pred, n_ref


def dsc_from_counts(intersection: Counts, n_pred: Counts, n_ref: Counts) -> Counts:
    """DSC from counts of voxels: 2 intersection / (n_pred + n_ref), 1 where both sizes are 0.

    Numbers, arrays or tensors of one shape, which the result has too (tensors: float32, on their device).
    """
    total = n_pred + n_ref
    empty = total == 0
    return (2 * intersection + empty) / (total + empty)


def on_host(mask: np.ndarray | Tensor) -> np.ndarray:
    """A mask as an array."""
    return mask.cpu().numpy() if isinstance(mask, Tensor) else mask


def as_masks(
    pred: Mask, ref: Mask, ignore: Mask | None
) -> tuple[np.ndarray | Tensor, np.ndarray | Tensor]:
    """Both masks as bool, without the ignored voxels: two arrays, or two tensors on a device other than the CPU."""
    device = _device_of(pred) or _device_of(ref)
    masks = [_as_bool(mask, device) for mask in (pred, ref)]
    shapes = [tuple(mask.shape) for mask in masks]
    if shapes[0] != shapes[1] or masks[0].ndim not in (2, 3):
        raise ValueError(f"expected two masks of one 2-D or 3-D shape, found {shapes[0]} and {shapes[1]}")
    if ignore is None:
        return masks[0], masks[1]
    if np.shape(ignore) != shapes[1]:
        raise ValueError(f"expected an ignore mask of shape {shapes[1]}, found {np.shape(ignore)}")
    keep = ~_as_bool(ignore, device)
    return masks[0] & keep, masks[1] & keep


def _device_of(mask: Mask) -> torch.device | None:
    """The device of a mask that NumPy cannot read."""
    return mask.device if isinstance(mask, Tensor) and mask.device.type != "cpu" else None


def _as_bool(mask: Mask, device: torch.device | None) -> np.ndarray | Tensor:
    if device is not None:
        return torch.as_tensor(mask, device=device).bool()
    return np.asarray(mask).astype(bool, copy=False)


def _count(mask: np.ndarray | Tensor) -> int:
    return int(mask.sum()) if isinstance(mask, Tensor) else int(np.count_nonzero(mask))


def _percentile_95(values: np.ndarray | Tensor) -> float:
    """NumPy's linear interpolation; torch.quantile has a limit of 16 million values."""
    if not isinstance(values, Tensor):
        return float(np.percentile(values, 95))
    place = 0.95 * (len(values) - 1)
    low = int(place)
    below, above = values.sort().values[[low, min(low + 1, len(values) - 1)]].tolist()
    return below + (place - low) * (above - below)


def as_spacing(spacing: Spacing, ndim: int) -> np.ndarray:
    """The size of a voxel in mm (ndim,) float64; ValueError where it is none."""
    sizes = np.asarray(spacing, dtype=np.float64)
    if sizes.shape != (ndim,) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(f"expected {ndim} spacings in mm above 0, one per axis, found {sizes.tolist()}")
    return sizes


def _components_hit(mask: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Number of connected components of `mask`, and of those that share a voxel with `other`."""
    if not mask.any():
        return 0, 0
    box = bounding_box(mask)
    labels, count = scipy.ndimage.label(mask[box], structure=np.ones((3,) * mask.ndim))
    return count, int(np.count_nonzero(np.bincount(labels[other[box]], minlength=1)[1:]))
