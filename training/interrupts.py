"""Graceful interruption and out-of-memory errors."""

import contextlib
import os
import signal
from collections.abc import Iterator

from utils import StoppedError


@contextlib.contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Turn an allocation that fails inside the block into a ``StoppedError`` that ends with ``advice``."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch's own class for a device, words for the host and for CUDA's libraries.
        words = str(error).lower()
        if not isinstance(error, MemoryError) and not any(
            sign in words for sign in ("out of memory", "can't allocate memory", "alloc_failed")
        ):
            raise
        line = next((line for line in str(error).splitlines() if "alloc" in line.lower()), "out of memory")
        raise StoppedError(f"out of memory; {advice} ({line.strip()})") from None


class StopTraining(Exception):
    """Raised where the loop may stop after it was asked to."""


class StopRequest:
    """Inside the block Ctrl-C and SIGTERM ask the loop to stop at its next ``check``; a second Ctrl-C stops at once.

    A second SIGTERM does not: a cluster sends it to every process, and ``make`` sends it to its children once more.
    """

    def __init__(self):
        self.received = False

    def __enter__(self) -> "StopRequest":
        self.former = {number: signal.signal(number, self.receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def receive(self, number: int, _frame) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True
        if os.isatty(2):
            # Not print(): the signal may have come in the middle of one.
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")

    def check(self) -> None:
        """``StopTraining`` if a stop was asked for."""
        if self.received:
            raise StopTraining
