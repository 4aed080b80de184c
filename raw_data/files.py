"""Files of raw data: in folders and, read in place, in zips.

Nothing is unpacked, so a damaged or hostile zip leaves nothing on the disk.
"""

import contextlib
import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from raw_data.limits import check_dictionary, gunzipped, read_limited
from raw_data.walking import walk_files
from utils import InputError, open_file, refuse_damage


@dataclass(frozen=True)
class RawFile:
    """A file in a folder, or a member of a zip."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return f"{self.path}!{self.member}" if self.member else str(self.path)

    def read(self) -> bytes:
        """The content, unzipped where it is gzipped; ``InputError`` where it is damaged."""
        with self.opened() as file:
            return read_limited(file, str(self))

    def beginning(self, size: int) -> bytes:
        """The first bytes of the content."""
        with self.opened() as file:
            return gunzipped(file).read(size)

    @contextlib.contextmanager
    def opened(self) -> Iterator[io.BufferedIOBase]:
        """The file as it is stored; ``InputError`` where it is damaged, also while it is read."""
        with refuse_damage(f"{self}: expected a readable file"):
            if self.member is None:
                with io.BufferedReader(open_file(self.path)) as file:
                    yield file
            else:
                with open_file(self.path) as stored, zipfile.ZipFile(stored) as archive:
                    check_dictionary(stored, archive.getinfo(self.member))
                    with archive.open(self.member) as file:
                        yield file


def list_files(source: Path) -> dict[str, RawFile]:
    """Relative path -> file, of a folder (with the zips at its top) or a zip; an unpacked file wins."""
    if source.is_file():
        return zip_members(source)
    files: dict[str, RawFile] = {}
    for archive in sorted(source.glob("*.zip")):
        # The test scans have no labels: a broken download of them must not stand in the way.
        if "testing" not in archive.name.lower():
            members = zip_members(archive)
            for name in files.keys() & members.keys():
                check_same(files[name], members[name])
            files.update(members)
    # Links are followed: large data often lies on another disk.
    for path in walk_files(source):
        if not is_junk(path.name):
            files[path.relative_to(source).as_posix()] = RawFile(path)
    return files


def check_same(one: RawFile, other: RawFile) -> None:
    """``InputError`` where members of one name in two zips have another content."""
    sums = []
    for file in (one, other):
        with refuse_damage(f"{file}: expected a readable file"), zipfile.ZipFile(file.path) as archive:
            about = archive.getinfo(str(file.member))
            sums.append((about.CRC, about.file_size))
    if sums[0] != sums[1]:
        raise InputError(f"{other}: expected the content that {one.path} has under this name, found another")


def zip_members(archive: Path) -> dict[str, RawFile]:
    with refuse_damage(f"{archive}: expected a whole zip archive", "; download it again"):
        with open_file(archive) as stored, zipfile.ZipFile(stored) as opened:
            names = [info.filename for info in opened.infolist() if not info.is_dir()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{archive}: expected each member once, found {twice[0]} twice")
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{archive}: expected members inside the archive's own folder, found {name}")
    return {
        name: RawFile(archive, name)
        for name in names
        if not name.startswith("__MACOSX/") and not is_junk(PurePosixPath(name).name)
    }


def is_junk(name: str) -> bool:
    return name.startswith("._") or name in (".DS_Store", "Thumbs.db")
