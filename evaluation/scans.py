"""New scans to segment: which files belong to which scan, and the grid that a prediction goes back to."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from raw_data import DATASETS
from raw_data.dataset import Dataset, match_files
from raw_data.files import RawFile, list_files
from raw_data.volumes import check_contrast, read_volumes
from utils import InputError, atomic_path

NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Scan:
    """A scan without a label: a file for each modality, in the order of the network's channels."""

    case_id: str
    images: tuple[RawFile, ...]


def find_scans(name: str, paths: Sequence[Path]) -> list[Scan]:
    """The scans of data set ``name`` among ``paths``: folders or zips of one scan or many, or the files of one scan.

    ``InputError`` where a path is missing, a scan lacks a modality or has another, or a scan comes twice.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: expected a scan, found nothing")
    single = [path for path in paths if path.is_file() and path.name.endswith(NIFTI)]
    if single and len(single) < len(paths):
        raise InputError(f"--case: expected the files of one scan or folders of scans, found both: {single[0]}")
    if single:
        return [scan_of_files(DATASETS[name], single)]
    scans = [scan for path in paths for scan in scans_below(DATASETS[name], path)]
    twice = [scan.case_id for i, scan in enumerate(scans) if scan.case_id in {s.case_id for s in scans[:i]}]
    if twice:
        raise InputError(f"--case: expected each scan once, found {twice[0]} twice")
    return scans


def scans_below(dataset: Dataset, source: Path) -> list[Scan]:
    """The scans in a folder or zip that has the data set's layout, or is one scan's folder."""
    files = list_files(source)
    if source.is_dir():
        # The layout may begin above the folder: case_7 and 19/pre are part of the names it knows.
        above = "/".join(source.resolve().parts[-2:])
        files = {f"{above}/{path}": file for path, file in files.items()}
    found, _ = match_files(dataset, files)
    if not found and source.is_dir():
        loose = {modality_in(path): path for path in files if path.count("/") == 2 and path.endswith(NIFTI)}
        loose.pop(None, None)
        found = {source.resolve().name: loose} if loose else {}
    scans = [scan_of_parts(dataset, case_id, found[case_id], files) for case_id in sorted(found)]
    if not scans:
        raise InputError(f"{source}: expected {dataset.layout}, found no scan")
    return scans


def scan_of_parts(dataset: Dataset, case_id: str, parts: Mapping[str, str], files: Mapping[str, RawFile]) -> Scan:
    for modality in dataset.modalities:
        if modality not in parts:
            found = ", ".join(sorted(kind for kind in parts if kind != "label")) or "none"
            raise InputError(f"{case_id}: expected a file of each of {', '.join(dataset.modalities)}, found {found}")
    return Scan(case_id, tuple(files[parts[modality]] for modality in dataset.modalities))


def scan_of_files(dataset: Dataset, paths: Sequence[Path]) -> Scan:
    """One scan of files that were named: by the modality in each name, or in the order of the network's channels."""
    wanted = dataset.modalities
    if len(paths) != len(wanted):
        raise InputError(f"--case: expected {len(wanted)} files, {', '.join(wanted)}, found {len(paths)}")
    kinds = [modality_in(path.name) for path in paths]
    if set(kinds) == set(wanted):
        paths = [paths[kinds.index(modality)] for modality in wanted]
    else:
        for kind, modality, path in zip(kinds, wanted, paths, strict=True):
            if kind not in (None, modality):
                raise InputError(f"{path}: expected {modality} (the run's are {', '.join(wanted)}), found {kind}")
    case_id = next(path.name[: -len(end)] for path in paths[:1] for end in NIFTI[::-1] if path.name.endswith(end))
    return Scan(case_id, tuple(RawFile(path) for path in paths))


def modality_in(path: str) -> str | None:
    """The one modality that a file's name says (``FLAIR``, ``SMIR...CT_CBF...``), or None."""
    named = {modality: modality.removeprefix("CT_") for dataset in DATASETS.values() for modality in dataset.modalities}
    name, found = path.rsplit("/", 1)[-1], []
    for modality, tail in named.items():
        # "CT" alone is a modality, and the beginning of others' names.
        if re.search(rf"(?<![a-z0-9]){tail}(?![a-z0-9]|_(?:CB|MT|Tm))", name, re.IGNORECASE):
            found.append(modality)
    return found[0] if len(found) == 1 else None


def read_scan(scan: Scan) -> tuple[np.ndarray, tuple[float, float, float]]:
    """image (C, X, Y, Z) float32 as stored and its spacing in mm; ``InputError`` names a damaged file."""
    images, spacing = read_volumes(scan.case_id, scan.images)
    check_contrast(scan.case_id, scan.images, images)
    return np.stack(images), spacing


def save_on_grid(path: Path, voxels: np.ndarray, like: RawFile) -> None:
    """Write voxels (X, Y, Z) or (X, Y, Z, K) with the affine, zooms, units and codes of the image ``like``."""
    reference = nib.Nifti1Image.from_bytes(like.read())
    header = reference.header.copy()
    header.set_data_dtype(voxels.dtype)
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"] = b""
    image = nib.Nifti1Image(voxels, reference.affine, header)
    with atomic_path(path) as temporary:
        nib.save(image, temporary)
