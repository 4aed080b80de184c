"""The frame of a command: its parser, and what its ``main`` comes to as an exit code and one line."""

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from environment import stops
from environment.streams import flush_stdout, silence_libraries, write_line
from utils import InputError, StoppedError, check_text

LONGEST = 2000      # characters of an error


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like every other bad input."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, allow_abbrev=False, **options)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """The flags; ``InputError`` for one that no file could keep, before anything is begun."""
        for word in sys.argv[1:] if args is None else args:
            check_text(word, "arguments")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def device_name(text: str) -> str:
    """The value of --device, refused where it is no device's name; whether there is such a one is seen later."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", text):
        raise InputError(f"--device: expected auto, cpu, cuda or cuda:N, found {text}")
    return text


def run_command(main: Callable[[Sequence[str] | None], None]) -> int:
    """Run a command's ``main``, last in its process; returns the exit code.

    0 done, 2 bad input, 130 stopped by Ctrl-C or SIGTERM, 1 the rest. What is not done is said in one line on stderr,
    but to a reader of stdout that has left.
    """
    silence_libraries()
    stops.raise_interrupt()
    try:
        try:
            try:
                main(None)
            except SystemExit as left:
                if left.code:   # that of --help is 0
                    raise
            flush_stdout()
        finally:
            stops.ignore()
    except (InputError, StoppedError) as error:
        return fail(error, 2 if isinstance(error, InputError) else 1)
    except OSError as error:
        with contextlib.suppress(OSError):
            flush_stdout()
        # The reader (`| head`) has left; or a disk is full, a folder may not be written, a file went away.
        return 1 if isinstance(error, BrokenPipeError) else fail(error, 2)
    except MemoryError as error:
        return fail(f"out of memory {error}", 1)
    except KeyboardInterrupt as stopped:
        write_line(stops.stopped_line(str(stopped)))
        return stops.STOPPED
    return 0


def fail(error: object, code: int) -> int:
    """Say what was wrong; a library's words inside an error may run over several lines, or quote a whole file."""
    words = " ".join(str(error).split())
    write_line(f"{Path(sys.argv[0]).name}: error: {words if len(words) <= LONGEST else f'{words[:LONGEST]} ...'}")
    return code
