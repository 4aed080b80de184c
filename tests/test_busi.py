"""The BUSI reader against Pillow and NumPy, on a phantom with the published set's quirks and on the set itself."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from commands import evaluate
from PIL import Image
from raw_files import call, make_busi, save_png, tree

import preprocess
import train
from raw_data import DATASETS
from slicing.options import resolve
from slicing.selection import foreground_share, warn_of_same_images
from utils import InputError

BUSI = DATASETS["busi"]
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "busi"


def upright(pixels):
    """(rows, columns) with the origin at the top left as (x, y) with the origin at the bottom left."""
    return np.rot90(pixels, -1)


def sliced_cases(dest):
    return {row["case_id"]: row for row in csv.DictReader((dest / "cases.csv").open())}


def slice_busi(source, dest, *flags):
    preprocess.main(["busi", "--source", str(source), "--dest", str(dest), "--size", "16", "--jobs", "1", *flags])
    return sliced_cases(dest)


def test_images_are_grey_in_0_to_1_and_masks_are_joined(tmp_path):
    root = make_busi(tmp_path / "raw")
    cases = {case.case_id: case for case in BUSI.find_cases(root)}
    assert len(cases) == 7 and {case.image_class for case in cases.values()} == set(BUSI.image_classes)
    for case_id, case in cases.items():
        volume = BUSI.read_case(case)
        folder = root / "Dataset_BUSI_with_GT" / case_id.split()[0]
        grey = np.asarray(Image.open(folder / f"{case_id}.png").convert("L"))
        assert np.allclose(volume.image[0, ..., 0], upright(grey) / 255, atol=1e-7)
        mask = np.zeros(grey.shape, bool)
        for path in folder.glob(f"{case_id}_mask*"):
            mask |= np.asarray(Image.open(path).convert("RGB")).any(axis=-1)
        assert np.array_equal(volume.label[..., 0], upright(mask))
        assert volume.spacing == (1.0, 1.0, 1.0)
    assert BUSI.read_case(cases["malignant (2)"]).label.sum() == 3 * 5 + 5 * 5


def test_the_share_of_tumour_and_the_class_choose_images(tmp_path, capsys):
    root = make_busi(tmp_path / "raw")
    shares = {case.case_id: foreground_share(BUSI, case) for case in BUSI.find_cases(root)}
    assert shares["benign (1)"] == 6 / 600 and shares["malignant (2)"] == 40 / 1200
    small = slice_busi(root, tmp_path / "small", "--max-share", str(6 / 550))
    assert set(small) == {case_id for case_id, share in shares.items() if share < 6 / 550} and len(small) == 6
    tumours = slice_busi(root, tmp_path / "tumours", "--classes", "malignant", "benign", "--max-share", "1")
    assert len(tumours) == 5 and not any(case_id.startswith("normal") for case_id in tumours)
    assert "2 cases left out" in capsys.readouterr().out
    for order in (("benign", "malignant", "normal"), ("normal", "benign", "malignant")):
        flags = preprocess.parse(["busi", "--source", str(root), "--dest", "d", "--classes", *order])
        assert resolve(flags).facts()["classes"] is None        # all of them, in whatever order


def test_equal_images_are_named_and_kept_on_one_side(tmp_path, capsys):
    root = make_busi(tmp_path / "raw")
    parted = False
    for seed in range(8):
        rows = slice_busi(root, tmp_path / f"scan{seed}", "--split-seed", str(seed))
        warning = capsys.readouterr().err
        assert "benign (2)" in warning and "malignant (1)" in warning and "--group image" in warning
        parted |= rows["benign (2)"]["split"] != rows["malignant (1)"]["split"]
        rows = slice_busi(root, tmp_path / f"image{seed}", "--split-seed", str(seed), "--group", "image", "--val", "2")
        assert rows["benign (2)"]["split"] == rows["malignant (1)"]["split"]
        assert sum(row["split"] == "val" for row in rows.values()) in (1, 2)
        assert not capsys.readouterr().err
    assert parted


def test_an_image_is_one_slice_measured_in_pixels(tmp_path):
    rows = slice_busi(make_busi(tmp_path / "raw"), tmp_path / "d")
    for case_id, row in rows.items():
        assert (row["n_slices"], *(row[f"spacing_{axis}_px"] for axis in "xyz")) == ("1", "1.0", "1.0", "1.0")
        part = tmp_path / "d" / row["split"]
        flat, deep = (np.load(part / kind / f"{case_id}_0000.npy") for kind in ("phi2d", "phi3d"))
        assert np.array_equal(flat, deep) and flat.any() == (not case_id.startswith("normal"))
    meta = json.loads((tmp_path / "d" / "meta.json").read_text())
    assert (meta["unit"], meta["max_share"], meta["split"]["val"]) == ("px", 0.05, 1)


def damage_busi(root, name):
    folder = root / "Dataset_BUSI_with_GT" / "benign"
    if name == "no mask":
        (folder / "benign (3)_mask.png").unlink()
    elif name == "no image":
        (folder / "benign (3).png").unlink()
    elif name == "mask of another size":
        save_png(root, "benign (3)_mask", Image.new("1", (26, 20)))
    elif name == "masks of two sizes":
        save_png(root, "benign (3)_mask_1", Image.new("1", (20, 26)))
    elif name == "16 bits":
        save_png(root, "benign (3)", Image.fromarray(np.arange(572, dtype=np.uint16).reshape(22, 26)))
    elif name == "palette":
        save_png(root, "benign (3)", Image.open(folder / "benign (3).png").convert("P"))
    elif name == "cut off":
        (folder / "benign (3).png").write_bytes((folder / "benign (3).png").read_bytes()[:200])
    elif name == "constant":
        save_png(root, "benign (3)", Image.new("L", (26, 22), 7))
    else:
        (folder / "benign (3).png").write_text("no image")


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("no mask", "benign (3): expected a mask"),
        ("no image", "benign (3): expected an image"),
        ("mask of another size", "benign (3): expected shape (26, 22, 1), found (26, 20, 1)"),
        ("masks of two sizes", "benign (3): expected a mask of (26, 22) pixels, as the first, found (20, 26)"),
        ("16 bits", "benign (3): expected an 8-bit grey or RGB image, found mode I;16"),
        ("palette", "benign (3): expected an 8-bit grey or RGB image, found mode P"),
        ("cut off", "benign (3): expected a whole image"),
        ("constant", "benign (3): expected an image with contrast"),
        ("text", "benign (3): expected a whole image"),
    ],
)
def test_damaged_images(tmp_path, monkeypatch, capsys, name, named):
    root = make_busi(tmp_path / "raw")
    damage_busi(root, name)
    before = tree(tmp_path)
    code = call(preprocess, "busi", "--source", root, "--dest", tmp_path / "d", "--size", "16", "--jobs", "1",
                monkeypatch=monkeypatch)
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning")]
    assert code == 2 and len(lines) == 1 and named in lines[0], lines
    assert tree(tmp_path) == before


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real BUSI images beside the project")
def test_real_images_are_pillows():
    """Five of them: of several masks, benign, malignant and normal; a tumour is what any of its masks has."""
    cases = {case.case_id: case for case in BUSI.find_cases(REAL)}
    for case_id in ("benign (1)", "benign (100)", "benign (433)", "malignant (53)", "normal (7)"):
        image, _ = BUSI.read_scan(cases[case_id])
        label, _ = BUSI.read_label(cases[case_id])
        folder = REAL / "Dataset_BUSI_with_GT" / case_id.split()[0]
        masks = [np.asarray(Image.open(path).convert("L")) > 0 for path in folder.glob(f"{case_id}_mask*.png")]
        assert masks and np.array_equal(label[..., 0], upright(np.any(masks, axis=0)))
        grey = np.asarray(Image.open(folder / f"{case_id}.png").convert("L"))
        assert np.allclose(image[0, ..., 0], upright(grey) / 255, atol=1e-7)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real BUSI images beside the project")
def test_the_published_set_has_the_papers_images():
    cases = BUSI.find_cases(REAL)
    shares = {case.case_id: foreground_share(BUSI, case) for case in cases}
    below = [case for case in cases if case.image_class != "normal" and shares[case.case_id] < 0.10]
    assert len(cases) == 780 and sum(share < 0.05 for share in shares.values()) == 424
    assert len(below) == 425 and sum(case.image_class == "malignant" for case in below) == 89
    assert BUSI.same_images(cases) == [["benign (433)", "malignant (145)"]]


def test_cases_of_one_image_are_named_in_order(capsys):
    group_of = {"d": "d", "c": "x", "b": "a", "x": "x", "a": "a"}
    warn_of_same_images(group_of, {"a": "train", "b": "val", "x": "val"})
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: a (train), b (val) are the same image, pixel for pixel; --group image keeps")
    assert second.startswith("warning: c (left out), x (val) are")


def test_no_mm_is_said_of_images_without_a_spacing(tmp_path, capsys):
    slice_busi(make_busi(tmp_path / "raw"), tmp_path / "d")
    flags = ("--width", "2", "--epochs", "1", "--device", "cpu", "--region", "ce")
    train.main(["--data", str(tmp_path / "d"), "--out", str(tmp_path / "run"), *flags])
    evaluate.main(["run", str(tmp_path / "run"), "--device", "cpu"])
    printed = capsys.readouterr().out
    assert " px" in printed and " mm" not in printed
    masks = list((tmp_path / "run" / "predictions").iterdir())
    assert masks and all(nib.load(path).header.get_xyzt_units()[0] == "unknown" for path in masks)


def test_an_image_in_two_places_is_named(tmp_path):
    root = make_busi(tmp_path / "raw")
    shutil.copytree(root / "Dataset_BUSI_with_GT" / "benign", root / "again" / "benign")
    said = r"benign \(1\): expected one image of this name, found Data.*benign \(1\).png and again.*benign \(1\).png"
    with pytest.raises(InputError, match=said):
        BUSI.find_cases(root)


@pytest.mark.parametrize("name", ["benign (2)_mask.png", "benign (2)_mask_1.png"])
def test_a_mask_in_another_folder_than_its_image_is_named(tmp_path, name):
    root = make_busi(tmp_path / "raw")
    other = root / "second reader" / "benign" / name
    other.parent.mkdir(parents=True)
    shutil.copy(root / "Dataset_BUSI_with_GT" / "benign" / "benign (2)_mask.png", other)
    said = r"benign \(2\): expected its masks beside Data.*/benign \(2\).png, found second reader/benign/benign"
    with pytest.raises(InputError, match=said):
        BUSI.find_cases(root)
