"""Every loss of the papers, each called `loss(logits, target)` and returning a scalar.

    loss = Boundary()
    loss(logits, phi).backward()

logits: (B, K, H, W) or (B, K, D, H, W), K >= 2. `target_kind` says what the target is: "label", integers
(B, *spatial), or a map (B, K, *spatial): "phi" (`distance.distance_maps`) or "region-wise"
(`distance.region_wise_map` of the kind `map_kind`). `classes` selects classes; None is all of them, and for
the contour losses that skip the background all but class 0. A label outside 0..K-1 belongs to no class.
Softmax and sums are float32, also under autocast; float64 logits stay float64. Wrong shapes, dtypes and
classes raise ValueError. No check looks at a value on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from boundary_loss import distance

_TINY = 1e-7  # floor of the base of a fractional power, whose derivative at 0 is infinite


class _Loss(nn.Module):
    """What all losses share: checks, softmax, selection of classes. A loss adds `compute`."""

    target_kind = "label"
    uses_spacing = False  # whether forward takes the keyword spacing: a sequence, or a tensor (B, ndim), mm
    skips_background = False

    def __init__(self, classes=None, **settings: float) -> None:
        super().__init__()
        self.classes = None if classes is None else tuple(classes)
        if classes is not None and (not self.classes or len(set(self.classes)) < len(self.classes)):
            raise ValueError(f"classes: expected at least one class and none twice, found {self.classes}")
        for name, value in settings.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}: expected a finite number of at least 0, found {value}")
            setattr(self, name, value)

    def forward(self, logits: Tensor, target: Tensor, **settings) -> Tensor:
        _check_tensors(logits, target, self.target_kind)
        classes = self.select(logits.shape[1])
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
            log_probs = _channels(logits.log_softmax(dim=1), classes)  # (B, C, *spatial)
            if self.target_kind == "label":
                target = torch.stack([target == c for c in classes], dim=1)  # (B, C, *spatial)
            else:
                target = _channels(target, classes)  # (B, C, *spatial)
            return self.compute(log_probs, target.to(log_probs.dtype), **settings)

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """The loss from log-softmax and one-hot label, or map, of the selected classes: (B, C, *spatial)."""
        raise NotImplementedError

    def select(self, num_classes: int) -> tuple[int, ...]:
        classes = self.classes or tuple(range(int(self.skips_background), num_classes))
        if min(classes) < 0 or max(classes) >= num_classes:
            raise ValueError(f"classes: expected 0 to {num_classes - 1}, found {classes}")
        return classes


class _SpacedLoss(_Loss):
    """A loss that computes distances: in mm with a spacing, in pixels without."""

    uses_spacing = True

    def forward(self, logits: Tensor, target: Tensor, spacing: distance.Spacing = None) -> Tensor:
        spacing = (1.0,) * (logits.ndim - 2) if spacing is None else spacing
        return super().forward(logits, target, spacing=spacing)


def _check_tensors(logits: Tensor, target: Tensor, kind: str) -> None:
    if not logits.is_floating_point() or logits.ndim not in (4, 5) or logits.shape[1] < 2:
        found = f"{logits.dtype} {tuple(logits.shape)}"
        raise ValueError(f"logits: expected floats (B, K, H, W) or (B, K, D, H, W), K >= 2, found {found}")
    if kind == "label":
        wanted, form = (logits.shape[0], *logits.shape[2:]), "integers"
        fits = not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)
    else:
        wanted, form, fits = tuple(logits.shape), "floats", target.is_floating_point()
    if not fits or tuple(target.shape) != wanted:
        found = f"{target.dtype} {tuple(target.shape)}"
        raise ValueError(f"target: expected a {kind} target of {form} {wanted}, found {found}")


def _channels(tensor: Tensor, classes: tuple[int, ...]) -> Tensor:
    """Channels by number; without an index tensor, whose copy to the device would wait for it."""
    if classes == tuple(range(classes[0], classes[-1] + 1)):
        return tensor[:, classes[0] : classes[-1] + 1]
    return torch.stack([tensor[:, c] for c in classes], dim=1)


def _pixel_sum(tensor: Tensor) -> Tensor:
    return tensor.flatten(2).sum(dim=2)  # (B, C)


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Sum of weights times values over the sum of the weights; 0 where no weight is positive."""
    total = weights.sum()
    return (weights * values).sum() / torch.where(total > 0, total, 1.0)


# Regional losses ----------------------------------------------------------------------------------------


class CrossEntropy(_Loss):
    """Cross-entropy (Kervadec et al. 2021, section 2): mean over the pixels that carry a selected class."""

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        return _weighted_mean(-log_probs, target)


class WeightedCrossEntropy(_Loss):
    """Cross-entropy with a weight for each class (Kervadec et al. 2021, section 1), over the weights' sum.

    weight: a number for each of the K classes. None: inverse frequency, the class's pixels counted over the
    batch, so that all classes in it weigh the same.
    """

    def __init__(self, weight=None, classes=None) -> None:
        super().__init__(classes)
        if weight is not None and not all(0 <= value < float("inf") for value in weight):
            raise ValueError(f"weight: expected finite numbers of at least 0, found {tuple(weight)}")
        self.weight = None if weight is None else tuple(weight)

    def select(self, num_classes: int) -> tuple[int, ...]:
        if self.weight is not None and len(self.weight) != num_classes:
            raise ValueError(f"weight: expected {num_classes} numbers, one a class, found {len(self.weight)}")
        return super().select(num_classes)

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        pixels = _pixel_sum(target).sum(dim=0)  # (C,)
        losses = _pixel_sum(-log_probs * target).sum(dim=0)  # (C,)
        weights = 1.0 / pixels.clamp_min(1.0)  # (C,)
        if self.weight is not None:
            values = [self.weight[c] for c in self.classes or range(len(self.weight))]
            weights = torch.stack([torch.full_like(pixels[0], value) for value in values])  # (C,)
        return _weighted_mean(losses / pixels.clamp_min(1.0), weights * pixels)


class DistanceWeightedCrossEntropy(_SpacedLoss):
    """UNet cross-entropy, heavier near boundaries (Kervadec et al. 2021, section 3.2), over the weights' sum.

    A pixel of class c weighs w_c + w0 exp(-D^2 / (2 sigma^2)), D its distance to the nearest pixel of another
    class. frequency="class": w_c is the share of the image that is of class c, as printed; "inverse": one
    over it, as the original UNet intends.
    """

    def __init__(self, w0=10.0, sigma=5.0, frequency="class", classes=None) -> None:
        super().__init__(classes, w0=w0, sigma=sigma)
        if frequency not in ("class", "inverse"):
            raise ValueError(f"frequency: expected class or inverse, found {frequency!r}")
        if sigma == 0:
            raise ValueError("sigma: expected a number above 0, found 0")
        self.frequency = frequency

    def compute(self, log_probs: Tensor, target: Tensor, spacing: distance.Spacing) -> Tensor:
        label = sum((i + 1) * target[:, i : i + 1] for i in range(target.shape[1]))  # (B, 1, *spatial)
        to_other_class = distance.edt(label.to(torch.int32), spacing)  # (B, 1, *spatial), inf without another
        near = torch.exp(-to_other_class.to(target.dtype).square() / (2.0 * self.sigma**2))
        share = target.flatten(2).mean(dim=2)  # (B, C)
        if self.frequency == "inverse":
            share = torch.where(share > 0, 1.0 / share, 0.0)
        of_class = share.view(*share.shape, *[1] * (target.ndim - 2))  # (B, C, 1, 1)
        return _weighted_mean(-log_probs, target * (of_class + self.w0 * near))


class Focal(_Loss):
    """Focal loss (Kervadec et al. 2021, section 3.2): mean over the pixels that carry a selected class."""

    def __init__(self, gamma=2.0, classes=None) -> None:
        super().__init__(classes, gamma=gamma)

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        error = -torch.expm1(log_probs)  # 1 - s
        error = error if self.gamma >= 1 else error.clamp_min(_TINY)
        return _weighted_mean(-error.pow(self.gamma) * log_probs, target)


class Dice(_Loss):
    """Soft Dice loss (Ma 2019, slides, Eq. 2 with its smoothing term): per image and class, then the mean."""

    def __init__(self, smooth=1e-5, classes=None) -> None:
        super().__init__(classes, smooth=smooth)

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        return (1.0 - _soft_dice(log_probs.exp(), target, self.smooth)).mean()


def _soft_dice(probs: Tensor, target: Tensor, smooth: float) -> Tensor:
    overlap, volumes = _pixel_sum(probs * target), _pixel_sum(probs) + _pixel_sum(target)
    return (2.0 * overlap + smooth) / (volumes + smooth)  # (B, C)


class GeneralizedDice(_Loss):
    """Generalised Dice loss (Kervadec et al. 2021, Eq. 1): per image, then the mean.

    Eq. 1 weighs a class by 1 / volume^2, which an image without the class leaves undefined. absent="largest":
    the largest weight among the image's classes, so that false positives there still count (MONAI's choice).
    absent="authors": the authors' 1 / (volume + 1e-10)^2, under which an image without a class has a loss
    of 1 whatever the prediction, and next to no gradient.
    """

    def __init__(self, absent="largest", classes=None) -> None:
        super().__init__(classes)
        if absent not in ("largest", "authors"):
            raise ValueError(f"absent: expected largest or authors, found {absent!r}")
        self.absent = absent

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        probs = log_probs.exp()
        volumes = _pixel_sum(target)  # (B, C)
        if self.absent == "authors":
            weights = 1.0 / (volumes + 1e-10).square()  # (B, C)
        else:  # only ratios of weights matter; with 1 for the smallest class present none can underflow
            pixels = float(target[0, 0].numel())
            smallest = torch.where(volumes > 0, volumes, pixels).amin(dim=1, keepdim=True)  # (B, 1)
            weights = (smallest / torch.maximum(volumes, smallest)).square()  # (B, C)
        overlap = (weights * _pixel_sum(probs * target)).sum(dim=1)  # (B,)
        total = (weights * (_pixel_sum(probs) + volumes)).sum(dim=1)  # (B,)
        return (1.0 - (2.0 * overlap + 1e-10) / (total + 1e-10)).mean()


class DiceCrossEntropy(_Loss):
    """Dice loss plus weight times cross-entropy (Ma 2019, slides, section 4)."""

    def __init__(self, weight=1.0, classes=None) -> None:
        super().__init__(classes, weight=weight)
        self.dice, self.other = Dice(), CrossEntropy()

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        return self.dice.compute(log_probs, target) + self.weight * self.other.compute(log_probs, target)


class DiceFocal(DiceCrossEntropy):
    """Dice loss plus weight times focal loss (Ma 2019, slides, section 4; Zhu et al. 2019)."""

    def __init__(self, weight=1.0, gamma=2.0, classes=None) -> None:
        super().__init__(weight, classes)
        self.other = Focal(gamma)


class ExponentialLogarithmic(_Loss):
    """Powers of -log Dice and of weighted cross-entropy (Ma 2019, slides, Eq. 1 to 3; Wong et al. 2018).

    A class weighs the root of its inverse frequency in the batch.
    """

    def __init__(self, gamma=0.3, dice_weight=0.8, ce_weight=0.2, smooth=1.0, classes=None) -> None:
        super().__init__(classes, gamma=gamma, dice_weight=dice_weight, ce_weight=ce_weight, smooth=smooth)

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        dice = _soft_dice(log_probs.exp(), target, self.smooth)  # (B, C)
        pixels = _pixel_sum(target).sum(dim=0)  # (C,)
        weights = (pixels.sum() / pixels.clamp_min(1.0)).sqrt()  # (C,)
        powers = _pixel_sum(self.power(-log_probs) * target).sum(dim=0)  # (C,)
        cross = (weights * powers).sum() / pixels.sum().clamp_min(1.0)
        return self.dice_weight * self.power(-dice.log()).mean() + self.ce_weight * cross

    def power(self, base: Tensor) -> Tensor:
        return base.clamp_min(_TINY).pow(self.gamma)


class Tversky(_Loss):
    """Tversky loss (Salehi et al. 2017, cited by Kervadec et al. 2021): per image and class, then the mean.

    alpha weighs false positives, beta false negatives; 0.5 and 0.5 is the Dice loss.
    """

    def __init__(self, alpha=0.3, beta=0.7, smooth=1e-5, classes=None) -> None:
        super().__init__(classes, alpha=alpha, beta=beta, smooth=smooth)

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        return self.deficit(log_probs.exp(), target).mean()

    def deficit(self, probs: Tensor, target: Tensor) -> Tensor:
        false_positives = _pixel_sum(probs * (1.0 - target))
        false_negatives = _pixel_sum((1.0 - probs) * target)
        errors = self.alpha * false_positives + self.beta * false_negatives
        return errors / (_pixel_sum(probs * target) + errors + self.smooth)  # (B, C)


class FocalTversky(Tversky):
    """Tversky loss of each class to the power 1 / gamma (Abraham and Khan 2018, cited by Kervadec et al.)."""

    def __init__(self, alpha=0.3, beta=0.7, gamma=4 / 3, smooth=1e-5, classes=None) -> None:
        super().__init__(alpha, beta, smooth, classes)
        if not 0 < gamma < float("inf"):
            raise ValueError(f"gamma: expected a finite number above 0, found {gamma}")
        self.gamma = gamma

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        return self.deficit(log_probs.exp(), target).clamp_min(_TINY).pow(1.0 / self.gamma).mean()


# Contour losses -----------------------------------------------------------------------------------------


class Boundary(_Loss):
    """Mean of softmax times signed distance (Kervadec et al. 2021, Eq. 5) over images, classes and pixels."""

    target_kind = "phi"
    skips_background = True

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        return (log_probs.exp() * target).mean()


class Hausdorff(_SpacedLoss):
    """Mean of squared error times distances to the power beta (Kervadec et al. 2021, section 3.2).

    Distances are those to the boundary of the reference and, unless one_sided, of the prediction (softmax of
    at least 0.5), on both of its sides; 0 for a mask without a boundary. convention="authors": inside the
    masks only, in pixels, the prediction's cut to integers.
    """

    skips_background = True

    def __init__(self, beta=2.0, one_sided=False, convention="paper", classes=None) -> None:
        super().__init__(classes, beta=beta)
        if convention not in distance.CONVENTIONS:
            raise ValueError(f"convention: expected paper or authors, found {convention!r}")
        self.one_sided, self.convention = one_sided, convention

    def compute(self, log_probs: Tensor, target: Tensor, spacing: distance.Spacing) -> Tensor:
        probs = log_probs.exp()
        powers = self.distances(target > 0, spacing).pow(self.beta)  # (B, C, *spatial)
        if not self.one_sided:
            distances = self.distances(probs.detach() >= 0.5, spacing)  # (B, C, *spatial)
            distances = distances.trunc() if self.convention == "authors" else distances
            powers = powers + distances.pow(self.beta)
        return ((target - probs).square() * powers).mean()

    def distances(self, mask: Tensor, spacing: distance.Spacing) -> Tensor:
        if self.convention == "paper":
            return distance.unsigned_distance(mask, spacing)
        inside = distance.edt(mask, (1.0,) * (mask.ndim - 2))
        return inside.masked_fill(torch.isinf(inside), 0.0)


class RegionWise(_Loss):
    """Mean of softmax times region-wise map (Valverde and Tohka 2022, Eq. 1) over images, classes, pixels."""

    target_kind = "region-wise"
    map_kind = "rrw"

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        return (log_probs.exp() * target).mean()


class RegionWiseSquared(RegionWise):
    """Mean of squared softmax times region-wise map (Valverde and Tohka 2022, Prop. 3).

    With the "hausdorff" map of two classes, half the one-sided Hausdorff loss.
    """

    map_kind = "hausdorff"

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        return (log_probs.exp().square() * target).mean()


class RegionWiseCrossEntropy(RegionWise):
    """Cross-entropy weighted by the RRW map (Valverde and Tohka 2022, section 3.2), over the weights' sum.

    Only the map's value for a pixel's own class counts. It is negative there, and as printed would reward
    errors: the weight is its magnitude.
    """

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        return _weighted_mean(-log_probs, (-target).clamp_min(0.0))


class ActiveContour(_Loss):
    """Active-contour loss (Valverde and Tohka 2022, section 3.2 and Eq. 18): length + region_weight * region.

    Mean over images, foreground classes and pixels. The region is false positives and negatives, the length
    the magnitude of the softmax's gradient by forward differences, in pixels.
    """

    skips_background = True

    def __init__(self, region_weight=1.0, length_weight=1.0, classes=None) -> None:
        super().__init__(classes, region_weight=region_weight, length_weight=length_weight)

    def compute(self, log_probs: Tensor, target: Tensor) -> Tensor:
        probs = log_probs.exp()
        region = probs * (1.0 - target) + (1.0 - probs) * target  # (B, C, *spatial)
        edges = [(probs.narrow(axis, -1, 1), axis) for axis in range(2, probs.ndim)]
        squares = sum(torch.diff(probs, dim=axis, append=edge).square() for edge, axis in edges)
        length = (squares + 1e-12).sqrt()  # (B, C, *spatial)
        return (self.length_weight * length + self.region_weight * region).mean()
