"""The KiTS reader against nibabel and NumPy: axes, labelled slices, clipped intensities, masks in the file's axes."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from commands import evaluate
from raw_files import call, make_kits, save_nifti, tree

import preprocess
import train
from raw_data import DATASETS
from utils import InputError

KITS = DATASETS["kits"]


def sliced(source, dest, *flags):
    preprocess.main(["kits", "--source", str(source), "--dest", str(dest), "--size", "24", "--jobs", "1", *flags])
    return {row["case_id"]: row for row in csv.DictReader((dest / "cases.csv").open())}


def stored(root, number, name):
    return nib.load(root / f"case_{number:05d}" / f"{name}.nii.gz").get_fdata()


def read_slices(dest, part, kind, case_id):
    return np.stack([np.load(path) for path in sorted((dest / part / kind).glob(f"{case_id}_????.npy"))])


def test_axes_become_x_y_z(tmp_path):
    root = make_kits(tmp_path / "raw")
    volume = KITS.read_case(KITS.find_cases(root)[1])
    assert volume.image.shape == (1, 24, 20, 5) and volume.spacing == tuple(map(float, np.float32([0.7, 0.8, 3.0])))
    image, label = stored(root, 1, "imaging"), stored(root, 1, "segmentation")
    for z, y, x in ((1, 6, 8), (3, 4, 17), (0, 19, 23)):
        assert volume.image[0, x, y, z] == image[z, y, x] and volume.label[x, y, z] == label[z, y, x]


def test_labelled_slices_alone_by_parity(tmp_path):
    root = make_kits(tmp_path / "raw")
    (root / "case_00210").mkdir()
    save_nifti(root / "case_00210" / "imaging.nii.gz", np.zeros((5, 20, 24), np.int16), (3, 0.8, 0.7))
    rows = sliced(root, tmp_path / "d")
    assert [row["split"] for row in rows.values()] == ["train", "val"] * 2
    # The last of those that the release has a label for.
    (root / "case_00210").rename(root / "case_00209")
    with pytest.raises(InputError, match="case_00209: expected"):
        KITS.find_cases(root)
    shutil.rmtree(root / "case_00209")
    assert all((row["n_slices"], row["n_lesion_slices"]) == ("3", "3") for row in rows.values())
    whole = sliced(root, tmp_path / "all", "--all-slices")
    assert all((row["n_slices"], row["n_lesion_slices"]) == ("5", "3") for row in whole.values())
    for kind in ("image", "label", "phi2d", "phi3d"):
        part = read_slices(tmp_path / "d", "val", kind, "case_00001")
        everything = read_slices(tmp_path / "all", "val", kind, "case_00001")
        assert np.array_equal(part, everything[1:4])     # distances in 3D are those of the whole volume


def test_shares_are_those_of_the_labelled_slices(tmp_path, capsys):
    root = make_kits(tmp_path / "raw")
    sliced(root, tmp_path / "d")
    labels = np.stack([stored(root, number, "segmentation")[1:-1] for number in range(4)])
    kidney, tumour = ((labels == k).mean() for k in (1, 2))
    assert f"kidney {kidney:.2%} (paper 1.89%), tumour {tumour:.2%} (paper 0.47%)" in capsys.readouterr().out


def test_intensities_are_those_of_the_training_foreground(tmp_path):
    root = make_kits(tmp_path / "raw")
    sliced(root, tmp_path / "d")
    # Every tenth voxel in the order x, y, z of each training case, as the reader has them.
    counted = []
    for number in (0, 2):
        image, label = (stored(root, number, name).transpose(2, 1, 0) for name in ("imaging", "segmentation"))
        counted.append(image[label > 0][::10])
    values = np.concatenate(counted)
    low, high = np.percentile(values, (0.5, 99.5))
    facts = json.loads((tmp_path / "d" / "meta.json").read_text())
    assert np.allclose(facts["intensities"], [[low, high, values.mean(), values.std()]])
    image = stored(root, 1, "imaging").transpose(0, 2, 1)                            # (Z, X, Y)
    expected = (image.clip(low, high) - values.mean()) / values.std()
    found = read_slices(tmp_path / "d", "val", "image", "case_00001")[:, 0]
    assert found.shape == (3, 24, 24)
    columns = np.floor((np.arange(24) + 0.5) * 20 / 24 - 0.5).clip(0).astype(int)   # the row of the file below each
    below, above = expected[1:4][:, :, columns], expected[1:4][:, :, (columns + 1).clip(max=19)]
    assert ((found >= np.minimum(below, above) - 5e-3) & (found <= np.maximum(below, above) + 5e-3)).all()


@pytest.fixture(scope="module")
def kits_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("kits")
    sliced(make_kits(root / "raw"), root / "data")
    train.main(["--data", str(root / "data"), "--out", str(root / "run"), "--width", "4", "--epochs", "1",
                "--device", "cpu"])
    return root


def test_masks_have_the_axes_of_the_file(kits_run, tmp_path):
    scan = kits_run / "raw" / "case_00001"
    evaluate.main(["predict", str(kits_run / "run"), "--case", str(scan), "--out", str(tmp_path / "mask.nii.gz"),
                   "--probabilities", str(tmp_path / "soft.nii.gz"), "--device", "cpu"])
    theirs, ours = nib.load(scan / "imaging.nii.gz"), nib.load(tmp_path / "mask.nii.gz")
    assert ours.shape == theirs.shape == (5, 20, 24) and np.array_equal(ours.affine, theirs.affine)
    assert ours.header.get_zooms() == theirs.header.get_zooms()
    assert nib.load(tmp_path / "soft.nii.gz").shape == (5, 20, 24, 2)
    evaluate.main(["run", str(kits_run / "run"), "--device", "cpu", "--space", "native"])
    native = nib.load(kits_run / "run" / "predictions_native" / "case_00001.nii.gz").get_fdata()
    # Slices that were left out have no prediction; on the others it is the same.
    assert not native[[0, 4]].any() and np.array_equal(native[1:4], ours.get_fdata()[1:4])
    rows = list(csv.DictReader((kits_run / "run" / "metrics.csv").open()))
    reference = stored(kits_run / "raw", 1, "segmentation")[1:4]
    assert rows[0]["n_voxels"] == str(reference.size) and rows[0]["n_ref"] == str((reference == 1).sum())


def damage(root, name):
    folder = root / "case_00002"
    if name == "no label":
        (folder / "segmentation.nii.gz").unlink()
    elif name == "no image":
        (folder / "imaging.nii.gz").unlink()
    elif name == "axes":
        label = stored(root, 2, "segmentation").transpose(2, 1, 0).astype(np.uint8)
        save_nifti(folder / "segmentation.nii.gz", label, (0.7, 0.8, 3.0))
    elif name == "value":
        label = stored(root, 2, "segmentation").astype(np.uint8) * 2
        save_nifti(folder / "segmentation.nii.gz", label, (3.0, 0.8, 0.7))
    else:
        save_nifti(folder / "segmentation.nii.gz", np.zeros((5, 20, 24), np.uint8), (3.0, 0.8, 0.7))


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("no label", "case_00002: expected a file of label"),
        ("no image", "case_00002: expected a file of CT"),
        ("axes", "case_00002: expected shape (24, 20, 5), found (5, 20, 24)"),
        ("value", "case_00002: expected label values 0, 1, 2, found 4"),
        ("empty", "case_00002: expected a slice with a label, found none; --all-slices keeps them all"),
    ],
)
def test_damaged_cases(tmp_path, monkeypatch, capsys, name, named):
    root = make_kits(tmp_path / "raw")
    damage(root, name)
    before = tree(tmp_path)
    code = call(preprocess, "kits", "--source", root, "--dest", tmp_path / "d", "--size", "16", "--jobs", "1",
                monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and named in error, error
    assert tree(tmp_path) == before
