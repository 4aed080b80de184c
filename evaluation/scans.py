"""New scans to segment: which files belong to which scan."""

from collections.abc import Sequence
from pathlib import Path

from raw_data import LAYOUTS
from raw_data.dataset import Case, RawDataset, says
from raw_data.files import RawFile, list_files
from utils import InputError


def find_scans(raw: RawDataset, paths: Sequence[Path]) -> list[Case]:
    """The scans of a data set among ``paths``: folders or zips of one scan or many, or the files of one scan.

    ``InputError`` where a path is missing, a scan lacks a modality or has another, or a scan comes twice.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: expected a scan, found nothing")
    single = [path for path in paths if path.is_file() and path.name.endswith(raw.endings)]
    if single and len(single) < len(paths):
        raise InputError(f"--case: expected the files of one scan or folders of scans, found both: {single[0]}")
    if single:
        return [scan_of_files(raw, single)]
    scans = [scan for path in paths for scan in scans_below(raw, path)]
    twice = [scan.case_id for i, scan in enumerate(scans) if scan.case_id in {s.case_id for s in scans[:i]}]
    if twice:
        raise InputError(f"--case: expected each scan once, found {twice[0]} twice")
    return scans


def scans_below(raw: RawDataset, source: Path) -> list[Case]:
    """The scans in a folder or zip that has the data set's layout, or is one scan's folder."""
    files = list_files(source)
    if source.is_dir():
        # The layout may begin above the folder: case_7 and 19/pre are part of the names it knows.
        above = "/".join(source.resolve().parts[-2:])
        files = {f"{above}/{path}": file for path, file in files.items()}
    scans = raw.scans_in(files, source.resolve().name)
    if not scans:
        raise InputError(f"{source}: expected {raw.layout}, found no scan")
    return scans


def scan_of_files(raw: RawDataset, paths: Sequence[Path]) -> Case:
    """One scan of files that were named: by the modality in each name, or in the order of the network's channels."""
    wanted = raw.modalities
    if len(paths) != raw.n_files:
        raise InputError(f"--case: expected {raw.n_files} files, {', '.join(wanted)}, found {len(paths)}")
    for number, path in enumerate(paths):
        if any(path.samefile(other) for other in paths[:number]):
            raise InputError(f"--case: expected a file of its own for each of {', '.join(wanted)}, found {path} twice")
    kinds = [modality_in(path.name, raw) for path in paths]
    if set(kinds) == set(wanted):
        paths = [paths[kinds.index(modality)] for modality in wanted]
    else:
        for kind, modality, path in zip(kinds, wanted, paths, strict=False):
            if kind not in (None, modality):
                raise InputError(f"{path}: expected {modality} (the run's are {', '.join(wanted)}), found {kind}")
    return Case(raw.case_id_of(paths[0].name), None, tuple(RawFile(path) for path in paths), (), str(paths[0]))


def modality_in(name: str, raw: RawDataset) -> str | None:
    """The one modality that a file's name says (``FLAIR``, ``SMIR...CT_CBF...``), of any data set, or None."""
    others = {kind.upper(): kind for other in LAYOUTS.values() for kind in other.modalities_in(name)}
    # "CT" of one data set is part of another's "CT_CBF", which says more.
    whole = [kind for kind in others.values() if not any(kind != o and says(o, kind) for o in others.values())]
    found = raw.modalities_in(name) or whole
    return found[0] if len(found) == 1 else None
