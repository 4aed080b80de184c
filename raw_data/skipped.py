"""What of the raw data belongs to no case: said, since a misspelt name may hide one."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from raw_data.dataset import Case
from raw_data.files import RawFile

SHOWN = 3


def skipped_folders(files: Mapping[str, RawFile], cases: Sequence[Case], endings: Sequence[str]) -> dict[str, str]:
    """Folder as deep as a case's -> one of its images, where none of them is a case's; loose images by their own name.

    Where cases are files, the folder of an image counts once, and images among those of cases by their own names.
    Other images beside a case's own are no part of it by the data set's layout, and not listed.
    """
    used = {file for case in cases for file in (*case.images, *case.labels)}
    paths = {PurePosixPath(path): file in used for path, file in files.items() if path.endswith(tuple(endings))}
    depths = {len(PurePosixPath(case.source).parts) for case in cases}
    with_cases = {PurePosixPath(*path.parts[:depth]) for path, is_used in paths.items() if is_used for depth in depths}
    folders = {path.parent for path, is_used in paths.items() if is_used}
    found: dict[str, str] = {}
    for path, is_used in sorted(paths.items()):
        places = [PurePosixPath(*path.parts[:depth]) for depth in sorted(depths)]
        if not is_used and not with_cases & set(places):
            is_among_others = places[0] == path and path.parent not in folders and path.parent.name
            found.setdefault(str(path.parent if is_among_others else places[0]), str(path))
    return found


def describe_skipped(skipped: Mapping[str, str], layout: str) -> str:
    """Them in one line; empty where there are none."""
    if not skipped:
        return ""
    some = ", ".join(list(skipped.values())[:SHOWN]) + (", ..." if len(skipped) > SHOWN else "")
    images = sum(place == path for place, path in skipped.items())
    folders = len(skipped) - images
    counts = [f"{n} {what}{'' if n == 1 else 's'}{rest}" for n, what, rest in
              ((folders, "folder", " with images"), (images, "image", "")) if n]
    return f"skipped {' and '.join(counts)} but no case of the layout {layout}: {some}"
