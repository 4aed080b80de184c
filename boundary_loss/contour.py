"""Losses on contours: boundary, Hausdorff, region-wise and active-contour losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from boundary_loss.base import Batch, Loss, Options, non_negative, one_of
from boundary_loss.batch_maps import boundary_distances, signed_distances
from boundary_loss.distance import CONVENTIONS
from boundary_loss.targets import check_logits, check_target
from boundary_loss.transform import Spacing, edt_with_phantom

if TYPE_CHECKING:
    from typing import Unpack


class _SoftmaxTimesMap(Loss):
    """Mean of softmax times map over images, selected classes and pixels; reduction "none": (B, C, *spatial)."""

    def compute(self, batch: Batch) -> Tensor:
        return batch.probs * batch.target  # (B, C, *spatial)


class Boundary(_SoftmaxTimesMap):
    """Mean of softmax times signed distance (Kervadec et al. 2021, Eq. 5) over images, classes and pixels.

    The target is phi, the maps of `distance_maps`, float16 or wider. Negative where the prediction fits: the
    smallest value on an image is that of the reference itself. Reduction "none": (B, C, *spatial).

    Args:
        classes: the classes that count; None: all but the background, class 0.
        activation, reduction, ignore_index: as in `Loss`.

    Raises:
        ValueError: for logits or a target of a wrong shape or dtype.

    Example:
        >>> import torch
        >>> from boundary_loss import Boundary, distance_maps
        >>> label = torch.tensor([[[0, 0, 1, 1, 0, 0]]])                # (B, H, W)
        >>> phi = distance_maps(label, 2, spacing=(1.0, 1.0))           # (B, K, H, W)
        >>> logits = torch.zeros(1, 2, 1, 6)                            # (B, K, H, W)
        >>> Boundary()(logits, phi)                                     # 0.5 (2 + 1 - 1 - 1 + 1 + 2) / 6
        tensor(0.3333)
        >>> Boundary().from_labels(logits, label, spacing=(1.0, 1.0))
        tensor(0.3333)
    """

    target_kind = "phi"
    skips_background = True

    def from_labels(self, logits: Tensor, label: Tensor, spacing: Spacing = None) -> Tensor:
        """The loss of labels, whose maps are made here and now, on their device: for a loop without stored maps.

        Args:
            logits: as in `Loss.forward`.
            label: a label in any of the forms that `Loss.forward` lists, one-hot where classes overlap.
            spacing: size of a voxel in mm, one number per spatial axis or a tensor (B, ndim). None: 1 each.
        """
        check_logits(logits, self.activation)
        check_target(label, logits, "label")
        with torch.autocast(logits.device.type, enabled=False):
            batch = self.read_batch(logits, label, spacing, "label")
            two = batch.exclusive and batch.classes == (0, 1) and batch.scores.shape[1] == 2
            masks = batch.target > 0.5                                                      # (B, C, *spatial)
            phi = signed_distances(masks, batch.spacing, batch.ignored, complementary=two)
            batch = replace(batch, target=phi.to(batch.target.dtype))
            return self.reduce(self.compute(batch), batch)


class Hausdorff(Loss):
    """Mean of squared error times distances to the power beta (Kervadec et al. 2021, section 3.2).

    Distances, in mm, are those to the boundary of the reference and of the prediction (softmax of at least 0.5), on
    both of its sides; 0 for a mask without a boundary. No gradient passes through them. Reduction "none": (B, C,
    *spatial).

    Args:
        beta: the power of the distances.
        one_sided: leave out the distances to the prediction's boundary.
        convention: "paper", or "authors" for their code: distances inside the masks only, in pixels, the prediction's
            truncated to integers; the prediction is the most probable class; a mask that fills the image has the
            distances that SciPy gives it (`signed_distance`).
        classes: the classes that count; None: all but the background, class 0.
        activation, reduction, ignore_index: as in `Loss`.
    """

    skips_background = True
    uses_spacing = True

    def __init__(
        self,
        beta: float = 2.0,
        *,
        one_sided: bool = False,
        convention: str = "paper",
        classes: Sequence[int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(classes, **options)
        self.beta = non_negative("beta", beta)
        self.one_sided = one_sided
        self.convention = one_of("convention", convention, CONVENTIONS)

    def compute(self, batch: Batch) -> Tensor:
        powers = self.distances(batch.target > 0.5, batch).pow(self.beta)               # (B, C, *spatial)
        if not self.one_sided:
            powers = powers + self.predicted_distances(batch).pow(self.beta)
        return (batch.target - batch.probs).square() * powers                           # (B, C, *spatial)

    def distances(self, masks: Tensor, batch: Batch) -> Tensor:
        """Distances that weigh the errors, of masks (B, C, *spatial), in mm or, as the authors', in pixels."""
        if self.convention == "paper":
            return boundary_distances(masks, batch.spacing, batch.ignored)
        pixels = (1.0,) * (masks.ndim - 2)
        if batch.ignored is None:
            return edt_with_phantom(masks, pixels)
        return edt_with_phantom(masks | batch.ignored, pixels).masked_fill(~masks, 0.0)

    def predicted_distances(self, batch: Batch) -> Tensor:
        """`distances` of the prediction's masks (B, C, *spatial)."""
        if self.convention == "paper":
            return self.distances(batch.probs.detach() >= 0.5, batch)
        return self.distances(batch.prediction, batch).trunc()


class RegionWise(_SoftmaxTimesMap):
    """Mean of softmax times region-wise map (Valverde and Tohka 2022, Eq. 1) over images, classes and pixels.

    The target is a map of `region_wise_map`, of the kind "rrw" unless another of the paper's losses is wanted.
    Reduction "none": (B, C, *spatial).

    Args:
        classes: the classes that count; None: all, the background too.
        activation, reduction, ignore_index: as in `Loss`.
    """

    target_kind = "region-wise"
    map_kind = "rrw"


class RegionWiseSquared(RegionWise):
    """Mean of squared softmax times region-wise map (Valverde and Tohka 2022, Prop. 3).

    With the "hausdorff" map of two classes, half the one-sided Hausdorff loss.
    """

    map_kind = "hausdorff"

    def compute(self, batch: Batch) -> Tensor:
        return batch.probs.square() * batch.target  # (B, C, *spatial)


class RegionWiseCrossEntropy(RegionWise):
    """Cross-entropy weighted by the RRW map (Valverde and Tohka 2022, section 3.2), over the sum of the weights.

    Only the map's value for a pixel's own class counts. It is negative there, and as printed would reward
    errors: the weight is its magnitude. Of overlapping classes, whose absence counts too, the positive value outside
    is the weight of that. Reduction "none": weights times cross-entropies (B, C, *spatial).
    """

    def compute(self, batch: Batch) -> Tensor:
        inside = (-batch.target).clamp_min(0.0)                                 # (B, C, *spatial)
        weights = inside if batch.exclusive else torch.cat([inside, batch.target.clamp_min(0.0)], dim=1)
        return self.reduce_weighted(-batch.outcomes.log_probs, weights, batch)


class ActiveContour(Loss):
    """Active-contour loss (Valverde and Tohka 2022, section 3.2 and Eq. 18): length plus region.

    Mean over images, selected classes and pixels. The region is false positives and negatives, the length the
    magnitude of the softmax's gradient by forward differences, in pixels. Reduction "none": (B, C, *spatial).

    Args:
        region_weight: the factor of the region.
        length_weight: the factor of the length.
        classes: the classes that count; None: all but the background, class 0.
        activation, reduction, ignore_index: as in `Loss`.
    """

    skips_background = True

    def __init__(
        self,
        region_weight: float = 1.0,
        length_weight: float = 1.0,
        classes: Sequence[int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(classes, **options)
        self.region_weight = non_negative("region_weight", region_weight)
        self.length_weight = non_negative("length_weight", length_weight)

    def compute(self, batch: Batch) -> Tensor:
        probs, target = batch.probs, batch.target
        region = probs * (1.0 - target) + (1.0 - probs) * target        # (B, C, *spatial)
        squares = probs.new_zeros(())
        for axis in range(2, probs.ndim):
            edge = probs.narrow(axis, -1, 1)                            # beyond the last pixel nothing changes
            steps = torch.diff(probs, dim=axis, append=edge)            # (B, C, *spatial)
            if batch.ignored is not None:                               # nor beyond the last that counts
                steps = steps.masked_fill(batch.ignored | batch.ignored.roll(-1, axis), 0.0)
            squares = squares + steps.square()
        length = (squares + 1e-12).sqrt()                               # (B, C, *spatial)
        return self.length_weight * length + self.region_weight * region
