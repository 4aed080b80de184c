"""Volumes of one case: read from NIfTI files on one grid, and checked."""

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from raw_data.files import UNREADABLE, RawFile
from raw_data.limits import check_length
from raw_data.orientation import check_orientation
from utils import InputError

# The headers of one real case differ by up to 2e-5 mm between its files.
SPACING_TOLERANCE_MM = 1e-4
XYZ = (0, 1, 2)
# In place of a class, where nobody knows it.
IGNORED = 255

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Volume:
    """image (C, X, Y, Z) float32 as stored, label (X, Y, Z) uint8 of classes, spacing (x, y, z) in mm or px."""

    image: np.ndarray
    label: np.ndarray
    spacing: Spacing


def read_volumes(
    case_id: str, files: Sequence[RawFile], axes: Sequence[int] = XYZ
) -> tuple[list[np.ndarray], Spacing]:
    """The voxels (X, Y, Z) float32 of files on one grid, and its spacing in mm; ``axes`` as ``read_nifti``."""
    check_orientation(case_id, files, with_origin=True)
    volumes: list[np.ndarray] = []
    for file in files:
        voxels, zooms = read_nifti(case_id, file, axes)
        if not volumes:
            spacing = zooms
        check_grid(case_id, file, shape=voxels.shape, spacing=zooms, expected=((*volumes, voxels)[0].shape, spacing))
        volumes.append(voxels)
    return volumes, spacing


def check_grid(
    case_id: str, file: RawFile, *, shape: Sequence[int], spacing: Spacing, expected: tuple[Sequence[int], Spacing]
) -> None:
    """``InputError`` where a file has another shape or spacing than the case's first."""
    if tuple(shape) != tuple(expected[0]):
        raise InputError(f"{case_id}: expected shape {tuple(expected[0])}, found {tuple(shape)} in {file}")
    if max(abs(a - b) for a, b in zip(spacing, expected[1], strict=True)) > SPACING_TOLERANCE_MM:
        wanted, found = (tuple(round(mm, 6) for mm in sizes) for sizes in (expected[1], spacing))
        raise InputError(f"{case_id}: expected spacing {wanted} mm, found {found} mm in {file}")


def check_contrast(case_id: str, files: Sequence[RawFile], images: Sequence[np.ndarray]) -> None:
    for file, image in zip(files, images, strict=True):
        if image.min() == image.max():
            raise InputError(f"{case_id}: expected an image with contrast, found only {image.min():g} in {file}")


def read_nifti(case_id: str, file: RawFile, axes: Sequence[int] = XYZ) -> tuple[np.ndarray, Spacing]:
    """Voxels (X, Y, Z) float32 and pixdim in mm; not the affine, which is the identity in ISLES 2018.

    ``axes``: which axes of the file are x, y and z.
    """
    content = file.read()
    if len(content) < 348:
        raise InputError(f"{case_id}: expected a whole NIfTI file, found {len(content)} bytes in {file}")
    check_length(case_id, content, str(file))
    try:
        # Unchecked, because nibabel's check makes 1 mm of a spacing of 0.
        zooms = tuple(float(zoom) for zoom in nib.Nifti1Header(content[:348], check=False)["pixdim"][1:4])
        image = nib.Nifti1Image.from_bytes(content)
        voxels = image.get_fdata(dtype=np.float32, caching="unchanged")
    except UNREADABLE as error:
        raise InputError(f"{case_id}: expected a whole NIfTI file, found {error} in {file}") from None
    if voxels.ndim != 3 or not voxels.size:
        raise InputError(f"{case_id}: expected a 3-D volume, found shape {voxels.shape} in {file}")
    if not np.isfinite(voxels).all():
        raise InputError(f"{case_id}: expected finite voxels, found NaN or infinity in {file}")
    if not all(np.isfinite(zoom) and zoom > 0 for zoom in zooms):
        raise InputError(f"{case_id}: expected a positive spacing, found {zooms} in {file}")
    return voxels.transpose(axes), (zooms[axes[0]], zooms[axes[1]], zooms[axes[2]])


def nifti_image(case_id: str, file: RawFile) -> nib.Nifti1Image:
    """A NIfTI file, its voxels not read yet; ``InputError`` where it is damaged."""
    try:
        image = nib.Nifti1Image.from_bytes(file.read())
    except UNREADABLE as error:
        raise InputError(f"{case_id}: expected a whole NIfTI file, found {error} in {file}") from None
    if len(image.shape) != 3:
        raise InputError(f"{case_id}: expected a 3-D volume, found shape {image.shape} in {file}")
    return image
