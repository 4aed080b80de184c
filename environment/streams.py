"""The standard streams of a command: closed ones, full disks behind them, readers that have left, foreign lines."""

import contextlib
import io
import os
import sys


def repair_streams() -> None:
    """Point closed streams to nowhere: the next file that is opened would take their number, and get their lines."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)      # takes the lowest number that is free
    sys.stdin = sys.stdin or open(os.devnull)   # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w")    # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")    # noqa: SIM115
    # A name that the terminal's encoding does not have is no reason to fail when the work is done.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")


def flush_stdout() -> None:
    """Write what was printed. ``OSError`` where that fails, which the interpreter would say in its own words."""
    try:
        sys.stdout.flush()
    except OSError:
        drop(sys.stdout)
        raise


def write_line(line: str) -> None:
    """One line on stderr, where there is one."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        drop(sys.stderr)


def drop(stream: io.TextIOBase) -> None:
    """Let what a stream still holds go nowhere, so that the interpreter's last flush is quiet."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def silence_libraries() -> None:
    """Leave out what other libraries remark on their input, unless Python's own -W asks for it.

    What matters of it is found by the commands' own checks, and is their one line.
    """
    import logging  # here, since the first lines of a command should not wait for it
    import warnings

    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        logging.disable()
