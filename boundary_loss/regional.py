"""Losses on the overlap of regions: Dice and its relatives. All take the label as target.

Reduction "none" gives one value per image and class (B, C), of the generalised Dice loss one per image (B,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from boundary_loss.base import TINY, Batch, Loss, Options, non_negative, one_of, pixel_sum
from boundary_loss.cross_entropy import CrossEntropy, Focal
from boundary_loss.distance import CONVENTIONS

if TYPE_CHECKING:
    from typing import Unpack


class Dice(Loss):
    """Soft Dice loss (Ma 2019, slides, Eq. 2 with its smoothing term): per image and class, then the mean.

    Args:
        smooth: added to numerator and denominator.
        classes: the classes that count; None: all, the background too.
        convention: "paper", or "authors" for the code of Valverde and Tohka 2022: 1e-6 is added to the denominator
            alone, so that a class which an image does not have costs 1 whatever the prediction.
        activation, reduction, ignore_index: as in `Loss`.
    """

    def __init__(
        self,
        smooth: float = 1e-5,
        classes: Sequence[int] | None = None,
        *,
        convention: str = "paper",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(classes, **options)
        self.smooth = non_negative("smooth", smooth)
        self.convention = one_of("convention", convention, CONVENTIONS)

    def compute(self, batch: Batch) -> Tensor:
        if self.convention == "authors":
            return 1.0 - _soft_dice(batch, 0.0, below=1e-6)                     # (B, C)
        return 1.0 - _soft_dice(batch, self.smooth)                             # (B, C)


class GeneralizedDice(Loss):
    """Generalised Dice loss (Kervadec et al. 2021, Eq. 1): per image, then the mean.

    Eq. 1 weighs a class by 1 / volume^2, which is undefined in an image without the class.

    Args:
        absent: "largest": an absent class has the largest weight among the image's classes, so that false positives
            there still count (as in MONAI). "authors": 1 / (volume + 1e-10)^2 as in the authors' code, by which
            an image without a class has a loss of 1 whatever the prediction, and next to no gradient.
        classes: the classes that count; None: all, the background too.
        activation, reduction, ignore_index: as in `Loss`.
    """

    def __init__(
        self, absent: str = "largest", classes: Sequence[int] | None = None, **options: Unpack[Options]
    ) -> None:
        super().__init__(classes, **options)
        self.absent = one_of("absent", absent, ("largest", "authors"))

    def compute(self, batch: Batch) -> Tensor:
        probs, target = batch.probs, batch.target
        volumes = pixel_sum(target)                                             # (B, C)
        weights = self.class_weights(volumes, float(target[0, 0].numel()))      # (B, C)
        overlap = (weights * pixel_sum(probs * target)).sum(dim=1)              # (B,)
        total = (weights * (pixel_sum(probs) + volumes)).sum(dim=1)             # (B,)
        # The authors add 1e-10 to the overlap before they double it: seen in float64 where all classes are large.
        tiny = 2e-10 if self.absent == "authors" else 1e-10
        return 1.0 - (2.0 * overlap + tiny) / (total + 1e-10)                   # (B,)

    def class_weights(self, volumes: Tensor, pixels: float) -> Tensor:
        """Weights (B, C) of classes with those volumes (B, C), in images of so many pixels."""
        if self.absent == "authors":
            return 1.0 / (volumes + 1e-10).square()
        # Only ratios of weights matter; with 1 for the smallest class present none can underflow.
        smallest = torch.where(volumes > 0, volumes, pixels).amin(dim=1, keepdim=True)      # (B, 1)
        return (smallest / torch.maximum(volumes, smallest)).square()


class _DicePlus(Loss):
    """Dice loss plus weight times another loss on the same classes.

    Reduction "none": the Dice losses (B, C), to each of which the other term is added, a mean over the batch.
    """

    def __init__(
        self, other: Loss, weight: float, classes: Sequence[int] | None, **options: Unpack[Options]
    ) -> None:
        super().__init__(classes, **options)
        self.weight = non_negative("weight", weight)
        self.dice = Dice()
        self.other = other

    def compute(self, batch: Batch) -> Tensor:
        return self.reduce(self.dice.compute(batch), batch) + self.weight * self.other.compute(batch)


class DiceCrossEntropy(_DicePlus):
    """Dice loss plus weight times cross-entropy (Ma 2019, slides, section 4).

    Args:
        weight: the factor of the cross-entropy.
        classes: the classes that count in both; None: all.
        activation, reduction, ignore_index: as in `Loss`.
    """

    def __init__(
        self, weight: float = 1.0, classes: Sequence[int] | None = None, **options: Unpack[Options]
    ) -> None:
        super().__init__(CrossEntropy(), weight, classes, **options)


class DiceFocal(_DicePlus):
    """Dice loss plus weight times focal loss (Ma 2019, slides, section 4; Zhu et al. 2019).

    Args:
        weight: the factor of the focal loss.
        gamma: the power of the focal loss.
        classes: the classes that count in both; None: all.
        activation, reduction, ignore_index: as in `Loss`.
    """

    def __init__(
        self,
        weight: float = 1.0,
        gamma: float = 2.0,
        classes: Sequence[int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(Focal(gamma), weight, classes, **options)


class ExponentialLogarithmic(Loss):
    """Powers of -log Dice and of weighted cross-entropy (Ma 2019, slides, Eq. 1 to 3; Wong et al. 2018).

    A class weighs the root of its inverse frequency in the batch. Reduction "none": (B, C), the term of the
    cross-entropy added, a mean over the batch.

    Args:
        gamma: the power of both terms.
        dice_weight: the factor of the Dice term.
        ce_weight: the factor of the cross-entropy term.
        smooth: added to numerator and denominator of the Dice.
        classes: the classes that count; None: all.
        activation, reduction, ignore_index: as in `Loss`.
    """

    def __init__(
        self,
        gamma: float = 0.3,
        dice_weight: float = 0.8,
        ce_weight: float = 0.2,
        smooth: float = 1.0,
        classes: Sequence[int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(classes, **options)
        self.gamma = non_negative("gamma", gamma)
        self.dice_weight = non_negative("dice_weight", dice_weight)
        self.ce_weight = non_negative("ce_weight", ce_weight)
        self.smooth = non_negative("smooth", smooth)

    def compute(self, batch: Batch) -> Tensor:
        dice = self.power(-_soft_dice(batch, self.smooth).log())                # (B, C)
        outcomes = batch.outcomes
        pixels = pixel_sum(outcomes.target).sum(dim=0)                          # (C,)
        weights = (pixels.sum() / pixels.clamp_min(1.0)).sqrt()                 # (C,)
        powers = pixel_sum(self.power(-outcomes.log_probs) * outcomes.target).sum(dim=0)    # (C,)
        cross = (weights * powers).sum() / pixels.sum().clamp_min(1.0)
        return self.dice_weight * self.reduce(dice, batch) + self.ce_weight * cross

    def power(self, base: Tensor) -> Tensor:
        return base.clamp_min(TINY).pow(self.gamma)


class Tversky(Loss):
    """Tversky loss (Salehi et al. 2017, cited by Kervadec et al. 2021): per image and class, then the mean.

    Args:
        alpha: the weight of false positives.
        beta: the weight of false negatives; 0.5 and 0.5 is the Dice loss.
        smooth: added to the denominator.
        classes: the classes that count; None: all, the background too.
        activation, reduction, ignore_index: as in `Loss`.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1e-5,
        classes: Sequence[int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(classes, **options)
        self.alpha = non_negative("alpha", alpha)
        self.beta = non_negative("beta", beta)
        self.smooth = non_negative("smooth", smooth)

    def compute(self, batch: Batch) -> Tensor:
        probs, target = batch.probs, batch.target
        false_positives = pixel_sum(probs * (1.0 - target))                     # (B, C)
        false_negatives = pixel_sum((1.0 - probs) * target)                     # (B, C)
        errors = self.alpha * false_positives + self.beta * false_negatives
        return errors / _not_zero(pixel_sum(probs * target) + errors + self.smooth)         # (B, C)


class FocalTversky(Tversky):
    """Tversky loss of each class to the power 1 / gamma (Abraham and Khan 2018, cited by Kervadec et al. 2021).

    Args:
        alpha, beta, smooth, classes, activation, reduction, ignore_index: as in `Tversky`.
        gamma: the inverse of the power, above 0.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 4 / 3,
        smooth: float = 1e-5,
        classes: Sequence[int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(alpha, beta, smooth, classes, **options)
        if not 0 < gamma < float("inf"):
            raise ValueError(f"gamma: expected a finite number above 0, found {gamma}")
        self.gamma = gamma

    def compute(self, batch: Batch) -> Tensor:
        return super().compute(batch).clamp_min(TINY).pow(1.0 / self.gamma)     # (B, C)


def _soft_dice(batch: Batch, smooth: float, *, below: float | None = None) -> Tensor:
    """Dice per image and class (B, C), with softmax in place of a mask; ``below`` is added to the denominator."""
    probs, target = batch.probs, batch.target
    overlap, volumes = pixel_sum(probs * target), pixel_sum(probs) + pixel_sum(target)
    overlap, volumes = 2.0 * overlap + smooth, volumes + (smooth if below is None else below)
    return torch.where(volumes == 0, 1.0, overlap) / _not_zero(volumes)


def _not_zero(total: Tensor) -> Tensor:
    """The total, 1 where it is 0: nothing was predicted or there, nothing smoothed."""
    return torch.where(total == 0, 1.0, total)
