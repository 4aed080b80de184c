"""Settings of runs: typed, checked, and those of earlier versions as they were meant."""

import csv
import json
import shutil
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from commands import evaluate
from raw_files import call

import train
from sliced_data.meta import read_meta
from training import precision
from training.run_folder import check_finished, read_settings
from training.settings import AUTHORS, PAPER, Execution, Settings, settings_of_config
from utils import InputError

FLAGS = ("--width", "1", "--batch-size", "2", "--contour", "boundary", "--device", "cpu")


@pytest.fixture
def first_stage(tmp_path, monkeypatch):
    """Runs and slices made by commit 71d9d10: two finished seeds, and one of the authors' protocol."""
    with zipfile.ZipFile(Path(__file__).parent / "fixtures" / "first_stage.zip") as archive:
        archive.extractall(tmp_path / "fx")
    monkeypatch.chdir(tmp_path)
    return Path("fx")


def test_the_first_stages_settings_are_todays(first_stage):
    found = read_settings(first_stage / "results" / "gdl-boundary" / "seed1")
    meta = read_meta(first_stage / "data")
    asked = replace(
        PAPER, contour="boundary", width=1, epochs=2, batch_size=2, seed=1, precision="fp32", dataset="isles",
        data_fingerprint=meta.fingerprint,
    )
    assert found == asked
    authors = read_settings(first_stage / "results-reference" / "gdl-boundary" / "seed0")
    expected = replace(asked, seed=0, data_fingerprint=read_meta(first_stage / "data-reference").fingerprint)
    names = ("alpha", "lr_rule", "selection", "distance_map", "hausdorff", "gdl_absent")
    assert authors == replace(expected, **{name: getattr(AUTHORS, name) for name in names})
    assert read_meta(first_stage / "data-reference").convention == "authors"


def test_a_run_of_the_first_stage_resumes(first_stage, monkeypatch, capsys):
    run = first_stage / "results" / "gdl-boundary" / "seed0"
    before = (run / "log.csv").read_text().splitlines()
    code = call(train, "--data", "fx/data", "--out", run, *FLAGS, "--epochs", 3, "--resume", monkeypatch=monkeypatch)
    assert code == 0, capsys.readouterr().err
    after = (run / "log.csv").read_text().splitlines()
    assert after[:3] == before and len(after) == 4
    # What the first stage itself wrote for that epoch; the last digits depend on the processor.
    logs = (first_stage / "resumed_log.csv", run / "log.csv")
    theirs, ours = (list(csv.DictReader(path.open()))[-1] for path in logs)
    for name in set(theirs) - {"seconds", "slices_per_second"}:
        assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-3, nan_ok=True), name


def test_a_run_of_the_first_stage_with_the_authors_protocol_resumes(first_stage, monkeypatch, capsys):
    run = first_stage / "results-reference" / "gdl-boundary" / "seed0"
    flags = ("--data", "fx/data-reference", "--out", run, *FLAGS, "--epochs", 3, "--resume", "--protocol", "authors")
    # The protocol of that time had no switch for these.
    of_then = ("--betas", 0.9, 0.999, "--contour-alone-weight", 1, "--cross-entropy", "paper")
    assert call(train, *flags, monkeypatch=monkeypatch) == 2
    assert "contour_alone_weight 0.1, found one with 1.0" in capsys.readouterr().err
    assert call(train, *flags, *of_then, monkeypatch=monkeypatch) == 0
    assert json.loads((run / "config.json").read_text())["settings"]["alpha"] == "authors"


# A network brings its own width, and weights a file: tested by themselves.
VARIED = [field for field in fields(Settings) if field.name not in ("network", "encoder_weights")]


def changed(setting):
    """Another allowed value of a setting."""
    others = {
        "region": "dice", "contour": "hausdorff", "region_wise_map": "ac", "alpha": "equal", "precision": "bf16",
        "lr_rule": "authors", "selection": "slice", "distance_map": "authors", "hausdorff": "authors",
        "gdl_absent": "authors", "maps": "3d", "dataset": "wmh", "data_fingerprint": "0",
        "region_classes": "all", "contour_classes": "all", "alpha_epochs": 50, "optimiser": "sgd", "betas": (0.9, 0.99),
        "weight_decay": 0.1, "width": 8, "gradient_clip": 12.0, "augment": "flips",
        "cross_entropy": "authors", "dice": "authors", "order": "fixed", "engine": "nnU-Net", "iterations": 250,
    }
    if setting.name in others:
        return others[setting.name]
    value = getattr(PAPER, setting.name)
    return not value if isinstance(value, bool) else value / 2 if isinstance(value, float) else value + 1


@pytest.mark.parametrize("setting", VARIED, ids=lambda setting: setting.name)
def test_every_setting_is_held_against_a_finished_run(setting, tmp_path):
    base = replace(PAPER, contour="region-wise" if setting.name == "region_wise_map" else "boundary", precision="fp32")
    (tmp_path / "config.json").write_text(json.dumps({"settings": base.to_json()}))
    (tmp_path / "log.csv").write_text("epoch\n" + "".join(f"{epoch}\n" for epoch in range(100)))
    check_finished(tmp_path, base)
    word = "other slices" if setting.name == "data_fingerprint" else f"--{setting.name.replace('_', '-')} "
    with pytest.raises(InputError, match=word):
        check_finished(tmp_path, replace(base, **{setting.name: changed(setting)}))


def test_a_setting_that_a_config_lacks_has_its_default(tmp_path):
    assert settings_of_config({"settings": {"width": 8}}, tmp_path) == replace(PAPER, width=8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "expected the settings of a run, found NoneType"),
        ({"settings": []}, "expected the settings of a run, found list"),
        ({"settings": {"depth": 3}}, "that this version knows, found depth"),
        ({"settings": {"width": "16"}}, "expected width to be .*int.*, found '16'"),
        ({"settings": {"width": True}}, "expected width to be .*int.*, found True"),
        ({"settings": {"lr": None}}, "expected lr to be .*float.*, found None"),
    ],
)
def test_settings_that_are_none_name_the_file(config, message):
    with pytest.raises(InputError, match=message):
        settings_of_config(config, Path("config.json"))


def test_what_only_says_where_and_how_is_no_setting():
    assert not {field.name for field in fields(Settings)} & {field.name for field in fields(Execution)}


# Facts of the data, and what a run of another engine has: none is train.py's to choose.
NOT_CHOSEN = ("dataset", "data_fingerprint", "engine", "iterations")


@pytest.mark.parametrize("setting", [s for s in VARIED if s.name not in NOT_CHOSEN], ids=lambda setting: setting.name)
def test_every_setting_has_a_flag(setting):
    """Filled by argparse alone: the flag of a setting changes that setting and no other."""
    contour = "region-wise" if setting.name == "region_wise_map" else "boundary"
    base = ["--data", "d", "--out", "o", "--contour", contour]
    before, _ = train.parse(base)
    value = changed(setting)
    name = setting.name.replace("_", "-")
    words = map(str, value) if isinstance(value, tuple) else [str(value)]
    flags = [f"--{name}" if value else f"--no-{name}"] if isinstance(value, bool) else [f"--{name}", *words]
    after, _ = train.parse([*base, *flags])
    assert after == replace(before, **{setting.name: value})


def test_check_says_whether_a_finished_run_is_the_one_asked_for(first_stage, monkeypatch, capsys):
    run = first_stage / "results" / "gdl-boundary" / "seed0"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    flags = ("--data", "fx/data", "--out", run, *FLAGS, "--check")
    assert call(train, *flags, "--epochs", 2, monkeypatch=monkeypatch) == 0
    for other, name in ((("--epochs", 3), "epochs"), (("--epochs", 2, "--lr", 0.1), "lr")):
        assert call(train, *flags, *other, monkeypatch=monkeypatch) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"--{name} " in error and "RESULTS=" in error and str(run) in error
    assert call(train, *flags, "--data", "fx/data-reference", "--epochs", 2, monkeypatch=monkeypatch) == 2
    assert "other slices" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    shutil.rmtree(run)
    assert call(train, *flags, "--epochs", 2, monkeypatch=monkeypatch) == 2
    assert "expected a finished run, found none" in capsys.readouterr().err and not run.exists()


def test_check_refuses_a_run_that_is_not_finished(first_stage, monkeypatch, capsys):
    run = first_stage / "results" / "gdl-boundary" / "seed0"
    (run / "log.csv").write_text("\n".join((run / "log.csv").read_text().splitlines()[:2]) + "\n")
    flags = ("--data", "fx/data", "--out", run, *FLAGS, "--epochs", 2, "--check")
    assert call(train, *flags, monkeypatch=monkeypatch) == 2
    assert "expected a finished run of 2 epochs, found 1; --resume it" in capsys.readouterr().err


def test_auto_precision_keeps_that_of_the_run(first_stage, monkeypatch):
    run = first_stage / "results" / "gdl-boundary" / "seed0"
    monkeypatch.setattr(precision, "computes_in_bf16", lambda device: True)
    monkeypatch.setattr(precision, "known_seconds", lambda *_: {"fp32": 2.0, "bf16": 1.0})
    flags = ("--data", "fx/data", "--out", run, *FLAGS, "--epochs", 3, "--resume")
    assert call(train, *flags, monkeypatch=monkeypatch) == 0 and read_settings(run).precision == "fp32"
    assert call(train, "--data", "fx/data", "--out", "new", *FLAGS, "--epochs", 1, monkeypatch=monkeypatch) == 0
    assert read_settings(Path("new")).precision == "bf16"
    assert torch.load("new/last.pt", weights_only=True)["epoch"] == 0


def printed_row(text: str) -> list[str]:
    """The cells of the row in a printed table of one row."""
    return [cell.strip() for cell in text.splitlines()[2].strip("| ").split("|")]


def test_runs_of_the_first_stage_are_averaged_as_then(first_stage, monkeypatch, capsys):
    assert call(evaluate, "table", "fx/results", "--rows", "gdl-boundary", "--name", "t", monkeypatch=monkeypatch) == 0
    ours, theirs = printed_row(capsys.readouterr().out), printed_row((first_stage / "table.txt").read_text())
    assert ours[:3] == theirs[:3] == ["gdl-boundary", "0.023 (0.032)", "15.35 (8.99)"]


def test_a_seed_of_today_is_averaged_with_those_of_the_first_stage(first_stage, monkeypatch, capsys):
    out = first_stage / "results" / "gdl-boundary" / "seed2"
    flags = ("--data", "fx/data", "--out", out, *FLAGS, "--epochs", 2, "--seed", 2, "--precision", "fp32")
    assert call(train, *flags, monkeypatch=monkeypatch) == 0
    assert call(evaluate, "run", out, monkeypatch=monkeypatch) == 0
    assert call(evaluate, "table", "fx/results", "--rows", "gdl-boundary", "--name", "t", monkeypatch=monkeypatch) == 0
    table = capsys.readouterr().out.split("over 1 volumes\n")[-1]
    assert "3" in printed_row(table)
    other = first_stage / "results" / "gdl-boundary" / "seed3"
    flags = (*flags[:3], other, *FLAGS, "--epochs", 2, "--seed", 3, "--precision", "fp32", "--weight-decay", 0.1)
    assert call(train, *flags, monkeypatch=monkeypatch) == 0
    assert call(evaluate, "run", other, monkeypatch=monkeypatch) == 0
    assert call(evaluate, "table", "fx/results", "--rows", "gdl-boundary", "--name", "t", monkeypatch=monkeypatch) == 2
    assert "found weight_decay 0.1 instead of 0.0" in capsys.readouterr().err
