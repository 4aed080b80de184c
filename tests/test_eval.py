"""eval.py run: metrics of a run, and the check of metrics that are there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import evaluate
from raw_files import call
from result_folders import change_settings

import published
import train

SMALL = ("--width", "4", "--batch-size", "4", "--device", "cpu", "--epochs", "1")


def test_an_unfinished_run_is_not_evaluated(results, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(results / "gdl" / "seed0", tmp_path / "run")
    change_settings(run, epochs=9)
    assert call(evaluate, "run", run, "--device", "cpu", monkeypatch=monkeypatch) == 2
    assert "expected a finished run of 9 epochs, found 1" in capsys.readouterr().err


def test_going_on_takes_back_metrics_that_are_no_longer_true(results, sliced, tmp_path):
    run = shutil.copytree(results / "gdl" / "seed0", tmp_path / "run")
    train.main(["--data", str(sliced), "--out", str(run), *SMALL, "--resume"])
    assert (run / "metrics.csv").exists()
    train.main(["--data", str(sliced), "--out", str(run), *SMALL, "--resume", "--epochs", "2"])
    assert not (run / "metrics.csv").exists() and not (run / "metrics_2d.csv").exists()
    assert len(json.loads((run / "env.json").read_text())["earlier_sessions"]) == 1


def test_the_fingerprint_is_printed_beside_midls(results, capsys):
    evaluate.main(["run", str(results / "gdl" / "seed0"), "--device", "cpu"])
    # One of the three validation slices has no lesion.
    printed = capsys.readouterr().out
    assert "0.333 of the validation slices are empty; MIDL 2019, boundary loss alone: 0.321 on isles\n" in printed
    # WMH has one of its own; a phantom and other data sets have none.
    shares = [published.published_empty_share(name) for name in ("wmh", "isles-demo", "acdc")]
    assert shares == [0.569, None, None]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ((), None),
        (("--tolerance", "2"), None),
        (("--checkpoint", "last"), "--checkpoint last, found --checkpoint best"),
        (("--space", "native"), "--space native, found --space sliced"),
        (("--tolerance", "1"), "--tolerance 1.0, found --tolerance 2.0"),
        (("--space", "native", "--ignore-label", "2"), "--space native, found --space sliced"),
        (("--ignore-label", "2"), "expected --space native beside it"),
    ],
)
def test_a_check_holds_the_options_against_metrics_csv(results, monkeypatch, capsys, flags, named):
    run = results / "gdl" / "seed0"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert call(evaluate, "run", run, "--check", *flags, monkeypatch=monkeypatch) == (2 if named else 0)
    error = capsys.readouterr().err
    assert error.count("\n") == (1 if named else 0) and (named or "") in error
    if named and "found --" in named:
        assert "RESULTS=<folder>" in error and "remove metrics.csv" in error
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_a_check_knows_an_ignored_label_and_a_run_without_metrics(results, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(results / "gdl" / "seed0", tmp_path / "run")
    path = run / "metrics.csv"
    path.write_text(path.read_text().replace(",sliced,", ",native,2"))
    native = ("run", run, "--check", "--space", "native")
    assert call(evaluate, *native, "--ignore-label", "2", monkeypatch=monkeypatch) == 0
    assert call(evaluate, *native, monkeypatch=monkeypatch) == 2
    assert "expected metrics of --ignore-label none, found --ignore-label 2" in capsys.readouterr().err
    path.unlink()
    assert call(evaluate, *native, monkeypatch=monkeypatch) == 2
    assert "metrics.csv: expected metrics of a finished run, found none" in capsys.readouterr().err


def test_a_check_loads_no_network(results):
    """The libraries of networks, tables and figures are what makes a command slow to start."""
    code = (
        "import sys; from commands import evaluate; "
        f"evaluate.main(['run', {str(results / 'gdl' / 'seed0')!r}, '--check']); "
        "print(*({'torch', 'pandas', 'matplotlib', 'scipy'} & sys.modules.keys()))"
    )
    tests = str(Path(__file__).parent)
    path = os.pathsep.join([tests, str(Path(tests).parent)])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
