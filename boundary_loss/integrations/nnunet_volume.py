"""Depths of whole volumes, carried through nnU-Net's augmentation beside the label (Valverde and Tohka 2022, Eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from boundary_loss.integrations.label_losses import depth_channel


class DepthVolumes:
    """A data set of nnU-Net whose labels have a second channel: `depth_channel` of the whole volume.

    Each volume's is made once in every process, and kept: 2 bytes per voxel.

    Args:
        dataset: the one of labels alone.
        num_classes: K.
        spacing: of the configuration, in mm; of a 2D one two numbers, whose slices keep each volume's own distance.
        first_axis: of the original volume, that is the first of the preprocessed one.
        ignore_index: the label of voxels whose class is not known.
    """

    def __init__(
        self, dataset: Any, num_classes: int, spacing: Sequence[float], first_axis: int,
        ignore_index: int | None = None,
    ) -> None:
        self.dataset, self.num_classes = dataset, num_classes
        self.spacing, self.first_axis, self.ignore_index = tuple(spacing), first_axis, ignore_index
        self._depths: dict[str, np.ndarray] = {}

    @property
    def identifiers(self) -> list[str]:
        return self.dataset.identifiers

    def load_case(self, identifier: str) -> tuple:
        """data, label and depth (2, X, Y, Z) int16, segmentation of the previous stage, properties."""
        data, label, previous, properties = self.dataset.load_case(identifier)
        label = np.asarray(label[:], dtype=np.int16)                                # (1, X, Y, Z)
        if identifier not in self._depths:
            spacing = self.spacing
            if len(spacing) == 2:
                spacing = (properties["spacing"][self.first_axis], *spacing)
            found = depth_channel(torch.from_numpy(label[0]), self.num_classes, spacing, self.ignore_index)
            self._depths[identifier] = found.numpy()
        return data, np.concatenate([label, self._depths[identifier][None]]), previous, properties


class DepthTransform:
    """nnU-Net's training transforms of an image, its label and the depth that is the label's second channel.

    The depth moves as an image does, linearly, but is changed by no transform of intensities. It comes back as
    the second channel of each scale of the label, of the nearest voxel at the coarser ones.
    """

    def __init__(self, transforms: Any) -> None:
        self.transforms = transforms

    def __call__(self, image: Tensor, segmentation: Tensor) -> dict:
        label, depth = segmentation[:1], segmentation[1:2].clamp_min(0).float()     # padded: -1
        label = torch.cat([label, segmentation[2:]])                                # that of the previous stage
        found = self.transforms(image=image, segmentation=label, regression_target=depth)
        depth, labels = found.pop("regression_target"), found["segmentation"]
        if isinstance(labels, Tensor):
            return found | {"segmentation": _beside(labels, depth)}
        return found | {"segmentation": [_beside(label, depth) for label in labels]}


def _beside(label: Tensor, depth: Tensor) -> Tensor:
    """A label (1, *spatial) and the depth on its grid, (2, *spatial) int16."""
    if depth.shape[1:] != label.shape[1:]:
        depth = interpolate(depth[None], tuple(label.shape[1:]), mode="nearest-exact")[0]
    return torch.cat([label.to(torch.int16), depth.round().to(torch.int16)])
