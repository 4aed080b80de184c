"""Files read and written whole, and the one error class for bad input. No maths."""

import contextlib
import csv
import functools
import io
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

MAX_BYTES = 2**28


class InputError(Exception):
    """Bad input: its one line names the case or file, what was expected and what was found. Exit code 2."""


class StoppedError(Exception):
    """A run that cannot continue, in one line. Exit code 1."""


@contextlib.contextmanager
def refuse_damage(expected: str, place: str = "", *, in_words: bool = True) -> Iterator[None]:
    """Let whatever a library raises in the block for a damaged file be one ``InputError``: expected, found, place.

    Such a library raises a dozen kinds, whatever its parser comes upon, of which its documents name a few. Without
    ``in_words`` only the kind is said, where the library's words are advice for other programs.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        if "out of memory" in str(error).lower():
            raise   # no fault of the file: torch's word for a device that is full
        found = str(error) if in_words else ""
        raise InputError(f"{expected}, found {found or type(error).__name__}{place}") from None


def current_word(value: str) -> str:
    """The word of today for a value that files and command lines of earlier versions name otherwise."""
    return {"reference": "authors"}.get(value, value)


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


def read_bytes(path: Path | str) -> bytes:
    """The content of a regular file that describes others; ``OSError`` where it has more than MAX_BYTES."""
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise OSError(f"more than {MAX_BYTES} bytes in {path}")
        return file.read()


def read_text(path: Path | str) -> str:
    """The text of a file, its line ends as they are; errors as ``read_bytes``, and ``ValueError`` where it is none."""
    return read_bytes(path).decode("utf-8")


def check_text(text: str, what: str) -> None:
    """``InputError`` unless a name or path (``what`` it is, in words) can be written into a file of text."""
    if re.search("[\ud800-\udfff]", text):
        raise InputError(f"{what}: expected a name in UTF-8, found {text!r}")


def check_file_name(name: str, what: str, *, foreign: str = "\\") -> None:
    """``InputError`` unless a name (``what`` it is, in words) can be one file's in any folder, with an ending.

    ``foreign`` signs are another system's, which a name that is made here need not have.
    """
    check_text(name, what)
    plain = re.fullmatch(rf"[^/\x00-\x1f\x7f{re.escape(foreign)}]+", name) and name not in (".", "..")
    if not plain or len(name.encode("utf-8")) > 200:
        raise InputError(f"{what}: expected a plain file name of at most 200 bytes, found {name[:200]!r}")


def temporary_prefix() -> str:
    """What this process writes before the name of a file that is not whole yet; no user's file begins with it."""
    return f".unfinished-{os.getpid()}."


def leftovers(folder: Path) -> list[Path]:
    """What kills have left of such files in a folder."""
    return [path for path in folder.glob(".*") if re.match(r"\.unfinished-\d+\.", path.name) and path.is_file()]


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` to write to; it replaces ``path`` only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, for the writers that choose a format by it (.nii.gz, .pdf).
    temporary = path.with_name(f"{temporary_prefix()}{path.name}")
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


def parse_json(text: str) -> Any:
    """The value of a JSON text; ``ValueError`` where it is none, or one that no JSON file of ours could hold again.

    That is NaN, infinity, half a surrogate pair, a number beyond 64 bits, nesting without end, and a key that comes
    twice, of which the last would win in silence.
    """
    try:
        value = json.loads(text, parse_int=parse_int, object_pairs_hook=object_of)
        with_room = functools.reduce(lambda inner, _: [inner], range(50), value)    # for those who nest it once more
        json.dumps(with_room, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except RecursionError:
        raise ValueError("nesting without end") from None
    return value


def object_of(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its keys and values; ``ValueError`` where a key comes twice."""
    check_once([key for key, _ in pairs], "key")
    return dict(pairs)


def check_once(names: Sequence[str], what: str) -> None:
    """``ValueError`` where a name (``what`` it is, in words) comes twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"the {what} {name[:80]!r} twice")
        seen.add(name)


def parse_int(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def read_json(path: Path | str) -> dict:
    """The object in a JSON file; ``InputError`` where it is missing, damaged or not an object."""
    try:
        value = parse_json(read_text(path))
    except (OSError, ValueError) as error:
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


def parse_rows(text: str, delimiter: str = ",") -> list[dict[str, str]]:
    """The lines of a CSV text below its header; ``ValueError`` where it is none, or two columns have one name."""
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        check_once([name for name in reader.fieldnames or () if name], "column")
        return list(reader)
    except csv.Error as error:
        raise ValueError(str(error)) from None


def parse_number(text: str) -> float:
    """A number in digits of ASCII, NaN or an infinity; ``ValueError`` for what else ``float`` would read: 7_5, ٧."""
    if not re.fullmatch(r"[-+]?(nan|inf|(\d+\.?\d*|\.\d+)(e[-+]?\d+)?)", text, re.ASCII | re.IGNORECASE):
        raise ValueError(f"{text[:50]!r}")
    return float(text)


def read_rows(path: Path | str, columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a CSV file as text; ``InputError`` where a column or part of a line is missing."""
    try:
        text = read_text(path)
        rows = parse_rows(text)
        found = list(rows[0]) if rows else []
    except (OSError, ValueError) as error:
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


def progress(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A tqdm bar on stderr that is silent when stderr is no terminal."""
    return tqdm(iterable, disable=None, dynamic_ncols=True, **options)
