"""When the learning rate is halved: torch's plateau rule as the text says, or the rule of the authors' code."""

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau


class AuthorsRule:
    """The learning rate of the authors' code: halved wherever the epoch is a multiple of the best epoch + 20.

    That is after epoch 0 in any case. Stands where ``ReduceLROnPlateau`` may stand.
    """

    def __init__(self, optimiser: torch.optim.Optimizer):
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


LR_RULES = {
    # torch lowers the rate after more than `patience` epochs without a better value: 19 makes it the 20th.
    "plateau": partial(ReduceLROnPlateau, mode="max", factor=0.5, patience=19, threshold=0.0),
    "authors": AuthorsRule,
}
