"""Validation in 3D: DSC and HD95 of whole volumes, from the masks of their slices."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from boundary_loss.metrics import dsc_from_counts, hd95
from dataloader import Slices, StreamedSlices
from environment.cores import core_count


def volume_metrics(
    val: Slices | StreamedSlices, counts: Tensor, predictions: Tensor, class_names: Sequence[str]
) -> dict[str, float]:
    """Mean 3D DSC and HD95 in mm over cases and foreground classes, and the DSC of each of several classes.

    counts (3, N, K): intersection, prediction, reference; predictions (N, H, W).
    Distances are measured where the predictions are; on the CPU in one thread per core, in compiled code.
    """
    dscs, masks = [], []
    for case, at in val.case_ranges():
        dscs.append(dsc_from_counts(*counts[:, at].sum(1))[1:])                     # (K - 1,)
        spacing = (case.spacing[2], *case.spacing[:2])
        reference = val.label[at].to(predictions.device)                            # (Z, H, W)
        masks += [(predictions[at] == k, reference == k, spacing) for k in range(1, len(class_names))]
    with ThreadPoolExecutor(1 if predictions.is_cuda else core_count()) as pool:
        distances = list(pool.map(lambda parts: hd95(*parts), masks))
    found = {
        "val_dsc_3d": float(np.mean([float(dsc.mean()) for dsc in dscs])),
        "val_hd95_3d_mm": float(np.mean(distances)),
    }
    if len(class_names) > 2:
        of_class = torch.stack(dscs).mean(dim=0).tolist()
        found |= {f"val_dsc_3d_{name}": dsc for name, dsc in zip(class_names[1:], of_class, strict=True)}
    return found
