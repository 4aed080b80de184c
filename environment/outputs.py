"""Outputs that appear together: each is written beside its name, and all get their names when the last is whole."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from utils import naming


@contextlib.contextmanager
def written_together() -> Iterator[Callable[[Path], Path]]:
    """Yield a function that takes the path of a file to be and returns the temporary sibling to write.

    After the block the files get their names, in the order in which they were asked for. Where the block fails, what
    was there stays, and what was written and made for it is removed. ``OSError`` names the file to be.
    """
    files: dict[Path, Path] = {}
    folders: list[Path] = []

    def place(path: Path) -> Path:
        folders.extend(parent for parent in path.parents if not parent.exists())
        path.parent.mkdir(parents=True, exist_ok=True)
        files[path] = path.with_name(f"{prefix}{path.name}")
        return files[path]

    prefix = f".{os.getpid()}."
    try:
        yield place
        for path, new in files.items():
            with naming(path), new.open("rb") as file:
                os.fsync(file.fileno())
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
