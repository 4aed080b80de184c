"""Files of a phantom: bytes of images, and zips and folders that are there whole or not at all.

A scan is a function that yields its members, (name, bytes), the name ending in a slash for an empty folder.
"""
import contextlib
import gzip
import io
import os
import re
import shutil
import zipfile
from collections import namedtuple

import nibabel as nib
import numpy as np
from PIL import Image

from environment.locks import exclusive
from utils import naming, temporary_prefix

# How a raw layout is made: `scans(args)` for `write`; `tops(args)`, the names it makes in `out`; flag -> its lowest and
# highest value, for the flags it has; flag -> its default, None where scans differ in it.
Layout = namedtuple("Layout", "write scans tops limits defaults")


def to_dtype(image, dtype):
    """The image in the type of its file: rounded to integers, or to 1/32 to compress well."""
    step = 1 if np.issubdtype(dtype, np.integer) else 32
    return (np.rint(image * step) / step).astype(dtype)


def nifti(image, dtype, affine):
    """Bytes of a .nii.gz; the header's zooms are those of the affine (4, 4), or its diagonal (3,), in mm."""
    affine = np.asarray(affine)
    affine = affine if affine.ndim == 2 else np.diag([*affine, 1.0])
    volume = nib.Nifti1Image(to_dtype(image, dtype), affine)
    return gzip.compress(volume.to_bytes(), compresslevel=1, mtime=0)


def png(image, mode):
    """Bytes of a PNG of `mode`: "1", "L", "RGB" or "RGBA"; `image` is (H, W) or (H, W, 3) uint8, or (H, W) bool.

    A grey image becomes three equal channels in RGB, and gets full opacity in RGBA.
    """
    picture = Image.fromarray(image.astype(np.uint8) * 255 if image.dtype == bool else image)
    buffer = io.BytesIO()
    picture.convert(mode).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


@contextlib.contextmanager
def made_whole(out):
    """Yield a hidden folder below `out`; what it holds moves into `out` once the block succeeds.

    If it fails nothing stays, `out` itself included where it was not there. What a kill has left there goes when the
    next one begins; it has the name of the project's unfinished files. InputError where another process makes one.
    """
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    part = out / f"{temporary_prefix()}phantom"
    try:
        with exclusive(out):
            for left in out.iterdir():
                if re.fullmatch(r"\.unfinished-\d+\.phantom", left.name) and not left.is_symlink():
                    shutil.rmtree(left)
            part.mkdir()
            yield part
            for entry in sorted(part.iterdir()):
                os.replace(entry, out / entry.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if new and not any(out.iterdir()):
            out.rmdir()


def write_zips(out, zips, progress):
    """Write zips, name -> scans."""
    with made_whole(out) as part:
        for name, scans in zips.items():
            with naming(out / name), zipfile.ZipFile(part / name, "w") as archive:
                for members in scans:
                    for member, content in members():
                        add_member(archive, member, content)
                    progress.update()


def add_member(archive, name, content):
    """Add one file, or a folder where the name ends in a slash, with a fixed time."""
    info = zipfile.ZipInfo(name, date_time=(2018, 3, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, (0o755 if name.endswith("/") else 0o644) << 16
    info.compress_type = zipfile.ZIP_STORED if name.endswith((".gz", "/")) else zipfile.ZIP_DEFLATED
    archive.writestr(info, content, compresslevel=1)


def write_folder(out, scans, progress):
    """Write the members of scans as files."""
    with made_whole(out) as part:
        for members in scans:
            for member, content in members():
                path = part / member
                path.parent.mkdir(parents=True, exist_ok=True)
                with naming(out / member):
                    path.write_bytes(content)
            progress.update()
