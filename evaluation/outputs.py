"""Masks and probabilities of a scan in files like its own: NIfTI on its grid, or images of its size."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from environment.atomic_outputs import MARK
from raw_data.dataset import Case, RawDataset
from raw_data.files import RawFile
from raw_data.images import PIXEL_ENDINGS, image_shape, write_image
from raw_data.nifti import open_nifti
from utils import InputError, atomic_path

NIFTI_ENDINGS = (".nii.gz", ".nii")
ALL_ENDINGS = (*NIFTI_ENDINGS, *PIXEL_ENDINGS, ".npy")


@dataclass(frozen=True)
class Template:
    """What files on a scan's own grid have of the scan: their kind, shape (X, Y, Z), axes, affine and header."""

    endings: tuple[str, ...]        # of a mask, the usual one first
    shape: tuple[int, int, int]
    axes: tuple[int, int, int]      # of the file, that are x, y and z
    affine: np.ndarray | None = None
    header: nib.Nifti1Header | None = None      # None of an image

    def probability_endings(self, num_classes: int) -> tuple[str, ...]:
        """The usual one first; a picture has one value per pixel."""
        if self.header is not None:
            return self.endings
        return (".npy", *self.endings) if num_classes == 2 else (".npy",)


def read_template(raw: RawDataset, scan: Case) -> Template:
    """The template of a scan, from its first file; ``InputError`` where that is damaged."""
    file = scan.images[0]
    if is_image(file):
        ending = next(end for end in PIXEL_ENDINGS if str(file).endswith(end))
        return Template((ending,), image_shape(scan.case_id, file), raw.axes)
    image, _ = open_nifti(scan.case_id, file)
    if not np.isfinite(image.affine).all():
        raise InputError(f"{scan.case_id}: expected a finite affine, found NaN or infinity in {file}")
    x, y, z = (image.shape[axis] for axis in raw.axes)
    return Template(NIFTI_ENDINGS, (x, y, z), raw.axes, image.affine, image.header)


def is_image(file: RawFile) -> bool:
    return str(file).endswith(PIXEL_ENDINGS)


def save_mask(path: Path, classes: np.ndarray, template: Template, num_classes: int) -> None:
    """Write classes (X, Y, Z) uint8. An image shows two classes as 0 and 255, and has the numbers of more."""
    if template.header is None:
        with atomic_path(path) as temporary:
            shown = classes * np.uint8(255) if num_classes == 2 else classes
            write_image(temporary, shown, description=MARK.decode())
    else:
        save_nifti(path, classes, template)


def save_probabilities(path: Path, probs: np.ndarray, template: Template) -> None:
    """Write the foreground's softmax of probs (X, Y, Z, K) float32.

    NIfTI: (X, Y, Z), or (X, Y, Z, K - 1) where there are more classes than two. Of an image: .npy likewise, as
    (rows, columns) or (rows, columns, K - 1), or a grey picture of two classes with 255 for 1.
    """
    foreground = np.ascontiguousarray(probs[..., 1] if probs.shape[-1] == 2 else probs[..., 1:])
    if template.header is not None:
        save_nifti(path, foreground, template)
        return
    with atomic_path(path) as temporary:
        if path.name.endswith(".npy"):
            pages = np.moveaxis(foreground.swapaxes(0, 1)[::-1], 2, 0)                       # (Z, rows, columns, ...)
            with temporary.open("wb") as file:
                np.save(file, np.ascontiguousarray(pages[0] if len(pages) == 1 else pages))
                # Its header has no room for a mark; numpy reads no further than the values.
                file.write(MARK)
        else:
            grey = (foreground * 255).round().astype(np.uint8)
            write_image(temporary, grey, description=MARK.decode())


def save_nifti(path: Path, voxels: np.ndarray, template: Template) -> None:
    """Write voxels (X, Y, Z) or (X, Y, Z, K) with the affine, zooms, units and codes of the template."""
    header = template.header.copy()
    header.set_data_dtype(voxels.dtype)
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"] = MARK
    stored = np.moveaxis(voxels, (0, 1, 2), template.axes)
    image = nib.Nifti1Image(stored, template.affine, header)
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def output_paths(out: Path, case_ids: list[str], flag: str, endings: tuple[str, ...]) -> dict[str, Path]:
    """case id -> file: ``out`` itself where its name is a file's, else one file per scan in the folder ``out``."""
    if not out.name.endswith(endings):
        if out.name.endswith(ALL_ENDINGS) or (out.exists() and not out.is_dir()):
            raise InputError(f"{flag}: expected a folder or a file named {' or '.join(sorted(endings))}, found {out}")
        return {case_id: out / f"{case_id}{endings[0]}" for case_id in case_ids}
    if len(case_ids) > 1:
        raise InputError(f"{flag}: expected a folder for {len(case_ids)} scans, found {out}")
    if out.is_dir():
        raise InputError(f"{flag}: expected a file, found the folder {out}")
    return {case_ids[0]: out}
