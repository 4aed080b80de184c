"""Between the scan's own slices and the sliced ones: resized, or cropped and padded around the centre; and back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from raw_data.volumes import Spacing, Volume
from utils import InputError

MAX_RESAMPLED = 2**14   # pixels of a slice's side before it is cropped


@dataclass(frozen=True)
class Grid:
    """Slices of ``size`` x ``size`` pixels.

    fit="resize": the whole field of view. fit="centre": in-plane ``spacing`` (mm; None: the scan's own), then
    cropped, or padded with the image's minimum, around the centre. resize_labels: by which rule a pixel gets its class.
    """

    size: int
    fit: str = "resize"
    spacing: float | None = None
    resize_labels: str = "nearest"

    def resampled(self, shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, int]:
        """In-plane shape that slices of ``shape`` pixels are resampled to, before any crop."""
        if self.fit == "resize":
            return self.size, self.size
        if self.spacing is None:
            return shape[0], shape[1]
        width, height = (max(1, round(n * mm / self.spacing)) for n, mm in zip(shape[:2], spacing[:2], strict=True))
        if max(width, height) > MAX_RESAMPLED:
            found = f"{width} x {height} pixels of {self.spacing:g} mm"
            raise InputError(f"--spacing: expected slices of at most {MAX_RESAMPLED} pixels a side, found {found}")
        return width, height

    def to_sliced(self, slices: Tensor, spacing: Sequence[float]) -> Tensor:
        """Image slices (Z, C, X, Y) of a scan as (Z, C, size, size): linear, no anti-aliasing."""
        resized = resample(slices, self.resampled(slices.shape[2:], spacing))
        return resized if self.fit == "resize" else centre(resized, self.size, fill=resized.amin((0, 2, 3)))

    def to_sliced_label(self, label: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        """Classes (X, Y, Z) uint8 of a scan as (size, size, Z) by the rule resize_labels; background around it."""
        return self.label_slices(label, spacing, LABEL_RULES[self.resize_labels])

    def to_whole_label(self, label: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        """As ``to_sliced_label``, with background where a pixel is not wholly of one class."""
        return self.label_slices(label, spacing, resize_whole)

    def label_slices(self, label: np.ndarray, spacing: Sequence[float], resize: "LabelRule") -> np.ndarray:
        slices = torch.from_numpy(label).permute(2, 0, 1)[:, None]                   # (Z, 1, X, Y)
        shape = self.resampled(label.shape, spacing)
        if shape != label.shape[:2]:
            slices = resize(slices, shape)
        if self.fit == "centre":
            slices = centre(slices, self.size, fill=slices.new_zeros(1))
        return slices[:, 0].permute(1, 2, 0).numpy()

    def spacing_of(self, shape: Sequence[int], spacing: Spacing) -> Spacing:
        """Spacing of the sliced grid of a scan of ``shape`` voxels."""
        width, height = self.resampled(shape, spacing)
        dx, dy, dz = spacing
        return dx * shape[0] / width, dy * shape[1] / height, dz

    def to_native(self, probs: Tensor, shape: Sequence[int], spacing: Sequence[float]) -> Tensor:
        """Probabilities (Z, K, size, size) on the scan's own ``shape``, (Z, K, X, Y); background outside a crop."""
        resampled = self.resampled(shape, spacing)
        if self.fit == "centre":
            whole = probs.new_zeros(*probs.shape[:2], *resampled)
            whole[:, 0] = 1
            (x, sx), (y, sy) = (overlap(n, self.size) for n in resampled)
            whole[:, :, x, y] = probs[:, :, sx, sy]
            probs = whole
        return resample(probs, (shape[0], shape[1]))


def resize_volume(volume: Volume, grid: Grid) -> Volume:
    """The volume on the sliced grid: image (C, size, size, Z), label (size, size, Z), spacing."""
    slices = torch.from_numpy(volume.image).permute(3, 0, 1, 2)                      # (Z, C, X, Y)
    image = grid.to_sliced(slices, volume.spacing).permute(1, 2, 3, 0).numpy()       # (C, size, size, Z)
    label = grid.to_sliced_label(volume.label, volume.spacing)                       # (size, size, Z)
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
