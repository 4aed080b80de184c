"""Masks of 2D images against Pillow, and data that are not there while a run is measured."""

import shutil

import numpy as np
import pytest
import torch
from commands import evaluate
from PIL import Image
from raw_files import call, make_busi, save_png, tree
from torch import nn

import preprocess
import train
from environment.atomic_outputs import MARK, check_own
from evaluation import prediction
from evaluation.outputs import Template, read_template, save_mask, save_probabilities
from evaluation.scans import find_scans
from raw_data import DATASETS, limits
from raw_data.dataset import Case
from raw_data.files import RawFile
from raw_data.images import image_shape, read_colours, read_image, write_image
from slicing.grid import Grid
from utils import InputError

BUSI = DATASETS["busi"]


@pytest.fixture(scope="module")
def busi_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("busi")
    make_busi(root / "raw")
    preprocess.main(["busi", "--source", str(root / "raw"), "--dest", str(root / "data"), "--size", "16",
                     "--val", "2", "--jobs", "1"])
    train.main(["--data", str(root / "data"), "--out", str(root / "run"), "--width", "8", "--epochs", "1",
                "--device", "cpu"])
    return root


def test_masks_and_probabilities_of_images_are_images(busi_run, tmp_path):
    folder = busi_run / "raw" / "Dataset_BUSI_with_GT" / "benign"
    case = folder / "benign (1).png"
    flags = ("--device", "cpu")
    evaluate.main(["predict", str(busi_run / "run"), "--case", str(case), "--out", str(tmp_path / "mask.png"),
                   "--probabilities", str(tmp_path / "soft.npy"), *flags])
    with Image.open(tmp_path / "mask.png") as image, Image.open(case) as theirs:
        assert image.size == theirs.size and image.mode == "L"
        mask = np.asarray(image)
    soft = np.load(tmp_path / "soft.npy")
    assert soft.shape == mask.shape and soft.dtype == np.float32
    assert np.array_equal(mask, np.where(soft > 0.5, 255, 0))
    evaluate.main(["predict", str(busi_run / "run"), "--case", str(folder), "--out", str(tmp_path / "masks"),
                   "--probabilities", str(tmp_path / "soft"), *flags])
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [f"benign ({n}).png" for n in (1, 2, 3)]
    assert np.array_equal(np.load(tmp_path / "soft" / "benign (1).npy"), soft)
    evaluate.main(["predict", str(busi_run / "run"), "--case", str(case), "--out", str(tmp_path / "again.png"),
                   "--probabilities", str(tmp_path / "soft.png"), *flags])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "soft.png")), (soft * 255).round())


class Bright(nn.Module):
    """Finds what is bright: an oracle in place of a network."""

    def forward(self, image):
        return torch.cat((torch.zeros_like(image), 20 * (image - 0.5)), dim=1)


@pytest.mark.parametrize("grid", [Grid(64), Grid(48), Grid(64, "centre"), Grid(96, "centre")], ids=str)
def test_a_disc_of_an_image_comes_back_where_it_was(tmp_path, grid):
    rows, columns = np.mgrid[:50, :70]
    disc = np.hypot(rows - 20, columns - 45) < 11
    path = save_png(tmp_path, "benign (1)", Image.fromarray((disc * 255).astype(np.uint8)))
    names = ("background", "tumour")
    model = prediction.Model(Bright(), torch.device("cpu"), 0, BUSI, grid, "none", names, ("US",), "f", tmp_path)
    (scan,) = find_scans(BUSI, [path])
    classes, probs = prediction.segment(model, scan)
    template = read_template(BUSI, scan)
    save_mask(tmp_path / "mask.png", classes, template, 2)
    save_probabilities(tmp_path / "soft.npy", probs, template)
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    assert mask.shape == disc.shape and set(np.unique(mask)) == {0, 255}
    inside, outside = np.hypot(rows - 20, columns - 45) < 10, np.hypot(rows - 20, columns - 45) > 12
    assert mask[inside].all() and not mask[outside].any()
    assert np.array_equal(np.load(tmp_path / "soft.npy") > 0.5, mask > 0)


def test_more_classes_keep_their_numbers(tmp_path):
    path = save_png(tmp_path, "benign (1)", Image.new("L", (6, 4)))
    classes = np.arange(24, dtype=np.uint8).reshape(6, 4, 1) % 3
    template = read_template(BUSI, Case("a", None, (RawFile(path),), (), ""))
    save_mask(tmp_path / "mask.png", classes, template, 3)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png")), np.rot90(classes[..., 0]))
    assert template.probability_endings(3) == (".npy",)
    probs = np.random.default_rng(0).random((6, 4, 1, 3), np.float32)
    save_probabilities(tmp_path / "soft.npy", probs, template)
    assert np.array_equal(np.load(tmp_path / "soft.npy"), np.rot90(probs[:, :, 0, 1:]))


def test_predict_replaces_only_images_of_its_own(busi_run, tmp_path, monkeypatch, capsys):
    folder = busi_run / "raw" / "Dataset_BUSI_with_GT" / "benign"
    command = ("predict", busi_run / "run", "--case", folder / "benign (1).png", "--device", "cpu", "--out")
    mask, soft, grey, mine = (tmp_path / name for name in ("mask.png", "soft.npy", "soft.png", "mine.npy"))
    for _ in range(2):
        for probabilities in (soft, grey):
            outputs = (mask, "--probabilities", probabilities)
            assert call(evaluate, *command, *outputs, monkeypatch=monkeypatch) == 0
    np.save(mine, np.load(soft))
    picture = shutil.copy(folder / "benign (1)_mask.png", tmp_path / "mine.png")
    before = mine.read_bytes(), picture.read_bytes()
    capsys.readouterr()
    for outputs in ((mask, "--probabilities", mine), (picture,)):
        assert call(evaluate, *command, *outputs, monkeypatch=monkeypatch) == 2
        assert "mine." in (error := capsys.readouterr().err) and "that was made here before" in error
    assert (mine.read_bytes(), picture.read_bytes()) == before


@pytest.mark.parametrize("pages", [1, 3])
def test_a_large_tiff_is_known_as_its_own(tmp_path, pages):
    template = Template((".tif",), (300, 200, pages), (0, 1, 2))
    classes = np.random.default_rng(0).integers(0, 3, template.shape, np.uint8)
    save_mask(tmp_path / "mask.tif", classes, template, 3)
    check_own(tmp_path / "mask.tif", MARK)
    assert np.array_equal(read_image("a", RawFile(tmp_path / "mask.tif")), classes)
    Image.fromarray(classes[..., 0]).save(tmp_path / "mine.tif")
    with pytest.raises(InputError, match=r"mine\.tif: expected nothing or a file that was made here before"):
        check_own(tmp_path / "mine.tif", MARK)


@pytest.mark.parametrize("read", [read_image, read_colours, image_shape])
@pytest.mark.parametrize(("limit", "pages", "found"), [
    ("MAX_PIXELS", 1, "600, 600 in 1 pages"), ("FEW_PIXELS", 1, "600, 600 in 1 pages"),
    ("MAX_VOXELS", 3, "600, 1800 in 3 pages"),
])
def test_images_of_too_many_pixels_are_refused_undecoded(tmp_path, monkeypatch, limit, pages, found, read):
    """A page's own limit, that of a short file's page, and that of all pages."""
    path = tmp_path / "a.tif"
    write_image(path, np.zeros((30, 20, pages), np.uint8), description="")
    whole = RawFile(path)
    assert image_shape("a", whole) == (30, 20, pages)
    decoded = []
    monkeypatch.setattr(Image.Image, "convert", lambda *given: decoded.append(given))
    monkeypatch.setattr(limits, "PIXELS_PER_BYTE", 0 if limit == "FEW_PIXELS" else limits.PIXELS_PER_BYTE)
    monkeypatch.setattr(limits, limit, 599 if pages == 1 else 1799)
    with pytest.raises(InputError, match=f"^a: expected a page of at most .* pixels, found {found}, in .*a.tif"):
        read("a", whole)
    assert len(decoded) < pages


@pytest.mark.parametrize(
    ("out", "named"),
    [("mask.nii.gz", "--out: expected a folder or a file named .png, found"),
     ("mask.tif", "--out: expected a folder or a file named .png, found")],
)
def test_a_mask_of_another_kind_is_refused(busi_run, tmp_path, monkeypatch, capsys, out, named):
    case = busi_run / "raw" / "Dataset_BUSI_with_GT" / "benign" / "benign (1).png"
    command = ("predict", busi_run / "run", "--case", case, "--out", tmp_path / out, "--device", "cpu")
    assert call(evaluate, *command, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and named in error and not tree(tmp_path)


def test_native_space_of_images(busi_run, tmp_path):
    run = shutil.copytree(busi_run / "run", tmp_path / "run")
    evaluate.main(["run", str(run), "--device", "cpu", "--space", "native"])
    lines = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    for line in (dict(zip(lines[0], values, strict=True)) for values in lines[1:]):
        case_id = line["case_id"]
        mask = np.asarray(Image.open(run / "predictions_native" / f"{case_id}.png"))
        reference = np.zeros(mask.shape, bool)
        for path in (busi_run / "raw" / "Dataset_BUSI_with_GT" / case_id.split()[0]).glob(f"{case_id}_mask*"):
            reference |= np.asarray(Image.open(path).convert("L")) > 0
        assert (int(line["n_ref"]), int(line["n_pred"])) == (reference.sum(), (mask > 0).sum())
        assert (int(line["n_voxels"]), line["space"]) == (mask.size, "native")


@pytest.mark.parametrize("damage", ["cut off", "another size"])
def test_metrics_stay_where_an_image_is_damaged(busi_run, tmp_path, monkeypatch, capsys, damage):
    run = shutil.copytree(busi_run / "run", tmp_path / "run")
    raw = shutil.copytree(busi_run / "raw", tmp_path / "raw")
    evaluate.main(["run", str(run), "--device", "cpu"])
    before = (run / "metrics.csv").read_bytes()
    for path in raw.rglob("*).png"):
        if damage == "cut off":
            path.write_bytes(path.read_bytes()[:30])
        else:
            Image.new("L", (9, 9)).save(path)
    paths = tree(tmp_path)
    command = ("run", run, "--device", "cpu", "--space", "native", "--source", raw)
    assert call(evaluate, *command, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "expected" in error, error
    assert (run / "metrics.csv").read_bytes() == before and tree(tmp_path) == paths
