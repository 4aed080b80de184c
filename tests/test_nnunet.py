"""Any data set in nnU-Net's raw layout: volumes, images and what dataset.json says of them."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import evaluate
from PIL import Image
from raw_files import call, make_nnunet, save_nifti, save_voxels, tree, write_description

import preprocess
import train
from evaluation import run_metrics
from evaluation.scans import find_scans
from raw_data import dataset_of_facts, nnunet
from raw_data.files import list_files
from sliced_data.meta import read_meta
from utils import InputError


def upright(pixels):
    return np.rot90(pixels, -1)


def sliced(source, dest, *flags):
    command = ["mydata", "--layout", "nnunet", "--source", str(source), "--dest", str(dest)]
    preprocess.main([*command, "--size", "24", "--jobs", "1", *flags])
    return {row["case_id"]: row for row in csv.DictReader((dest / "cases.csv").open())}


@pytest.mark.parametrize("zipped", [False, True])
def test_volumes_channels_classes_and_ignored_voxels(tmp_path, zipped):
    root = make_nnunet(tmp_path / "raw" / "Dataset005_Prostate")
    source = tmp_path / "raw"
    if zipped:
        source = shutil.make_archive(str(tmp_path / "Dataset005"), "zip", source)
    raw = nnunet.describe("mydata", type(root)(source))
    assert (raw.modalities, raw.class_names) == (("T2", "ADC"), ("background", "gland", "lesion"))
    cases = raw.find_cases(type(root)(source))
    assert [case.case_id for case in cases] == ["a_1", "b_2", "c_3", "d_4", "e_5"]
    volume = raw.read_case(cases[1])
    for channel in range(2):
        stored = nib.load(root / "imagesTr" / f"b_2_{channel:04d}.nii.gz").get_fdata()
        assert np.array_equal(volume.image[channel], stored)
    stored = nib.load(root / "labelsTr" / "b_2.nii.gz").get_fdata()
    assert np.array_equal(volume.label, np.where(stored == 3, 255, stored)) and (volume.label == 255).any()
    assert volume.spacing == tuple(map(float, np.float32([0.5, 0.6, 3.0])))


def test_version_1_says_modality_and_names_by_number(tmp_path):
    root = make_nnunet(tmp_path / "raw", ignore=0)
    cases = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
             for case in ("a_1", "b_2", "c_3", "d_4", "e_5")]
    write_description(root, modality={"0": "T2", "1": "ADC"}, numTraining=5, training=cases,
                      labels={"2": "lesion", "0": "background", "1": "gland"})
    raw = nnunet.describe("mydata", root)
    assert (raw.modalities, raw.class_names) == (("T2", "ADC"), ("background", "gland", "lesion"))
    assert len(raw.find_cases(root)) == 5 and not raw.has_ignored


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_grey_images(tmp_path, ending):
    root = make_nnunet(tmp_path / "raw", ending, shape=(30, 20, 1))
    raw = nnunet.describe("mydata", root)
    volume = raw.read_case(raw.find_cases(root)[1])
    for channel in range(2):
        pixels = np.asarray(Image.open(root / "imagesTr" / f"b_2_{channel:04d}{ending}"))
        assert np.allclose(volume.image[channel, ..., 0], upright(pixels) / 255, atol=1e-7)
    assert (raw.unit, volume.spacing, volume.image.shape) == ("px", (1.0, 1.0, 1.0), (2, 30, 20, 1))
    label = upright(np.asarray(Image.open(root / f"labelsTr/b_2{ending}")))
    assert np.array_equal(volume.label[..., 0], np.where(label == 3, 255, label))


def test_three_channels_in_one_coloured_file(tmp_path):
    root = make_nnunet(tmp_path / "raw", ".png", channels=("R",), shape=(30, 20, 1))
    rng = np.random.default_rng(0)
    for path in (root / "imagesTr").iterdir():
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    described = json.loads((root / "dataset.json").read_text())
    write_description(root, **described | {"channel_names": {"0": "R", "1": "G", "2": "B"}})
    raw = nnunet.describe("mydata", root)
    (image, _), pixels = raw.read_scan(raw.find_cases(root)[0]), np.asarray(Image.open(root / "imagesTr/a_1_0000.png"))
    for channel in range(3):
        assert np.allclose(image[channel, ..., 0], upright(pixels[..., channel]) / 255, atol=1e-7)
    sliced(root, tmp_path / "d")
    facts = read_meta(tmp_path / "d").facts
    assert len(dataset_of_facts(facts).find_cases(root)) == 5


def test_three_channels_in_three_grey_files(tmp_path):
    root = make_nnunet(tmp_path / "raw", ".png", channels=("R", "G", "B"), shape=(30, 20, 1))
    raw = nnunet.describe("mydata", root)
    (image, _) = raw.read_scan(raw.find_cases(root)[0])
    for channel in range(3):
        pixels = np.asarray(Image.open(root / "imagesTr" / f"a_1_{channel:04d}.png"))
        assert np.allclose(image[channel, ..., 0], upright(pixels) / 255, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "found"),
    [("a_0000.png", ["R"]), ("a_0002.png", ["B"]), ("a_0003.png", []), ("a.png", []), ("a_00.png", [])],
)
def test_the_channel_that_a_files_name_says(name, found):
    """None of a file that holds all channels as colours, whatever its name ends with."""
    facts = {"class_names": ("no", "yes"), "unit": "px", "class_of_label": {0: 0, 1: 1}, "endings": (".png",)}
    grey, coloured = (
        nnunet.build_dataset("cells", channels=("R", "G", "B"), has_colours=colours, **facts)
        for colours in (False, True)
    )
    assert grey.modalities_in(name) == found and coloured.modalities_in(name) == []


def test_a_stack_of_pages_has_the_spacing_beside_it(tmp_path):
    root = make_nnunet(tmp_path / "raw", ".tif")
    for case in ("a_1", "b_2", "c_3", "d_4", "e_5"):
        (root / "imagesTr" / f"{case}.json").write_text('{"spacing": [5.0, 0.25, 0.5]}')
    raw = nnunet.describe("mydata", root)
    volume = raw.read_case(raw.find_cases(root)[0])
    with Image.open(root / "imagesTr" / "a_1_0001.tif") as image:
        for page in range(image.n_frames):
            image.seek(page)
            assert np.allclose(volume.image[1, ..., page], upright(np.asarray(image)) / 255, atol=1e-7)
    assert (raw.unit, volume.spacing, volume.label.shape) == ("mm", (0.5, 0.25, 5.0), (20, 24, 3))


def test_splits_final_and_the_default_split(tmp_path):
    root = make_nnunet(tmp_path / "raw")
    folds = [{"train": ["a_1", "c_3"], "val": ["e_5"]}, {"train": ["e_5"], "val": ["a_1"]}]
    (root / "splits_final.json").write_text(json.dumps(folds))
    rows = sliced(root, tmp_path / "fold", "--split", str(root / "splits_final.json"))
    assert {case: row["split"] for case, row in rows.items()} == {"a_1": "train", "c_3": "train", "e_5": "val"}
    rows = sliced(root, tmp_path / "own")
    assert sorted(row["split"] for row in rows.values()) == ["train"] * 4 + ["val"]


@pytest.fixture(scope="module", params=[".nii.gz", ".png", ".tif"])
def run_of(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("nnunet")
    make_nnunet(root / "raw", request.param, shape=(30, 20, 1 if request.param == ".png" else 3))
    (root / "split.txt").write_text("b_2\nd_4\n")
    sliced(root / "raw", root / "data", "--split", str(root / "split.txt"))
    train.main(["--data", str(root / "data"), "--out", str(root / "run"), "--width", "4", "--epochs", "1",
                "--contour", "boundary", "--device", "cpu"])
    return root, request.param


def load(path):
    if path.name.endswith(".nii.gz"):
        return nib.load(path).get_fdata()
    with Image.open(path) as image:
        pages = []
        for page in range(getattr(image, "n_frames", 1)):
            image.seek(page)
            pages.append(upright(np.asarray(image)))
    return np.stack(pages, axis=-1)


def test_native_metrics_leave_the_ignored_voxels_out(run_of, monkeypatch):
    root, ending = run_of
    gland = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1).expand(-1, -1, 24, 24)
    everywhere = lambda model, val: (gland.expand(case.n_slices, -1, -1, -1) for case in val.cases)  # noqa: E731
    monkeypatch.setattr(run_metrics, "predict_cases", everywhere)
    evaluate.main(["run", str(root / "run"), "--device", "cpu", "--space", "native"])
    rows = list(csv.DictReader((root / "run" / "metrics.csv").open()))
    assert len(rows) == 4
    for row in rows:
        mask = load(root / "run" / "predictions_native" / f"{row['case_id']}{ending}")
        reference, k = load(root / "raw" / "labelsTr" / f"{row['case_id']}{ending}"), int(row["class_index"])
        counted = reference != 3
        assert (mask == 1).all() and not counted.all()
        assert int(row["n_ref"]) == (reference == k).sum() and int(row["n_pred"]) == ((mask == k) & counted).sum()


def test_new_scans_need_no_raw_data(run_of, tmp_path):
    root, ending = run_of
    scans = tmp_path / "imagesTs"
    shutil.copytree(root / "raw" / "imagesTr", scans)
    command = ("predict", str(root / "run"), "--device", "cpu", "--case")
    evaluate.main([*command, str(scans), "--out", str(tmp_path / "masks")])
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [f"{n}{ending}" for n in
                                                                           ("a_1", "b_2", "c_3", "d_4", "e_5")]
    files = [str(scans / f"b_2_{channel:04d}{ending}") for channel in (1, 0)]
    evaluate.main([*command, *files, "--out", str(tmp_path / f"one{ending}")])
    assert np.array_equal(load(tmp_path / f"one{ending}"), load(tmp_path / "masks" / f"b_2{ending}"))


def test_the_options_are_held_without_the_raw_data(tmp_path, monkeypatch, capsys):
    root = make_nnunet(tmp_path / "raw")
    sliced(root, tmp_path / "d")
    shutil.rmtree(root)
    command = ("mydata", "--layout", "nnunet", "--source", root, "--dest", tmp_path / "d", "--check")
    assert call(preprocess, *command, "--size", "24", monkeypatch=monkeypatch) == 0
    assert call(preprocess, *command, "--size", "32", monkeypatch=monkeypatch) == 2
    assert "expected --size 32, found it made with 24" in capsys.readouterr().err


def describe_with(**changes):
    def damage(root):
        content = json.loads((root / "dataset.json").read_text()) | changes
        write_description(root, **{name: value for name, value in content.items() if value is not None})

    return damage


def remove(*names):
    return lambda root: [(root / name).unlink() for name in names]


DAMAGES = {
    "no dataset.json": (remove("dataset.json"), "found no dataset.json; it looks like nnunet"),
    "damaged": (lambda root: (root / "dataset.json").write_text("{"), "expected a readable JSON file"),
    "a label twice": (
        lambda root: (root / "dataset.json").write_text('{"labels": {"a": 0, "b": 1, "b": 2}}'),
        "dataset.json: expected a readable JSON file, found the key 'b' twice",
    ),
    "a class without a name": (describe_with(labels={"a": 0, " ": 1}), "expected each label to have"),
    "a class of two lines": (describe_with(labels={"a": 0, "b\nc": 1}), r"200 bytes, found 'b\nc'"),
    "a class in colour": (describe_with(labels={"a": 0, "\x1b[31m": 1}), r"200 bytes, found '\x1b[31m'"),
    "a class of version 1": (describe_with(labels={"0": "a", "1": ""}), "at most 200 bytes, found ''"),
    "a class of many words": (describe_with(labels={"a": 0, "b" * 201: 1}), "at most 200 bytes, found 'bbb"),
    "a channel without a name": (describe_with(channel_names={"0": "", "1": "b"}), "expected each channel to have"),
    "two": (lambda root: shutil.copytree(root, root / "again"), "expected one dataset.json, found"),
    "no labels": (describe_with(labels=None), "dataset.json: expected labels, found None"),
    "no channels": (describe_with(channel_names=None), "expected channel_names (or modality) numbered from 0"),
    "channel numbers": (describe_with(channel_names={"1": "T2", "2": "ADC"}), "expected channel_names (or modality)"),
    "regions": (
        describe_with(labels={"background": 0, "whole": [1, 2], "core": 2}),
        "found the region whole of [1, 2]; region-based training is not supported",
    ),
    "labels in words": (
        describe_with(labels={"background": 0, "gland": "one"}), "expected labels with whole numbers, found gland: one",
    ),
    "labels below 0": (
        describe_with(labels={"background": 0, "gland": -1}), "expected labels with whole numbers, found gland: -1",
    ),
    "no background": (describe_with(labels={"gland": 1, "lesion": 2}), "expected background 0"),
    "a number twice": (describe_with(labels={"background": 0, "a": 1, "b": 1}), "expected each label and number once"),
    "file ending": (describe_with(file_ending=".mha"), "expected a file_ending of .nii.gz, .nii, .png"),
    "files elsewhere": (describe_with(dataset={}), "expected files in imagesTr and labelsTr"),
    "more promised": (describe_with(numTraining=6), "expected 6 cases (numTraining), found 5"),
    "a list": (lambda root: (root / "dataset.json").write_text("[]"), "expected a JSON object, found list"),
    "a number in words": (
        describe_with(numTraining="five"), "dataset.json: expected numTraining to be a number, found five",
    ),
    "cases that are no list": (
        describe_with(training=3), "dataset.json: expected a list of images and labels (training), found 3",
    ),
    "cases without a label": (
        describe_with(training=[{"image": "imagesTr/a_1.nii.gz"}]), "expected a list of images and labels (training)",
    ),
    "channel twice": (
        lambda root: shutil.copytree(root / "imagesTr", root / "imagesTr" / "again"),
        "a_1: expected one file of channel 0, found imagesTr/a_1_0000.nii.gz and imagesTr/again/a_1_0000.nii.gz",
    ),
    "nothing": (lambda root: shutil.rmtree(root), "raw: expected the raw data of mydata, found nothing; put your data"),
    "listed": (
        describe_with(training=[{"image": "imagesTr/z.nii.gz", "label": "labelsTr/z.nii.gz"}]),
        "z: expected the files that dataset.json lists, found none",
    ),
    "channel missing": (
        remove("imagesTr/b_2_0001.nii.gz"), "b_2: expected files of the channels _0000, _0001, found _0000",
    ),
    "channel too many": (
        lambda root: shutil.copy(root / "imagesTr/b_2_0001.nii.gz", root / "imagesTr/b_2_0002.nii.gz"),
        "b_2: expected files of the channels _0000, _0001, found _0000, _0001, _0002",
    ),
    "label missing": (remove("labelsTr/b_2.nii.gz"), "b_2: expected a label"),
    "label twice": (
        lambda root: shutil.copy(root / "labelsTr/b_2.nii.gz", root / "labelsTr/b_2.nii"),
        "b_2: expected one file of this name, found labelsTr/b_2.nii and labelsTr/b_2.nii.gz",
    ),
    "image missing": (remove("imagesTr/b_2_0000.nii.gz", "imagesTr/b_2_0001.nii.gz"), "b_2: expected an image"),
    "value": (
        lambda root: save_nifti(root / "labelsTr/b_2.nii.gz", np.full((20, 24, 3), 4, np.uint8), (0.5, 0.6, 3)),
        "b_2: expected label values 0, 1, 2, 3, found 4",
    ),
    "axes": (
        lambda root: save_nifti(root / "labelsTr/b_2.nii.gz", np.zeros((24, 20, 3), np.uint8), (0.6, 0.5, 3)),
        "b_2: expected shape (20, 24, 3), found (24, 20, 3)",
    ),
}
PIXEL_DAMAGES = {
    "mask of another size": (
        lambda root: save_voxels(root / "labelsTr/b_2.png", np.zeros((20, 30, 1), np.uint8)),
        "b_2: expected shape (30, 20, 1), found (20, 30, 1)",
    ),
    "channels of two sizes": (
        lambda root: save_voxels(root / "imagesTr/b_2_0001.png", np.eye(20, dtype=np.uint8)[..., None]),
        "b_2: expected shape (30, 20, 1), found (20, 20, 1)",
    ),
    "16 bits": (
        lambda root: Image.new("I;16", (30, 20), 999).save(root / "imagesTr/b_2_0000.png"),
        "b_2: expected an 8-bit grey or RGB image, found mode I;16",
    ),
    "palette": (
        lambda root: Image.new("P", (30, 20)).save(root / "labelsTr/b_2.png"),
        "b_2: expected an 8-bit grey or RGB image, found mode P",
    ),
}


@pytest.mark.parametrize("name", [*DAMAGES, *PIXEL_DAMAGES])
def test_what_is_refused(tmp_path, monkeypatch, capsys, name):
    is_pixels = name in PIXEL_DAMAGES
    damage, named = (PIXEL_DAMAGES if is_pixels else DAMAGES)[name]
    root = make_nnunet(tmp_path / "raw", **({"ending": ".png", "shape": (30, 20, 1)} if is_pixels else {}))
    damage(root)
    before = tree(tmp_path)
    command = ("mydata", "--layout", "nnunet", "--source", root, "--dest", tmp_path / "d", "--size", "16")
    assert call(preprocess, *command, "--jobs", "1", monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and named in error, error
    assert tree(tmp_path) == before


def test_labels_beside_scans_are_no_scans(tmp_path):
    """Of a single channel any file is a scan, whatever its name, but for those in the folders of labels."""
    root = make_nnunet(tmp_path / "raw", cases=("a_1",), channels=("T2",))
    (root / "imagesTr" / "a_1_0000.nii.gz").rename(root / "head.nii.gz")
    raw = nnunet.describe("mine", root)
    scans = raw.scans_in(list_files(root), "")
    assert [(scan.case_id, scan.images[0].path.name) for scan in scans] == [("head", "head.nii.gz")]


def test_other_channels_than_those_that_were_sliced_are_refused(tmp_path):
    root = make_nnunet(tmp_path / "raw")
    raw = nnunet.describe("mine", root)
    for damage in (describe_with(channel_names={"0": "T2", "1": "DWI"}),
                   describe_with(labels={"background": 0, "gland": 1, "lesion": 2})):
        shutil.copy(root / "dataset.json", tmp_path)
        damage(root)
        with pytest.raises(InputError, match="dataset.json: expected the channels and labels that were sliced, found"):
            raw.find_cases(root)
        shutil.copy(tmp_path / "dataset.json", root)
    assert len(raw.find_cases(root)) == 5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "b_2: expected its spacing in imagesTr/b_2.json, found none"),
        ("{}", "expected its spacing in imagesTr/b_2.json"), ("{", "expected its spacing in imagesTr/b_2.json"),
        ('{"spacing": [1, 2]}', "expected its spacing in imagesTr/b_2.json"),
        ('{"spacing": 3}', "expected its spacing in imagesTr/b_2.json"),
        ('{"spacing": [5, 0, 1]}', r"b_2: expected a positive spacing, at least 1e-06, found \(5.0, 0.0, 1.0\) in "),
        ('{"spacing": [5, 1, -1]}', "expected a positive spacing"),
        ('{"spacing": [5, 1, "inf"]}', "expected a positive spacing"),
    ],
)
def test_a_stack_of_pages_without_its_spacing_is_refused(tmp_path, content, said):
    root = make_nnunet(tmp_path / "raw", ".tif", cases=("a_1", "b_2"))
    for case in ("a_1", "b_2"):
        (root / "imagesTr" / f"{case}.json").write_text('{"spacing": [5, 1, 2]}')
    raw = nnunet.describe("mine", root)
    assert raw.find_cases(root)[1].spacing == (2.0, 1.0, 5.0)
    (root / "imagesTr" / "b_2.json").unlink()
    if content is not None:
        (root / "imagesTr" / "b_2.json").write_text(content)
    with pytest.raises(InputError, match=said):
        raw.find_cases(root)


def test_a_stack_of_pages_by_its_files_alone_has_no_spacing(tmp_path):
    root = make_nnunet(tmp_path / "raw", ".tif", cases=("a_1",))
    (root / "imagesTr" / "a_1.json").write_text('{"spacing": [5, 1, 2]}')
    raw = nnunet.describe("mine", root)
    scan = find_scans(raw, sorted((root / "imagesTr").glob("*.tif")))[0]
    with pytest.raises(InputError, match="a_1: expected its folder with a_1.json, found only its files"):
        raw.read_scan(scan)
    assert raw.read_scan(find_scans(raw, [root / "imagesTr"])[0])[1] == (2.0, 1.0, 5.0)
