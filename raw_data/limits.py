"""How large a raw file may be: held against its header, and its own length, before memory is taken for it."""

import gzip
import io
import struct
import zipfile
from collections.abc import Sequence
from typing import BinaryIO

import nibabel as nib
import numpy as np

from utils import InputError

MAX_VOXELS = 2**29                  # of a volume: 512 x 512 x 2048, 2 GiB as float32
MAX_OTHER_BYTES = 2**28             # of a file that is no NIfTI: sidecars, images
MAX_PIXELS = 2**27                  # of an image's page: 11,585 x 11,585
FEW_PIXELS = 2**24                  # that any page may claim; more need a file in proportion
PIXELS_PER_BYTE = 10_000            # more than a blank page of 1-bit pixels compresses to in a PNG
SLACK = 2**20                       # bytes that may follow the voxels
HEADER = 348
# Bytes of a voxel by NIfTI's code of the data type, of those that are real numbers.
NUMBERS = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
CHUNK = 2**20


def read_limited(file: io.BufferedIOBase, name: str) -> bytes:
    """All of an open file that can ``peek``, gunzipped; no more memory than its header says and the limits allow.

    ``InputError`` (``name`` names the file) where it is larger.
    """
    file = gunzipped(file)
    content = io.BytesIO()
    content.write(file.read(HEADER))
    claimed = nifti_length(content.getvalue(), name)
    limit = MAX_OTHER_BYTES if claimed is None else claimed + SLACK
    while part := file.read(CHUNK):
        content.write(part)
        if content.tell() > limit:
            words = f"{limit} bytes" if claimed is None else f"the {claimed} bytes of its header"
            raise InputError(f"{name}: expected at most {words}, found more")
    return content.getvalue()


def check_dictionary(stored: BinaryIO, member: zipfile.ZipInfo) -> None:
    """``ValueError`` where LZMA would take more memory for a zip member's dictionary than a file may have."""
    if member.compress_type != zipfile.ZIP_LZMA:
        return
    stored.seek(member.header_offset + 26)
    name, extra = struct.unpack("<HH", stored.read(4))
    stored.seek(name + extra + 5, io.SEEK_CUR)      # two bytes of version, two of length, one of the coder's settings
    size, = struct.unpack("<I", stored.read(4))
    if size > MAX_OTHER_BYTES:
        raise ValueError(f"a dictionary of {size} bytes")


def gunzipped(file: io.BufferedIOBase) -> io.BufferedIOBase:
    """The file as it is read without gzip, which its first bytes show."""
    return gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file


def nifti_length(header: bytes, name: str) -> int | None:
    """Bytes that a NIfTI-1 file has by its header; None where it is none. ``InputError`` where it has too many."""
    if len(header) < HEADER or header[:4] not in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"):
        return None
    described = nib.Nifti1Header(header[:HEADER], check=False)
    dimensions = np.clip(described["dim"].astype(int), 0, None)
    voxels = 1
    for length in dimensions[1 : 1 + min(dimensions[0], 7)]:
        voxels *= int(length)
    if voxels > MAX_VOXELS:
        raise InputError(f"{name}: expected at most {MAX_VOXELS} voxels, found a header of {voxels}")
    size = NUMBERS.get(int(described["datatype"]))
    if size is None:
        return None
    offset = float(described["vox_offset"])
    return voxels * size + (int(offset) if 352 <= offset < 2**24 else 352)


def check_pixels(case_id: str, sizes: Sequence[tuple[int, int]], content: bytes, name: str) -> None:
    """``InputError`` where the last of an image's pages (columns, rows) is too large, or they all are together."""
    page, every = sizes[-1][0] * sizes[-1][1], sum(width * height for width, height in sizes)
    highest = min(MAX_PIXELS, max(FEW_PIXELS, PIXELS_PER_BYTE * len(content)))
    if page > highest or every > MAX_VOXELS:
        found = f"{page}, {every} in {len(sizes)} pages, in {name} of {len(content)} bytes"
        raise InputError(f"{case_id}: expected a page of at most {highest} pixels, found {found}")


def check_length(case_id: str, content: bytes, name: str) -> None:
    """``InputError`` where a NIfTI file is shorter than its header says."""
    claimed = nifti_length(content[:HEADER], name)
    if claimed is not None and len(content) < claimed:
        raise InputError(f"{case_id}: expected a whole NIfTI file of {claimed} bytes, found {len(content)} in {name}")
