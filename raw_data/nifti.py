"""NIfTI-1 files: what a header claims is checked before anything is computed with it, and the voxels after that."""

import nibabel as nib
import numpy as np

from raw_data.files import RawFile
from raw_data.limits import HEADER, NUMBERS, check_length, nifti_length
from utils import InputError, refuse_damage

MIN_SPACING, MAX_SPACING = 1e-6, 1000.0     # mm
UNIT_BITS = 7           # of xyzt_units; the others are the unit of time
MM_PER_UNIT = {1: 1000.0, 3: 0.001}     # NIfTI's codes of metre and micron; 2 is mm, which is also what 0 means

Spacing = tuple[float, float, float]


def mm_per_unit(header: nib.Nifti1Header) -> float:
    """How many mm the unit is that a header says its spacing and affine are in; 1 where it says none."""
    return MM_PER_UNIT.get(int(header["xyzt_units"]) & UNIT_BITS, 1.0)


def open_nifti(case_id: str, file: RawFile) -> tuple[nib.Nifti1Image, Spacing]:
    """A 3-D image of numbers, its voxels still as stored, and its pixdim in mm.

    Its own header and affine stay in the unit that the header says. ``InputError`` names the case and a file that is
    damaged.
    """
    content = file.read()
    if len(content) < HEADER:
        raise InputError(f"{case_id}: expected a whole NIfTI file, found {len(content)} bytes in {file}")
    check_length(case_id, content, str(file))
    with refuse_damage(f"{case_id}: expected a whole NIfTI file", f" in {file}"):
        header = nib.Nifti1Header(content[:HEADER], check=False)
        kind, offset = int(header["datatype"]), float(header["vox_offset"])
        if kind not in NUMBERS:
            raise ValueError(f"voxels of the data type {kind}, which are no real numbers")
        if nifti_length(content, str(file)) is None:
            raise ValueError("another header")      # which nibabel might mend, and believe
        if not 0 <= offset <= len(content):
            raise ValueError(f"voxels that begin at byte {offset:g}")
        # Unchecked, because nibabel's check makes 1 mm of a spacing of 0.
        x, y, z = (float(zoom) * mm_per_unit(header) for zoom in header["pixdim"][1:4])
        image = nib.Nifti1Image.from_bytes(content)
    if len(image.shape) != 3 or min(image.shape) < 1:
        raise InputError(f"{case_id}: expected a 3-D volume, found shape {image.shape} in {file}")
    if not MIN_SPACING <= min(x, y, z) <= max(x, y, z) <= MAX_SPACING:
        expected = f"a positive spacing, from {MIN_SPACING:g} to {MAX_SPACING:g} mm"
        raise InputError(f"{case_id}: expected {expected}, found {(x, y, z)} in {file}")
    return image, (x, y, z)


def scaled_voxels(case_id: str, file: RawFile, image: nib.Nifti1Image) -> np.ndarray:
    """The voxels of an ``open_nifti`` (X, Y, Z) float32 after its slope and intercept; ``InputError`` as that."""
    with refuse_damage(f"{case_id}: expected a whole NIfTI file", f" in {file}"), np.errstate(all="ignore"):
        voxels = image.get_fdata(dtype=np.float32, caching="unchanged")
    if not np.isfinite(voxels).all():
        raise InputError(f"{case_id}: expected finite voxels, found NaN or infinity in {file}")
    return voxels


def stored_voxels(case_id: str, file: RawFile) -> np.ndarray:
    """The voxels of a file (X, Y, Z) in the type that they are stored in; ``InputError`` as ``open_nifti``."""
    image, _ = open_nifti(case_id, file)
    with refuse_damage(f"{case_id}: expected a whole NIfTI file", f" in {file}"), np.errstate(all="ignore"):
        return np.asarray(image.dataobj)
