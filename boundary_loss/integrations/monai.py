"""The library in MONAI: `SignedDistanceMapd` in a pipeline of dictionary transforms, `MonaiLoss` in a training loop."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import TransformBackends
from torch import Tensor, nn
from torch.nn.functional import interpolate

from boundary_loss.base import Loss
from boundary_loss.distance import distance_maps, region_wise_map

ROUNDING = 1e-3     # of a label that MONAI has resampled to the nearest voxel


class SignedDistanceMapd(MapTransform):
    """Adds the signed distance maps of a label, the target of `Boundary` (Kervadec et al. 2021, Eq. 4), in mm.

    Of a label (1, *spatial), or one-hot (K, *spatial), it makes maps (K, *spatial) under another key. They are a
    `MetaTensor` with the label's affine, so that transforms of space which come after move them with the label: flips
    and quarter turns keep them exact; where one zooms or deforms, put this transform behind it, since distances change
    with the grid. A class that is absent, or fills the image, has the zero map. It is no lazy transform: `Compose`
    carries out what is pending before it.

    Args:
        keys: the labels.
        num_classes: K; of a one-hot label it may be left out.
        map_keys: under which the maps are put; by default the label's key and "_phi".
        spacing: size of a voxel in mm, one number per spatial axis. None: that of the label's metadata, and 1
            each for a label without.
        kind: "signed", or a kind of `region_wise_map` ("rrw", ...).
        ignore_index: the value of voxels whose class is not known; maps are NaN there.
        allow_missing_keys: whether data may lack a key.

    Raises:
        ValueError: for a label of another shape, with a lazy transform pending or with values that are no class, and
            for spacings that do not fit.

    Example:
        >>> import torch
        >>> from boundary_loss.integrations.monai import SignedDistanceMapd
        >>> label = torch.tensor([[[0, 1, 1, 1, 0]]])                   # (1, H, W)
        >>> data = SignedDistanceMapd("label", num_classes=2, spacing=(1.0, 2.0))({"label": label})
        >>> data["label_phi"][1].tolist()
        [[2.0, -2.0, -4.0, -2.0, 2.0]]
    """

    backend = [TransformBackends.TORCH]     # noqa: RUF012 (MONAI's own attribute)

    def __init__(
        self,
        keys: KeysCollection,
        num_classes: int | None = None,
        map_keys: str | Sequence[str] | None = None,
        *,
        spacing: Sequence[float] | None = None,
        kind: str = "signed",
        ignore_index: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        names = [f"{key}_phi" for key in self.keys] if map_keys is None else map_keys
        self.map_keys = (names,) if isinstance(names, str) else tuple(names)
        if len(self.map_keys) != len(self.keys):
            raise ValueError(f"map_keys: expected one for each of {self.keys}, found {self.map_keys}")
        self.num_classes, self.spacing = num_classes, spacing
        self.kind, self.ignore_index = kind, ignore_index

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        found = dict(data)
        for key, map_key in self.key_iterator(found, self.map_keys):
            label = found[key]
            if isinstance(label, MetaTensor) and label.pending_operations:
                raise ValueError(
                    f"{key}: expected no lazy transform pending before SignedDistanceMapd, found "
                    f"{len(label.pending_operations)}; Compose carries them out"
                )
            found[map_key] = self.maps_of(str(key), label)
        return found

    def maps_of(self, key: str, label: Any) -> Tensor:
        """The maps (K, *spatial) of one label, on its device."""
        tensor = plain(label if isinstance(label, Tensor) else torch.as_tensor(np.asarray(label)))
        classes, num_classes = read_classes(key, tensor, self.num_classes)
        spacing = self.spacing or spacing_of(label, classes.ndim)
        if self.kind == "signed":
            maps = distance_maps(classes[None], num_classes, spacing, ignore_index=self.ignore_index)[0]
        else:
            maps = region_wise_map(classes[None], num_classes, self.kind, spacing, ignore_index=self.ignore_index)[0]
        return MetaTensor(maps).copy_meta_from(label) if isinstance(label, MetaTensor) else maps


def read_classes(key: str, label: Tensor, num_classes: int | None) -> tuple[Tensor, int]:
    """Classes (*spatial) int64 and their number, of a label (1, *spatial) or one-hot (K, *spatial)."""
    if label.ndim not in (3, 4):
        raise ValueError(f"{key}: expected a label (C, H, W) or (C, H, W, D), found shape {tuple(label.shape)}")
    channels = len(label)
    if channels > 1:
        if num_classes not in (None, channels):
            raise ValueError(f"{key}: expected 1 or {num_classes} channels, found {channels}")
        if not ((label == 0) | (label == 1)).all() or not (label.sum(dim=0) == 1).all():
            raise ValueError(f"{key}: expected a one-hot label, found voxels with none or several of {channels}")
        return label.argmax(dim=0), channels
    if num_classes is None:
        raise ValueError(f"{key}: expected num_classes beside a label of one channel, found none")
    if not label.is_floating_point():
        return label[0].long(), num_classes
    classes = label[0].round()
    if not ((classes - label[0]).abs() < ROUNDING).all():
        raise ValueError(f"{key}: expected whole numbers, found others")
    return classes.long(), num_classes


def spacing_of(label: Any, ndim: int) -> tuple[float, ...]:
    """The spacing of a label's metadata, of its spatial axes; 1 each for a label without."""
    if not isinstance(label, MetaTensor):
        return (1.0,) * ndim
    pixdim = label.pixdim
    return tuple(float(size) for size in pixdim[:ndim])


class MonaiLoss(nn.Module):
    """A loss of the library as MONAI calls its own: `loss(input, target)`, also with the outputs of deep supervision.

    A target has an axis of channels: a label (B, 1, *spatial), floats too, or one-hot, or maps. DynUNet stacks its
    outputs as (B, heads, K, *spatial), all on the finest grid; others give a list, the finest first. Targets of coarser
    outputs are the nearest voxels of the finest: of maps as well as of labels.

    Args:
        loss: a loss of the library.
        spacing: size of a voxel in mm, for losses whose value depends on it.
        head_weights: of the outputs; None: halved from one to the next, their sum 1.

    Raises:
        ValueError: for a number of weights that is not that of the outputs, and what the loss refuses.

    Example:
        >>> import torch
        >>> from boundary_loss import Boundary
        >>> from boundary_loss.integrations.monai import MonaiLoss
        >>> phi = torch.tensor([[[[-1.0, 1.0]], [[1.0, -1.0]]]])        # (B, K, H, W)
        >>> MonaiLoss(Boundary())(torch.zeros(1, 2, 1, 2), phi)
        tensor(0.)
    """

    def __init__(
        self, loss: Loss, spacing: Sequence[float] | None = None, head_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.loss, self.spacing = loss, spacing
        self.head_weights = None if head_weights is None else tuple(head_weights)

    def forward(self, input: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """The loss of logits (B, K, *spatial), (B, heads, K, *spatial) or a list, and a label or maps."""
        target = plain_target(target, self.loss)
        if isinstance(input, Tensor):
            stacked = input.ndim == target.ndim + 1
            heads = list(plain(input).unbind(dim=1)) if stacked else [plain(input)]
        else:
            heads = [plain(head) for head in input]
        weights = self.head_weights or [0.5**i for i in range(len(heads))]
        if len(weights) != len(heads):
            raise ValueError(f"head_weights: expected {len(heads)}, one per output, found {len(weights)}")
        terms = [weight * self.loss(head, on_grid(target, head), self.spacing)
                 for weight, head in zip(weights, heads, strict=True)]
        return torch.stack(terms).sum() / (1.0 if self.head_weights else sum(weights))


def plain(tensor: Tensor) -> Tensor:
    """A tensor without metadata, which would be carried through every operation."""
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def plain_target(target: Tensor, loss: Loss) -> Tensor:
    """A target as the library takes it: MONAI's labels (B, 1, *spatial) are often floats."""
    target = plain(target)
    if loss.target_kind == "label" and target.shape[1] == 1 and target.is_floating_point():
        return target.long()
    return target


def on_grid(target: Tensor, head: Tensor) -> Tensor:
    """The target on the grid of an output, of the nearest voxels."""
    if target.shape[2:] == head.shape[2:]:
        return target
    floats = target if target.is_floating_point() else target.float()
    return interpolate(floats, tuple(head.shape[2:]), mode="nearest-exact").to(target.dtype)
