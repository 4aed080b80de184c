"""Outputs that appear together: each is written beside its name, and all get their names when the last is whole."""

import contextlib
import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from utils import InputError, naming, open_file, temporary_prefix

# Written into masks of new scans (at the end of a .npy), figures and reports: only a file that has it is replaced.
MARK = b"boundary-loss"
MAX_PDF = 2**26     # bytes of a figure
# What takes paths in the outermost block that is open; empty where none is.
OPEN: list[Callable[[Path], Path]] = []


@contextlib.contextmanager
def written_together(removing: Sequence[Path] = ()) -> Iterator[Callable[[Path], Path]]:
    """Yield a function that takes the path of a file to be and returns the temporary sibling to write.

    After the block the files get their names, in the order in which they were asked for, once those of ``removing``,
    which would no longer be true, are gone. Where the block or the disk fails, what was there stays, and what was
    written and made for it is removed. ``OSError`` names the file to be.

    A block within another is part of it: its files get their names at the end of the outer one.
    """
    if OPEN:
        if removing:
            raise ValueError("only the outermost block removes files")
        yield OPEN[0]
        return
    files: dict[Path, Path] = {}
    folders: list[Path] = []

    def place(path: Path) -> Path:
        folders.extend(parent for parent in path.parents if not parent.exists())
        path.parent.mkdir(parents=True, exist_ok=True)
        files[path] = path.with_name(f"{prefix}{path.name}")
        return files[path]

    prefix = temporary_prefix()
    OPEN.append(place)
    try:
        yield place
        for path, new in files.items():
            with naming(path), new.open("rb") as file:
                os.fsync(file.fileno())
        for path in removing:
            path.unlink(missing_ok=True)
        for path, new in files.items():
            new.replace(path)
    except BaseException as error:
        for new in files.values():
            new.unlink(missing_ok=True)
        for folder in folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise OSError(str(error).replace(prefix, "")) from None
        raise
    finally:
        OPEN.clear()


def check_own(path: Path, sign: bytes) -> None:
    """``InputError`` unless ``path`` is new, or a file that has the project's sign in its ``signed_part``."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file() or sign not in signed_part(path):
        raise InputError(
            f"{path}: expected nothing or a file that was made here before, found another; choose another name or "
            "remove it"
        )


def signed_part(path: Path) -> bytes:
    """The first 4 KiB, gunzipped where they are gzipped, the end of a .npy, the creator that a .pdf names last.

    Nothing where the file is damaged. A paper names the creators of the figures within it before its own.
    """
    try:
        with open_file(path) as file:
            if path.suffix == ".npy":
                file.seek(-len(MARK), os.SEEK_END)
            if path.suffix == ".gz":
                with gzip.open(file) as packed:
                    return packed.read(4096)
            if path.suffix == ".pdf":
                return b"".join(re.findall(rb"/Creator \(([^)]*)\)", file.read(MAX_PDF))[-1:])
            return file.read(4096)
    except (OSError, EOFError, zlib.error):
        return b""
