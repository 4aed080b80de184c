"""Volumes of one case: read from NIfTI files on one grid, and checked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raw_data.files import RawFile
from raw_data.nifti import Spacing, open_nifti, scaled_voxels
from raw_data.orientation import check_orientation
from utils import InputError

# The headers of one real case differ by up to 2e-5 mm between its files.
SPACING_TOLERANCE_MM = 1e-4
XYZ = (0, 1, 2)
# In place of a class, where nobody knows it.
IGNORED = 255


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
    check_orientation(case_id, files)
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
    image, zooms = open_nifti(case_id, file)
    voxels = scaled_voxels(case_id, file, image)
    return voxels.transpose(axes), (zooms[axes[0]], zooms[axes[1]], zooms[axes[2]])
