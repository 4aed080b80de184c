"""Files of raw data: in folders and, read in place, in zips.

Nothing is unpacked, so a damaged or hostile zip leaves nothing on the disk.
"""

import gzip
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import nibabel as nib

from utils import InputError

UNREADABLE = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError,
              nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError)


@dataclass(frozen=True)
class RawFile:
    """A file in a folder, or a member of a zip."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return f"{self.path}!{self.member}" if self.member else str(self.path)

    def read(self) -> bytes:
        """The content, unzipped where it is gzipped; ``InputError`` where it is damaged."""
        try:
            if self.member is None:
                content = self.path.read_bytes()
            else:
                with zipfile.ZipFile(self.path) as archive:
                    content = archive.read(self.member)
            return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        except UNREADABLE as error:
            raise InputError(f"{self}: expected a readable file, found {error}") from None


def list_files(source: Path) -> dict[str, RawFile]:
    """Relative path -> file, of a folder (with the zips at its top) or a zip; an unpacked file wins."""
    if source.is_file():
        return zip_members(source)
    files: dict[str, RawFile] = {}
    for archive in sorted(source.glob("*.zip")):
        # The test scans have no labels: a broken download of them must not stand in the way.
        if "testing" not in archive.name.lower():
            files.update(zip_members(archive))
    # os.walk follows links: large data often lies on another disk.
    for folder, _, names in os.walk(source, followlinks=True):
        for name in names:
            if not is_junk(name):
                path = Path(folder, name)
                files[path.relative_to(source).as_posix()] = RawFile(path)
    return files


def zip_members(archive: Path) -> dict[str, RawFile]:
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [info.filename for info in opened.infolist() if not info.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{archive}: expected a whole zip archive, found {error}; download it again") from None
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
