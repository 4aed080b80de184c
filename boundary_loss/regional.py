"""Losses on regions: cross-entropy, Dice and their relatives. All take the label as target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boundary_loss.base import TINY, Batch, Loss, non_negative, pixel_sum, weighted_mean
from boundary_loss.transform import edt


class CrossEntropy(Loss):
    """Cross-entropy (Kervadec et al. 2021, section 2): mean over the pixels that carry a selected class.

    Args:
        classes: the classes that count; None: all.
    """

    def compute(self, batch: Batch) -> Tensor:
        return weighted_mean(-batch.log_probs, batch.target)


class WeightedCrossEntropy(Loss):
    """Cross-entropy with a weight for each class (Kervadec et al. 2021, section 1), over the sum of the weights.

    Args:
        weight: a number for each of the K classes. None: inverse frequency, the pixels of a class counted over the
            batch, so that all classes in it weigh the same.
        classes: the classes that count; None: all.
    """

    def __init__(self, weight: Sequence[float] | None = None, classes: Sequence[int] | None = None) -> None:
        super().__init__(classes)
        if weight is not None and not all(0 <= value < float("inf") for value in weight):
            raise ValueError(f"weight: expected finite numbers of at least 0, found {tuple(weight)}")
        self.weight = None if weight is None else tuple(weight)

    def select(self, num_classes: int) -> tuple[int, ...]:
        if self.weight is not None and len(self.weight) != num_classes:
            raise ValueError(f"weight: expected {num_classes} numbers, one per class, found {len(self.weight)}")
        return super().select(num_classes)

    def compute(self, batch: Batch) -> Tensor:
        pixels = pixel_sum(batch.target).sum(dim=0)                             # (C,)
        losses = pixel_sum(-batch.log_probs * batch.target).sum(dim=0)          # (C,)
        weights = 1.0 / pixels.clamp_min(1.0)                                   # (C,)
        if self.weight is not None:
            values = [self.weight[c] for c in self.classes or range(len(self.weight))]
            weights = torch.stack([torch.full_like(pixels[0], value) for value in values])
        return weighted_mean(losses / pixels.clamp_min(1.0), weights * pixels)


class DistanceWeightedCrossEntropy(Loss):
    """UNet cross-entropy, heavier near boundaries (Kervadec et al. 2021, section 3.2), over the sum of the weights.

    A pixel of class c weighs w_c + w0 exp(-D^2 / (2 sigma^2)), D its distance in mm to the nearest pixel of another
    class.

    Args:
        w0: the weight at a boundary.
        sigma: the width of the band that weighs more, in mm.
        frequency: "class": w_c is the share of the image that is of class c, as printed; "inverse": one over it, as the
            original UNet intends.
        classes: the classes that count; None: all.
    """

    uses_spacing = True

    def __init__(
        self,
        w0: float = 10.0,
        sigma: float = 5.0,
        frequency: str = "class",
        classes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(classes)
        self.w0 = non_negative("w0", w0)
        self.sigma = non_negative("sigma", sigma)
        if frequency not in ("class", "inverse"):
            raise ValueError(f"frequency: expected class or inverse, found {frequency!r}")
        if sigma == 0:
            raise ValueError("sigma: expected a number above 0, found 0")
        self.frequency = frequency

    def compute(self, batch: Batch) -> Tensor:
        target = batch.target
        label = torch.zeros_like(target[:, :1])                                 # (B, 1, *spatial) 0 for no class
        for i in range(target.shape[1]):
            label = label + (i + 1) * target[:, i : i + 1]
        to_other_class = edt(label.to(torch.int32), batch.spacing)              # (B, 1, *spatial) inf without another
        near = torch.exp(-to_other_class.to(target.dtype).square() / (2.0 * self.sigma**2))
        share = target.flatten(2).mean(dim=2)                                   # (B, C)
        if self.frequency == "inverse":
            share = torch.where(share > 0, 1.0 / share, 0.0)
        of_class = share.view(*share.shape, *[1] * (target.ndim - 2))           # (B, C, 1, 1)
        return weighted_mean(-batch.log_probs, target * (of_class + self.w0 * near))


class Focal(Loss):
    """Focal loss (Kervadec et al. 2021, section 3.2): mean over the pixels that carry a selected class.

    Args:
        gamma: the power of the error; 0 is cross-entropy.
        classes: the classes that count; None: all.
    """

    def __init__(self, gamma: float = 2.0, classes: Sequence[int] | None = None) -> None:
        super().__init__(classes)
        self.gamma = non_negative("gamma", gamma)

    def compute(self, batch: Batch) -> Tensor:
        error = -torch.expm1(batch.log_probs)                                   # (B, C, *spatial) 1 - softmax
        error = error if self.gamma >= 1 else error.clamp_min(TINY)
        return weighted_mean(-error.pow(self.gamma) * batch.log_probs, batch.target)


class Dice(Loss):
    """Soft Dice loss (Ma 2019, slides, Eq. 2 with its smoothing term): per image and class, then the mean.

    Args:
        smooth: added to numerator and denominator.
        classes: the classes that count; None: all, the background too.
    """

    def __init__(self, smooth: float = 1e-5, classes: Sequence[int] | None = None) -> None:
        super().__init__(classes)
        self.smooth = non_negative("smooth", smooth)

    def compute(self, batch: Batch) -> Tensor:
        return 1.0 - _soft_dice(batch, self.smooth)                             # (B, C)


class GeneralizedDice(Loss):
    """Generalised Dice loss (Kervadec et al. 2021, Eq. 1): per image, then the mean.

    Eq. 1 weighs a class by 1 / volume^2, which is undefined in an image without the class.

    Args:
        absent: "largest": an absent class has the largest weight among the image's classes, so that false positives
            there still count (as in MONAI). "authors": 1 / (volume + 1e-10)^2 as in the authors' code, by which
            an image without a class has a loss of 1 whatever the prediction, and next to no gradient.
        classes: the classes that count; None: all, the background too.
    """

    def __init__(self, absent: str = "largest", classes: Sequence[int] | None = None) -> None:
        super().__init__(classes)
        if absent not in ("largest", "authors"):
            raise ValueError(f"absent: expected largest or authors, found {absent!r}")
        self.absent = absent

    def compute(self, batch: Batch) -> Tensor:
        probs, target = batch.probs, batch.target
        volumes = pixel_sum(target)                                             # (B, C)
        weights = self.class_weights(volumes, float(target[0, 0].numel()))      # (B, C)
        overlap = (weights * pixel_sum(probs * target)).sum(dim=1)              # (B,)
        total = (weights * (pixel_sum(probs) + volumes)).sum(dim=1)             # (B,)
        return 1.0 - (2.0 * overlap + 1e-10) / (total + 1e-10)                  # (B,)

    def class_weights(self, volumes: Tensor, pixels: float) -> Tensor:
        """Weights (B, C) of classes with those volumes (B, C), in images of so many pixels."""
        if self.absent == "authors":
            return 1.0 / (volumes + 1e-10).square()
        # Only ratios of weights matter; with 1 for the smallest class present none can underflow.
        smallest = torch.where(volumes > 0, volumes, pixels).amin(dim=1, keepdim=True)      # (B, 1)
        return (smallest / torch.maximum(volumes, smallest)).square()


class _DicePlus(Loss):
    """Dice loss plus weight times another loss on the same classes."""

    def __init__(self, other: Loss, weight: float, classes: Sequence[int] | None) -> None:
        super().__init__(classes)
        self.weight = non_negative("weight", weight)
        self.dice = Dice()
        self.other = other

    def compute(self, batch: Batch) -> Tensor:
        return self.dice.compute(batch).mean() + self.weight * self.other.compute(batch).mean()


class DiceCrossEntropy(_DicePlus):
    """Dice loss plus weight times cross-entropy (Ma 2019, slides, section 4).

    Args:
        weight: the factor of the cross-entropy.
        classes: the classes that count in both; None: all.
    """

    def __init__(self, weight: float = 1.0, classes: Sequence[int] | None = None) -> None:
        super().__init__(CrossEntropy(), weight, classes)


class DiceFocal(_DicePlus):
    """Dice loss plus weight times focal loss (Ma 2019, slides, section 4; Zhu et al. 2019).

    Args:
        weight: the factor of the focal loss.
        gamma: the power of the focal loss.
        classes: the classes that count in both; None: all.
    """

    def __init__(self, weight: float = 1.0, gamma: float = 2.0, classes: Sequence[int] | None = None) -> None:
        super().__init__(Focal(gamma), weight, classes)


class ExponentialLogarithmic(Loss):
    """Powers of -log Dice and of weighted cross-entropy (Ma 2019, slides, Eq. 1 to 3; Wong et al. 2018).

    A class weighs the root of its inverse frequency in the batch.

    Args:
        gamma: the power of both terms.
        dice_weight: the factor of the Dice term.
        ce_weight: the factor of the cross-entropy term.
        smooth: added to numerator and denominator of the Dice.
        classes: the classes that count; None: all.
    """

    def __init__(
        self,
        gamma: float = 0.3,
        dice_weight: float = 0.8,
        ce_weight: float = 0.2,
        smooth: float = 1.0,
        classes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(classes)
        self.gamma = non_negative("gamma", gamma)
        self.dice_weight = non_negative("dice_weight", dice_weight)
        self.ce_weight = non_negative("ce_weight", ce_weight)
        self.smooth = non_negative("smooth", smooth)

    def compute(self, batch: Batch) -> Tensor:
        dice = _soft_dice(batch, self.smooth)                                   # (B, C)
        pixels = pixel_sum(batch.target).sum(dim=0)                             # (C,)
        weights = (pixels.sum() / pixels.clamp_min(1.0)).sqrt()                 # (C,)
        powers = pixel_sum(self.power(-batch.log_probs) * batch.target).sum(dim=0)          # (C,)
        cross = (weights * powers).sum() / pixels.sum().clamp_min(1.0)
        return self.dice_weight * self.power(-dice.log()).mean() + self.ce_weight * cross

    def power(self, base: Tensor) -> Tensor:
        return base.clamp_min(TINY).pow(self.gamma)


class Tversky(Loss):
    """Tversky loss (Salehi et al. 2017, cited by Kervadec et al. 2021): per image and class, then the mean.

    Args:
        alpha: the weight of false positives.
        beta: the weight of false negatives; 0.5 and 0.5 is the Dice loss.
        smooth: added to the denominator.
        classes: the classes that count; None: all, the background too.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1e-5,
        classes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(classes)
        self.alpha = non_negative("alpha", alpha)
        self.beta = non_negative("beta", beta)
        self.smooth = non_negative("smooth", smooth)

    def compute(self, batch: Batch) -> Tensor:
        probs, target = batch.probs, batch.target
        false_positives = pixel_sum(probs * (1.0 - target))                     # (B, C)
        false_negatives = pixel_sum((1.0 - probs) * target)                     # (B, C)
        errors = self.alpha * false_positives + self.beta * false_negatives
        return errors / (pixel_sum(probs * target) + errors + self.smooth)      # (B, C)


class FocalTversky(Tversky):
    """Tversky loss of each class to the power 1 / gamma (Abraham and Khan 2018, cited by Kervadec et al. 2021).

    Args:
        alpha, beta, smooth, classes: as in `Tversky`.
        gamma: the inverse of the power, above 0.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 4 / 3,
        smooth: float = 1e-5,
        classes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(alpha, beta, smooth, classes)
        if not 0 < gamma < float("inf"):
            raise ValueError(f"gamma: expected a finite number above 0, found {gamma}")
        self.gamma = gamma

    def compute(self, batch: Batch) -> Tensor:
        return super().compute(batch).clamp_min(TINY).pow(1.0 / self.gamma)     # (B, C)


def _soft_dice(batch: Batch, smooth: float) -> Tensor:
    """Dice per image and class (B, C), with softmax in place of a mask."""
    probs, target = batch.probs, batch.target
    overlap, volumes = pixel_sum(probs * target), pixel_sum(probs) + pixel_sum(target)
    return (2.0 * overlap + smooth) / (volumes + smooth)
