"""What the epoch under way has gathered: the losses of its steps and the overlaps of its slices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from boundary_loss.metrics import dsc_from_counts
from training.settings import POOLED_CASES

STEP_VALUES = ("loss", "region", "contour", "gradient norm")


@dataclass
class EpochTotals:
    """Sums of one epoch on the device; allocated whole, so that memory does not grow step by step."""

    steps: Tensor       # (S, 4) float32: STEP_VALUES of each step
    counts: Tensor      # (3, N, K) int64: intersection, prediction, reference of each slice
    n_steps: int = 0
    n_slices: int = 0
    seconds: float = 0.0    # of training

    @staticmethod
    def empty(n_slices: int, batch_size: int, num_classes: int, device: torch.device) -> "EpochTotals":
        steps = torch.zeros((math.ceil(n_slices / batch_size), len(STEP_VALUES)), device=device)
        return EpochTotals(steps, torch.zeros((3, n_slices, num_classes), dtype=torch.int64, device=device))

    def add(self, values: Sequence[Tensor], counts: Sequence[Tensor]) -> None:
        """Add one step: its STEP_VALUES, each of shape (), and its counts, each (B, K)."""
        end = self.n_slices + len(counts[0])
        self.steps[self.n_steps] = torch.stack([value.detach().to(self.steps.dtype) for value in values])
        self.counts[:, self.n_slices : end] = torch.stack(tuple(counts))
        self.n_steps, self.n_slices = self.n_steps + 1, end

    def means(self, batch_size: int) -> Tensor:
        """Means of STEP_VALUES over the slices, (4,), on the host."""
        sizes = torch.tensor([len(part) for part in torch.arange(self.n_slices).split(batch_size)])
        return (self.steps.cpu() * sizes[:, None]).sum(0) / self.n_slices

    def slice_dsc(self) -> float:
        """Mean DSC over slices and foreground classes."""
        return slice_dsc(self.counts)

    def pooled_dsc(self) -> float:
        """DSC over all pixels of POOLED_CASES consecutive slices, mean over these batches and foreground classes."""
        batches = [part.sum(dim=1) for part in self.counts.split(POOLED_CASES, dim=1)]      # (3, K) each
        return slice_dsc(torch.stack(batches, dim=1))

    def state(self) -> dict | None:
        """The same as tensors and plain values, for a checkpoint; None between epochs."""
        return vars(self).copy() if self.n_steps else None


def slice_dsc(counts: Tensor) -> float:
    """Mean DSC over slices and foreground classes; counts (3, N, K): intersection, prediction, reference."""
    return float(dsc_from_counts(*counts)[:, 1:].mean())
