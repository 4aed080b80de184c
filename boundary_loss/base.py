"""The base class of all losses: checks, activation, choice of classes, means; a loss adds the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from boundary_loss.targets import channels, check_logits, check_target, read_label
from boundary_loss.transform import Spacing, as_batch_spacing

ACTIVATIONS = ("softmax", "sigmoid", "none")
REDUCTIONS = ("mean", "none")
TINY = 1e-7  # floor of the base of a fractional power, whose derivative at 0 is infinite
LEAST_PROB = 1e-12  # floor of a given probability in its logarithm: 0 has none


class Options(TypedDict, total=False):
    """What the constructor of every loss takes beside its own arguments and `classes`; see `Loss`."""

    activation: str
    reduction: str
    ignore_index: int | None


@dataclass(frozen=True)
class Batch:
    """What `Loss.compute` gets: B images and the C selected classes, in float32 (float64 logits: in float64).

    At voxels that are ignored, softmax and one-hot label or map are 0, and the logits get no gradient.
    """

    scores: Tensor                      # (B, K, *spatial) logits of all classes; probabilities, if those were given
    target: Tensor                      # (B, C, *spatial) one-hot label, or map; same dtype
    spacing: Sequence[float] | Tensor   # (ndim,) or (B, ndim) in mm; ones if the caller gave none
    classes: tuple[int, ...]            # the C selected ones
    activation: str = "softmax"
    ignored: Tensor | None = None       # (B, 1, *spatial) bool, the voxels that do not count; None: all count
    _made: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)  # once: what a loss has asked for

    @property
    def probs(self) -> Tensor:
        """Softmax, sigmoid or given probabilities (B, C, *spatial)."""
        if "probs" not in self._made:
            if self.activation == "softmax":
                probs = self.log_probs.exp()
            else:
                scores = channels(self.scores, self.classes)
                probs = scores.sigmoid() if self.activation == "sigmoid" else scores
            self._made["probs"] = probs if self.ignored is None else probs.masked_fill(self.ignored, 0.0)
        return self._made["probs"]

    @property
    def log_probs(self) -> Tensor:
        """Their logarithms (B, C, *spatial)."""
        return channels(self._all_log_probs, self.classes)

    @property
    def _all_log_probs(self) -> Tensor:
        if "log_probs" not in self._made:
            if self.activation == "softmax":
                log_probs = self.scores.log_softmax(dim=1)                      # (B, K, *spatial)
            elif self.activation == "sigmoid":
                log_probs = logsigmoid(self.scores)
            else:
                log_probs = self.scores.clamp_min(LEAST_PROB).log()
            self._made["log_probs"] = log_probs
        return self._made["log_probs"]

    @property
    def exclusive(self) -> bool:
        """Whether a voxel is of one class: under softmax, and of two or more given probabilities."""
        return self.activation == "softmax" or (self.activation == "none" and self.scores.shape[1] > 1)

    @property
    def prediction(self) -> Tensor:
        """Masks (B, C, *spatial): the most probable of all K classes, the lower of two that are equal.

        Where classes overlap, those of more than one half.
        """
        if self.exclusive:
            largest = self._all_log_probs.detach().exp().argmax(dim=1)          # (B, *spatial)
            masks = torch.stack([largest == c for c in self.classes], dim=1)    # (B, C, *spatial)
        else:
            masks = self.probs.detach() > 0.5
        return masks if self.ignored is None else masks & ~self.ignored

    @property
    def outcomes(self) -> Batch:
        """This batch if a voxel is of one class; else one of 2 C classes: those that a voxel has and those it has not.

        What cross-entropies are summed over: of overlapping classes the absence of each counts too.
        """
        if self.exclusive:
            return self
        scores, absent = channels(self.scores, self.classes), 1.0 - self.target
        opposite = -scores if self.activation == "sigmoid" else 1.0 - scores
        absent = absent if self.ignored is None else absent.masked_fill(self.ignored, 0.0)
        return replace(
            self,
            scores=torch.cat([scores, opposite], dim=1),                        # (B, 2 C, *spatial)
            target=torch.cat([self.target, absent], dim=1),                     # (B, 2 C, *spatial)
            classes=tuple(range(2 * len(self.classes))),
        )


class Loss(nn.Module):
    """Base class of all losses: `loss(logits, target, spacing=None)` returns a scalar.

    To add a loss, write a subclass with a method `compute(batch)`. It gets a `Batch`, already checked, in float32
    also under autocast, and returns a tensor whose mean is the loss: a scalar, or one with an axis of images first and
    then none, classes, or classes and voxels. It must not read values on the host (`.item()`, `if tensor`), because on
    a GPU every step would wait for them. Class attributes say what `compute` needs:

    target_kind       "label": a label in any of the forms that `forward` lists, which `compute` gets one-hot.
                      "phi": floats (B, K, *spatial), see `distance_maps`.
                      "region-wise": floats (B, K, *spatial), see `region_wise_map`.
    map_kind          for "region-wise": the kind of `region_wise_map`
    uses_spacing      whether the value depends on `spacing`; every loss accepts it
    skips_background  whether class 0 is left out unless `classes` has it (but under a sigmoid, or alone, it is no
                      background)

    Args:
        classes: the classes that count, in the order in which `compute` gets them. None: all of them, and with
            `skips_background` all but class 0.
        activation: what makes probabilities of logits: "softmax" over classes of which a voxel has one, "sigmoid" for
            each of K >= 1 classes that may overlap. "none": the logits are probabilities already, in [0, 1] (which
            is not checked), of classes of which a voxel has one, or of a single class.
        reduction: "mean", or "none" for the values that the mean is taken of, as each loss says.
        ignore_index: the number that a label has, or a one-hot label in its channels, where the class is not known.
            Maps have NaN there, as `distance_maps` with the same `ignore_index` makes them. Such a voxel has no part in
            the value or a gradient: means are over the other voxels, and over images that have any. None: all count.

    Raises:
        ValueError: for classes that are repeated or do not exist, for another activation or reduction, for logits, a
            target or spacing of another shape or dtype than those of `forward`; on the CPU also for values that are
            no class. On other devices, where a look at values would wait, a voxel with such a value has no class.
            The message says what was expected and what was found.

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

    def __init__(
        self,
        classes: Sequence[int] | None = None,
        *,
        activation: str = "softmax",
        reduction: str = "mean",
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.classes = None if classes is None else tuple(classes)
        if self.classes is not None and (not self.classes or len(set(self.classes)) < len(self.classes)):
            raise ValueError(f"classes: expected at least one class and none twice, found {self.classes}")
        self.activation = one_of("activation", activation, ACTIVATIONS)
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        if ignore_index is not None and (isinstance(ignore_index, bool) or not isinstance(ignore_index, int)):
            raise ValueError(f"ignore_index: expected an integer or None, found {ignore_index!r}")
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor, spacing: Spacing = None) -> Tensor:
        """The loss, a scalar; by the reduction "none" its values.

        Args:
            logits: (B, K, H, W) or (B, K, D, H, W) floats, what `activation` says; K >= 2 under softmax.
            target: what `target_kind` says, on the device of the logits. A label is integers or bool (B, *spatial) or
                (B, 1, *spatial), or one-hot integers, bool or floats (B, K, *spatial); of K = 1 class its mask.
            spacing: size of a voxel in mm, one number per spatial axis or a tensor (B, ndim). None: 1 each, so
                that distances are in voxels.
        """
        check_logits(logits, self.activation)
        check_target(target, logits, self.target_kind)
        with torch.autocast(logits.device.type, enabled=False):
            batch = self.read_batch(logits, target, spacing, self.target_kind)
            return self.reduce(self.compute(batch), batch)

    def compute(self, batch: Batch) -> Tensor:
        """Values whose mean is the loss; for subclasses to write."""
        raise NotImplementedError(f"{type(self).__name__} has no compute(batch)")

    def select(self, num_classes: int) -> tuple[int, ...]:
        """The classes that count among `num_classes`; ValueError for one that does not exist."""
        has_background = self.activation != "sigmoid" and num_classes > 1
        classes = self.classes or tuple(range(int(self.skips_background and has_background), num_classes))
        if min(classes) < 0 or max(classes) >= num_classes:
            raise ValueError(f"classes: expected 0 to {num_classes - 1}, found {classes}")
        return classes

    def read_batch(self, logits: Tensor, target: Tensor, spacing: Spacing, kind: str) -> Batch:
        """The batch of checked logits and a checked target of that kind."""
        classes = self.select(logits.shape[1])
        spacing = as_batch_spacing(spacing, len(logits), logits.ndim - 2)
        scores = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        if kind == "label":
            target, ignored = read_label(target, scores, classes, self.ignore_index)
        else:
            ignored = None if self.ignore_index is None else target[:, :1].isnan()
            target = channels(target, classes).to(scores.dtype)
        if ignored is not None:
            scores, target = scores.masked_fill(ignored, 0.0), target.masked_fill(ignored, 0.0)
        return Batch(scores, target, spacing, classes, self.activation, ignored)

    def reduce(self, values: Tensor, batch: Batch) -> Tensor:
        """The mean of values over what is not ignored; by the reduction "none" the values, 0 where ignored."""
        ignored = _ignored_values(values, batch.ignored)
        values = values if ignored is None else values.masked_fill(ignored, 0.0)
        if self.reduction == "none":
            return values
        return values.mean() if ignored is None else weighted_mean(values, (~ignored).to(values.dtype))

    def reduce_weighted(self, values: Tensor, weights: Tensor, batch: Batch) -> Tensor:
        """The weighted mean of values (B, C, *spatial); by the reduction "none" weights times values.

        Of the 2 C `outcomes` of a batch, the two of a class are then summed.
        """
        if self.reduction == "mean":
            return weighted_mean(values, weights)
        return (weights * values).unflatten(1, (-1, len(batch.classes))).sum(dim=1)         # (B, C, *spatial)


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


def pixel_mean(values: Tensor, ignored: Tensor | None) -> Tensor:
    """Mean over the spatial axes, of voxels that are not ignored: (B, C, *spatial), 0 where ignored, to (B, C)."""
    if ignored is None:
        return values.flatten(2).mean(dim=2)
    return pixel_sum(values) / pixel_sum(~ignored).clamp_min(1)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Sum of weights times values over the sum of the weights; 0 where no weight is positive."""
    total = weights.sum()
    return (weights * values).sum() / torch.where(total > 0, total, 1.0)


def _ignored_values(values: Tensor, ignored: Tensor | None) -> Tensor | None:
    """Which of values (B, ...) are ignored, bool of their shape: those of the voxels, or of images ignored whole."""
    if ignored is None or values.ndim == 0 or len(values) != len(ignored):
        return None
    if values.shape[2:] != ignored.shape[2:]:
        ignored = ignored.flatten(1).all(dim=1).view(-1, *[1] * (values.ndim - 1))          # (B, 1, ...)
    return ignored.expand_as(values)
