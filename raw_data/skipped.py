"""What of the raw data belongs to no case: said, since a misspelt name may hide one."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from raw_data.dataset import Case
from raw_data.files import RawFile

SHOWN = 3


def skipped_folders(files: Mapping[str, RawFile], cases: Sequence[Case], endings: Sequence[str]) -> dict[str, str]:
    """Folder as deep as a case's -> one of its images, where none of them is a case's; loose images by their own name.

    Other images beside a case's own are no part of it by the data set's layout, and not listed.
    """
    used = {file for case in cases for file in (*case.images, *case.labels)}
    paths = {PurePosixPath(path): file in used for path, file in files.items() if path.endswith(tuple(endings))}
    depths = {len(PurePosixPath(case.source).parts) for case in cases}
    with_cases = {PurePosixPath(*path.parts[:depth]) for path, is_used in paths.items() if is_used for depth in depths}
    found: dict[str, str] = {}
    for path, is_used in sorted(paths.items()):
        places = [PurePosixPath(*path.parts[:depth]) for depth in depths]
        if not is_used and not with_cases & set(places):
            found.setdefault(str(places[0]), str(path))
    return found


def describe_skipped(skipped: Mapping[str, str], layout: str) -> str:
    """Them in one line; empty where there are none."""
    if not skipped:
        return ""
    some = ", ".join(list(skipped.values())[:SHOWN]) + (", ..." if len(skipped) > SHOWN else "")
    count = f"{len(skipped)} folder{'' if len(skipped) == 1 else 's'} with images"
    return f"skipped {count} but no case of the layout {layout}: {some}"
