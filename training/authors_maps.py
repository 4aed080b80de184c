"""Maps of the labels of one batch, as the code of the region-wise paper makes them in its losses.

They are of the batch as it is after augmentation, in pixels, each slice by itself; docs/FIDELITY.md says in what they
depart from Valverde and Tohka 2022.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from boundary_loss.transform import edt_with_phantom
from raw_data.volumes import IGNORED

# The setting --distance-map by which maps are made of batches.
MADE_OF_BATCHES = "authors-region-wise"
PIXELS = (1.0, 1.0)


def pixel_distances(mask: Tensor) -> Tensor:
    """Distances inside masks (B, K, H, W) in pixels, float32: to the last digit, since they are roots of integers."""
    return edt_with_phantom(mask, PIXELS).double().square().round().sqrt().float()


def rectified_map(inside: Tensor) -> Tensor:
    """-D / max D inside each class, 1 outside, of class masks (B, K, H, W).

    A class that fills the slice has SciPy's distances to a pixel outside it; one that is absent has the map 1.
    """
    depth = pixel_distances(inside)                                                 # (B, K, H, W)
    deepest = depth.amax(dim=(2, 3), keepdim=True)                                  # (B, K, 1, 1)
    return torch.where(depth == 0, 1.0, -depth / (deepest + 1e-15))


def boundary_map(inside: Tensor) -> Tensor:
    """-D inside each class, D outside, of class masks (B, K, H, W).

    An absent class has the distances to the class that is present before it in the batch: the classes of an image come
    one after the other, then those of the next image. 0 where there is none before it.
    """
    to_class, depth = pixel_distances(~inside), pixel_distances(inside)             # (B, K, H, W)
    present = inside.flatten(2).any(dim=2).flatten()                                # (B K,)
    place = torch.arange(len(present), device=present.device)
    before = torch.where(present, place, -1).cummax(dim=0).values                   # (B K,)
    there = (before >= 0).view(-1, 1, 1)
    last = torch.where(there, to_class.flatten(0, 1)[before.clamp_min(0)], 0.0)     # (B K, H, W)
    return last.view_as(to_class) - depth


MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "phi2d": boundary_map, "boundary": boundary_map, "rrw": rectified_map,
}


def maps_of_batch(label: Tensor, num_classes: int, name: str) -> Tensor:
    """The map ``name`` of MAPS of labels (B, H, W), (B, K, H, W) float32 on their device; 0 where they are IGNORED."""
    ignored = (label == IGNORED)[:, None]                                           # (B, 1, H, W)
    known = torch.where(label == IGNORED, 0, label)                                 # (B, H, W)
    inside = torch.stack([known == k for k in range(num_classes)], dim=1)           # (B, K, H, W)
    return MAPS[name](inside).masked_fill(ignored, 0.0)
