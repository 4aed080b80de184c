"""Headers of .npy files: shape and type of an array are known before it takes memory."""

import math
from typing import BinaryIO

import numpy as np


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first axis varies fastest, and dtype; the file is then at its values.

    ``ValueError``, or whatever Python's parser raises, for a damaged header.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("objects, which only a program can make (allow_pickle)")
    return shape, fortran_order, dtype


def value_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes that the values of such an array fill."""
    return math.prod(map(int, shape)) * dtype.itemsize
