"""Lesions one by one: connected components of a prediction and a reference, matched by overlap.

Masks as in `metrics`. A lesion is a connected component, diagonals included (connectivity 26 in 3D, 8 in 2D).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy  # whose ndimage, a quarter of a second, loads where it is used first

from boundary_loss.metrics import Mask, Spacing, as_masks, as_spacing, distances, dsc_from_counts, on_host
from boundary_loss.surface_distances import bounding_box


def lesion_scores(
    pred: Mask, ref: Mask, spacing: Spacing, *, ignore: Mask | None = None
) -> list[dict[str, float | int | str]]:
    """Sizes, DSC and HD95 of each lesion, matched by overlap.

    A lesion of ref is compared with the union of all lesions of pred that share a voxel with it, so that it has a match
    exactly where `lesion_detection` counts it as detected; a lesion of pred that overlaps two of ref is compared with
    both, and lowers the DSC of both. A lesion of ref without a match is `missed`, a lesion of pred that overlaps none
    is a `false_alarm`; their DSC is 0 and their distance the grid's diagonal, as for whole masks.

    Args:
        pred, ref: masks (H, W) or (X, Y, Z).
        spacing: size of a voxel in mm, one number per axis.
        ignore: a mask of voxels that are removed from both.

    Returns:
        One dictionary per lesion of ref, in the array's order of their first voxels, then one per lesion of pred that
        overlaps none: lesion (1, 2, ...), outcome (`scored`, `missed`, `false_alarm`), n_ref and n_pred (voxels), dsc,
        hd95_mm.

    Raises:
        ValueError: for masks or a spacing that do not fit, as every metric.

    Example:
        >>> from boundary_loss import lesion_scores
        >>> found = lesion_scores(pred=[[1, 0, 0, 0]], ref=[[1, 1, 0, 1]], spacing=(1.0, 1.0))
        >>> [(lesion["outcome"], round(lesion["dsc"], 2)) for lesion in found]
        [('scored', 0.67), ('missed', 0.0)]
    """
    pred_mask, ref_mask = (on_host(mask) for mask in as_masks(pred, ref, ignore))
    sizes = as_spacing(spacing, ref_mask.ndim)
    diagonal = float(np.linalg.norm(np.multiply(ref_mask.shape, sizes)))
    found = [
        score(pred_part, ref_part, sizes, diagonal) for pred_part, ref_part in matched(pred_mask, ref_mask)
    ]
    return [{"lesion": number, **row} for number, row in enumerate(found, start=1)]


def score(pred: np.ndarray, ref: np.ndarray, spacing: np.ndarray, diagonal: float) -> dict[str, float | int | str]:
    """The scores of one pair of masks, cut out of a grid with that diagonal in mm."""
    n_pred, n_ref = int(np.count_nonzero(pred)), int(np.count_nonzero(ref))
    if not n_pred or not n_ref:
        outcome = "missed" if n_ref else "false_alarm"
        return {"outcome": outcome, "n_ref": n_ref, "n_pred": n_pred, "dsc": 0.0, "hd95_mm": diagonal}
    dsc = dsc_from_counts(int(np.count_nonzero(pred & ref)), n_pred, n_ref)
    hd95 = distances(pred, ref, spacing).hd95
    return {"outcome": "scored", "n_ref": n_ref, "n_pred": n_pred, "dsc": dsc, "hd95_mm": hd95}


def matched(pred: np.ndarray, ref: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each lesion of ref and those of pred that overlap it, then each of pred alone: pairs of masks in a common box."""
    whole = pred | ref
    if not whole.any():
        return
    box = bounding_box(whole)
    structure = np.ones((3,) * ref.ndim)
    (pred_lesions, n_pred), (ref_lesions, n_ref) = (scipy.ndimage.label(mask[box], structure) for mask in (pred, ref))
    pred_boxes, ref_boxes = scipy.ndimage.find_objects(pred_lesions), scipy.ndimage.find_objects(ref_lesions)
    both = (pred_lesions > 0) & (ref_lesions > 0)
    pairs = np.unique(np.stack([ref_lesions[both], pred_lesions[both]], axis=1), axis=0)            # (N, 2)
    for number in range(1, n_ref + 1):
        partners = pairs[pairs[:, 0] == number, 1]
        common = union([ref_boxes[number - 1], *(pred_boxes[partner - 1] for partner in partners)])
        yield np.isin(pred_lesions[common], partners), ref_lesions[common] == number
    for number in sorted({*range(1, n_pred + 1)} - {*pairs[:, 1].tolist()}):
        common = pred_boxes[number - 1]
        yield pred_lesions[common] == number, np.zeros_like(ref_lesions[common], dtype=bool)


def union(boxes: list[tuple[slice, ...]]) -> tuple[slice, ...]:
    """The smallest box around boxes."""
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes, strict=True)
    )
