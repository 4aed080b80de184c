"""Stops: Ctrl-C and SIGTERM from a command's first line to its last end in one line and exit code 130."""

import os
import signal
import sys
import time
from types import FrameType

from environment.streams import write_line

STOPS = (signal.SIGINT, signal.SIGTERM)
STOPPED = 130
# The terminal, make and a cluster each send a stop of their own: within these seconds they are one.
SAME_STOP = 5.0


def stopped_line(reason: str = "") -> str:
    return f"{os.path.basename(sys.argv[0])}: {reason or 'interrupted'}"


def handle(handler) -> None:
    """Let ``handler`` receive both stops, but for one that the process was started without (nohup, & in a script)."""
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def leave_at_once() -> None:
    """While a command's modules are imported there is nothing to clean up."""

    handle(lambda *_: leave())


def leave() -> None:
    write_line(stopped_line())
    os._exit(STOPPED)


def raise_interrupt() -> None:
    """While a command works: ``KeyboardInterrupt`` for the first stop, which those after it do not disturb."""
    first = -SAME_STOP

    def receive(_: int, frame: FrameType | None) -> None:
        nonlocal first
        if is_import(frame):
            leave()
        now = time.monotonic()
        if now - first >= SAME_STOP:
            first = now
            raise KeyboardInterrupt

    handle(receive)


def is_import(frame: FrameType | None) -> bool:
    """Whether a module is being imported: torch in C drops whatever exception numpy's import ends with."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def leave_children_alone() -> None:
    """Let a process that a library forks end at a SIGTERM, as its pool of workers expects; Ctrl-C is the parent's."""

    def reset() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    os.register_at_fork(after_in_child=reset)


def ignore() -> None:
    """When a command has done its work, or has failed, a stop comes too late."""
    handle(signal.SIG_IGN)
