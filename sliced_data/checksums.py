"""Checksums of a data set's slices: what was changed since it was sliced is refused when it is read."""

import hashlib
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from utils import InputError, read_bytes

SUMS = "checksums.txt"


def checksum(array: np.ndarray) -> str:
    """CRC-32 of the values of a contiguous array, in hexadecimal digits."""
    return f"{zlib.crc32(array):08x}"


def read_checksums(root: Path, stated: str | None) -> Mapping[str, str] | None:
    """part/kind/name.npy -> checksum; None of a data set that was sliced before there were any.

    ``InputError`` where the file is missing, or is not the one whose digest meta.json states.
    """
    if stated is None:
        return None
    try:
        content = read_bytes(root / SUMS)
    except OSError as error:
        raise InputError(f"{root / SUMS}: expected the checksums of the slices, found {error}") from None
    if hashlib.sha256(content).hexdigest() != stated:
        raise InputError(f"{root / SUMS}: expected the checksums that meta.json knows, found others; slice again")
    return parse(content)


@lru_cache(maxsize=4)
def parse(content: bytes) -> Mapping[str, str]:
    lines = (line.partition("  ") for line in content.decode().splitlines())
    return {name: value for value, _, name in lines}


def check_sum(sums: Mapping[str, str], path: Path, array: np.ndarray) -> None:
    """``InputError`` where a slice's values are not those that were written under this name."""
    name = "/".join(path.parts[-3:])
    if sums.get(name) != checksum(array):
        raise InputError(f"{path}: expected the values that were sliced, found others; slice again")
