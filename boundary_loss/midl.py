"""What the MIDL 2019 version of the boundary loss prints as Hausdorff distance, which is none: for comparison alone."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import ArrayLike


def hd_midl(pred: ArrayLike, ref: ArrayLike) -> float:
    """The "HD" of the code behind Table 1 of Kervadec et al., MIDL 2019: a distance of mask rows, not of contours.

    That code hands whole mask arrays to SciPy's `directed_hausdorff`, which takes each row of an array for a point. Per
    slice, that is the largest number over the rows of one mask of sqrt(pixels in which the row differs from the row of
    the other mask that is most like it), in both directions. Where the rows are, how far the masks are from each
    other and the spacing do not enter, and the printed mm are none. A mask and its complement have the same value, so
    that it does not matter that the code measures the background.

    Args:
        pred, ref: masks (X, Y), rows along X, or volumes (X, Y, Z) of slices, of one shape; non-zero inside.

    Returns:
        The value of the slice, or the mean over the slices of a volume; 0 where both masks are empty.

    Raises:
        ValueError: for masks of different shapes, of other than two or three axes, or without an element.

    Example:
        >>> from boundary_loss.midl import hd_midl
        >>> hd_midl(pred=[[1, 0, 0], [0, 0, 0], [0, 0, 1]], ref=[[1, 0, 0], [0, 0, 0], [0, 0, 0]])
        1.0
    """
    masks = [np.asarray(mask).astype(bool) for mask in (pred, ref)]
    shapes = [mask.shape for mask in masks]
    if shapes[0] != shapes[1] or masks[0].ndim not in (2, 3) or masks[0].size == 0:
        raise ValueError(f"expected two masks of one 2-D or 3-D shape, found {shapes[0]} and {shapes[1]}")
    slices = [np.moveaxis(np.atleast_3d(mask), 2, 0).astype(np.float64) for mask in masks]      # (Z, X, Y)
    return float(np.mean([_rows_hausdorff(*pair) for pair in zip(*slices, strict=True)]))


def _rows_hausdorff(pred: np.ndarray, ref: np.ndarray) -> float:
    """Hausdorff distance of the sets of rows of two arrays (X, Y)."""
    directed = scipy.spatial.distance.directed_hausdorff
    return max(directed(pred, ref)[0], directed(ref, pred)[0])
