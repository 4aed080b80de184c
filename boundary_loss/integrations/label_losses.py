"""Losses of labels alone, as nnU-Net calls them: maps are made of the label, on its device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from boundary_loss.authors_region_wise import boundary_map, rectified_map
from boundary_loss.base import Loss, one_of
from boundary_loss.contour import Boundary
from boundary_loss.distance import region_wise_map
from boundary_loss.schedules import Constant, Schedule
from boundary_loss.targets import one_hot

# By which maps are made: of the text, in mm; of the authors' code, in voxels; of the text, over whole volumes.
MAPS = ("paper", "authors-region-wise", "volume")
DEPTH_STEPS = 32767     # of a depth from 0 to 1 as int16


class LabelLoss(nn.Module):
    """The weighted sum of a regional and a contour loss of a label (Kervadec et al. 2021, Eq. 6).

    A class that a label does not have is given the zero map by the boundary loss, and 1 everywhere by region-wise ones.

    Args:
        region: a loss of labels, or None.
        contour: a loss of maps, or None.
        schedule: the weights of the two over the epochs; one without the other weighs 1 in all of them.
        maps: "paper": of the label that comes, in mm. "authors-region-wise": as the code of Valverde and Tohka 2022.
            "volume": rectified region-wise maps whose depth comes with the label, see `depth_channel`; of a label
            without it as "paper".

    Raises:
        ValueError: without a loss, for losses of other targets, and for ignored voxels with the authors' maps.
    """

    def __init__(
        self,
        region: Loss | None,
        contour: Loss | None,
        schedule: Schedule | None = None,
        *,
        maps: str = "paper",
    ) -> None:
        super().__init__()
        if region is None and contour is None:
            raise ValueError("LabelLoss: expected a regional or a contour loss, found neither")
        if region is not None and region.target_kind != "label":
            raise ValueError(f"region: expected a loss of labels, found {type(region).__name__}")
        if contour is not None and contour.target_kind == "label":
            raise ValueError(f"contour: expected a loss of maps, found {type(contour).__name__}")
        self.region, self.contour = region, contour
        self.schedule = schedule or Constant(1.0)
        self.maps = one_of("maps", maps, MAPS)
        if maps == "authors-region-wise" and contour is not None and contour.ignore_index is not None:
            raise ValueError("maps: expected every voxel to have a class with the authors' maps, found an ignore label")
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Take the weights of an epoch, counted from 0."""
        self.weights = (1.0, 1.0)
        if self.region is not None and self.contour is not None:
            self.weights = self.schedule.weights(epoch)

    def forward(self, logits: Tensor, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The loss, a scalar.

        Args:
            logits: (B, K, *spatial) floats.
            target: integers (B, 1, *spatial), or (B, 2, *spatial) with the depth of `depth_channel`.
            spacing: size of a voxel in mm, one number per spatial axis.
        """
        label, depth = target[:, :1], target[:, 1:]
        terms = []
        if self.region is not None:
            terms.append(self.weights[0] * self.region(logits, label, spacing))
        if self.contour is not None and self.weights[1] > 0:
            terms.append(self.weights[1] * self._contour_term(self.contour, logits, label, depth, spacing))
        return torch.stack(terms).sum()

    def _contour_term(
        self, contour: Loss, logits: Tensor, label: Tensor, depth: Tensor, spacing: Sequence[float] | None
    ) -> Tensor:
        num_classes, ignored = logits.shape[1], contour.ignore_index
        if self.maps == "authors-region-wise":
            make = boundary_map if contour.target_kind == "phi" else rectified_map
            return contour(logits, make(one_hot(label, tuple(range(num_classes)), torch.bool)))
        if self.maps == "volume" and depth.shape[1]:
            return contour(logits, map_of_depth(label, depth, num_classes, ignored))
        if isinstance(contour, Boundary):
            return contour.from_labels(logits, label, spacing)
        kind = contour.map_kind or "boundary"
        return contour(logits, region_wise_map(label[:, 0], num_classes, kind, spacing, ignore_index=ignored))


class DeepSupervision(nn.Module):
    """A weighted sum of a loss over the scales of a network with deep supervision.

    A voxel of a coarser scale is larger: its spacing follows from the shapes.

    Args:
        loss: called `loss(logits, target, spacing)` for each scale.
        weights: of the scales, the finest first; one of 0 is left out.
        spacing: size of a voxel of the finest scale in mm, one number per spatial axis.
    """

    def __init__(self, loss: Callable[..., Tensor], weights: Sequence[float], spacing: Sequence[float]) -> None:
        super().__init__()
        self.loss, self.weights, self.spacing = loss, tuple(map(float, weights)), tuple(map(float, spacing))

    def forward(self, logits: Sequence[Tensor] | Tensor, targets: Sequence[Tensor] | Tensor) -> Tensor:
        """The loss of logits and targets, lists of one tensor for each scale; or of the finest scale alone."""
        logits = [logits] if isinstance(logits, Tensor) else logits
        targets = [targets] if isinstance(targets, Tensor) else targets
        finest = targets[0].shape[2:]
        terms = [
            weight * self.loss(scores, target, self.spacing_of(target.shape[2:], finest))
            for weight, scores, target in zip(self.weights, logits, targets, strict=True) if weight
        ]
        return torch.stack(terms).sum()

    def spacing_of(self, shape: Sequence[int], finest: Sequence[int]) -> tuple[float, ...]:
        """Spacing of a scale of that shape, in mm."""
        return tuple(size * whole / part for size, whole, part in zip(self.spacing, finest, shape, strict=True))


def scale_weights(scales: int, *, last: float = 0.0) -> list[float]:
    """nnU-Net's weights of its scales: halved from one to the next, ``last`` for the coarsest; their sum is 1."""
    weights = [0.5**i for i in range(scales)]
    if scales > 1:
        weights[-1] = last
    return [weight / sum(weights) for weight in weights]


def depth_channel(label: Tensor, num_classes: int, spacing: Sequence[float], ignore_index: int | None = None) -> Tensor:
    """D / max D of each voxel's own class over a whole volume, in DEPTH_STEPS: what a rectified map is made of.

    Of a label (X, Y, Z) of integers, in which ignored and padded voxels (negative) have the depth 0: int16 of its
    shape. One channel can be carried through augmentation where K could not.
    """
    known = label.clamp_min(0)
    maps = region_wise_map(known[None], num_classes, "rrw", spacing, ignore_index=ignore_index)[0]  # (K, X, Y, Z)
    depth = -maps.amin(dim=0).nan_to_num_(0.0)
    return (depth.masked_fill_(label < 0, 0.0) * DEPTH_STEPS).round_().to(torch.int16)


def map_of_depth(label: Tensor, depth: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """The rectified map (B, K, *spatial) of a label and its `depth_channel`, both (B, 1, *spatial)."""
    inside = one_hot(label, tuple(range(num_classes)), torch.bool)                  # (B, K, *spatial)
    maps = torch.where(inside, -depth.float() / DEPTH_STEPS, 1.0)
    return maps if ignore_index is None else maps.masked_fill(label == ignore_index, torch.nan)
