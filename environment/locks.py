"""Folders that one process has for itself."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from utils import InputError


@contextlib.contextmanager
def exclusive(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold ``folder`` for this process alone; ``InputError`` where another process holds it, but for ``wait``."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process is at work in it; wait for it or stop it") from None
        except OSError:
            pass  # a file system without locks: better no guard than no run
        yield
    finally:
        os.close(handle)
