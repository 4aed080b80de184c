"""What a run minimises: a regional and a contour loss, and the map that they want beside the labels."""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from boundary_loss.losses import (
    ActiveContour,
    Boundary,
    CrossEntropy,
    Dice,
    DiceCrossEntropy,
    DiceFocal,
    DistanceWeightedCrossEntropy,
    ExponentialLogarithmic,
    Focal,
    FocalTversky,
    GeneralizedDice,
    Hausdorff,
    RegionWise,
    RegionWiseCrossEntropy,
    RegionWiseSquared,
    Tversky,
    WeightedCrossEntropy,
)

REGION_LOSSES = {
    "gdl": GeneralizedDice,
    "dice": Dice,
    "ce": CrossEntropy,
    "wce": WeightedCrossEntropy,
    "unet-ce": DistanceWeightedCrossEntropy,
    "focal": Focal,
    "dice-ce": DiceCrossEntropy,
    "dice-focal": DiceFocal,
    "exp-log": ExponentialLogarithmic,
    "tversky": Tversky,
    "focal-tversky": FocalTversky,
}

CONTOUR_LOSSES = {
    "boundary": Boundary,
    "hausdorff": Hausdorff,
    "region-wise": RegionWise,
    "rrw-ce": RegionWiseCrossEntropy,
    "region-wise-squared": RegionWiseSquared,
    "active-contour": ActiveContour,
}


class Objective(nn.Module):
    """The weighted sum of a regional and a contour loss, either of which may be absent (Eq. 6).

    ``options`` has keyword arguments of losses by their names.
    """

    def __init__(self, region: str, contour: str, options: Mapping[str, Mapping]):
        super().__init__()
        self.region = None if region == "none" else REGION_LOSSES[region](**options.get(region, {}))
        self.contour = None if contour == "none" else CONTOUR_LOSSES[contour](**options.get(contour, {}))

    def terms(self, logits: Tensor, label: Tensor, maps: Tensor | None, spacing: Tensor) -> tuple[Tensor, Tensor]:
        """The two losses; an absent one is NaN, as in the log.

        logits (B, K, H, W), label (B, H, W), maps (B, K, H, W) of the kind that the losses want, spacing (B, 2) in mm.
        """
        target = {"label": label, "phi": maps, "region-wise": maps}
        return tuple(
            self.term(loss, logits, target[loss.target_kind], spacing) if loss else logits.new_full((), math.nan)
            for loss in (self.region, self.contour)
        )

    @staticmethod
    def term(loss: nn.Module, logits: Tensor, target: Tensor, spacing: Tensor) -> Tensor:
        return loss(logits, target, spacing=spacing) if loss.uses_spacing else loss(logits, target)

    def weigh(self, terms: tuple[Tensor, Tensor], weights: tuple[float, float]) -> Tensor:
        parts = [w * t for w, t, loss in zip(weights, terms, (self.region, self.contour), strict=True) if loss]
        return sum(parts)

    def weights(self, schedule, epoch: int) -> tuple[float, float]:
        """The schedule's weights; a loss that stands alone has weight 1."""
        if self.region is None or self.contour is None:
            return float(self.region is not None), float(self.contour is not None)
        return schedule.weights(epoch)

    def map_name(self, *, phi: str, region_wise: str | None) -> str | None:
        """The map that the losses need beside the labels: ``phi``, a region-wise kind (by default the loss's own), or
        None where they need none."""
        kinds = {loss.target_kind: loss for loss in (self.region, self.contour) if loss}
        if "phi" in kinds:
            return phi
        if "region-wise" in kinds:
            return region_wise or kinds["region-wise"].map_kind
        return None
