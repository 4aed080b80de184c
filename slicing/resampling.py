"""Between the scan's own grid and the sliced one: intensities to [0, 1], slices to a square, probabilities back."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from raw_data.volumes import Volume


def scale(image: np.ndarray) -> np.ndarray:
    """Scale each volume of image (C, X, Y, Z) to [0, 1] by its own minimum and maximum."""
    low = image.min(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    high = image.max(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    return ((image - low) / (high - low)).astype(np.float32)


def resample(slices: Tensor, shape: tuple[int, int]) -> Tensor:
    """Slices (Z, C, X, Y) on ``shape`` pixels over the same field of view: linear, no anti-aliasing.

    Pixel edges fall on pixel edges, so that probabilities go back to the scan's own slices by the same function.
    """
    if tuple(slices.shape[2:]) == tuple(shape):
        return slices
    return functional.interpolate(slices, size=tuple(shape), mode="bilinear", align_corners=False)


def resize(volume: Volume, size: int) -> Volume:
    """Resize each slice to ``size`` x ``size``: linear, labels nearest, no anti-aliasing; spacing follows."""
    width, height, _ = volume.label.shape
    if (width, height) == (size, size):
        return volume
    slices = torch.from_numpy(volume.image).permute(3, 0, 1, 2)                      # (Z, C, X, Y)
    image = resample(slices, (size, size))
    dx, dy, dz = volume.spacing
    return Volume(
        image.permute(1, 2, 3, 0).numpy(),                                           # (C, size, size, Z)
        resize_label(volume.label, size),                                            # (size, size, Z)
        (dx * width / size, dy * height / size, dz),
    )


def resize_label(label: np.ndarray, size: int) -> np.ndarray:
    """Each slice of label (X, Y, Z) uint8 on ``size`` x ``size`` pixels: the nearest voxel."""
    slices = torch.from_numpy(label).permute(2, 0, 1)[:, None]                       # (Z, 1, X, Y)
    return functional.interpolate(slices, size=(size, size), mode="nearest-exact")[:, 0].permute(1, 2, 0).numpy()
