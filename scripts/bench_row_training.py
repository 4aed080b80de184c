"""train.py, its arguments included; prints the processor seconds of its parts as JSON.

Seconds within a part count for the innermost one alone, so that the parts sum up to what the process took. Inside the
network are forward and backward pass, that of the losses included, and the optimiser's step.
"""
import contextlib
import functools
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Callable

import torch

import train
from training.trainer import Trainer

READING, NETWORK, TRAINING, VALIDATION = (
    "start and reading", "training inside the network", "training outside the network", "validation"
)


class Account:
    """Processor seconds of this process since its start, by part."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.part, self.since = READING, 0.0

    def enter(self, part: str) -> None:
        now = time.process_time()
        self.seconds[self.part] += now - self.since
        self.part, self.since = part, now

    def counted(self, part: str, function: Callable, *, within: str | None = None) -> Callable:
        """``function``, its time counted for ``part``; with ``within`` only where it is called from that part."""
        @functools.wraps(function)
        def call(*args, **kwargs):
            before = self.part
            if within not in (None, before):
                return function(*args, **kwargs)
            self.enter(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.enter(before)
        return call


def main() -> None:
    account = Account()
    # Of fit, what is in no other part: the log and the checkpoints.
    Trainer.fit = account.counted(TRAINING, Trainer.fit)
    Trainer.train_epoch = account.counted(TRAINING, Trainer.train_epoch)
    Trainer.validate = account.counted(VALIDATION, Trainer.validate)
    for owner, name in ((Trainer, "logits"), (Trainer, "backward"), (torch.optim.Adam, "step")):
        setattr(owner, name, account.counted(NETWORK, getattr(owner, name), within=TRAINING))
    with contextlib.redirect_stdout(io.StringIO()):
        train.main(sys.argv[1:])
    account.enter(READING)
    print(json.dumps(account.seconds))


if __name__ == "__main__":
    main()
