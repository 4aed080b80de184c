"""Phantoms in folders: determinism, flags that act, refusals, nothing left of a run that breaks."""
import os

import nibabel as nib
import phantom
import phantom_heart
import pytest
from phantoms import SMALL, make
from PIL import Image


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("layout", SMALL)
def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path, layout):
    folders = [make(layout, tmp_path / name, "--seed", seed) for name, seed in (("a", "3"), ("b", "3"), ("c", "4"))]
    first, again, other = map(files_of, folders)
    assert first == again
    images = [name for name in first if name.endswith((".nii.gz", ").png")) and "_4d" not in name]
    assert images and not [name for name in images if other.get(name) == first[name]]


def shapes_of(folder):
    """File -> shape of every volume, or size of every image."""
    shapes = {path: nib.load(path).shape for path in folder.rglob("*.nii.gz") if "_4d" not in path.name}
    shapes |= {path: Image.open(path).size for path in folder.rglob("*).png")}
    return {path.relative_to(folder).as_posix(): shape for path, shape in shapes.items()}


@pytest.mark.parametrize("layout", ["acdc", "brats", "kits", "nnunet"])
def test_every_flag_acts_on_volumes(tmp_path, layout):
    folders = {"few": ["--cases", "5"], "more": ["--cases", "6"], "fine": ["--cases", "5", "--in-plane", "96"]}
    for name, flags in folders.items():
        options = {"--slices": "9" if name == "fine" else "8", "--in-plane": "64"}
        words = [word for pair in options.items() for word in pair]
        assert phantom.main([layout, "--out", str(tmp_path / name), *words, *flags]) == 0
    few, more, fine = (shapes_of(tmp_path / name) for name in folders)
    assert len(more) > len(few) == len(fine)
    slices_axis = 0 if layout == "kits" else 2
    for name, shape in fine.items():
        assert shape[slices_axis] == 9 and few[name][slices_axis] == 8
        assert max(shape) * 2 == pytest.approx(max(few[name]) * 3, abs=3)


def test_every_flag_acts_on_images(tmp_path):
    for name, flags in (("few", ["--in-plane", "64"]), ("more", ["--in-plane", "96", "--cases", "9"])):
        assert phantom.main(["busi", "--out", str(tmp_path / name), "--cases", "8", *flags]) == 0
    few, more = (shapes_of(tmp_path / name) for name in ("few", "more"))
    normal = "Dataset_BUSI_with_GT/normal/normal (1).png"
    assert len(few) == 8 and len(more) == 9
    assert more[normal][0] == pytest.approx(1.5 * few[normal][0], abs=1)


REFUSED = [
    ("busi", "--slices", "4", "--slices: busi has no slices: expected none, found 4"),
    ("busi", "--cases", "7", "--cases: expected 8 to 780 for busi, found 7"),
    ("acdc", "--in-plane", "8", "--in-plane: expected 64 to 512 for acdc, found 8"),
    ("brats", "--slices", "156", "--slices: expected 4 to 155 for brats, found 156"),
    ("kits", "--slices", "7", "--slices: expected 8 to 120 for kits, found 7"),
    ("nnunet", "--cases", "4", "--cases: expected 5 to 99 for nnunet, found 4"),
    ("nnunet", "--seed", "-1", "--seed: expected 0 to 4294967296 for nnunet, found -1"),
]


@pytest.mark.parametrize(("layout", "flag", "value", "expected"), REFUSED)
def test_numbers_without_sense_are_refused(tmp_path, capsys, layout, flag, value, expected):
    assert phantom.main([layout, flag, value, "--out", str(tmp_path / "raw")]) == 2
    assert capsys.readouterr().err == f"phantom.py: {expected}\n"
    assert not (tmp_path / "raw").exists()


TOPS = {"acdc": "training", "busi": "Dataset_BUSI_with_GT", "brats": "LGG", "kits": "case_00001", "nnunet": "labelsTr"}


@pytest.mark.parametrize("layout", TOPS)
def test_what_exists_is_refused_and_left_alone(tmp_path, capsys, layout):
    (tmp_path / TOPS[layout]).mkdir()
    (tmp_path / TOPS[layout] / "thesis.txt").write_text("precious")
    assert phantom.main([layout, "--out", str(tmp_path), *SMALL[layout]]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{tmp_path / TOPS[layout]} exists already" in error
    assert files_of(tmp_path) == {f"{TOPS[layout]}/thesis.txt": b"precious"}
    (tmp_path / "other").mkdir()
    link = tmp_path / "other" / TOPS[layout]
    link.symlink_to("unmounted")
    assert phantom.main([layout, "--out", str(link.parent), *SMALL[layout]]) == 2
    assert link.is_symlink() and os.listdir(link.parent) == [link.name]


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_breaks_leaves_nothing(tmp_path, monkeypatch, there):
    nifti, calls, out = phantom_heart.nifti, [], tmp_path / "raw"
    if there:
        out.mkdir()

    def break_off(*arguments):
        calls.append(arguments)
        if len(calls) > 7:
            raise KeyboardInterrupt
        return nifti(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(phantom_heart, "nifti", break_off)
        with pytest.raises(KeyboardInterrupt):
            phantom.main(["acdc", "--out", str(out), *SMALL["acdc"]])
    assert out.is_dir() == there and not list(tmp_path.rglob("*"))[there:]
