"""Losses by name with their variants, and random images for them: what the tests of losses share."""

from functools import partial

import numpy as np
import torch

from boundary_loss import distance, losses
from losses import CONTOUR_LOSSES, REGION_LOSSES

ALL = {**REGION_LOSSES, **CONTOUR_LOSSES}
VARIANTS = ALL | {
    "gdl-authors": partial(losses.GeneralizedDice, "authors"),
    "unet-ce-inverse": partial(losses.DistanceWeightedCrossEntropy, frequency="inverse"),
    "focal-root": partial(losses.Focal, 0.5),
    "hausdorff-one-sided": partial(losses.Hausdorff, one_sided=True),
    "hausdorff-authors": partial(losses.Hausdorff, convention="authors"),
    "ce-authors": partial(losses.CrossEntropy, convention="authors"),
    "focal-authors": partial(losses.Focal, convention="authors"),
    "unet-ce-authors": partial(losses.DistanceWeightedCrossEntropy, convention="authors"),
}


def random_case(shape=(3, 3, 10, 12), seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """Float64 logits (B, K, *spatial) and a label of 2 x 2 blobs; the last image lacks the last class."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    coarse = torch.randint(shape[1], (shape[0], *[n // 2 + 1 for n in shape[2:]]), generator=generator)
    for axis, n in enumerate(shape[2:], start=1):
        coarse = coarse.repeat_interleave(2, dim=axis).narrow(axis, 0, n)
    label = coarse.contiguous()
    label[-1].clamp_(max=shape[1] - 2)
    return logits, label


def target_of(loss: torch.nn.Module, label: torch.Tensor, num_classes: int, spacing=None) -> torch.Tensor:
    """The target that a loss asks for."""
    if loss.target_kind == "label":
        return label
    if loss.target_kind == "phi":
        maps = [distance.distance_maps(image.numpy(), num_classes, spacing) for image in label]
    else:
        kind = loss.map_kind
        maps = [distance.region_wise_map(image.numpy(), num_classes, kind, spacing) for image in label]
    return torch.from_numpy(np.stack(maps))
