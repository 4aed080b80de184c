"""Maps of the labels of one batch, as the code of the region-wise paper makes them in its losses.

They are of the batch as it is after augmentation, in pixels, each slice by itself; docs/FIDELITY.md says in what they
depart from Valverde and Tohka 2022.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from boundary_loss.authors_region_wise import boundary_map, rectified_map
from raw_data.volumes import IGNORED

# The setting --distance-map by which maps are made of batches.
MADE_OF_BATCHES = "authors-region-wise"

MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "phi2d": boundary_map, "boundary": boundary_map, "rrw": rectified_map,
}


def maps_of_batch(label: Tensor, num_classes: int, name: str) -> Tensor:
    """The map ``name`` of MAPS of labels (B, H, W), (B, K, H, W) float32 on their device; 0 where they are IGNORED."""
    ignored = (label == IGNORED)[:, None]                                           # (B, 1, H, W)
    known = torch.where(label == IGNORED, 0, label)                                 # (B, H, W)
    inside = torch.stack([known == k for k in range(num_classes)], dim=1)           # (B, K, H, W)
    return MAPS[name](inside).masked_fill(ignored, 0.0)
