"""Commands, run folders, atomic writes and the one error class for bad input. No maths."""

import argparse
import contextlib
import csv
import fcntl
import io
import json
import os
import re
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from tqdm import tqdm


class InputError(Exception):
    """Bad input: its one line names the case or file, what was expected and what was found. Exit code 2."""


class StoppedError(Exception):
    """A run that cannot continue, in one line. Exit code 1."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like every other bad input."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def current_word(value: str) -> str:
    """The word of today for a value that files and command lines of earlier versions name otherwise."""
    return {"reference": "authors"}.get(value, value)


def terminate(*_: object) -> None:
    """A terminated run cleans up after itself as one stopped by Ctrl-C does."""
    raise KeyboardInterrupt


def run_command(main: Callable[[Sequence[str] | None], None]) -> int:
    """Run a command's ``main`` and turn its outcome into an exit code: 0 done, 2 bad input, 130 Ctrl-C, 1 the rest."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        main(None)
    except (InputError, StoppedError) as error:
        # A library's words inside an error may run over several lines.
        print(f"{Path(sys.argv[0]).name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except BrokenPipeError:
        # The reader (`| head`) has left: point stdout elsewhere so that the interpreter's last flush is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A disk that is full, a folder that may not be written, a file that went away.
        print(f"{Path(sys.argv[0]).name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"{Path(sys.argv[0]).name}: {str(stopped) or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an ``OSError`` of the block that does not say which file it is about name ``path``."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(f"{path}: could not be written: {error.strerror or error}") from None


def open_file(path: Path | str) -> BinaryIO:
    """Open a regular file to read; ``OSError`` for a pipe or device, which would have to be waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is no regular file")
    return os.fdopen(handle, "rb", buffering=0)


def read_text(path: Path | str) -> str:
    """The text of a regular file, its line ends as they are."""
    with open_file(path) as file:
        return file.read().decode("utf-8")


def check_file_name(name: str, what: str) -> None:
    """``InputError`` unless a name (``what`` it is, in words) can be one file's in any folder, with an ending."""
    plain = re.fullmatch(r"[^/\\\x00-\x1f\x7f]+", name) and name not in (".", "..")
    if not plain or len(name.encode("utf-8", "surrogateescape")) > 200:
        raise InputError(f"{what}: expected a plain file name of at most 200 bytes, found {name[:200]!r}")


def leftovers(folder: Path) -> list[Path]:
    """What kills have left of ``atomic_path``'s temporary files in a folder."""
    return [path for path in folder.glob(".*") if re.match(r"\.\d+\.", path.name) and path.is_file()]


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` to write to; it replaces ``path`` only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, for the writers that choose a format by it (.nii.gz, .pdf).
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Mapping) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> dict:
    """The object in a JSON file; ``InputError`` where it is missing, damaged or not an object."""
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected a readable JSON file, found {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def write_rows(path: Path | str, rows: Sequence[Mapping], columns: Sequence[str]) -> None:
    """Write dictionaries as CSV in the order of ``columns``; floats keep their shortest exact form."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path | str, columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a CSV file as text; ``InputError`` where a column or part of a line is missing."""
    try:
        text = read_text(path)
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        found = list(rows[0]) if rows else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a readable CSV file, found {error}") from None
    missing = [column for column in columns if column not in found]
    if missing:
        raise InputError(f"{path}: expected a column {missing[0]}, found {', '.join(map(str, found)) or 'no rows'}")
    for number, row in enumerate(rows, start=2):
        # A last line without its end may be cut off in the middle of a number.
        cut = number == len(rows) + 1 and not text.endswith("\n")
        if cut or None in row or None in row.values():
            raise InputError(f"{path}: line {number} is cut off or too long: expected {len(found)} fields")
    return rows


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process alone; ``InputError`` where another process holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process is at work in it; wait for it or stop it") from None
        except OSError:
            pass  # a file system without locks: better no guard than no run
        yield
    finally:
        os.close(handle)


def progress(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A tqdm bar on stderr that is silent when stderr is no terminal."""
    return tqdm(iterable, disable=None, dynamic_ncols=True, **options)
