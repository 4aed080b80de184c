"""Schedules of the weights of the regional and the contour loss over a run.

A schedule has `weights(epoch) -> (region_weight, contour_weight)`, epoch counted from 0. `build` makes one by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Schedule:
    """Base class of all schedules; a schedule of your own adds `weights`. Settings out of range raise ValueError.

    Example:
        >>> from boundary_loss import Rebalance
        >>> region_weight, contour_weight = Rebalance(start=0.01, step=0.01).weights(9)
        >>> region_weight, contour_weight
        (0.9, 0.1)
    """

    def weights(self, epoch: int) -> tuple[float, float]:
        """(region_weight, contour_weight) of an epoch, counted from 0."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """(1, alpha) (Kervadec et al. 2021, section 3.4, constant alpha)."""

    alpha: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha: expected a finite number of at least 0, found {self.alpha}")

    def weights(self, epoch: int) -> tuple[float, float]:
        return 1.0, float(self.alpha)


@dataclass(frozen=True)
class Increase(Schedule):
    """(1, a), a = min(1, start + step * epoch) (Kervadec et al. 2021, section 3.4, increase alpha)."""

    start: float = 0.01
    step: float = 0.01

    def __post_init__(self) -> None:
        _check_share("alpha start", self.start)
        _check_share("alpha step", self.step)

    def weights(self, epoch: int) -> tuple[float, float]:
        return 1.0, min(1.0, _tidy(self.start + self.step * epoch))


@dataclass(frozen=True)
class Rebalance(Increase):
    """(1 - a, a), a = min(0.99, start + step * epoch) (Kervadec et al. 2021, section 3.4, rebalance alpha).

    The text wants the regional weight never to reach 0: it stops at 0.01.
    """

    def weights(self, epoch: int) -> tuple[float, float]:
        alpha = min(0.99, _tidy(self.start + self.step * epoch))
        return _tidy(1.0 - alpha), alpha


@dataclass(frozen=True)
class Authors(Increase):
    """(max(0.1, 1 - step * epoch), start + step * epoch): the code of Kervadec et al. 2021, not their section 3.4.

    The weights sum to 1.01 until the regional one stops at 0.1, in epoch 90; the contour one has no ceiling.
    """

    def weights(self, epoch: int) -> tuple[float, float]:
        return max(0.1, _tidy(1.0 - self.step * epoch)), _tidy(self.start + self.step * epoch)


@dataclass(frozen=True)
class Midl(Schedule):
    """(a, 1 - a), a = max(0.01, 1 - step * epoch) (Kervadec et al., MIDL 2019, Eq. 6 and section 3.2).

    The first epoch has the regional loss alone.
    """

    step: float = 0.01

    def __post_init__(self) -> None:
        _check_share("alpha step", self.step)

    def weights(self, epoch: int) -> tuple[float, float]:
        alpha = max(0.01, _tidy(1.0 - self.step * epoch))
        return alpha, _tidy(1.0 - alpha)


@dataclass(frozen=True)
class Gradual(Midl):
    """MIDL's rule (Valverde and Tohka 2022, section 4.4, gradual contribution, which cites it)."""


@dataclass(frozen=True)
class Equal(Schedule):
    """(1, 1) (Valverde and Tohka 2022, section 4.4, equal contribution)."""

    def weights(self, epoch: int) -> tuple[float, float]:
        return 1.0, 1.0


@dataclass(frozen=True)
class BusiLinear(Schedule):
    """(1, a), a from 0 in the first to 1 in the last epoch (Odonnat and Pham, section 3.2, scheduling)."""

    epochs: int = 20

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs: expected at least 1, found {self.epochs}")

    def weights(self, epoch: int) -> tuple[float, float]:
        return 1.0, min(1.0, epoch / max(1, self.epochs - 1))


@dataclass(frozen=True)
class BusiRebalance(BusiLinear):
    """(1 - a, a), a from 0 to 1 (Odonnat and Pham, section 3.2, rebalance): the end is contour loss alone."""

    def weights(self, epoch: int) -> tuple[float, float]:
        alpha = min(1.0, epoch / max(1, self.epochs - 1))
        return 1.0 - alpha, alpha


@dataclass(frozen=True)
class BusiLinearAuthors(BusiLinear):
    """(1, a), a = max(0, (epoch + 1) / epochs - 0.05): the code of Odonnat and Pham, not their section 3.2.

    alpha goes from 0 to 0.95.
    """

    def weights(self, epoch: int) -> tuple[float, float]:
        return 1.0, max(0.0, _tidy(min(1.0, (epoch + 1) / self.epochs) - 0.05))


@dataclass(frozen=True)
class BusiRebalanceAuthors(BusiLinearAuthors):
    """(1 - a, a) with the alpha of `BusiLinearAuthors`."""

    def weights(self, epoch: int) -> tuple[float, float]:
        _, alpha = super().weights(epoch)
        return _tidy(1.0 - alpha), alpha


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "increase": Increase,
    "rebalance": Rebalance,
    "midl": Midl,
    "busi-linear": BusiLinear,
    "busi-rebalance": BusiRebalance,
    "equal": Equal,
    "gradual": Gradual,
    "authors": Authors,
    "busi-linear-authors": BusiLinearAuthors,
    "busi-rebalance-authors": BusiRebalanceAuthors,
}


def build(name: str, *, start: float = 0.01, step: float = 0.01, epochs: int = 100) -> Schedule:
    """The schedule of a name, with those of the settings that it has.

    Args:
        name: a key of `SCHEDULES`.
        start: alpha of the first epoch; the alpha of "constant".
        step: change of alpha per epoch.
        epochs: length of the run, for schedules spread over it.

    Raises:
        ValueError: for an unknown name, and for settings out of the schedule's range.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule: expected one of {', '.join(SCHEDULES)}, found {name!r}")
    settings = {"alpha": start, "start": start, "step": step, "epochs": epochs}
    schedule = SCHEDULES[name]
    return schedule(**{field.name: settings[field.name] for field in fields(schedule)})


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{name}: expected a number above 0 and at most 1, found {value}")


def _tidy(value: float) -> float:
    """The value without the digits that binary rounding adds: 0.06, not 0.060000000000000005."""
    return round(value, 12)
