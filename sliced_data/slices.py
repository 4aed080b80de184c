"""The files of one part of a sliced data set: which there are, how one is read and checked."""

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from raw_data.npy import read_header
from raw_data.volumes import IGNORED
from sliced_data.checksums import check_sum
from utils import InputError, open_file, refuse_damage

# What the name of a map ends in that is computed over the whole volume.
IN_3D = "3d"


@dataclass(frozen=True)
class SlicedCase:
    """One line of cases.csv that the loader needs; spacing of the sliced grid in mm or px, in array-axis order."""

    case_id: str
    split: str
    n_slices: int
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class PartFiles:
    """What one part (train or val) of a data set consists of."""

    folder: Path
    cases: tuple[SlicedCase, ...]
    names: tuple[str, ...]          # of its slices, in the order of the cases
    stored: dict[str, tuple[tuple[int, ...], np.dtype]]     # kind -> shape and dtype of one slice
    maps: str | None                # "phi2d", "phi3d", a region-wise kind, such a kind with "-3d" after it, or None
    convention: str | None          # of signed distances, where it is not that of the stored ones
    classes: int
    has_ignored: bool = False       # whether a label may have IGNORED voxels
    sums: Mapping[str, str] | None = None   # part/kind/name.npy -> its values' checksum; None: written without

    @property
    def computed(self) -> tuple[tuple[int, ...], np.dtype] | None:
        """Shape and dtype of one slice's map where it is not on the disk; squared distances are beyond float16."""
        if self.maps is None or self.maps in self.stored:
            return None
        dtype = np.float16 if self.maps.startswith("phi") else np.float32
        return (self.classes, *self.stored["label"][0]), np.dtype(dtype)

    @property
    def needs_volumes(self) -> bool:
        """Whether a map that is not on the disk is made of all slices of a case."""
        return self.computed is not None and str(self.maps).endswith(IN_3D)

    @property
    def nbytes(self) -> int:
        """Memory that all slices fill."""
        arrays = [*self.stored.values(), *([self.computed] if self.computed else [])]
        return len(self.names) * sum(math.prod(shape) * dtype.itemsize for shape, dtype in arrays)

    def path(self, kind: str, index: int) -> Path:
        return self.folder / kind / f"{self.names[index]}.npy"

    def spacing(self) -> np.ndarray:
        """In-plane spacing (N, 2) of every slice, float32."""
        rows = [case.spacing[:2] for case in self.cases for _ in range(case.n_slices)]
        return np.array(rows, dtype=np.float32)

    def case_ranges(self) -> Iterator[tuple[SlicedCase, slice]]:
        """Each case with its place along N."""
        start = 0
        for case in self.cases:
            yield case, slice(start, start + case.n_slices)
            start += case.n_slices


@cache
def npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """The bytes before the values in a file that ``np.save`` writes."""
    file = io.BytesIO()
    description = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
    return file.getvalue()


def read_slice(files: PartFiles, kind: str, index: int, out: np.ndarray) -> None:
    """Read one .npy file into ``out`` (contiguous), checked against its shape and dtype and for its values."""
    path, header = files.path(kind, index), npy_header(out.shape, out.dtype)
    try:
        with open_file(path) as file:
            # np.load would read the same bytes into an array of its own; it reads files with other headers.
            whole = file.read(len(header)) == header and file.readinto(out) == out.nbytes
    except OSError as error:
        raise InputError(f"{path}: expected a readable slice, found {error}") from None
    if not whole:
        load_other(path, out)
    if kind == "label":
        highest = out.max(where=out != IGNORED, initial=0) if files.has_ignored else out.max()
        if highest >= files.classes:
            found = f"{highest} in {path.parent}"
            raise InputError(f"{files.names[index]}: expected classes 0 to {files.classes - 1}, found {found}")
    elif (out.view(np.uint16) & 0x7FFF).max() >= 0x7C00:
        # float16 with every bit of the exponent set; a tenth of np.isfinite's time.
        raise InputError(f"{path}: expected finite values, found NaN or infinity")
    if files.sums is not None:
        check_sum(files.sums, path, out)


def load_other(path: Path, out: np.ndarray) -> None:
    """Read a file that does not begin as ``np.save`` writes it today, or say what is wrong with it."""
    with refuse_damage(f"{path}: expected a readable slice"), open_file(path) as stored:
        # Shape and dtype first: an array takes the memory that its header says, and a header what its length says.
        file = io.BytesIO(stored.read(out.nbytes + 2**16))
        shape, _, dtype = read_header(file)
        if (shape, dtype) != (out.shape, out.dtype):
            raise InputError(f"{path}: expected {out.dtype} of shape {out.shape}, found {dtype} {shape}")
        file.seek(0)
        out[...] = np.lib.format.read_array(file, allow_pickle=False)
