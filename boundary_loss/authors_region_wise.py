"""Maps of class masks as the code of Valverde and Tohka 2022 makes them in its losses, where it departs from the text.

They are of a batch as it is after augmentation, in voxels, each image by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boundary_loss.transform import edt_with_phantom


def pixel_distances(mask: Tensor) -> Tensor:
    """Distances inside masks (B, K, *spatial) in voxels, exact in float32, since they are roots of integers."""
    return edt_with_phantom(mask, (1.0,) * (mask.ndim - 2)).double().square().round().sqrt().float()


def rectified_map(inside: Tensor) -> Tensor:
    """-D / max D inside each class, 1 outside, of class masks (B, K, *spatial).

    A class that fills the image has SciPy's distances to a voxel outside it; one that is absent has the map 1.
    """
    depth = pixel_distances(inside)                                                 # (B, K, *spatial)
    deepest = depth.amax(dim=tuple(range(2, depth.ndim)), keepdim=True)             # (B, K, 1, 1)
    return torch.where(depth == 0, 1.0, -depth / (deepest + 1e-15))


def boundary_map(inside: Tensor) -> Tensor:
    """-D inside each class, D outside, of class masks (B, K, *spatial).

    An absent class has the distances to the class that is present before it in the batch: the classes of an image come
    one after the other, then those of the next image. 0 where there is none before it.
    """
    to_class, depth = pixel_distances(~inside), pixel_distances(inside)             # (B, K, *spatial)
    present = inside.flatten(2).any(dim=2).flatten()                                # (B K,)
    place = torch.arange(len(present), device=present.device)
    before = torch.where(present, place, -1).cummax(dim=0).values                   # (B K,)
    there = (before >= 0).view(-1, *[1] * (inside.ndim - 2))
    last = torch.where(there, to_class.flatten(0, 1)[before.clamp_min(0)], 0.0)     # (B K, *spatial)
    return last.view_as(to_class) - depth
