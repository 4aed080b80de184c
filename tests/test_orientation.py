"""Whether the files of a case lie in the same way: rotations, shifts and headers that say nothing."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from raw_data.files import RawFile
from raw_data.orientation import check_orientation, stated_affine
from raw_data.volumes import read_nifti, read_volumes
from utils import InputError

SPACING = np.array([0.9, 1.2, 3.0])


@pytest.fixture
def write(tmp_path):
    """A NIfTI file whose axes are turned about x, begin elsewhere, or are mirrored."""

    def make(name, *, degrees=0.0, shift=(0, 0, 0), mirrored=False, affine=None, spacing=None):
        turned = np.eye(4)
        turned[:3, :3] = Rotation.from_euler("x", degrees, degrees=True).as_matrix() * SPACING
        turned[:3, 3] = np.add((-20.0, 4.0, 7.0), shift)
        if mirrored:
            turned[:, 0] *= -1
        image = nib.Nifti1Image(np.zeros((4, 5, 3), np.uint8), turned if affine is None else affine)
        if spacing is not None:
            image.header["pixdim"][1:4] = spacing
        nib.save(image, tmp_path / name)
        return RawFile(tmp_path / name)

    return make


@pytest.mark.parametrize("degrees", [0.0, 2.8, -2.8])
def test_directions_may_differ_by_rounding_of_three_degrees(write, degrees):
    check_orientation("a", [write("one.nii"), write("two.nii", degrees=degrees)])


@pytest.mark.parametrize("degrees", [3.2, -3.2, 90.0])
def test_other_directions_are_refused(write, degrees):
    with pytest.raises(InputError, match=r"a: expected the orientation of .*one.nii, RAS, found ... in .*two.nii"):
        check_orientation("a", [write("one.nii"), write("two.nii", degrees=degrees)])


def test_a_mirrored_image_is_refused_by_its_letters(write):
    with pytest.raises(InputError, match="one.nii, RAS, found LAS in .*two.nii"):
        check_orientation("a", [write("one.nii"), write("two.nii", mirrored=True)])


def test_each_file_is_held_to_the_first(write):
    files = [write("one.nii"), write("two.nii", degrees=2), write("three.nii", degrees=-2)]
    check_orientation("a", files)
    with pytest.raises(InputError, match=r"three.nii"):
        check_orientation("a", [*files[1:], files[0]][:2])


@pytest.mark.parametrize(("shift", "is_refused"), [
    ((0.44, 0, 0), False), ((0.46, 0, 0), True), ((0, 0, -0.44), False), ((0.3, 0.3, 0.3), True),
])
def test_the_place_may_differ_by_half_of_the_smallest_side_of_a_voxel(write, shift, is_refused):
    files = [write("one.nii"), write("two.nii", shift=shift)]
    if not is_refused:
        check_orientation("a", files)
        return
    far = f"{np.linalg.norm(shift):.3g}"
    with pytest.raises(InputError, match=f"a: expected the place of .*one.nii, found one {far} mm away in .*two.nii"):
        check_orientation("a", files)


def test_a_header_that_says_nothing_agrees_with_all(write, tmp_path):
    """The identity beside another spacing, as in ISLES 2018; no code; a slice without extent; no NIfTI file."""
    identity = write("identity.nii", affine=np.eye(4), spacing=SPACING)
    one_mm = write("one_mm.nii", affine=np.eye(4))
    assert stated_affine(identity) is None and np.array_equal(stated_affine(one_mm), np.eye(4))
    coded = nib.load(write("codes.nii").path)
    coded.header["sform_code"] = coded.header["qform_code"] = 0
    nib.save(nib.Nifti1Image(np.asarray(coded.dataobj), None, coded.header), tmp_path / "none.nii")
    flat = nib.load(write("flat.nii").path)
    flat.header["srow_y"], flat.header["sform_code"] = 0, 1
    content = bytearray((tmp_path / "flat.nii").read_bytes())
    content[:348] = flat.header.binaryblock
    (tmp_path / "flat.nii").write_bytes(content)
    (tmp_path / "a.png").write_bytes(b"no header at all")
    (tmp_path / "short.nii").write_bytes(b"\0" * 400)
    silent = [identity, *(RawFile(tmp_path / name) for name in ("flat.nii", "none.nii", "a.png", "short.nii"))]
    assert [stated_affine(file) for file in silent[1:]] == [None] * 4
    check_orientation("a", [*silent, write("turned.nii", degrees=40), *silent])


@pytest.mark.parametrize("codes", [(1, 0), (0, 1)])
def test_one_of_the_two_affines_is_enough(write, tmp_path, codes):
    image = nib.load(write("one.nii").path)
    expected = image.affine
    image.set_sform(expected if codes[0] else None, codes[0])
    image.set_qform(expected if codes[1] else None, codes[1])
    nib.save(image, tmp_path / "two.nii")
    np.testing.assert_allclose(stated_affine(RawFile(tmp_path / "two.nii")), expected, atol=1e-5)


UNITS = {"unknown": 1.0, "mm": 1.0, "meter": 1e-3, "micron": 1e3}       # and what 1 mm is in them


@pytest.fixture
def write_in(tmp_path):
    """A NIfTI file of one place and spacing, which its header has in a unit."""

    def make(unit):
        affine = np.diag([*SPACING, 1.0])
        affine[:3, 3] = -20.0, 4.0, 7.0
        voxels = np.random.default_rng(0).integers(0, 9, (4, 5, 3)).astype(np.uint8)
        image = nib.Nifti1Image(voxels, np.diag([*[UNITS[unit]] * 3, 1.0]) @ affine)
        image.header.set_xyzt_units(unit, "sec")
        nib.save(image, tmp_path / f"{unit}.nii")
        return RawFile(tmp_path / f"{unit}.nii")

    return make


@pytest.mark.parametrize("unit", UNITS)
def test_lengths_are_mm_whatever_the_headers_unit(write_in, unit):
    """As SimpleITK reads them; its x and y run the other way."""
    file = write_in(unit)
    expected, (_, spacing), affine = SimpleITK.ReadImage(str(file)), read_nifti("a", file), stated_affine(file)
    assert spacing == pytest.approx(expected.GetSpacing(), abs=1e-6) and spacing == pytest.approx(SPACING, abs=1e-6)
    assert affine[:3, 3] == pytest.approx(np.multiply(expected.GetOrigin(), (-1, -1, 1)), abs=1e-5)


def test_files_in_different_units_are_one_scan(write_in):
    _, spacing = read_volumes("a", [write_in(unit) for unit in UNITS])
    assert spacing == pytest.approx(SPACING, abs=1e-6)


def test_an_identity_beside_a_spacing_of_any_axis_says_nothing(tmp_path):
    """ISLES' headers: the spacing along z alone may tell that the identity is no affine of the scan."""
    for spacing in ((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)):
        image = nib.Nifti1Image(np.zeros((2, 3, 4), np.float32), np.eye(4))
        image.header.set_zooms(spacing)
        path = tmp_path / f"{spacing[0]}{spacing[1]}{spacing[2]}.nii"
        nib.save(image, path)
        content = bytearray(path.read_bytes())
        content[80:92] = np.array(spacing, "<f4").tobytes()     # pixdim, which saving holds to the affine
        path.write_bytes(content)
        stated = stated_affine(RawFile(path))
        assert (stated is None) == (spacing != (1, 1, 1))


def test_voxels_are_read_as_float32_whatever_the_file_has(tmp_path):
    for dtype in (np.uint8, np.int16, np.float32, np.float64):
        path = tmp_path / f"{np.dtype(dtype).name}.nii.gz"
        nib.save(nib.Nifti1Image(np.arange(24, dtype=dtype).reshape(2, 3, 4), np.eye(4)), path)
        voxels, _ = read_nifti("a", RawFile(path))
        assert voxels.dtype == np.float32 and np.array_equal(voxels, np.arange(24).reshape(2, 3, 4))
