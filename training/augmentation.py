"""Augmentation of training batches, with the maps that the losses need kept right.

Flips and quarter turns move every array, maps included, exactly: the map of a moved label is the moved map, since
distances do not change; where the sides of a pixel differ, a turn exchanges the two spacings. The random choices
depend on seed, epoch and step alone, so that a resumed run repeats them.
"""

import torch
from torch import Tensor

from dataloader import Batch

AUGMENTATIONS = ("none", "flips")


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


def augment(batch: Batch, kind: str, *, seed: int, epoch: int, step: int) -> Batch:
    """A training batch as the setting ``--augment`` wants it."""
    return batch if kind == "none" else flip_and_turn(batch, generator_of(seed, epoch, step))
