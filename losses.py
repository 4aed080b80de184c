"""What a run can be trained with: losses by name, their weighted sum (Eq. 6), and the map that they want."""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from boundary_loss import (
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
    Loss,
    RegionWise,
    RegionWiseCrossEntropy,
    RegionWiseSquared,
    Schedule,
    Tversky,
    WeightedCrossEntropy,
)

REGION_LOSSES: dict[str, type[Loss]] = {
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

CONTOUR_LOSSES: dict[str, type[Loss]] = {
    "boundary": Boundary,
    "hausdorff": Hausdorff,
    "region-wise": RegionWise,
    "rrw-ce": RegionWiseCrossEntropy,
    "region-wise-squared": RegionWiseSquared,
    "active-contour": ActiveContour,
}


class Objective(nn.Module):
    """The weighted sum of a regional and a contour loss, either of which may be absent (Eq. 6).

    `region` and `contour` are names of the tables above, or "none"; `options` has keyword arguments of losses by name;
    `contour_alone` is the weight of a contour loss without a regional one, `region_factor` multiplies the regional
    weights; voxels with the label `ignore_index` count in neither loss.
    """

    def __init__(
        self, region: str, contour: str, options: Mapping[str, Mapping], *, contour_alone: float = 1.0,
        region_factor: float = 1.0, ignore_index: int | None = None,
    ):
        super().__init__()
        self.contour_alone, self.region_factor, self.ignore_index = contour_alone, region_factor, ignore_index
        self.region, self.contour = (
            None if name == "none" else table[name](**options.get(name, {}), ignore_index=ignore_index)
            for name, table in ((region, REGION_LOSSES), (contour, CONTOUR_LOSSES))
        )

    def terms(self, logits: Tensor, label: Tensor, maps: Tensor | None, spacing: Tensor) -> tuple[Tensor, Tensor]:
        """The two losses; an absent one is NaN, as in the log.

        logits (B, K, H, W), label (B, H, W), maps (B, K, H, W) of the kind that the losses want, spacing (B, 2) in mm.
        """
        if maps is not None and self.ignore_index is not None:
            maps = maps.masked_fill((label == self.ignore_index)[:, None], math.nan)    # stored as 0
        target = {"label": label, "phi": maps, "region-wise": maps}
        return tuple(
            loss(logits, target[loss.target_kind], spacing) if loss else logits.new_full((), math.nan)
            for loss in (self.region, self.contour)
        )

    def weigh(self, terms: tuple[Tensor, Tensor], weights: tuple[float, float]) -> Tensor:
        """The sum of the terms of the losses that are there, each times its weight."""
        parts = [w * t for w, t, loss in zip(weights, terms, (self.region, self.contour), strict=True) if loss]
        return sum(parts)

    def weights(self, schedule: Schedule, epoch: int) -> tuple[float, float]:
        """The weights by the schedule; those of a loss without the other do not change over the epochs."""
        if self.region is None:
            return 0.0, self.contour_alone
        region, contour = (1.0, 0.0) if self.contour is None else schedule.weights(epoch)
        return self.region_factor * region, contour

    def map_name(self, *, maps: str, region_wise: str | None) -> str | None:
        """The map that the losses need beside the labels, as ``part_files`` names it; None where they need none.

        ``maps``: "2d" or "3d", within the slice or the volume. ``region_wise``: a kind, by default the loss's own.
        """
        kinds = {loss.target_kind: loss for loss in (self.region, self.contour) if loss}
        if "phi" in kinds:
            return f"phi{maps}"
        if "region-wise" in kinds:
            kind = region_wise or kinds["region-wise"].map_kind
            return kind if maps == "2d" else f"{kind}-{maps}"
        return None
