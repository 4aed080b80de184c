"""What the engine does around nnU-Net, where nnU-Net is not needed for it."""

import csv
import json
import math
import os
import random
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from raw_files import make_acdc, make_nnunet, save_nifti

import preprocess
from boundary_loss import integrations
from boundary_loss.integrations import nnunet_command
from engines import nnunet_data, nnunet_run
from engines.nnunet_data import channel_names, check_made, prepare, raw_cases, workplace_of
from engines.nnunet_results import measure, read_masks, read_prediction
from engines.nnunet_settings import Asked, settings_of
from environment.cores import core_count
from sliced_data.meta import read_meta
from training.run_folder import begin_session
from training.trainer import LOG_COLUMNS
from utils import InputError


@pytest.fixture(scope="module")
def glands(tmp_path_factory):
    """The facts of five sliced cases of two channels, of which every second has voxels that nobody knows."""
    root = tmp_path_factory.mktemp("glands")
    make_nnunet(root / "raw")
    where = ("--source", str(root / "raw"), "--dest", str(root / "data" / "glands"))
    preprocess.main(["glands", "--layout", "nnunet", *where, "--size", "24", "--jobs", "1"])
    return read_meta(root / "data" / "glands")


def variables() -> dict[str, str]:
    """Those of the environment that nnU-Net reads."""
    return {name: value for name, value in os.environ.items() if name.startswith("nnUNet_")}


def without_variables(monkeypatch) -> None:
    """None of them, and after the test those that were there before it."""
    for part in ("raw", "preprocessed", "results", "n_proc_DA", "def_n_proc"):
        monkeypatch.setenv(f"nnUNet_{part}", "")
        monkeypatch.delenv(f"nnUNet_{part}")


# Settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("epochs", 1, 10**6), ("iterations", 1, 10**6), ("batch_size", 1, 10**6), ("width", 1, 10**6),
     ("seed", 0, 2**32 - 1)],
)
def test_the_first_and_the_last_value_of_what_is_asked(name, least, most):
    for value in (least, most):
        assert getattr(Asked("nnUNetTrainer", **{name: value}), name) == value
    for value in (least - 1, most + 1):
        with pytest.raises(InputError, match=rf"--{name.replace('_', '-')}: expected .*, found {value}$"):
            Asked("nnUNetTrainer", **{name: value})


def test_what_is_not_asked_for():
    asked = Asked("nnUNetTrainer")
    assert (asked.configuration, asked.seed) == ("2d", 0)
    assert (asked.epochs, asked.iterations, asked.batch_size, asked.width) == (None,) * 4


def test_an_unknown_trainer_is_refused():
    with pytest.raises(InputError, match="--trainer: expected one of nnUNetTrainer, .*, found Mine"):
        Asked("Mine")


# Data ----------------------------------------------------------------------------------------------------------------


def test_data_are_made_once_for_each_configuration(glands, tmp_path, monkeypatch):
    place, planned = workplace_of(tmp_path / "glands", "glands"), []
    monkeypatch.setattr(nnunet_data, "package_version", lambda name: "2.8.1")
    without_variables(monkeypatch)

    def plan(configuration, *, planned: bool, seen=planned):
        seen.append((configuration, planned))
        place.preprocessed.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(nnunet_data, "plan_and_preprocess", plan)
    # What a kill has left is no part of it.
    for left in (place.raw / "imagesTr" / "old.nii.gz", place.preprocessed / "old.npz"):
        left.parent.mkdir(parents=True)
        left.touch()
    for _ in range(2):
        prepare(glands, place, "2d")
    assert planned == [("2d", False)]
    assert variables() == {
        "nnUNet_def_n_proc": str(core_count()),
        **{f"nnUNet_{part}": str(place.root / part) for part in ("raw", "preprocessed", "results")},
    }
    assert len(list((place.raw / "imagesTr").iterdir())) == 10 and len(list((place.raw / "labelsTr").iterdir())) == 5
    assert os.listdir(place.preprocessed) == ["splits_final.json"]
    (fold,) = json.loads((place.preprocessed / "splits_final.json").read_text())
    assert fold == {part: [c.case_id for c in glands.cases if c.split == part] for part in ("train", "val")}
    mine = place.raw / "imagesTr" / "stays"
    mine.touch()
    prepare(glands, place, "3d_fullres")
    assert planned == [("2d", False), ("3d_fullres", True)] and mine.exists()
    assert json.loads((place.root / "made.json").read_text()) == {
        "data_fingerprint": glands.fingerprint, "configurations": ["2d", "3d_fullres"], "nnunetv2": "2.8.1",
    }

    monkeypatch.setattr(nnunet_data, "package_version", lambda name: "2.9")
    with pytest.raises(InputError, match=r"expected data of nnunetv2 2.9, found those of 2.8.1; remove it"):
        check_made(glands, place)
    made = json.loads((place.root / "made.json").read_text()) | {"data_fingerprint": "other"}
    (place.root / "made.json").write_text(json.dumps(made))
    with pytest.raises(InputError, match="expected nnU-Net's data of .*, found those of other slices; remove it"):
        check_made(glands, place)


@pytest.mark.parametrize("name", ["raw", "preprocessed", "mine.txt"])
def test_a_folder_that_was_not_made_here_is_refused(glands, tmp_path, name):
    place = workplace_of(tmp_path / "glands", "glands")
    assert check_made(glands, place) == {}
    (place.root / name).mkdir(parents=True)
    if name != "mine.txt":
        assert check_made(glands, place) == {}
        return
    with pytest.raises(InputError, match="expected a new folder or nnU-Net's data made here, found neither"):
        prepare(glands, place, "2d")
    assert os.listdir(place.root) == [name]


def test_raw_data_that_went_away_are_named(glands, tmp_path):
    assert [case.case_id for case in raw_cases(glands)[1]] == [case.case_id for case in glands.cases]
    with pytest.raises(InputError, match="expected to know its raw data, found no source in meta.json"):
        raw_cases(replace(glands, source=None))
    make_nnunet(tmp_path / "fewer", cases=("a_1", "b_2", "c_3"))
    with pytest.raises(InputError, match="fewer: expected the raw scan of d_4, found none"):
        raw_cases(replace(glands, source=str(tmp_path / "fewer")))


def test_channels_that_nnunet_would_normalise_otherwise_have_other_names():
    def names(normalise, *modalities):
        return channel_names(SimpleNamespace(facts={"normalise": normalise}, modalities=modalities))

    assert names("minmax", "T1", "CT", "noNorm", "rgb_to_0_1") == ["T1", "CT image", "noNorm image", "rgb_to_0_1 image"]
    assert names("clip-zscore", "CT", "PET") == ["CT", "CT"]


# Results -------------------------------------------------------------------------------------------------------------


def test_what_is_measured_of_a_case(glands, tmp_path):
    """Unknown voxels are left out; of a data set without its empty slices the others are whole again."""
    raw, cases = raw_cases(glands)
    case = next(case for case in cases if case.case_id == "b_2")
    label = np.zeros((20, 24, 3), np.uint8)
    label[4:14, 5:15] = 1
    label[6:10, 8:13, 1:] = 2
    predicted = np.random.default_rng(0).integers(0, 3, label.shape).astype(np.uint8)
    save_nifti(tmp_path / "b_2.nii.gz", predicted, (0.5, 0.6, 3.0))
    masks, whole = read_masks(case, raw, tmp_path, all_slices=True)
    unknown = np.zeros(label.shape, bool)
    unknown[0:6, 0:8] = True
    assert np.array_equal(masks.ignore, unknown) and np.array_equal(masks.reference[~unknown], label[~unknown])
    assert np.array_equal(masks.prediction, predicted) and np.array_equal(whole, predicted)
    assert masks.spacing == pytest.approx((0.5, 0.6, 3.0)) and masks.case_id == "b_2"


def test_slices_that_were_left_out_are_background(tmp_path):
    make_nnunet(tmp_path / "raw")
    for path in (tmp_path / "raw" / "labelsTr").iterdir():
        label = np.zeros((20, 24, 3), np.uint8)
        label[4:9, 5:9, 1:] = 1
        save_nifti(path, label, (0.5, 0.6, 3.0))
    description = json.loads((tmp_path / "raw" / "dataset.json").read_text())
    del description["labels"]["ignore"]
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps(description))
    where = ("--source", str(tmp_path / "raw"), "--dest", str(tmp_path / "glands"))
    preprocess.main(["glands", "--layout", "nnunet", *where, "--size", "24", "--jobs", "1"])
    raw, cases = raw_cases(read_meta(tmp_path / "glands"))
    predicted = np.ones((20, 24, 2), np.uint8)
    save_nifti(tmp_path / "masks" / f"{cases[0].case_id}.nii.gz", predicted, (0.5, 0.6, 3.0))
    masks, whole = read_masks(cases[0], raw, tmp_path / "masks", all_slices=False)
    assert masks.ignore is None and masks.reference.shape == masks.prediction.shape == (20, 24, 2)
    assert whole.dtype == np.uint8 and not whole[..., 0].any() and whole[..., 1:].all()


def test_files_and_lines_of_one_class(tmp_path):
    """The mask of every validation case on both grids, and MIDL's distance, which is for one class alone."""
    make_nnunet(tmp_path / "raw")
    label = np.zeros((20, 24, 3), np.uint8)
    label[4:14, 5:15] = 1
    for path in (tmp_path / "raw" / "labelsTr").iterdir():
        save_nifti(path, label, (0.5, 0.6, 3.0))
    description = json.loads((tmp_path / "raw" / "dataset.json").read_text())
    description["labels"] = {"background": 0, "gland": 1}
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps(description))
    where = ("--source", str(tmp_path / "raw"), "--dest", str(tmp_path / "glands"))
    preprocess.main(["glands", "--layout", "nnunet", *where, "--size", "24", "--jobs", "1"])
    meta = read_meta(tmp_path / "glands")
    (case,) = (case.case_id for case in meta.cases if case.split == "val")
    predicted = np.zeros((20, 24, 3), np.uint8)
    predicted[4:14, 5:15, :2] = 1
    save_nifti(tmp_path / "masks" / f"{case}.nii.gz", predicted, (0.5, 0.6, 3.0))
    measure(lambda path: path, tmp_path / "run", meta, tmp_path / "masks", 7, tolerance_mm=2.0)
    (line,) = csv.DictReader((tmp_path / "run" / "metrics.csv").open())
    assert (line["case_id"], line["class"], line["epoch"], line["tolerance_mm"]) == (case, "gland", "6", "2.0")
    assert float(line["dsc"]) == pytest.approx(2 * 200 / (300 + 200)) and line["n_ref"] == "300"
    (line,) = csv.DictReader((tmp_path / "run" / "metrics_2d.csv").open())
    assert float(line["dsc"]) == pytest.approx(2 / 3) and line["n_slices"] == "3" and float(line["hd_midl"]) > 0
    for folder, shape in (("predictions_native", (20, 24, 3)), ("predictions", (24, 24, 3))):
        mask = nib.load(tmp_path / "run" / folder / f"{case}.nii.gz").get_fdata()
        assert mask.shape == shape and mask[..., :2].any() and not mask[..., 2].any()


@pytest.mark.parametrize(
    ("highest", "shape", "said"),
    [
        (3, (4, 5, 2), r"expected classes 0 to 2 of shape \(4, 5, 2\), found \(4, 5, 2\) of 0 to 3 in"),
        (-1, (4, 5, 2), "found .* of -1 to 0 in"), (2, (4, 5, 3), r"found \(4, 5, 3\) of 0 to 2 in"),
    ],
)
def test_predictions_that_are_not_of_this_case(tmp_path, highest, shape, said):
    with pytest.raises(InputError, match="a: expected nnU-Net's prediction .*a.nii.gz, found none"):
        read_prediction("a", tmp_path, (4, 5, 2), 3)
    voxels = np.zeros((4, 5, 2), np.int16)
    voxels[0, 0, 0] = 2
    save_nifti(tmp_path / "a.nii.gz", voxels, (1, 1, 1))
    assert np.array_equal(read_prediction("a", tmp_path, (4, 5, 2), 3), voxels)
    voxels = np.zeros(shape, np.int16)
    voxels[0, 0, 0] = highest
    save_nifti(tmp_path / "a.nii.gz", voxels, (1, 1, 1))
    with pytest.raises(InputError, match=said):
        read_prediction("a", tmp_path, (4, 5, 2), 3)


# A run ---------------------------------------------------------------------------------------------------------------


def settings(**asked):
    plan = {"batch_size": 2}
    return settings_of(Asked("nnUNetTrainerBoundary", **asked), plan, dataset="acdc", fingerprint="f")


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    root = tmp_path_factory.mktemp("hearts")
    make_acdc(root / "raw", shape=(40, 36, 4))
    where = ("--source", str(root / "raw"), "--dest", str(root / "acdc"))
    preprocess.main(["acdc", *where, "--size", "32", "--jobs", "1"])
    return root / "acdc"


def test_a_run_of_other_epochs_differs_in_them_alone(hearts, tmp_path):
    """Its alpha follows from them, and is nothing that its user has asked for."""
    asked = settings(epochs=4)
    assert nnunet_run.with_schedule_of(tmp_path / "new", asked) == asked
    begin_session(tmp_path, settings(epochs=5), hearts, torch.device("cpu"))
    assert nnunet_run.with_schedule_of(tmp_path, asked) == replace(settings(epochs=5), epochs=4)
    assert nnunet_run.with_schedule_of(tmp_path, settings(epochs=5)) == settings(epochs=5)


def test_a_seed_is_of_every_source_of_chance():
    def drawn(seed):
        nnunet_run.seed_everything(seed)
        return random.random(), float(np.random.random()), float(torch.rand(()))

    assert drawn(3) == drawn(3)
    assert all(one != other for one, other in zip(drawn(3), drawn(4), strict=True))


@pytest.mark.parametrize(("done", "trained"), [(0, True), (1, True), (2, False)])
def test_epochs_that_are_missing_are_trained(monkeypatch, done, trained):
    calls = []
    trainer = SimpleNamespace(
        initialize=lambda: calls.append("initialize"), run_training=lambda: calls.append("train"), current_epoch=None)

    def load(trainer, *, continue_training, validation_only):
        calls.append((continue_training, validation_only))
        trainer.current_epoch = done

    module = ModuleType("nnunetv2.run.run_training")
    module.maybe_load_checkpoint = load
    for name in ("nnunetv2", "nnunetv2.run", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    nnunet_run.configure(trainer, settings(epochs=2, iterations=14))
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (2, 14, 2)
    assert trainer.save_every == 10
    nnunet_run.train(trainer)
    assert calls == ["initialize", (True, False), *(["train"] if trained else [])]
    nnunet_run.configure(trainer, settings(epochs=2, iterations=4))
    assert trainer.num_val_iterations_per_epoch == 1


def test_the_log_is_that_of_nnunet():
    logged = {
        "train_losses": [0.5, 0.25], "val_losses": [0.75, 0.5], "mean_fg_dice": [0.1, 0.2], "lrs": [0.01, 0.005],
        "epoch_start_timestamps": [100.0, 105.0], "epoch_end_timestamps": [104.0, 105.0],
    }
    trainer = SimpleNamespace(
        num_epochs=2, num_iterations_per_epoch=6, batch_size=4,
        logger=SimpleNamespace(get_value=lambda key, step: logged[key]),
    )
    first, second = nnunet_run.log_rows(trainer)
    assert set(first) == set(LOG_COLUMNS)
    assert {name: value for name, value in first.items() if not math.isnan(value)} == {
        "epoch": 0, "train_loss": 0.5, "val_loss": 0.75, "val_dsc": 0.1, "lr": 0.01, "seconds": 4.0,
        "slices_per_second": 6.0,
    }
    assert (second["epoch"], second["val_dsc"], second["seconds"]) == (1, 0.2, 0.0)
    assert second["slices_per_second"] == pytest.approx(24e9)


@pytest.mark.parametrize(("device", "processes"), [("cpu", "0"), ("cuda", None)])
def test_the_trainer_is_the_one_of_the_name(tmp_path, monkeypatch, device, processes):
    """Of the library or nnU-Net's own, in the folders of the run; on a CPU without processes for augmentation."""
    own = SimpleNamespace(**dict.fromkeys(nnunet_command.TRAINERS))
    own.nnUNetTrainerRRW = lambda *given: ("ours", *given)
    module = ModuleType("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    module.nnUNetTrainer = lambda *given: ("theirs", *given)
    for name in ("nnunetv2", "nnunetv2.training", "nnunetv2.training.nnUNetTrainer", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "boundary_loss.integrations.nnunet", own)
    monkeypatch.setattr(integrations, "nnunet", own, raising=False)
    without_variables(monkeypatch)
    place = workplace_of(tmp_path / "acdc", "acdc")
    place.preprocessed.mkdir(parents=True)
    (place.preprocessed / "dataset.json").write_text('{"labels": {}}')
    for name, whose in (("nnUNetTrainerRRW", "ours"), ("nnUNetTrainer", "theirs")):
        made = nnunet_run.make_trainer(
            place, {"a": 1}, Asked(name, configuration="3d_fullres"), tmp_path / "run", torch.device(device))
        assert made == (
            whose, {"a": 1, "continue_training": True}, "3d_fullres", 0, {"labels": {}}, torch.device(device))
    found = variables()
    assert found.get("nnUNet_n_proc_DA") == processes and found["nnUNet_results"] == str(tmp_path / "run" / "nnunet")
