"""nnU-Net v2 as an engine: its trainers, and a row from raw ACDC data to metrics.csv; what needs nnU-Net is skipped."""

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
import train_nnunet
from commands import evaluate
from raw_files import call, make_acdc, make_nnunet

import preprocess
from boundary_loss import GeneralizedDice, distance_maps
from boundary_loss.integrations import nnunet_command
from engines import nnunet_run
from engines.nnunet_data import export_cases, workplace_of
from engines.nnunet_settings import TRAINERS, Asked
from environment.atomic_outputs import MARK
from reporting.tables import write_table
from sliced_data.meta import read_meta
from utils import InputError

ROOT = Path(__file__).resolve().parent.parent
HAS_NNUNET = importlib.util.find_spec("nnunetv2") is not None
needs_nnunet = pytest.mark.skipif(not HAS_NNUNET, reason="nnU-Net is not installed here: make test-nnunet")
SHORT = ("--epochs", "2", "--iterations", "2", "--batch-size", "2", "--width", "4", "--device", "cpu")


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    """Four sliced ACDC patients: 2 and 4 train, 1 and 3 validate."""
    root = tmp_path_factory.mktemp("hearts")
    make_acdc(root / "raw", shape=(40, 36, 4))
    where = ("--source", str(root / "raw"), "--dest", str(root / "data" / "acdc"))
    preprocess.main(["acdc", *where, "--size", "32", "--jobs", "1"])
    return root


def run_script(*arguments):
    """In a process of its own, as nnU-Net starts others from it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts" / "train_nnunet.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


def test_every_trainer_of_the_library_is_one_of_the_engine():
    assert set(TRAINERS) == {"nnUNetTrainer", *nnunet_command.TRAINERS}
    rows = [line for line in (ROOT / "experiments.mk").read_text().splitlines() if line.startswith("ROW_nnunet-")]
    assert {line.split()[-1] for line in rows} == set(TRAINERS)


def test_the_export_has_the_raw_voxels_the_spacing_and_the_split(hearts, tmp_path):
    meta = read_meta(hearts / "data" / "acdc")
    place = workplace_of(tmp_path / "acdc", "acdc")
    export_cases(meta, place)
    described = json.loads((place.raw / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "RV": 1, "MYO": 2, "LV": 3} and described["numTraining"] == 8
    for case, frame in (("patient001_ED", 4), ("patient004_ES", 11)):
        raw = hearts / "raw" / "training" / case[:10] / f"{case[:10]}_frame{frame:02d}.nii.gz"
        for name, stored in ((f"imagesTr/{case}_0000", raw), (f"labelsTr/{case}", str(raw).replace(".nii", "_gt.nii"))):
            found, expected = nib.load(place.raw / f"{name}.nii.gz"), nib.load(stored)
            assert np.array_equal(found.get_fdata(), expected.get_fdata())
            assert np.allclose(found.header.get_zooms(), (1.5625, 1.5625, 10.0))


def test_ignored_voxels_are_nnunets_ignore_label(tmp_path):
    make_nnunet(tmp_path / "raw")
    where = ("--source", str(tmp_path / "raw"), "--dest", str(tmp_path / "glands"))
    preprocess.main(["glands", "--layout", "nnunet", *where, "--size", "24", "--jobs", "1"])
    place = workplace_of(tmp_path / "glands", "glands")
    export_cases(read_meta(tmp_path / "glands"), place)
    assert json.loads((place.raw / "dataset.json").read_text())["labels"]["ignore"] == 3
    (stored,) = (tmp_path / "raw").rglob("labelsTr/b_2.nii.gz")
    assert np.array_equal(nib.load(place.raw / "labelsTr" / "b_2.nii.gz").get_fdata(), nib.load(stored).get_fdata())


def refused(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(nnunet_run, "package_version", lambda name: "2.8.1")
    assert call(train_nnunet, *arguments, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_bad_input_is_one_line(hearts, tmp_path, monkeypatch, capsys):
    data = hearts / "data" / "acdc"
    row = ("--data", data, "--out", tmp_path / "seed0", "--trainer", "nnUNetTrainerRRW")
    assert "invalid choice: 'nnUNetTrainerOther'" in refused(monkeypatch, capsys, *row[:-1], "nnUNetTrainerOther")
    assert "--epochs: expected 1 to 1000000, found 0" in refused(monkeypatch, capsys, *row, "--epochs", "0")
    assert "expected --out and --trainer" in refused(monkeypatch, capsys, "--data", data)
    assert "expected a sliced data set" in refused(monkeypatch, capsys, "--data", tmp_path / "no", *row[2:])
    missing = refused(monkeypatch, capsys, *row, "--configuration", "3d_fullres")
    assert "expected nnU-Net's data for 3d_fullres, found none; make acdc-nnunet-data" in missing
    assert not (tmp_path / "seed0").exists()


def test_without_nnunet_the_command_says_so(hearts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(nnunet_run, "package_version", lambda name: None)
    row = ("--data", hearts / "data" / "acdc", "--out", tmp_path / "seed0", "--trainer", "nnUNetTrainerRRW")
    assert call(train_nnunet, *row, monkeypatch=monkeypatch) == 2
    assert "nnunetv2: expected nnU-Net v2 in this environment, found none" in capsys.readouterr().err


@pytest.fixture
def trainer_of(tmp_path, monkeypatch):
    """Makes a trainer by name, without data."""
    from bench_nnunet import make_trainer

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return lambda name, patch=(32, 32): make_trainer(name, list(patch), 2, 4, torch.device("cpu"))


@needs_nnunet
def test_the_library_names_its_trainers():
    from boundary_loss.integrations import nnunet

    own = {name for name, value in vars(nnunet).items()
           if name.startswith("nnUNetTrainer") and value.__module__ == nnunet.__name__}
    assert own == set(nnunet_command.TRAINERS)


@needs_nnunet
@pytest.mark.parametrize("patch", [(64, 64), (4, 64, 64)])
def test_a_step_of_every_trainer_changes_the_weights(trainer_of, patch):
    from bench_nnunet import make_batch

    for name in nnunet_command.TRAINERS:
        trainer = trainer_of(name, patch)
        before = [weight.clone() for weight in trainer.network.parameters()]
        loss = trainer.train_step(make_batch(trainer, list(patch), 2))["loss"]
        after = list(trainer.network.parameters())
        assert np.isfinite(loss) and any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)), name


@needs_nnunet
def test_the_loss_of_a_trainer_is_that_of_the_library_at_each_scale(trainer_of):
    from bench_nnunet import make_batch

    trainer = trainer_of("nnUNetTrainerBoundary", (64, 64))
    batch = make_batch(trainer, [64, 64], 2)
    torch.manual_seed(0)
    outputs = [torch.randn(2, 4, *target.shape[2:]) for target in batch["target"]]
    trainer.loss.loss.set_epoch(249)    # of 1000: weights 0.75 and 0.25
    expected, weights = 0.0, [1.0, 0.5, 0.25, 0.125]
    for i, (logits, target, weight) in enumerate(zip(outputs, batch["target"], weights, strict=False)):
        phi = distance_maps(target[:, 0], 4, (1.5625 * 2**i,) * 2)
        contour = (logits.softmax(1)[:, 1:] * phi[:, 1:]).mean()
        expected += weight / sum(weights) * (0.75 * GeneralizedDice()(logits, target) + 0.25 * contour)
    assert trainer.loss(outputs, batch["target"]).item() == pytest.approx(expected.item(), rel=1e-5)


@needs_nnunet
@pytest.mark.parametrize(
    ("labels", "trainer", "words"), [
        ({"background": 0, "whole": [1, 2], "core": 2}, "nnUNetTrainerRRW", "found the region whole of"),
        ({"background": 0, "a": 1, "ignore": 2}, "nnUNetTrainerRRW_authors", "found an ignore label"),
    ],
)
def test_labels_that_a_loss_cannot_have_are_refused(trainer_of, monkeypatch, labels, trainer, words):
    import bench_nnunet

    monkeypatch.setattr(bench_nnunet, "LABELS", labels)
    with pytest.raises(ValueError, match=words):
        trainer_of(trainer)


@needs_nnunet
def test_plans_without_a_spacing_of_every_axis_are_refused(trainer_of):
    trainer = trainer_of("nnUNetTrainerRRW", (4, 64, 64))
    trainer.configuration_manager.configuration["spacing"] = [1.5, 1.5]
    with pytest.raises(ValueError, match="plans: expected a spacing for each of the 3 axes of a patch, found 2 in"):
        trainer._build_loss()


@needs_nnunet
def test_nnunet_finds_the_trainers_after_the_one_command():
    """Through nnU-Net's own search, before it imports any other trainer."""
    path = nnunet_command.trainer_folder() / nnunet_command.FILE_NAME
    was_there = path.exists()
    try:
        assert nnunet_command.main(["install"]) == 0
        code = "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        code += "print(find('nnUNetTrainerBoundary').__module__, find('nnUNetTrainer').__module__)"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
        assert found.stdout.split()[-2:] == [
            "boundary_loss.integrations.nnunet", "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
        ], found.stderr
    finally:
        if not was_there:
            assert nnunet_command.main(["uninstall"]) == 0


@pytest.fixture(scope="module")
def prepared(hearts):
    done = run_script("--data", hearts / "data" / "acdc", "--prepare")
    assert done.returncode == 0, done.stderr[-3000:]
    return hearts


@needs_nnunet
@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["nnUNetTrainerRRW", "nnUNetTrainerRRWVolume", "nnUNetTrainerBoundary"])
def test_a_row_comes_home(prepared, trainer, capsys):
    data, out = prepared / "data" / "acdc", prepared / "results" / "acdc" / f"nnunet-{trainer}" / "seed0"
    split = json.loads((prepared / "data/acdc-nnunet/preprocessed/Dataset001_acdc/splits_final.json").read_text())
    assert {case[:10] for case in split[0]["val"]} == {"patient001", "patient003"}
    row = ("--data", data, "--out", out, "--trainer", trainer)
    done = run_script(*row, *SHORT)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = list(csv.DictReader((out / "metrics.csv").open()))
    assert len(lines) == 2 * 2 * 3 and {line["space"] for line in lines} == {"native"}
    label = nib.load(prepared / "raw/training/patient001/patient001_frame04_gt.nii.gz").get_fdata()
    for line in lines:
        mask = nib.load(out / "predictions_native" / f"{line['case_id']}.nii.gz")
        assert MARK in bytes(mask.header["descrip"]) and mask.shape == label.shape
        assert int(line["n_pred"]) == (mask.get_fdata() == int(line["class_index"])).sum()
    reference = {line["class"]: int(line["n_ref"]) for line in lines if line["case_id"] == "patient001_ED"}
    assert reference == {name: (label == k).sum() for k, name in ((1, "RV"), (2, "MYO"), (3, "LV"))}
    assert len(list(csv.DictReader((out / "log.csv").open()))) == 2
    table = write_table(out.parents[1], [out.parent.name], "t")
    assert "engine nnU-Net" in table
    assert run_script(*row, *SHORT, "--check").returncode == 0
    other = run_script(*row, *SHORT[2:], "--epochs", "3", "--check")
    assert other.returncode == 2 and "asked for --epochs 3" in other.stderr
    with pytest.raises(Exception, match="found one of nnU-Net"):
        evaluate.main(["run", str(out), "--device", "cpu"])


@needs_nnunet
@pytest.mark.slow
def test_a_killed_row_resumes_from_nnunets_checkpoint(prepared):
    data, out = prepared / "data" / "acdc", prepared / "results" / "acdc" / "nnunet-killed" / "seed0"
    row = ("--data", data, "--out", out, "--trainer", "nnUNetTrainerDice", *SHORT)
    assert run_script(*row).returncode == 0
    (final,) = out.rglob("checkpoint_final.pth")
    logs = sorted(final.parent.glob("training_log_*"))
    final.unlink()                              # as if killed after the best checkpoint
    (out / "metrics.csv").unlink()
    done = run_script(*row)
    assert done.returncode == 0 and (out / "metrics.csv").exists(), done.stderr[-3000:]
    (new,) = set(final.parent.glob("training_log_*")) - set(logs)
    assert "Epoch 0" not in new.read_text()


class StandIn:
    """A trainer that has nothing to train: its logs are zeros, and its masks the raw labels, or none."""

    def __init__(self, hearts, folder):
        self.hearts, self.output_folder, self.batch_size = hearts, folder, 2
        self.logger = SimpleNamespace(get_value=lambda key, step: np.zeros(self.num_epochs))

    def perform_actual_validation(self):
        validation = self.output_folder / "validation"
        validation.mkdir(parents=True, exist_ok=True)
        for label in sorted((self.hearts / "raw" / "training").glob("patient00[13]/*_gt.nii.gz")):
            frame = int(label.name[16:18])
            moments = dict(line.split(": ") for line in (label.parent / "Info.cfg").read_text().splitlines())
            name = "ED" if int(moments["ED"]) == frame else "ES"
            shutil.copy(label, validation / f"{label.name[:10]}_{name}.nii.gz")


def test_a_finished_row_stays_until_it_is_measured_anew(hearts, tmp_path, monkeypatch, capsys):
    out = tmp_path / "seed0"
    row = ("--data", hearts / "data" / "acdc", "--out", out, "--trainer", "nnUNetTrainerRRW", "--epochs", "2",
           "--device", "cpu")
    monkeypatch.setattr(nnunet_run, "package_version", lambda name: "2.8.1")
    monkeypatch.setattr(nnunet_run, "read_plans", lambda *_: {"configurations": {"2d": {"batch_size": 2}}})
    monkeypatch.setattr(nnunet_run, "make_trainer", lambda *_: StandIn(hearts, tmp_path / "nnunet"))
    monkeypatch.setattr(nnunet_run, "train", lambda trainer: None)
    assert call(train_nnunet, *row, monkeypatch=monkeypatch) == 0
    lines = list(csv.DictReader((out / "metrics.csv").open()))
    assert len(lines) == 2 * 2 * 3 and {line["dsc"] for line in lines} == {"1.0"}
    facts = {(line["checkpoint"], line["space"], line["tolerance_mm"], line["epoch"]) for line in lines}
    assert facts == {("last", "native", "2.0", "1")}
    log = list(csv.DictReader((out / "log.csv").open()))
    assert [line["epoch"] for line in log] == ["0", "1"] and {line["train_loss"] for line in log} == {"0.0"}
    assert "expected a run with iterations 7" in refused(monkeypatch, capsys, *row, "--iterations", "7")
    assert "earlier_sessions" not in json.loads((out / "env.json").read_text())
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def no_masks(trainer):
        shutil.rmtree(trainer.output_folder)

    with monkeypatch.context() as patch:
        patch.setattr(StandIn, "perform_actual_validation", no_masks)
        assert "expected nnU-Net's prediction" in refused(patch, capsys, *row)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert call(train_nnunet, *row, "--tolerance", "3", monkeypatch=monkeypatch) == 0
    after = list(csv.DictReader((out / "metrics.csv").open()))
    assert {line["tolerance_mm"] for line in after} == {"3.0"}
    assert len(json.loads((out / "env.json").read_text())["earlier_sessions"]) == 1


@pytest.mark.parametrize("part", ["batch_size", "architecture", "arch_kwargs", "features_per_stage"])
def test_plans_that_do_not_fit_are_one_line(tmp_path, monkeypatch, part):
    asked = Asked("nnUNetTrainerBoundary", width=4)
    plan = {"batch_size": 2, "architecture": {"arch_kwargs": {"features_per_stage": [8, 16]}}}
    path = tmp_path / f"{nnunet_run.PLANS}.json"
    place = SimpleNamespace(preprocessed=tmp_path, root=tmp_path)
    monkeypatch.setattr(nnunet_run, "check_made", lambda *_: {"configurations": ["2d"]})
    path.write_text(json.dumps({"configurations": {"2d": plan}}))
    found = nnunet_run.read_plans(None, place, asked)["configurations"]["2d"]
    assert found["architecture"]["arch_kwargs"]["features_per_stage"] == [4, 8] and found["batch_size"] == 2
    path.write_text(json.dumps({"configurations": {"2d": plan}}).replace(part, "other"))
    with pytest.raises(InputError, match=rf"{nnunet_run.PLANS}.json: expected the batch size and the network of 2d"):
        nnunet_run.read_plans(None, place, asked)
