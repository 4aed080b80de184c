"""Learning-rate rules: how the rate moves from epoch to epoch.

A rule is made of an optimiser and the run's number of epochs; ``step(score)`` is called after each epoch with the
validation DSC that also chooses the best epoch.
"""

import math
from collections.abc import Mapping

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau


def plateau(optimiser: torch.optim.Optimizer, epochs: int) -> ReduceLROnPlateau:
    """Halved at the 20th epoch in a row without a better score (Kervadec et al. 2021, section 3.5)."""
    # torch lowers the rate after more than `patience` epochs without a better value: 19 makes it the 20th.
    return ReduceLROnPlateau(optimiser, mode="max", factor=0.5, patience=19, threshold=0.0)


class Constant:
    """The rate of the first epoch throughout."""

    def __init__(self, optimiser: torch.optim.Optimizer, epochs: int):
        self.optimiser, self.epochs, self.epoch = optimiser, epochs, 0
        self.initial = [group["lr"] for group in optimiser.param_groups]

    def factor(self) -> float:
        return 1.0

    def step(self, score: float) -> None:
        self.epoch += 1
        for group, initial in zip(self.optimiser.param_groups, self.initial, strict=True):
            group["lr"] = initial * self.factor()

    def state_dict(self) -> dict:
        return {"epoch": self.epoch, "initial": self.initial}

    def load_state_dict(self, state: Mapping) -> None:
        self.epoch, self.initial = state["epoch"], state["initial"]


class Poly(Constant):
    """The first rate times (1 - epoch / epochs)^0.9 (Valverde and Tohka 2022, section 4.1; nnU-Net's rule)."""

    def factor(self) -> float:
        return max(0.0, 1.0 - self.epoch / self.epochs) ** 0.9


class Authors:
    """The authors' code of the boundary loss: halved wherever the epoch is a multiple of the best epoch + 20.

    That is after epoch 0 in any case.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, epochs: int):
        self.optimiser, self.epoch, self.best, self.best_epoch = optimiser, 0, -math.inf, 0

    def step(self, score: float) -> None:
        if score > self.best:
            self.best, self.best_epoch = score, self.epoch
        if self.epoch % (self.best_epoch + 20) == 0:
            for group in self.optimiser.param_groups:
                group["lr"] *= 0.5
        self.epoch += 1

    def state_dict(self) -> dict:
        return {"epoch": self.epoch, "best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: Mapping) -> None:
        self.epoch, self.best, self.best_epoch = state["epoch"], state["best"], state["best_epoch"]


LR_RULES = {"plateau": plateau, "poly": Poly, "constant": Constant, "authors": Authors}
