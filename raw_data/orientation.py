"""Whether the files of a case lie in the same way in space, where their headers say how."""

from collections.abc import Sequence

import nibabel as nib
import numpy as np

from raw_data.files import RawFile
from raw_data.limits import HEADER, nifti_length
from raw_data.nifti import mm_per_unit
from utils import InputError, refuse_damage

DIRECTION_TOLERANCE = 0.05      # of direction cosines: 3 degrees
ORIGIN_TOLERANCE = 0.5          # of a voxel


def check_orientation(case_id: str, files: Sequence[RawFile]) -> None:
    """``InputError`` where a file's axes point elsewhere than the first's, or begin elsewhere.

    A header without an affine, or with the identity beside another spacing, as in ISLES 2018, says nothing.
    """
    stated = [(file, affine) for file in files if (affine := stated_affine(file)) is not None]
    for file, affine in stated[1:]:
        first, expected = stated[0]
        if np.abs(directions(affine) - directions(expected)).max() > DIRECTION_TOLERANCE:
            found = f"{axes(affine)} in {file}"
            raise InputError(f"{case_id}: expected the orientation of {first}, {axes(expected)}, found {found}")
        shift = np.linalg.norm(affine[:3, 3] - expected[:3, 3])
        if shift > ORIGIN_TOLERANCE * np.linalg.norm(expected[:3, :3], axis=0).min():
            raise InputError(f"{case_id}: expected the place of {first}, found one {shift:.3g} mm away in {file}")


def stated_affine(file: RawFile) -> np.ndarray | None:
    """The affine of a NIfTI file, to mm; None where it states none."""
    if not str(file).endswith((".nii", ".nii.gz")):
        return None
    content = file.beginning(HEADER)
    if nifti_length(content, str(file)) is None:
        return None
    header = nib.Nifti1Header(content, check=False)
    if not header["sform_code"] and not header["qform_code"]:
        return None
    try:
        with refuse_damage("expected an affine"), np.errstate(all="ignore"):
            affine = header.get_best_affine()
            steps = np.linalg.norm(affine[:3, :3], axis=0)
    except InputError:
        return None
    if not np.isfinite(affine).all() or not steps.all():
        return None
    identity = np.array_equal(affine, np.eye(4)) and not np.allclose(header["pixdim"][1:4], 1)
    return None if identity else np.diag([*[mm_per_unit(header)] * 3, 1.0]) @ affine


def directions(affine: np.ndarray) -> np.ndarray:
    """Direction cosines (3, 3) of the array's axes."""
    return affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)


def axes(affine: np.ndarray) -> str:
    """Where the array's axes lead, in letters: RAS is right, anterior, superior."""
    return "".join(str(code or "?") for code in nib.aff2axcodes(affine))
