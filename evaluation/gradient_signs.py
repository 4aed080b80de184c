"""Signs of gradients with respect to the logits (Valverde and Tohka 2022, section 3.4): of one pixel, and of runs.

A gradient raises the softmax of every class whose component is negative. For one true class one of them should be.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from boundary_loss import CrossEntropy, Loss, RegionWise
from dataloader import Slices, StreamedSlices, batches, open_parts
from evaluation.prediction import Model, load_model
from raw_data.volumes import IGNORED
from sliced_data.meta import Meta
from training.objective import BatchMaps, build_objective
from training.run_folder import read_settings
from training.settings import Settings
from training.snapshots import snapshot_name
from utils import InputError, progress

# Times a pixel's largest map value: a component that is smaller is the rounding of a gradient that has vanished.
ROUNDING = 1e-12
SAMPLES = 1_000_000
CHUNK = 2**17           # samples held at a time


def autograd_gradient(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    """Gradient (B, K, *spatial) of the sum of a loss's values, by autograd in float64.

    The loss has the reduction "none": a pixel's gradient is then that of Eq. 1, which is not divided by N K.
    """
    leaf = logits.detach().double().requires_grad_()
    loss(leaf, target).sum().backward()
    return leaf.grad


def equation_2(logits: Tensor, z: Tensor) -> Tensor:
    """Gradient (B, K, *spatial) of the region-wise loss with maps ``z``, as Eq. 2 has it (not divided by N K)."""
    probs, z = logits.detach().double().softmax(dim=1), z.double()
    pairs = z[:, :, None] - z[:, None]                                  # (B, K, K, *spatial): z_k - z_l
    return probs * (probs[:, None] * pairs).sum(dim=2)                  # (B, K, *spatial)


def count_negative(gradient: Tensor, largest: Tensor | float) -> Tensor:
    """How many components (B, K, *spatial) are negative: (B, *spatial).

    ``largest``: the largest absolute map value of each pixel, (B, 1, *spatial), or of all.
    """
    return (gradient < -ROUNDING * largest).sum(dim=1)


@dataclass(frozen=True)
class PixelLoss:
    """The loss of one pixel: region-wise with K map values, of which the smallest is the true class's, or, without
    map values, the cross-entropy of ``true_class``."""

    num_classes: int
    true_class: int
    map_values: tuple[float, ...] | None = None

    @classmethod
    def region_wise(cls, map_values: Sequence[float]) -> "PixelLoss":
        values = tuple(float(value) for value in map_values)
        return cls(len(values), int(np.argmin(values)), values)

    @property
    def title(self) -> str:
        if self.map_values is None:
            return "cross-entropy"
        return f"region-wise, z = [{', '.join(f'{value:g}' for value in self.map_values)}]"

    @property
    def largest(self) -> float:
        return 1.0 if self.map_values is None else float(np.abs(self.map_values).max())

    def gradient(self, probs: np.ndarray) -> np.ndarray:
        """The components (K, N) at softmax vectors ``probs`` (K, N), by the loss's own autograd."""
        logits = torch.from_numpy(probs).log()[None, :, None]           # (1, K, 1, N)
        if self.map_values is None:
            label = torch.full((1, 1, probs.shape[1]), self.true_class)
            found = autograd_gradient(CrossEntropy(reduction="none"), logits, label)
        else:
            z = torch.tensor(self.map_values, dtype=torch.float64).view(1, -1, 1, 1)
            found = autograd_gradient(RegionWise(reduction="none"), logits, z.expand(logits.shape))
        return found[0, :, 0].numpy()

    def share_of_several(self, samples: int = SAMPLES, seed: int = 0) -> float:
        """Share of the simplex in which more than one component is negative, of vectors drawn uniformly from it."""
        generator, several = np.random.default_rng(seed), 0
        for start in range(0, samples, CHUNK):
            probs = generator.standard_exponential((self.num_classes, min(CHUNK, samples - start)))
            gradient = self.gradient(probs / probs.sum(axis=0))
            several += int((count_negative(torch.from_numpy(gradient)[None], self.largest) > 1).sum())
        return several / samples

    def saddle(self, component: int) -> np.ndarray | None:
        """The softmax vector (3,) where a component of three has no slope within the simplex; None where there is none.

        Where the two other classes have equal map values that is the line on which its class has one half: its middle.
        """
        if self.map_values is None:
            return None
        others = [k for k in range(3) if k != component]
        z, first, second = (self.map_values[k] for k in (component, *others))
        point = np.zeros(3)
        if first == second:
            point[component], point[others] = 0.5, 0.25
            return point if z != first else None
        # Else only at the edge where its class has 0, and the others' mean map value is its own.
        point[others[0]] = (z - second) / (first - second)
        point[others[1]] = 1.0 - point[others[0]]
        return point if 0.0 < point[others[0]] < 1.0 else None


@dataclass(frozen=True)
class Signs:
    """A snapshot's validation pixels by how many components of the gradient are negative, from none to K - 1."""

    epoch: int
    pixels: np.ndarray          # (K,), by autograd
    foreground: np.ndarray      # (K,), those of the reference's foreground alone
    by_equation_2: np.ndarray   # (K,)
    shown: np.ndarray           # (H, W), the counts of one slice


def run_signs(folder: Path, epochs: Sequence[int], meta: Meta, device: torch.device) -> Iterator[Signs]:
    """The signs of each snapshot of a run, of its region-wise loss on all validation slices.

    ``InputError`` where the run has another loss, or no such snapshot.
    """
    settings = read_settings(folder)
    if settings.contour != "region-wise" or settings.contour_classes == "foreground":
        found = f"{settings.contour} over the classes {settings.contour_classes}"
        raise InputError(f"{folder}: expected a run with the region-wise loss over all classes, found {found}")
    num_classes = len(meta.class_names)
    maps = BatchMaps(settings, build_objective(settings, num_classes), num_classes)
    (val,) = open_parts(meta, ("val",), maps=maps.loaded, device=device)
    for epoch in progress(epochs, desc=f"{folder.parent.name} {folder.name}", unit="snapshot", leave=False):
        yield snapshot_signs(load_model(folder, snapshot_name(epoch), device), val, maps, settings)


def snapshot_signs(model: Model, val: Slices | StreamedSlices, maps: BatchMaps, settings: Settings) -> Signs:
    num_classes, shown = len(model.class_names), largest_slice(val.label)
    totals, counts = np.zeros((3, num_classes), np.int64), []
    for batch in batches(val, torch.arange(len(val)), settings.batch_size, model.device):
        z = maps.add_to(batch).maps.double()                                    # (B, K, H, W)
        with torch.no_grad():
            logits = model.network(batch.image)
        largest = z.abs().amax(dim=1, keepdim=True)
        found = count_negative(autograd_gradient(RegionWise(reduction="none"), logits, z), largest)     # (B, H, W)
        known, foreground = batch.label != IGNORED, (batch.label > 0) & (batch.label != IGNORED)
        by_equation = count_negative(equation_2(logits, z), largest)
        for row, (which, where) in enumerate(((found, known), (found, foreground), (by_equation, known))):
            totals[row] += np.bincount(which[where].cpu().numpy(), minlength=num_classes)
        counts.append(found.byte().cpu())
    return Signs(model.epoch + 1, *totals, torch.cat(counts)[shown].numpy())


def largest_slice(label: Tensor) -> int:
    """The slice of a label (N, H, W) with the most foreground."""
    return int(((label > 0) & (label != IGNORED)).flatten(1).sum(dim=1).argmax())
