import shutil
import zipfile

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from commands import evaluate
from raw_files import call, isles_path, make_isles, make_wmh
from scipy import ndimage
from torch import nn

import preprocess
import train
from evaluation import prediction
from evaluation.scans import find_scans, modality_in
from raw_data import DATASETS
from slicing.grid import Grid
from utils import InputError


def slice_and_train(root, dataset: str, raw, size: int):
    """A sliced data set and a run of one epoch on it, both below ``root``."""
    flags = ("--source", str(raw), "--dest", str(root / "data"), "--size", str(size), "--val", "1", "--jobs", "1")
    preprocess.main([dataset, *flags])
    where = ("--data", str(root / "data"), "--out", str(root / "run"))
    train.main([*where, "--width", "4", "--epochs", "1", "--device", "cpu"])
    return root


@pytest.fixture(scope="module")
def isles_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict")
    return slice_and_train(root, "isles", make_isles(root / "raw"), 32)


@pytest.fixture(scope="module")
def wmh_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict_wmh")
    return slice_and_train(root, "wmh", make_wmh(root / "raw"), 24)


def rotated_scan(folder, shape=(30, 20, 4), spacing=(0.7, 1.1, 4.5), unit=("mm", 1.0)):
    """An oblique, anisotropic scan of two modalities with codes, units (and what 1 mm is) and an offset of its own."""
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag((-spacing[0], spacing[1], spacing[2]))
    affine[:3, 3] = (40.0, -25.0, 7.5)
    affine[:3] *= unit[1]
    rng = np.random.default_rng(0)
    for name in ("FLAIR", "T1"):
        image = nib.Nifti1Image(rng.integers(0, 900, shape).astype(np.int16), affine)
        image.set_sform(affine, code=2)
        image.set_qform(affine, code=1)
        image.header.set_xyzt_units(unit[0], "sec")
        image.header.set_slope_inter(2.0, 10.0)
        image.header["cal_max"] = 900
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(image, folder / f"{name}.nii.gz")
    return folder


def test_each_scan_of_a_folder_has_a_line(wmh_run, tmp_path, monkeypatch, capsys):
    for name in ("patient 7", "patient 8"):
        rotated_scan(tmp_path / "scans" / name / "pre")
    where = ("--case", tmp_path / "scans", "--out", tmp_path / "masks", "--device", "cpu")
    assert call(evaluate, "predict", wmh_run / "run", *where, monkeypatch=monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(f"patient {n}, voxels of" in line for n, line in zip((7, 8), lines, strict=True))


@pytest.mark.parametrize("unit", [("mm", 1.0), ("meter", 0.001), ("micron", 1000.0)])
def test_a_mask_lies_on_the_grid_of_a_rotated_scan(wmh_run, tmp_path, monkeypatch, capsys, unit):
    scan = rotated_scan(tmp_path / "patient 7" / "pre", unit=unit)
    out, soft = tmp_path / "mask.nii.gz", tmp_path / "soft.nii.gz"
    code = call(evaluate, "predict", wmh_run / "run", "--case", scan.parent, "--out", out, "--probabilities", soft,
                "--device", "cpu", monkeypatch=monkeypatch)
    assert code == 0 and "patient 7, voxels of wmh" in capsys.readouterr().out
    theirs, ours = nib.load(scan / "FLAIR.nii.gz"), nib.load(out)
    assert np.allclose(ours.affine, theirs.affine) and ours.header.get_zooms() == theirs.header.get_zooms()
    for field in ("sform_code", "qform_code", "xyzt_units"):
        assert ours.header[field] == theirs.header[field]
    classes = np.asarray(ours.dataobj)
    assert classes.shape == theirs.shape and classes.dtype == np.uint8 and set(np.unique(classes)) <= {0, 1}
    itk = [SimpleITK.ReadImage(str(path)) for path in (scan / "FLAIR.nii.gz", out)]
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(itk[0], name)(), getattr(itk[1], name)(), atol=1e-5), name
    probability = nib.load(soft).get_fdata()
    assert probability.shape == theirs.shape and 0 <= probability.min() <= probability.max() <= 1
    assert np.array_equal(probability > 0.5, classes == 1)


class Threshold(nn.Module):
    """Finds what is bright in the first modality: an oracle in place of a network."""

    def forward(self, image):
        return torch.cat((torch.full_like(image[:, :1], 0.0), 20 * (image[:, :1] - 0.5)), dim=1)


@pytest.mark.parametrize("size", [32, 40])
def test_a_blob_comes_back_where_it_was(tmp_path, size):
    """Whatever the sliced grid, the mask covers what the scan shows, in the scan's own array axes."""
    scan = rotated_scan(tmp_path / "7" / "pre", shape=(44, 30, 3))
    x, y = np.mgrid[:44, :30]
    blob = ((x - 30) / 6) ** 2 + ((y - 8) / 4) ** 2 < 1
    volume = ndimage.gaussian_filter(np.stack([blob * 1000.0] * 3, axis=-1), (1, 1, 0))
    for name in ("FLAIR", "T1"):
        image = nib.load(scan / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(volume.astype(np.float32), image.affine), scan / f"{name}.nii.gz")
    model = prediction.Model(Threshold(), torch.device("cpu"), 0, DATASETS["wmh"], Grid(size), "minmax",
                            ("background", "wmh"), ("FLAIR", "T1"), "f", tmp_path)
    classes, probs = prediction.segment(model, find_scans(DATASETS["wmh"], [scan.parent])[0])
    expected = volume > volume.max() / 2
    overlap = 2 * (expected & (classes == 1)).sum() / (expected.sum() + (classes == 1).sum())
    assert probs.shape == (44, 30, 3, 2) and overlap > 0.93
    assert np.allclose(ndimage.center_of_mass(classes), ndimage.center_of_mass(expected), atol=0.15)


def test_scans_are_found_in_every_layout(tmp_path):
    raw = make_isles(tmp_path / "raw")
    everything = [scan.case_id for scan in find_scans(DATASETS["isles"], [raw])]
    assert everything == ["case_1", "case_10", "case_2"]
    for path in (raw / "TRAINING" / "case_2", raw / "TRAINING" / "case_2" / "SMIR.Brain.XX.O.OT.1002" / ".."):
        assert [scan.case_id for scan in find_scans(DATASETS["isles"], [path])] == ["case_2"]
    isles_path(raw, "case_2", "OT").unlink()  # a new scan has no label
    folder = raw / "TRAINING" / "case_2"
    by_folder = find_scans(DATASETS["isles"], [folder])[0]
    shuffled = [isles_path(raw, "case_2", name) for name in ("CT_MTT", "CT", "CT_Tmax", "CT_CBF", "CT_CBV")]
    isles = DATASETS["isles"]
    expected = isles.read_scan(by_folder)[0]
    assert np.array_equal(isles.read_scan(find_scans(isles, shuffled)[0])[0], expected)
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for path in folder.rglob("*.nii"):
            archive.write(path, path.relative_to(folder.parent))
    assert np.array_equal(isles.read_scan(find_scans(isles, [tmp_path / "scans.zip"])[0])[0], expected)
    wmh = make_wmh(tmp_path / "wmh")
    for path in (wmh / "Utrecht" / "0", wmh / "Utrecht" / "0" / "pre"):
        assert len(find_scans(DATASETS["wmh"], [path])) == 1
    assert find_scans(DATASETS["wmh"], [wmh / "Utrecht" / "0"])[0].case_id == "0"


def test_files_without_a_modality_in_their_names_come_in_order(tmp_path):
    raw = make_wmh(tmp_path / "wmh") / "Utrecht" / "0" / "pre"
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for path, name in zip(paths, ("FLAIR", "T1"), strict=True):
        shutil.copy(raw / f"{name}.nii.gz", path)
    expected = DATASETS["wmh"].read_scan(find_scans(DATASETS["wmh"], [raw])[0])[0]
    scan = find_scans(DATASETS["wmh"], paths)[0]
    assert np.array_equal(DATASETS["wmh"].read_scan(scan)[0], expected) and scan.case_id == "a"


def test_one_file_is_not_two_channels(tmp_path):
    path = tmp_path / "a.nii.gz"
    shutil.copy(make_wmh(tmp_path / "wmh") / "Utrecht" / "0" / "pre" / "FLAIR.nii.gz", path)
    (tmp_path / "link.nii.gz").symlink_to(path)
    (tmp_path / "t1.nii.gz").hardlink_to(path)
    for other in (path, tmp_path / "link.nii.gz", tmp_path / "t1.nii.gz"):
        with pytest.raises(InputError, match=f"--case: expected a file of its own for each of .*, found {other} twice"):
            find_scans(DATASETS["wmh"], [path, other])


def test_a_new_scan_of_nothing_but_a_label_has_none_of_its_files(tmp_path):
    raw = make_isles(tmp_path / "raw", ("case_1",))
    folder = raw / "TRAINING" / "case_1"
    for name in ("CT", "CT_CBF", "CT_CBV", "CT_MTT"):
        isles_path(raw, "case_1", name).unlink()
    with pytest.raises(InputError, match="case_1: expected a file of each of CT, CT_CBF, .*, found CT_Tmax$"):
        find_scans(DATASETS["isles"], [folder])
    isles_path(raw, "case_1", "CT_Tmax").unlink()
    with pytest.raises(InputError, match="case_1: expected a file of each of CT, CT_CBF, .*, found none$"):
        find_scans(DATASETS["isles"], [folder])


def test_a_modality_in_two_files_of_a_folder_is_named(tmp_path):
    raw = make_wmh(tmp_path / "wmh") / "Utrecht" / "0" / "pre"
    (tmp_path / "scan").mkdir()
    for name, copy in (("FLAIR", "a_flair"), ("FLAIR", "b_flair"), ("T1", "a_t1")):
        shutil.copy(raw / f"{name}.nii.gz", tmp_path / "scan" / f"{copy}.nii.gz")
    with pytest.raises(InputError, match=r"scan: expected one file of FLAIR, found .*a_flair.nii.gz and .*b_flair"):
        find_scans(DATASETS["wmh"], [tmp_path / "scan"])


def test_images_of_a_folder_are_scans_and_nothing_else_in_it(tmp_path):
    for name in ("a.png", "b.png", "b_mask.png", "b_mask_1.png", "notes.txt", "c.jpg"):
        (tmp_path / name).touch()
    assert [scan.case_id for scan in find_scans(DATASETS["busi"], [tmp_path])] == ["a", "b"]


def test_the_modality_is_in_a_files_own_name(tmp_path):
    """Folders above may say others."""
    raw = make_wmh(tmp_path / "wmh") / "Utrecht" / "0" / "pre"
    folder = tmp_path / "T1" / "FLAIR scans"
    folder.mkdir(parents=True)
    for name in ("FLAIR", "T1"):
        shutil.copy(raw / f"{name}.nii.gz", folder / f"{name.lower()}.nii.gz")
    (scan,) = find_scans(DATASETS["wmh"], [folder])
    assert scan.case_id == "FLAIR scans" and [file.path.name for file in scan.images] == ["flair.nii.gz", "t1.nii.gz"]


@pytest.mark.parametrize(
    ("name", "modality"),
    [("FLAIR.nii.gz", "FLAIR"), ("sub-1_flair.nii", "FLAIR"), ("3DT1.nii.gz", None), ("T1_FLAIR.nii", None),
     ("SMIR.Brain.XX.O.CT.1001.nii", "CT"), ("SMIR.Brain.XX.O.CT_CBF.1001.nii", "CT_CBF"), ("x_Tmax.nii", "CT_Tmax"),
     ("SMIR.Brain.XX.O.MR_MTT.1.nii", "CT_MTT"), ("a.nii", None)],
)
def test_the_modality_in_a_name(name, modality):
    assert modality_in(name, DATASETS["wmh"]) == modality


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("missing", "missing: expected a scan, found nothing"),
        ("lacks a modality", "case_2: expected a file of each of CT, CT_CBF, CT_CBV, CT_MTT, CT_Tmax, found"),
        ("other modalities", "Utrecht: expected TRAINING/case_N"),
        ("too few files", "expected 5 files, CT, CT_CBF"),
        ("another modality", "expected CT_CBF (the run's are"),
        ("folders and files", "found both"),
        ("twice", "found case_1 twice"),
        ("damaged", "case_2: expected a whole NIfTI"),
        ("constant", "case_2: expected an image with contrast"),
        ("several into one file", "expected a folder for 3 scans"),
        ("over the scan", "expected a file of its own for each output"),
        ("into the scan's folder", "expected a file of its own for each output"),
        ("probabilities over the mask", "expected a file of its own for each output"),
        ("settings that are none", "expected the settings of a run"),
        ("unfinished run", "expected a finished run of 9 epochs, found 1"),
        ("no checkpoint", "best.pt: expected a checkpoint"),
    ],
)
def test_what_cannot_be_segmented(isles_run, tmp_path, monkeypatch, capsys, name, named):
    raw = make_isles(tmp_path / "raw")
    wmh = make_wmh(tmp_path / "wmh")
    run = shutil.copytree(isles_run / "run", tmp_path / "run")
    folder, out = raw / "TRAINING" / "case_2", tmp_path / "masks" / "out.nii.gz"
    case, flags = [folder], ()
    files = [isles_path(raw, "case_2", modality) for modality in ("CT", "CT_CBF", "CT_CBV", "CT_MTT", "CT_Tmax")]
    if name == "missing":
        case = [tmp_path / "missing"]
    elif name == "lacks a modality":
        files[2].unlink()
    elif name == "other modalities":
        case = [wmh / "Utrecht"]
    elif name == "too few files":
        case = files[:2]
    elif name == "another modality":
        case = [files[0], wmh / "Utrecht" / "0" / "pre" / "T1.nii.gz", *files[2:]]
    elif name == "folders and files":
        case = [folder, files[0]]
    elif name == "twice":
        case, out = [folder.parent / "case_1", folder.parent], tmp_path / "masks"
    elif name == "damaged":
        files[3].write_bytes(files[3].read_bytes()[:400])
    elif name == "constant":
        image = nib.load(files[4])
        nib.save(nib.Nifti1Image(np.zeros(image.shape, np.float32), image.affine, image.header), files[4])
    elif name == "several into one file":
        case = [raw]
    elif name == "over the scan":
        out = files[0]
    elif name == "into the scan's folder":
        loose = tmp_path / "loose"
        loose.mkdir()
        case = [loose / f"{modality}.nii.gz" for modality in ("CT", "CT_CBF", "CT_CBV", "CT_MTT", "CT_Tmax")]
        for path, file in zip(case, files, strict=True):
            nib.save(nib.load(file), path)
        out = loose
    elif name == "probabilities over the mask":
        flags = ("--probabilities", out)
    elif name == "settings that are none":
        config = run / "config.json"
        config.write_text(config.read_text().replace('"size": 32', '"size": "wide"'))
    elif name == "unfinished run":
        config = run / "config.json"
        config.write_text(config.read_text().replace('"epochs": 1', '"epochs": 9'))
    else:
        (run / "best.pt").unlink()
    before = set(tmp_path.rglob("*"))
    command = ("predict", run, "--case", *case, "--out", out, *flags, "--device", "cpu")
    code = call(evaluate, *command, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and named in error, error
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--space", "native", "--source", "nowhere"), "nowhere: expected the raw data"),
        (("--space", "native", "--source", "other"), "other"),
        (("--space", "native", "--source", "thicker"), "expected spacing (0.9, 0.8, 5.0) mm, found (0.9, 0.8, 6.0) mm"),
        (("--space", "native", "--source", "wider"), "expected spacing (0.9, 0.8, 5.0) mm, found (0.9, 0.801, 5.0) mm"),
        (("--source", "raw"), "expected --space native beside it"),
        (("--ignore-label", "2"), "expected --space native beside it"),
        (("--tolerance", "-1"), "--tolerance: expected at least 0 mm"),
    ],
)
def test_native_space_refuses_other_raw_data(isles_run, tmp_path, monkeypatch, capsys, flags, named):
    run = shutil.copytree(isles_run / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    make_isles(tmp_path / "other", shape=(18, 20, 3))
    make_isles(tmp_path / "thicker", spacing=(0.9, 0.8, 6.0))
    make_isles(tmp_path / "wider", spacing=(0.9, 0.801, 5.0))
    evaluate.main(["run", str(run), "--device", "cpu"])
    before = (run / "metrics.csv").read_bytes()
    code = call(evaluate, "run", run, "--device", "cpu", *flags, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and named in error, error
    assert (run / "metrics.csv").read_bytes() == before  # wrong flags take no good metrics away


def test_a_run_is_loaded_without_its_data(isles_run, tmp_path):
    run = shutil.copytree(isles_run / "run", tmp_path / "run")
    config = run / "config.json"
    config.write_text(config.read_text().replace(str(isles_run), "/gone"))
    assert prediction.load_model(run, "best", torch.device("cpu")).class_names == ("background", "lesion")
    config.write_text(config.read_text().replace('"dataset": "isles"', '"dataset": "liver"'))
    with pytest.raises(InputError, match="liver: expected a data set of"):
        prediction.load_model(run, "best", torch.device("cpu"))
