"""The files below a folder, links followed; what cannot be read is an error, since it may be a case."""

import os
from collections.abc import Iterator
from pathlib import Path

from utils import InputError

MAX_FOLDERS = 1_000_000     # only links that lead into each other make so many


def walk_files(source: Path) -> Iterator[Path]:
    """Every file below ``source``; a folder that a link leads back to is not entered again.

    ``InputError`` names a folder that may not be read, or a link that leads to nothing.
    """
    waiting: list[tuple[Path, frozenset]] = [(source, frozenset())]
    entered = 0
    while waiting:
        folder, above = waiting.pop()
        entered += 1
        if entered > MAX_FOLDERS:
            raise InputError(f"{source}: expected at most {MAX_FOLDERS} folders, found more; do links lead in circles?")
        try:
            about = folder.stat()
            if (about.st_dev, about.st_ino) in above:
                continue
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            folders = [Path(entry.path) for entry in entries if entry.is_dir()]
        except OSError as error:
            raise InputError(f"{folder}: expected a readable folder, found {error.strerror or error}") from None
        below = above | {(about.st_dev, about.st_ino)}
        waiting += [(path, below) for path in reversed(folders)]
        for entry in entries:
            if entry.is_symlink() and not os.path.exists(entry.path):
                raise InputError(f"{entry.path}: expected a file or a folder, found a link that leads to neither")
            if not entry.is_dir():
                yield Path(entry.path)
