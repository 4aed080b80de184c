"""Augmentation of training batches, with the maps that the losses need kept right.

Flips and quarter turns move every array, maps included, exactly: the map of a moved label is the moved map, since
distances do not change; where the sides of a pixel differ, a turn exchanges the two spacings. After a rotation or
zoom the label is another one on the same pixels, and its map is made anew (`training.objective.BatchMaps`). The random
choices depend on seed, epoch and step alone, so that a resumed run repeats them.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from dataloader import Batch

AUGMENTATIONS = ("none", "flips", "affine")
LARGEST_ANGLE = 15.0            # degrees, either way
ZOOMS = (0.8, 1.25)             # drawn with a uniform logarithm, so that no size is favoured


def generator_of(seed: int, epoch: int, step: int) -> torch.Generator:
    """Random numbers that belong to one step of one run."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) * 1_000_003 + step)


def flip_and_turn(batch: Batch, generator: torch.Generator) -> Batch:
    """Each slice in one of the eight positions of a square: flipped along H, along W, and transposed, or not."""
    if batch.image.shape[-1] != batch.image.shape[-2]:
        raise ValueError(f"image: expected square slices to turn, found {tuple(batch.image.shape[-2:])}")
    choices = torch.rand((3, len(batch.image)), generator=generator) < 0.5                     # (3, B)
    choices = choices.to(batch.image.device, non_blocking=True)

    def moved(tensor: Tensor) -> Tensor:
        flip_h, flip_w, turn = choices.view(3, -1, *[1] * (tensor.ndim - 1))                   # (B, 1, ...)
        tensor = torch.where(flip_h, tensor.flip(-2), tensor)
        tensor = torch.where(flip_w, tensor.flip(-1), tensor)
        return torch.where(turn, tensor.transpose(-1, -2), tensor)

    return Batch(
        image=moved(batch.image).contiguous(memory_format=torch.channels_last),
        label=moved(batch.label),
        maps=None if batch.maps is None else moved(batch.maps),
        spacing=torch.where(choices[2, :, None], batch.spacing.flip(-1), batch.spacing),
    )


def rotate_and_zoom(batch: Batch, generator: torch.Generator) -> Batch:
    """Each slice rotated about its centre and zoomed, both in mm; without maps, which its label no longer has.

    Images are interpolated linearly, with their minimum beyond the border; labels are the nearest pixel's, background
    beyond it.
    """
    draws = torch.rand((2, len(batch.image)), generator=generator, dtype=torch.float64)        # (2, B)
    angles = math.radians(LARGEST_ANGLE) * (2 * draws[0] - 1)
    zooms = (math.log(ZOOMS[0]) + draws[1] * math.log(ZOOMS[1] / ZOOMS[0])).exp()
    label = batch.label[:, None]                                                               # (B, 1, H, W)
    places = source_places(angles, zooms, batch.spacing, tuple(label.shape))                   # (B, H, W, 2)
    floor = batch.image.amin(dim=(2, 3), keepdim=True)                                         # (B, C, 1, 1)
    image = grid_sample(batch.image - floor, places.to(batch.image.dtype), align_corners=False) + floor
    moved = grid_sample(label.float(), places, mode="nearest", align_corners=False)
    return replace(
        batch,
        image=image.contiguous(memory_format=torch.channels_last),
        label=moved[:, 0].to(batch.label.dtype),
        maps=None,
    )


def source_places(angles: Tensor, zooms: Tensor, spacing: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Where the pixels of rotated and zoomed slices lie in the slices: (B, H, W, 2), x then y, -1 to 1 on the device.

    angles in radians and zooms (B,), spacing (B, 2) in mm, shape (B, 1, H, W).
    """
    height, width = spacing[:, 0] * shape[2], spacing[:, 1] * shape[3]                         # (B,) in mm
    turn = torch.stack([angles.cos(), angles.sin()]) / zooms                                   # (2, B)
    cos, sin = turn.float().to(spacing.device, non_blocking=True)
    rows = torch.stack([
        torch.stack([cos, -sin * height / width, torch.zeros_like(cos)], dim=1),
        torch.stack([sin * width / height, cos, torch.zeros_like(cos)], dim=1),
    ], dim=1)                                                                                  # (B, 2, 3)
    return affine_grid(rows, list(shape), align_corners=False)


def augment(batch: Batch, kind: str, *, seed: int, epoch: int, step: int) -> Batch:
    """A training batch as the setting ``--augment`` wants it; by "affine" without maps."""
    if kind == "none":
        return batch
    generator = generator_of(seed, epoch, step)
    batch = flip_and_turn(batch, generator)
    return rotate_and_zoom(batch, generator) if kind == "affine" else batch
