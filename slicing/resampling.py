"""Between the scan's own slices and the sliced ones: resized, or cropped and padded around the centre; and back."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from raw_data.volumes import Volume
from slicing.grid import Grid


def to_sliced(slices: Tensor, grid: Grid, spacing: Sequence[float]) -> Tensor:
    """Image slices (Z, C, X, Y) of a scan as (Z, C, size, size): linear, no anti-aliasing."""
    resized = resample(slices, grid.resampled(slices.shape[2:], spacing))
    return resized if grid.fit == "resize" else centre(resized, grid.size, fill=resized.amin((0, 2, 3)))


def to_sliced_label(label: np.ndarray, grid: Grid, spacing: Sequence[float]) -> np.ndarray:
    """Classes (X, Y, Z) uint8 of a scan as (size, size, Z) by the rule resize_labels; background around it."""
    return label_slices(label, grid, spacing, LABEL_RULES[grid.resize_labels])


def to_whole_label(label: np.ndarray, grid: Grid, spacing: Sequence[float]) -> np.ndarray:
    """As ``to_sliced_label``, with background where a pixel is not wholly of one class."""
    return label_slices(label, grid, spacing, resize_whole)


def label_slices(label: np.ndarray, grid: Grid, spacing: Sequence[float], resize: "LabelRule") -> np.ndarray:
    """Classes (size, size, Z) of a label (X, Y, Z) by the function ``resize``."""
    slices = torch.from_numpy(label).permute(2, 0, 1)[:, None]                       # (Z, 1, X, Y)
    shape = grid.resampled(label.shape, spacing)
    if shape != label.shape[:2]:
        slices = resize(slices, shape)
    if grid.fit == "centre":
        slices = centre(slices, grid.size, fill=slices.new_zeros(1))
    return slices[:, 0].permute(1, 2, 0).numpy()


def to_native(probs: Tensor, grid: Grid, shape: Sequence[int], spacing: Sequence[float]) -> Tensor:
    """Probabilities (Z, K, size, size) on the scan's own ``shape``, (Z, K, X, Y); background outside a crop."""
    resampled = grid.resampled(shape, spacing)
    if grid.fit == "centre":
        whole = probs.new_zeros(*probs.shape[:2], *resampled)
        whole[:, 0] = 1
        (x, sx), (y, sy) = (overlap(n, grid.size) for n in resampled)
        whole[:, :, x, y] = probs[:, :, sx, sy]
        probs = whole
    return resample(probs, (shape[0], shape[1]))


def resize_volume(volume: Volume, grid: Grid) -> Volume:
    """The volume on the sliced grid: image (C, size, size, Z), label (size, size, Z), spacing."""
    slices = torch.from_numpy(volume.image).permute(3, 0, 1, 2)                      # (Z, C, X, Y)
    image = to_sliced(slices, grid, volume.spacing).permute(1, 2, 3, 0).numpy()      # (C, size, size, Z)
    label = to_sliced_label(volume.label, grid, volume.spacing)                       # (size, size, Z)
    return Volume(image, label, grid.spacing_of(volume.label.shape, volume.spacing))


def resize_nearest(slices: Tensor, shape: tuple[int, int]) -> Tensor:
    """Classes (Z, 1, X, Y) uint8 on ``shape`` pixels: the nearest voxel's."""
    return functional.interpolate(slices, size=shape, mode="nearest-exact")


def resize_linear(slices: Tensor, shape: tuple[int, int]) -> Tensor:
    """As ``resize_nearest``: the class with the largest share, of two classes 1 where its share is above a half."""
    classes, shares = class_shares(slices, shape)
    return classes[shares.argmax(dim=1, keepdim=True)]                               # (Z, 1, *shape)


def resize_whole(slices: Tensor, shape: tuple[int, int]) -> Tensor:
    """As ``resize_linear``, with 0 where the share is not 1."""
    classes, shares = class_shares(slices, shape)
    largest, index = shares.max(dim=1, keepdim=True)                                 # (Z, 1, *shape)
    # Weights that sum to 1 do so to within rounding.
    return torch.where(largest > 1 - 1e-6, classes[index], 0)


def class_shares(slices: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The classes (K,) that are there, in their order, and their linearly resized shares (Z, K, *shape)."""
    classes = slices.unique()
    return classes, resample((slices == classes[:, None, None]).double(), shape)


def resize_bicubic(slices: Tensor, shape: tuple[int, int]) -> Tensor:
    """As ``resize_nearest``: class numbers resized by Pillow's default filter and rounded.

    Between the classes 0 and 2 that makes a rim of class 1.
    """
    images = [Image.fromarray(one).resize(shape[::-1], Image.Resampling.BICUBIC) for one in slices[:, 0].numpy()]
    resized = torch.from_numpy(np.stack([np.asarray(image) for image in images]))[:, None]
    return resized.clamp_max(int(slices.max()))                                      # (Z, 1, *shape)


LabelRule = Callable[[Tensor, tuple[int, int]], Tensor]
LABEL_RULES: dict[str, LabelRule] = {
    "nearest": resize_nearest, "linear": resize_linear, "bicubic": resize_bicubic,
}


def resample(slices: Tensor, shape: tuple[int, int]) -> Tensor:
    """Slices (Z, C, X, Y) on ``shape`` pixels over the same field of view: linear, no anti-aliasing.

    Pixel edges fall on pixel edges, so that probabilities go back to the scan's own slices by the same function.
    """
    if tuple(slices.shape[2:]) == tuple(shape):
        return slices
    return functional.interpolate(slices, size=tuple(shape), mode="bilinear", align_corners=False)


def centre(slices: Tensor, size: int, *, fill: Tensor) -> Tensor:
    """Slices (Z, C, X, Y) cropped and padded to ``size`` x ``size`` around their centre; fill (C,)."""
    whole = fill[:, None, None].expand(*slices.shape[:2], size, size).clone()        # (Z, C, size, size)
    (x, sx), (y, sy) = (overlap(n, size) for n in slices.shape[2:])
    whole[:, :, sx, sy] = slices[:, :, x, y]
    return whole


def overlap(n: int, size: int) -> tuple[slice, slice]:
    """Where ``n`` pixels and ``size`` pixels with one centre overlap: in the former, and in the latter."""
    first = (n - size) // 2
    length = min(n, size)
    return slice(max(first, 0), max(first, 0) + length), slice(max(-first, 0), max(-first, 0) + length)
