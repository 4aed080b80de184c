"""Cross-entropies and the focal loss. All take the label as target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boundary_loss.base import TINY, Batch, Loss, non_negative, one_of, pixel_sum, weighted_mean
from boundary_loss.distance import CONVENTIONS
from boundary_loss.transform import edt, edt_with_phantom

# What each convention adds to the softmax before its logarithm.
LOGARITHMS = {"paper": 0.0, "authors": 1e-10, "authors-region-wise": 1e-15}


class CrossEntropy(Loss):
    """Cross-entropy (Kervadec et al. 2021, section 2): mean over the pixels that carry a selected class.

    Args:
        classes: the classes that count; None: all.
        convention: "paper", or "authors" for their code: the logarithm of softmax + 1e-10, which is at least -23.03; or
            "authors-region-wise" for that of Valverde and Tohka 2022: of softmax + 1e-15.
    """

    def __init__(self, classes: Sequence[int] | None = None, *, convention: str = "paper") -> None:
        super().__init__(classes)
        self.convention = one_of("convention", convention, tuple(LOGARITHMS))

    def compute(self, batch: Batch) -> Tensor:
        return weighted_mean(-_log_probs(batch, self.convention), batch.target)


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
        convention: "paper", or "authors" for their code: the logarithm of softmax + 1e-10, and their signed distances
            in place of D: D - 1, in 2D truncated to an integer, in mm (`signed_distance`).
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
    ) -> None:
        super().__init__(classes)
        self.w0 = non_negative("w0", w0)
        self.sigma = non_negative("sigma", sigma)
        self.frequency = one_of("frequency", frequency, ("class", "inverse"))
        if sigma == 0:
            raise ValueError("sigma: expected a number above 0, found 0")
        self.convention = one_of("convention", convention, CONVENTIONS)

    def compute(self, batch: Batch) -> Tensor:
        target = batch.target
        label = torch.zeros_like(target[:, :1])                                 # (B, 1, *spatial) 0 for no class
        for i in range(target.shape[1]):
            label = label + (i + 1) * target[:, i : i + 1]
        depth = self.depth(label.to(torch.int32), batch.spacing)                # (B, 1, *spatial)
        near = torch.exp(-depth.to(target.dtype).square() / (2.0 * self.sigma**2))
        share = target.flatten(2).mean(dim=2)                                   # (B, C)
        if self.frequency == "inverse":
            share = torch.where(share > 0, 1.0 / share, 0.0)
        of_class = share.view(*share.shape, *[1] * (target.ndim - 2))           # (B, C, 1, 1)
        return weighted_mean(-_log_probs(batch, self.convention), target * (of_class + self.w0 * near))

    def depth(self, label: Tensor, spacing: Sequence[float] | Tensor) -> Tensor:
        """Distance in mm to the nearest pixel of another class (B, 1, *spatial); infinite where there is none."""
        if self.convention == "paper":
            return edt(label, spacing)
        depth = edt_with_phantom(label, spacing) - 1.0
        return depth.trunc() if label.ndim == 4 else depth


class Focal(Loss):
    """Focal loss (Kervadec et al. 2021, section 3.2): mean over the pixels that carry a selected class.

    Args:
        gamma: the power of the error; 0 is cross-entropy.
        classes: the classes that count; None: all.
        convention: as in `CrossEntropy`.
    """

    def __init__(
        self, gamma: float = 2.0, classes: Sequence[int] | None = None, *, convention: str = "paper"
    ) -> None:
        super().__init__(classes)
        self.gamma = non_negative("gamma", gamma)
        self.convention = one_of("convention", convention, tuple(LOGARITHMS))

    def compute(self, batch: Batch) -> Tensor:
        error = -torch.expm1(batch.log_probs)                                   # (B, C, *spatial) 1 - softmax
        error = error if self.gamma >= 1 else error.clamp_min(TINY)
        return weighted_mean(-error.pow(self.gamma) * _log_probs(batch, self.convention), batch.target)


def _log_probs(batch: Batch, convention: str) -> Tensor:
    """Log-softmax (B, C, *spatial); by the authors' conventions that of softmax and a little."""
    return batch.log_probs if convention == "paper" else (batch.probs + LOGARITHMS[convention]).log()
