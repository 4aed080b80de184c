"""The written side of a sliced data set: its folders, slices, cases.csv and meta.json."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from environment.locks import exclusive
from environment.provenance import PACKAGES, package_version
from sliced_data.checksums import SUMS, checksum
from sliced_data.meta import FORMAT, KINDS, PARTS, read_cases, seal, spacing_columns
from utils import InputError, naming, write_json, write_rows, write_text

# In a data set that is being written, and in what a kill leaves of it; nobody else's folder has it.
UNFINISHED = ".unfinished"


@contextlib.contextmanager
def new_folder(dest: Path) -> Iterator[Path]:
    """An empty data set to fill; it gets the name ``dest`` when the block has ended, and is removed if it fails.

    ``InputError`` where what lies in its way, ``.NAME.partial``, is not what a killed run has left.
    """
    partial = dest.with_name(f".{dest.name}.partial")
    new_parents = [parent for parent in partial.parents if not parent.exists()]
    if not os.path.lexists(partial):
        partial.mkdir(parents=True, exist_ok=True)
    check_leftover(partial)
    with exclusive(partial):
        check_leftover(partial)
        try:
            (partial / UNFINISHED).touch()
            clear(partial)
            for part in PARTS:
                for kind in KINDS:
                    (partial / part / kind).mkdir(parents=True)
            yield partial
            partial.rename(dest)
            (dest / UNFINISHED).unlink()
        except BaseException:
            with contextlib.suppress(OSError):
                clear(partial)      # its sign goes last
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(OSError):
                for parent in new_parents:
                    parent.rmdir()
            raise


def check_leftover(partial: Path) -> None:
    """``InputError`` unless a folder is empty or has the sign of one that a run was killed in."""
    is_folder = partial.is_dir() and not partial.is_symlink()
    if not is_folder or (os.listdir(partial) and not (partial / UNFINISHED).is_file()):
        found = "files that are not of it" if is_folder else "no folder"
        raise InputError(f"{partial}: expected nothing, or what a killed preprocess.py has left, found {found}")


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == UNFINISHED:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@dataclass(frozen=True)
class CaseDigest:
    """What tells that the slices of a case are as they were written: a digest of all values, a sum of each file's."""

    values: str
    sums: dict[str, str]    # part/kind/name.npy -> eight hexadecimal digits


def write_case(folder: Path, case_id: str, slices: Sequence[Mapping[str, np.ndarray]]) -> CaseDigest:
    """Write the slices of one case, each kind an array, below the folder of a part; returns their digest."""
    digest, sums = hashlib.sha256(), {}
    for z, arrays in enumerate(slices):
        for kind in KINDS:
            array = np.ascontiguousarray(arrays[kind])
            path = folder / kind / f"{case_id}_{z:04d}.npy"
            with naming(path):
                np.save(path, array)
            digest.update(array)
            sums[f"{folder.name}/{kind}/{path.name}"] = checksum(array)
    return CaseDigest(digest.hexdigest(), sums)


def write_description(folder: Path, rows: Sequence[Mapping], facts: Mapping) -> None:
    """cases.csv and meta.json; ``rows`` as cases.csv has them, spacings without a unit, with the cases' digests."""
    spacing = spacing_columns(facts["unit"])
    columns = ("case_id", "patient_id", "split", "n_slices", "n_lesion_slices", *spacing, "size_x", "size_y", "source")
    cases = [
        {**row, **{name: row[f"spacing_{axis}"] for name, axis in zip(spacing, "xyz", strict=True)}}
        for row in rows
    ]
    write_rows(folder / "cases.csv", [{name: line[name] for name in columns} for line in cases], columns)
    content = hashlib.sha256("".join(row["digest"].values for row in rows).encode()).hexdigest()
    lines = "".join(f"{value}  {name}\n" for row in rows for name, value in row["digest"].sums.items())
    write_text(folder / SUMS, lines)
    meta = {
        "format": FORMAT,
        **facts,
        "slices": {part: sum(row["n_slices"] for row in rows if row["split"] == part) for part in PARTS},
        "content": content,
        "checksums": hashlib.sha256(lines.encode()).hexdigest(),
        "versions": {name: package_version(name) for name in PACKAGES},
    }
    write_json(folder / "meta.json", meta | {"seal": seal(meta, read_cases(folder))})
