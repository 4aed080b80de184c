"""Bad input of the commands: exit code 2, one line that names the culprit, nothing new on the disk."""

import shutil
import zipfile

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import evaluate
from raw_files import SLICED_X, call, isles_path, make_isles, make_wmh, save_nifti, tree, unseal

import preprocess
import train


def stored(path):
    image = nib.load(path)
    return np.asarray(image.dataobj).copy(), image.header.get_zooms()


def rewrite(root, modality, change=lambda voxels: voxels, spacing=None, case="case_2"):
    path = isles_path(root, case, modality)
    voxels, zooms = stored(path)
    save_nifti(path, change(voxels), spacing or zooms, identity_affine=True)


def with_value(value, index=(0, 0, 0)):
    def change(voxels):
        voxels[index] = value
        return voxels

    return change


def to_zip(root, damage):
    """Replace the folder by a zip of it, damaged."""
    archive = root / "ISLES2018_Training.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted((root / "TRAINING").rglob("*.nii")):
            opened.write(path, path.relative_to(root))
        if damage == "climbs":
            opened.writestr("../../evil.nii", b"x")
    shutil.rmtree(root / "TRAINING")
    content = bytearray(archive.read_bytes())
    if damage == "truncated":
        archive.write_bytes(content[: len(content) // 2])
    if damage == "flipped":
        content[2000] ^= 0xFF
        archive.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:500])


ISLES_CASES = {
    "raw folder missing": (
        lambda raw: shutil.rmtree(raw),
        "expected the raw data of isles, found nothing; get ISLES2018_Training.zip",
    ),
    "raw folder empty": (lambda raw: shutil.rmtree(raw / "TRAINING"), "found no case; get ISLES2018_Training.zip"),
    "zip truncated": (lambda raw: to_zip(raw, "truncated"), "ISLES2018_Training.zip: expected a whole zip"),
    "zip with a flipped byte": (lambda raw: to_zip(raw, "flipped"), "ISLES2018_Training.zip!TRAINING/case_"),
    "zip that climbs out": (lambda raw: to_zip(raw, "climbs"), "../../evil.nii"),
    "modality missing": (lambda raw: isles_path(raw, "case_2", "CT_MTT").unlink(), "case_2: expected a file of CT_MTT"),
    "label missing": (lambda raw: isles_path(raw, "case_2", "OT").unlink(), "case_2: expected a file of label"),
    "NIfTI truncated": (lambda raw: truncate(isles_path(raw, "case_2", "CT")), "case_2: expected a whole NIfTI"),
    "NIfTI empty": (
        lambda raw: isles_path(raw, "case_2", "CT").write_bytes(b""),
        "case_2: expected a whole NIfTI file, found 0 bytes",
    ),
    "not a NIfTI": (
        lambda raw: isles_path(raw, "case_2", "CT").write_bytes(b"x" * 999),
        "case_2: expected a whole NIfTI",
    ),
    "shape disagrees": (
        lambda raw: rewrite(raw, "CT_CBF", lambda v: v[:, :, :2]),
        "case_2: expected shape (16, 20, 3), found (16, 20, 2)",
    ),
    "spacing disagrees": (
        lambda raw: rewrite(raw, "CT_CBV", spacing=(0.9, 0.8, 6.0)),
        "case_2: expected spacing (0.9, 0.8, 5.0) mm",
    ),
    "spacing zero": (lambda raw: rewrite(raw, "CT", spacing=(0.0, 0.8, 5.0)), "case_2: expected a positive spacing"),
    "NaN voxel": (lambda raw: rewrite(raw, "CT_Tmax", with_value(np.nan)), "case_2: expected finite voxels"),
    "infinite voxel": (lambda raw: rewrite(raw, "CT_MTT", with_value(np.inf)), "case_2: expected finite voxels"),
    "constant image": (
        lambda raw: rewrite(raw, "CT", lambda v: v * 0 + 7),
        "case_2: expected an image with contrast, found only 7",
    ),
    "label value": (lambda raw: rewrite(raw, "OT", with_value(3)), "case_2: expected label values 0, 1, found 3"),
    "4D volume": (
        lambda raw: rewrite(raw, "CT", lambda v: v[..., None].repeat(2, 3), spacing=(0.9, 0.8, 5.0)),
        "case_2: expected a 3-D volume, found shape (16, 20, 3, 2)",
    ),
}


@pytest.fixture
def refuse(tmp_path, monkeypatch, capsys):
    """Run a command that must refuse: exit code 2, one line with ``named``, nothing new or gone on the disk."""

    def run(module, *arguments, named):
        before = tree(tmp_path)
        code = call(module, *arguments, monkeypatch=monkeypatch)
        error = capsys.readouterr().err
        assert code == 2 and error.count("\n") == 1 and named in error, error
        assert tree(tmp_path) == before

    return run


@pytest.mark.parametrize("name", ISLES_CASES)
def test_bad_raw_data(tmp_path, refuse, name):
    damage, named = ISLES_CASES[name]
    damage(make_isles(tmp_path / "raw"))
    places = ("--source", tmp_path / "raw", "--dest", tmp_path / "data" / "isles")
    refuse(preprocess, "isles", *places, "--size", "16", "--val", "1", "--jobs", "1", named=named)


FLAGS = {
    "fewer cases than --val": (("--val", "3"), "expected more than 3 cases"),
    "--val 0": (("--val", "0"), "--val: expected at least 1 case, found 0"),
    "the paper's --val": ((), "expected more than 20 cases"),
    "split names an unknown case": (("--split", "unknown.txt"), "found case_99"),
    "split names a case twice": (("--split", "twice.txt"), "found case_1 twice"),
    "split without validation": (("--split", "none.json"), "expected at least one case for val"),
    "split with other lists": (("--split", "lists.json"), "expected lists named train and val"),
    "split with a list twice": (("--split", "again.json"), "again.json: expected a readable JSON file, found the key"),
    "split csv with a column twice": (("--split", "again.csv"), "again.csv: expected a readable split file, found the"),
    "split missing": (("--split", "absent.txt"), "absent.txt: expected a readable split file"),
    "split broken": (("--split", "broken.json"), "broken.json: expected a readable JSON file"),
    "split csv without columns": (("--split", "wrong.csv"), "expected the columns case_id and split"),
    "--split and --val": (("--split", "twice.txt", "--val", "1"), "--split"),
    "--size": (("--size", "20", "--val", "1"), "--size: expected a multiple of 8, at least 16, found 20"),
    "--size too small": (("--size", "8", "--val", "1"), "found 8"),
    "--dest below a file": (("--dest", "broken.json/isles", "--val", "1"), "broken.json"),
    "--jobs": (("--jobs", "0", "--val", "1"), "--jobs: expected at least 1"),
    "--distance-map": (("--distance-map", "signed", "--val", "1"), "choose from"),
    "--dest exists": (("--dest", "raw", "--val", "1"), "expected a new folder"),
    "unknown flag": (("--vall", "1"), "--vall"),
}


@pytest.mark.parametrize("name", FLAGS)
def test_bad_flags_of_preprocess(tmp_path, monkeypatch, refuse, name):
    flags, named = FLAGS[name]
    monkeypatch.chdir(tmp_path)
    make_isles(tmp_path / "raw")
    files = {
        "unknown.txt": "case_99",
        "twice.txt": "case_1\ncase_1",
        "none.json": '{"train": ["case_1"], "val": []}',
        "lists.json": '{"test": ["case_1"]}',
        "broken.json": "{",
        "again.json": '[{"train": ["case_1"], "val": ["case_2"], "val": ["case_10"]}]',
        "again.csv": "case_id,split,split\ncase_1,train,val\ncase_2,val,train\n",
        "wrong.csv": "id,part\n1,val\n",
    }
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    refuse(preprocess, "isles", "--source", "raw", "--dest", "data/isles", *flags, named=named)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a\nb", "\x1b[31m", "x" * 201])
def test_bad_names_of_data_sets(tmp_path, refuse, name):
    places = ("--source", make_isles(tmp_path / "raw"), "--dest", tmp_path / "d", "--val", "1", "--size", "16")
    refuse(preprocess, name, "--layout", "isles", *places, named="name of the data set: expected a plain file name")


def test_patients_without_sidecars(tmp_path, refuse):
    root = make_isles(tmp_path / "raw")
    isles_path(root, "case_2", "OT").with_suffix(".json").unlink()
    flags = ("--val", "1", "--group", "patient")
    refuse(preprocess, "isles", "--source", root, "--dest", tmp_path / "d", *flags, named="case_2: expected a .json")


def test_one_damaged_case_of_many_processes(tmp_path, refuse):
    root = make_wmh(tmp_path / "raw")
    truncate(root / "Singapore" / "50" / "pre" / "T1.nii.gz")
    flags = ("--val", "1", "--jobs", "2")
    refuse(preprocess, "wmh", "--source", root, "--dest", tmp_path / "d", *flags, named="T1.nii.gz")


TRAIN_FLAGS = {
    "unknown loss": (("--region", "gdll"), "'gdl'"),
    "unknown contour loss": (("--contour", "edges"), "'boundary'"),
    "unknown schedule": (("--alpha", "slowly"), "'rebalance'"),
    "no loss": (("--region", "none"), "expected at least one loss"),
    "alpha": (("--alpha-start", "-1"), "--alpha rebalance"),
    "alpha NaN": (("--alpha-start", "nan"), "--alpha rebalance"),
    "lr": (("--lr", "0"), "--lr: expected a positive number"),
    "epochs": (("--epochs", "0"), "--epochs: expected at least 1, found 0"),
    "batch size": (("--batch-size", "none"), "--batch-size"),
    "width": (("--width", "0"), "--width: expected at least 1, found 0"),
    "width of a fixed network": (
        ("--network", "resnet34-unet", "--width", "16"),
        "--width: expected none, since the channels of resnet34-unet are fixed, found 16",
    ),
    "data missing": (
        ("--data", "nowhere"),
        "nowhere: expected a sliced data set, found nothing; make it with preprocess.py",
    ),
    "seed": (("--seed", "4294967296"), "--seed: expected less than 2^32"),
    "3D maps without boundary loss": (("--maps", "3d"), "--maps 3d: expected a loss of signed distances"),
    "region-wise map without its loss": (("--region-wise-map", "ac"), "--region-wise-map: expected a region-wise loss"),
    "out is a file": (("--out", "other/thesis.txt"), "other/thesis.txt: expected a new folder or a run, found a file"),
    "out below a file": (("--out", "other/thesis.txt/run", "--width", "1"), "other/thesis.txt"),
    "out is something else": (("--out", "other"), "other: expected a new or empty folder or a run"),
    "residence": (("--resident", "disk"), "'stream'"),
    "3D maps of another convention, streamed": (
        ("--contour", "boundary", "--maps", "3d", "--distance-map", "authors", "--resident", "stream"),
        "preprocess.py --distance-map authors",
    ),
    "device": (("--device", "cuda"), "--device cuda: expected a CUDA device"),
}


@pytest.mark.parametrize("name", TRAIN_FLAGS)
def test_bad_flags_of_train(sliced, tmp_path, monkeypatch, refuse, name):
    flags, named = TRAIN_FLAGS[name]
    if name == "device" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("keep me")
    refuse(train, "--data", sliced, "--out", "run", *flags, named=named)


def slice_path(data, kind="image", part="train"):
    return sorted((data / part / kind).iterdir())[1]


def resave(path, change):
    np.save(path, change(np.load(path)))


def edit(file, old, new):
    def damage(data):
        text = (data / file).read_text()
        assert old in text
        (data / file).write_text(text.replace(old, new, 1))

    return damage


def drop_last_line(data):
    path = data / "cases.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))


DATA = {
    "image missing": (lambda d: slice_path(d).unlink(), "train/image/case_"),
    "map missing": (lambda d: slice_path(d, "phi2d").unlink(), "train/phi2d/case_"),
    "validation label missing": (lambda d: slice_path(d, "label", "val").unlink(), "val/label/case_"),
    "folder missing": (lambda d: shutil.rmtree(d / "val" / "image"), "val/image/case_"),
    "image truncated": (lambda d: truncate(slice_path(d)), "expected a readable slice"),
    "map truncated": (lambda d: truncate(slice_path(d, "phi2d")), "train/phi2d/case_"),
    "one byte too few": (lambda d: slice_path(d).write_bytes(slice_path(d).read_bytes()[:-1]), "train/image/case_"),
    "image empty": (lambda d: slice_path(d).write_bytes(b""), "train/image/case_"),
    "not a .npy": (lambda d: slice_path(d).write_bytes(b"x" * 999), "expected a readable slice"),
    "pickled": (lambda d: np.save(slice_path(d), np.array([{}], dtype=object)), "allow_pickle"),
    "image float32": (lambda d: resave(slice_path(d), np.float32), "expected float16 of shape (5, 32, 32)"),
    "label int64": (lambda d: resave(slice_path(d, "label"), np.int64), "expected uint8 of shape (32, 32), found"),
    "other size": (lambda d: resave(slice_path(d), lambda a: a[:, :16]), "found float16 (5, 16, 32)"),
    "modality less": (lambda d: resave(slice_path(d), lambda a: a[:4]), "found float16 (4, 32, 32)"),
    "class more": (lambda d: resave(slice_path(d, "phi2d"), lambda a: a[[0, 1, 1]]), "found float16 (3, 32, 32)"),
    "NaN in an image": (lambda d: resave(slice_path(d), with_value(np.nan)), "expected finite values"),
    "infinity in a map": (lambda d: resave(slice_path(d, "phi2d"), with_value(-np.inf)), "expected finite values"),
    "NaN in validation": (lambda d: resave(slice_path(d, part="val"), with_value(np.nan)), "val/image/case_"),
    "label value": (lambda d: resave(slice_path(d, "label"), with_value(2, (0, 0))), "classes 0 to 1, found 2"),
    "meta.json missing": (lambda d: (d / "meta.json").unlink(), "meta.json: expected a readable JSON file"),
    "meta.json cut off": (lambda d: (d / "meta.json").write_text("{"), "meta.json: expected a readable JSON file"),
    "meta.json not UTF-8": (lambda d: (d / "meta.json").write_bytes(b"\xff\xfe{"), "meta.json: expected a readable"),
    "another format": (edit("meta.json", '"format": 1', '"format": 9'), "expected format 1, found 9"),
    "no format": (edit("meta.json", '"format": 1,', ""), "expected format 1, found None"),
    "no size": (edit("meta.json", '"size"', '"pixels"'), "meta.json: expected dataset, size"),
    "size is a word": (edit("meta.json", '"size": 32', '"size": "wide"'), "meta.json: expected dataset, size"),
    "size below zero": (edit("meta.json", '"size": 32', '"size": -96'), "meta.json: expected dataset, size"),
    "a case twice": (
        lambda d: edit("cases.csv", "case_10,", "case_1,")(d),
        "expected each case once, found case_1 twice",
    ),
    "a split of another name": (edit("cases.csv", ",train,", ",vall,"), "expected the split train or val, found vall"),
    "cases.csv missing": (lambda d: (d / "cases.csv").unlink(), "cases.csv: expected a readable CSV file"),
    "cases.csv cut off": (
        lambda d: (d / "cases.csv").write_bytes((d / "cases.csv").read_bytes()[:-30]),
        "cases.csv: line 4 is cut off",
    ),
    "cases.csv without cases": (drop_last_line, "cases.csv: expected a column"),
    "cases.csv without a column": (edit("cases.csv", "n_slices", "slices"), "expected a column n_slices"),
    "spacing is a word": (edit("cases.csv", f",{SLICED_X},", ",wide,"), "case_1: expected numbers"),
    "spacing zero": (edit("cases.csv", f",{SLICED_X},", ",0,"), "case_1: expected positive numbers"),
    "spacing that float32 rounds to 0": (
        edit("cases.csv", f",{SLICED_X},", ",1e-160,"), "case_1: expected positive numbers"
    ),
    "spacing NaN": (edit("cases.csv", f",{SLICED_X},", ",nan,"), "case_1: expected positive numbers"),
    "more slices than files": (edit("cases.csv", ",3,2,", ",4,2,"), "_0003.npy: expected a readable slice"),
    "no validation": (edit("cases.csv", ",val,", ",train,"), "expected cases for val, found none"),
}


@pytest.mark.parametrize("resident", ["host", "stream"])
@pytest.mark.parametrize("name", DATA)
def test_training_on_damaged_data_makes_no_run(sliced, tmp_path, refuse, name, resident):
    data = unseal(shutil.copytree(sliced, tmp_path / "data"))
    damage, named = DATA[name]
    damage(data)
    flags = ("--contour", "boundary", "--resident", resident, "--width", "1", "--epochs", "1", "--device", "cpu")
    refuse(train, "--data", data, "--out", tmp_path / "run", *flags, named=named)


@pytest.fixture(scope="module")
def finished(sliced, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    train.main(["--data", str(sliced), "--out", str(out), "--width", "4", "--epochs", "1", "--device", "cpu"])
    return out


def replace_text(path, old, new):
    path.write_text(path.read_text().replace(old, new, 1))


def of_earlier_version(run):
    """Its checkpoints do not say which settings they are of."""
    for path in run.glob("*.pt"):
        state = torch.load(path, weights_only=True)
        del state["fingerprint"]
        torch.save(state, path)
    return run


RUNS = {
    "no run": (lambda run: shutil.rmtree(run), "config.json: expected a readable JSON file"),
    "no checkpoint": (lambda run: (run / "best.pt").unlink(), "best.pt: expected a checkpoint, found nothing"),
    "checkpoint truncated": (lambda run: truncate(run / "best.pt"), "best.pt: expected a whole checkpoint"),
    "other settings": (
        lambda run: replace_text(run / "config.json", '"width": 4', '"width": 32'),
        "best.pt: expected a checkpoint of this run",
    ),
    "other width": (
        lambda run: replace_text(of_earlier_version(run) / "config.json", '"width": 4', '"width": 32'),
        "expected the weights",
    ),
    "other data": (
        lambda run: replace_text(
            of_earlier_version(run) / "config.json", '"data_fingerprint": "', '"data_fingerprint": "0'
        ),
        "found another",
    ),
    "no settings": (lambda run: (run / "config.json").write_text("{}"), "expected the settings of a run"),
}


@pytest.mark.parametrize("name", RUNS)
def test_bad_runs(finished, tmp_path, refuse, name):
    run = shutil.copytree(finished, tmp_path / "run")
    damage, named = RUNS[name]
    damage(run)
    refuse(evaluate, "run", run, "--device", "cpu", named=named)
