"""The base class of all losses: checks, softmax, choice of classes; a loss adds the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from boundary_loss.transform import Spacing

TINY = 1e-7  # floor of the base of a fractional power, whose derivative at 0 is infinite


@dataclass(frozen=True)
class Batch:
    """What `Loss.compute` gets: B images and the C selected classes, in float32 (float64 logits: in float64)."""

    log_probs: Tensor                   # (B, C, *spatial) log-softmax, taken over all K classes
    target: Tensor                      # (B, C, *spatial) one-hot label, or map; same dtype
    spacing: Sequence[float] | Tensor   # (ndim,) or (B, ndim) in mm; ones if the caller gave none
    all_log_probs: Tensor               # (B, K, *spatial) log-softmax of all classes
    classes: tuple[int, ...]            # the C selected ones

    @property
    def probs(self) -> Tensor:
        """Softmax (B, C, *spatial)."""
        return self.log_probs.exp()

    @property
    def prediction(self) -> Tensor:
        """Masks (B, C, *spatial) of the most probable of all K classes; the lower of two that are equal."""
        largest = self.all_log_probs.detach().exp().argmax(dim=1)               # (B, *spatial)
        return torch.stack([largest == c for c in self.classes], dim=1)         # (B, C, *spatial)


class Loss(nn.Module):
    """Base class of all losses: `loss(logits, target, spacing=None)` returns a scalar.

    To add a loss, write a subclass with a method `compute(batch)`. It gets a `Batch`, already checked, in float32
    also under autocast, and returns a tensor of any shape, whose mean is the loss. It must not read values on
    the host (`.item()`, `if tensor`), because on a GPU every step would wait for them. Class attributes say what
    `compute` needs:

    target_kind       "label": integers (B, *spatial), which `compute` gets one-hot; a value outside 0..K-1
                      belongs to no class. "phi": floats (B, K, *spatial), see `distance_maps`.
                      "region-wise": floats (B, K, *spatial), see `region_wise_map`.
    map_kind          for "region-wise": the kind of `region_wise_map`
    uses_spacing      whether the value depends on `spacing`; every loss accepts it
    skips_background  whether class 0 is left out unless `classes` has it

    Args:
        classes: the classes that count, in the order in which `compute` gets them. None: all of them, and with
            `skips_background` all but class 0.

    Raises:
        ValueError: for classes that are repeated or do not exist, and for logits or a target of another shape or
            dtype than those above. The message says what was expected and what was found.

    Example:
        The squared error of the foreground's softmax:

        >>> import torch
        >>> from boundary_loss import Loss
        >>> class SquaredError(Loss):
        ...     skips_background = True
        ...
        ...     def compute(self, batch):
        ...         return (batch.probs - batch.target).square()    # (B, C, *spatial)
        >>> logits = torch.zeros(1, 2, 4, 4)                        # (B, K, H, W): softmax 0.5 everywhere
        >>> label = torch.ones(1, 4, 4, dtype=torch.long)           # (B, H, W)
        >>> SquaredError()(logits, label)
        tensor(0.2500)
    """

    target_kind: ClassVar[Literal["label", "phi", "region-wise"]] = "label"
    map_kind: ClassVar[str | None] = None
    uses_spacing: ClassVar[bool] = False
    skips_background: ClassVar[bool] = False

    def __init__(self, classes: Sequence[int] | None = None) -> None:
        super().__init__()
        self.classes = None if classes is None else tuple(classes)
        if self.classes is not None and (not self.classes or len(set(self.classes)) < len(self.classes)):
            raise ValueError(f"classes: expected at least one class and none twice, found {self.classes}")

    def forward(self, logits: Tensor, target: Tensor, spacing: Spacing = None) -> Tensor:
        """The loss, a scalar.

        Args:
            logits: (B, K, H, W) or (B, K, D, H, W) floats, K >= 2, before the softmax.
            target: what `target_kind` says, on the device of the logits.
            spacing: size of a voxel in mm, one number per spatial axis or a tensor (B, ndim). None: 1 each, so
                that distances are in voxels.
        """
        _check_tensors(logits, target, self.target_kind)
        classes = self.select(logits.shape[1])
        spacing = (1.0,) * (logits.ndim - 2) if spacing is None else spacing
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
            all_log_probs = logits.log_softmax(dim=1)                           # (B, K, *spatial)
            log_probs = _channels(all_log_probs, classes)                       # (B, C, *spatial)
            if self.target_kind == "label":
                target = torch.stack([target == c for c in classes], dim=1)     # (B, C, *spatial)
            else:
                target = _channels(target, classes)                             # (B, C, *spatial)
            batch = Batch(log_probs, target.to(log_probs.dtype), spacing, all_log_probs, classes)
            return self.compute(batch).mean()

    def compute(self, batch: Batch) -> Tensor:
        """Values of any shape, whose mean is the loss; for subclasses to write."""
        raise NotImplementedError(f"{type(self).__name__} has no compute(batch)")

    def select(self, num_classes: int) -> tuple[int, ...]:
        """The classes that count among `num_classes`; ValueError for one that does not exist."""
        classes = self.classes or tuple(range(int(self.skips_background), num_classes))
        if min(classes) < 0 or max(classes) >= num_classes:
            raise ValueError(f"classes: expected 0 to {num_classes - 1}, found {classes}")
        return classes


def non_negative(name: str, value: float) -> float:
    """The value of a setting; ValueError unless it is a finite number of at least 0."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: expected a finite number of at least 0, found {value}")
    return value


def one_of(name: str, value: str, choices: Sequence[str]) -> str:
    """The value of a setting; ValueError unless it is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}: expected {' or '.join(choices)}, found {value!r}")
    return value


def pixel_sum(values: Tensor) -> Tensor:
    """Sum over the spatial axes: (B, C, *spatial) to (B, C)."""
    return values.flatten(2).sum(dim=2)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Sum of weights times values over the sum of the weights; 0 where no weight is positive."""
    total = weights.sum()
    return (weights * values).sum() / torch.where(total > 0, total, 1.0)


def _check_tensors(logits: Tensor, target: Tensor, kind: str) -> None:
    if not logits.is_floating_point() or logits.ndim not in (4, 5) or logits.shape[1] < 2:
        found = f"{logits.dtype} {tuple(logits.shape)}"
        raise ValueError(f"logits: expected floats (B, K, H, W) or (B, K, D, H, W), K >= 2, found {found}")
    if kind == "label":
        wanted, form = (logits.shape[0], *logits.shape[2:]), "integers"
        fits = not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)
    else:
        wanted, form, fits = tuple(logits.shape), "floats", target.is_floating_point()
    if not fits or tuple(target.shape) != wanted:
        found = f"{target.dtype} {tuple(target.shape)}"
        raise ValueError(f"target: expected a {kind} target of {form} {wanted}, found {found}")


def _channels(tensor: Tensor, classes: tuple[int, ...]) -> Tensor:
    """Channels by number; without an index tensor, whose copy to the device would wait for it."""
    if classes == tuple(range(classes[0], classes[-1] + 1)):
        return tensor[:, classes[0] : classes[-1] + 1]
    return torch.stack([tensor[:, c] for c in classes], dim=1)
