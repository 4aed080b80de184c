"""Cross-entropies and the focal loss. All take the label as target.

They are means over pixels and classes that a pixel has; where classes overlap (`Batch.outcomes`), over pixels and all
classes, since the absence of a class counts too: binary cross-entropy. Reduction "none": weights times cross-entropies
(B, C, *spatial), 0 where a pixel has not the class or, where classes overlap, nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from boundary_loss.base import TINY, Batch, Loss, Options, non_negative, one_of, pixel_mean, pixel_sum
from boundary_loss.distance import CONVENTIONS
from boundary_loss.transform import edt, edt_with_phantom

if TYPE_CHECKING:
    from typing import Unpack

# What each convention adds to the softmax before its logarithm.
LOGARITHMS = {"paper": 0.0, "authors": 1e-10, "authors-region-wise": 1e-15}


class CrossEntropy(Loss):
    """Cross-entropy (Kervadec et al. 2021, section 2): mean over the pixels that carry a selected class.

    Args:
        classes: the classes that count; None: all.
        convention: "paper", or "authors" for their code: the logarithm of softmax + 1e-10, which is at least -23.03; or
            "authors-region-wise" for that of Valverde and Tohka 2022: of softmax + 1e-15.
        activation, reduction, ignore_index: as in `Loss`.
    """

    def __init__(
        self, classes: Sequence[int] | None = None, *, convention: str = "paper", **options: Unpack[Options]
    ) -> None:
        super().__init__(classes, **options)
        self.convention = one_of("convention", convention, tuple(LOGARITHMS))

    def compute(self, batch: Batch) -> Tensor:
        outcomes = batch.outcomes
        return self.reduce_weighted(-_log_probs(outcomes, self.convention), outcomes.target, batch)


class WeightedCrossEntropy(Loss):
    """Cross-entropy with a weight for each class (Kervadec et al. 2021, section 1), over the sum of the weights.

    Args:
        weight: a number for each of the K classes; where classes overlap, the absence of one weighs 1. None: inverse
            frequency, the pixels of a class counted over the batch, so that all classes in it weigh the same.
        classes: the classes that count; None: all.
        activation, reduction, ignore_index: as in `Loss`.
    """

    def __init__(
        self,
        weight: Sequence[float] | None = None,
        classes: Sequence[int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(classes, **options)
        if weight is not None and not all(0 <= value < float("inf") for value in weight):
            raise ValueError(f"weight: expected finite numbers of at least 0, found {tuple(weight)}")
        self.weight = None if weight is None else tuple(weight)

    def select(self, num_classes: int) -> tuple[int, ...]:
        if self.weight is not None and len(self.weight) != num_classes:
            raise ValueError(f"weight: expected {num_classes} numbers, one per class, found {len(self.weight)}")
        return super().select(num_classes)

    def compute(self, batch: Batch) -> Tensor:
        outcomes = batch.outcomes
        target, losses = outcomes.target, -outcomes.log_probs
        pixels = pixel_sum(target).sum(dim=0)                                   # (C,)
        weights = 1.0 / pixels.clamp_min(1.0)                                   # (C,)
        if self.weight is not None:
            values = [self.weight[c] for c in batch.classes]
            values += [1.0] * (len(outcomes.classes) - len(values))
            weights = torch.stack([torch.full_like(pixels[0], value) for value in values])
        if self.reduction == "none":
            of_class = weights.view(-1, *[1] * (target.ndim - 2))               # (C, 1, 1)
            return self.reduce_weighted(losses, of_class * target, batch)
        losses = pixel_sum(losses * target).sum(dim=0) / pixels.clamp_min(1.0)  # (C,)
        return self.reduce_weighted(losses, weights * pixels, batch)


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
        convention: "paper", or "authors" for their code: the logarithm of softmax + 1e-10, and their signed distances
            in place of D: D - 1, in 2D truncated to an integer, in mm (`signed_distance`).
        activation, reduction, ignore_index: as in `Loss`.
    """

    uses_spacing = True

    def __init__(
        self,
        w0: float = 10.0,
        sigma: float = 5.0,
        frequency: str = "class",
        classes: Sequence[int] | None = None,
        *,
        convention: str = "paper",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(classes, **options)
        self.w0 = non_negative("w0", w0)
        self.sigma = non_negative("sigma", sigma)
        self.frequency = one_of("frequency", frequency, ("class", "inverse"))
        if sigma == 0:
            raise ValueError("sigma: expected a number above 0, found 0")
        self.convention = one_of("convention", convention, CONVENTIONS)

    def compute(self, batch: Batch) -> Tensor:
        outcomes = batch.outcomes
        target, depth = outcomes.target, self.depth(outcomes)
        near = torch.exp(-depth.to(target.dtype).square() / (2.0 * self.sigma**2))      # (B, 1 or C, *spatial)
        share = pixel_mean(target, batch.ignored)                               # (B, C)
        if self.frequency == "inverse":
            share = torch.where(share > 0, 1.0 / share, 0.0)
        of_class = share.view(*share.shape, *[1] * (target.ndim - 2))           # (B, C, 1, 1)
        weights = target * (of_class + self.w0 * near)                          # (B, C, *spatial)
        return self.reduce_weighted(-_log_probs(outcomes, self.convention), weights, batch)

    def depth(self, batch: Batch) -> Tensor:
        """Distance in mm of a pixel of a class to the nearest that is not; infinite where there is none.

        (B, 1, *spatial) for all classes, or (B, C, *spatial) where they overlap or pixels are ignored.
        """
        inside = batch.target > 0.5                                             # (B, C, *spatial)
        if batch.ignored is not None:
            inside = inside | batch.ignored
        elif batch.exclusive:
            label = torch.zeros_like(inside[:, :1], dtype=torch.int32)          # (B, 1, *spatial) 0 for no class
            for i in range(inside.shape[1]):
                label.add_(inside[:, i : i + 1], alpha=i + 1)
            inside = label
        if self.convention == "paper":
            return edt(inside, batch.spacing)
        depth = edt_with_phantom(inside, batch.spacing) - 1.0
        return depth.trunc() if inside.ndim == 4 else depth


class Focal(Loss):
    """Focal loss (Kervadec et al. 2021, section 3.2): mean over the pixels that carry a selected class.

    Args:
        gamma: the power of the error; 0 is cross-entropy.
        classes: the classes that count; None: all.
        convention: as in `CrossEntropy`.
        activation, reduction, ignore_index: as in `Loss`.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        classes: Sequence[int] | None = None,
        *,
        convention: str = "paper",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(classes, **options)
        self.gamma = non_negative("gamma", gamma)
        self.convention = one_of("convention", convention, tuple(LOGARITHMS))

    def compute(self, batch: Batch) -> Tensor:
        outcomes = batch.outcomes
        error = -torch.expm1(outcomes.log_probs)                                # (B, C, *spatial) 1 - softmax
        error = error if self.gamma >= 1 else error.clamp_min(TINY)
        losses = -error.pow(self.gamma) * _log_probs(outcomes, self.convention)
        return self.reduce_weighted(losses, outcomes.target, batch)


def _log_probs(batch: Batch, convention: str) -> Tensor:
    """Log-softmax (B, C, *spatial); by the authors' conventions that of softmax and a little."""
    return batch.log_probs if convention == "paper" else (batch.probs + LOGARITHMS[convention]).log()
