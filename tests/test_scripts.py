"""The benchmarks run and print what they promise; what they measure depends on the machine."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import evaluate

from dataloader import load_slices
from sliced_data.meta import read_meta

ROOT = Path(__file__).resolve().parent.parent


def run(script, *arguments):
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_the_benchmark_prints_its_table():
    done = run("bench.py", "--cases", "3", "--slices", "2")
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^\| ([a-z][^|]+) \| ([\d.]+) \|", done.stdout, re.MULTILINE))
    assert len(rows) == 5 and all(float(value) > 0 for value in rows.values())
    assert float(rows["image, label and both maps on the disk, MB per slice"]) < 0.86


@pytest.mark.slow
def test_the_benchmark_of_the_engine_says_which_is_faster():
    done = run("bench_engine.py", "--cases", "3", "--slices", "4", "--width", "1", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    ratios = [float(ratio) for ratio in re.findall(r"\| ([\d.]+) \|$", done.stdout, re.MULTILINE)]
    assert len(ratios) == 2 and all(ratio > 0 for ratio in ratios)
    said = {1: "bf16 is the faster one", 0: "neither is faster", -1: "fp32 is the faster one"}
    assert f"on this CPU {said[int(np.sign(ratios[1] - 1))]}, measured" in done.stdout


def test_linked_slices_are_a_data_set_and_growth_is_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import bench_growth

    data = bench_growth.make_linked_data(tmp_path / "data", train=50, val=20, channels=5, size=32, slices_a_case=7)
    val = load_slices(read_meta(data), "val", maps="phi3d")
    assert len(val) == 20 and [case.n_slices for case in val.cases] == [7, 7, 6]
    assert 0 < float((val.label > 0).float().mean()) < 0.05 and val.image.shape == (20, 5, 32, 32)
    found = bench_growth.measure(data, "stream")
    assert found.keys() == {"load_ms", "epoch_ms", "validate_ms", "peak_mib"} and min(found.values()) > 0


@pytest.mark.slow
def test_the_cost_of_a_row_is_shared_out_among_its_parts():
    done = run("bench_row.py", "--cases", 3, "--slices", 2, "--width", 1, "--epochs", 1)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^\| ([a-z ]+) \| ([\d.]+) \| ([\d.]+) % \| ([\d.]+) % \|$", done.stdout, re.MULTILINE)
    parts = {name: tuple(map(float, values)) for name, *values in lines}
    all_parts = parts.pop("all")
    assert set(parts) == {
        "slicing", "start and reading", "training inside the network", "training outside the network", "validation",
        "evaluation", "table",
    }
    for column, whole in enumerate(all_parts):
        assert sum(values[column] for values in parts.values()) == pytest.approx(whole, abs=0.4)
    assert parts["validation"][2] > parts["validation"][1] > 0      # a hundred epochs validate more than one
    ratios = re.findall(r"\| ([\d.]+) \| [^|]+: ([\d.]+) \| ([\d.]+) \|$", done.stdout, re.MULTILINE)
    assert len(ratios) == 6
    assert all(float(beside) / float(ours) == pytest.approx(float(ratio), rel=0.1) for ours, beside, ratio in ratios)


def test_time_within_a_part_counts_for_the_innermost_alone(monkeypatch):
    import bench_row_training

    clock = iter([1.0, 3.0, 6.0, 10.0, 15.0, 21.0])
    monkeypatch.setattr(bench_row_training.time, "process_time", lambda: next(clock))
    account = bench_row_training.Account()
    network = account.counted("network", lambda: "logits", within="training")
    training = account.counted("training", network)
    assert training() == "logits"       # enters at 1, the network from 3 to 6, leaves at 10
    validation = account.counted("validation", network)
    assert validation() == "logits"     # from 15 to 21, the network's time its own
    assert account.seconds == {bench_row_training.READING: 1 + 5, "training": 2 + 4, "network": 3, "validation": 6}


def test_both_layouts_of_files_hold_the_same_slices_and_an_open_costs_its_latency(tmp_path, monkeypatch):
    import bench_files

    files = bench_files.Files(tmp_path, cases=2, size=4, latency=0.005)
    files.write()
    slept = []
    monkeypatch.setattr(bench_files.time, "sleep", slept.append)
    for layout, opens in (("slice", 3 * 80), ("case", 3 * 2)):
        slept.clear()
        found = files.resident(layout)
        assert slept == [0.005] * opens
        for values in found.values():
            assert values.shape[0] == 80 and (values == np.arange(80).reshape(-1, 1, 1, 1)).all()
        slept.clear()
        batches = list(files.streamed(layout))
        assert len(slept) == 3 * 80
        marks = {kind: [int(one.flat[-1]) for batch in batches for one in batch[kind]] for kind in bench_files.READ}
        assert sorted(marks["image"]) == list(range(80)) and marks["image"] == marks["label"] == marks["phi2d"]


@pytest.mark.slow
def test_table_2_has_a_row_a_loss(tmp_path):
    from losses import CONTOUR_LOSSES, REGION_LOSSES

    flags = ("--size", 32, "--width", 2, "--repeats", 2, "--device", "cpu")
    done = run("bench_losses.py", *flags, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "table2.csv").open()))
    expected = {*REGION_LOSSES, *(f"gdl-{name}" for name in CONTOUR_LOSSES)}
    for dataset, batch in (("isles", "4"), ("wmh", "8")):
        of_dataset = [row for row in rows if row["dataset"] == dataset]
        assert {row["row"] for row in of_dataset} == expected and {row["batch_size"] for row in of_dataset} == {batch}
        assert all(float(row["seconds_per_batch"]) > 0 for row in of_dataset)
    published = {row["row"]: row["published_seconds_per_batch"] for row in rows if row["dataset"] == "wmh"}
    assert published["gdl-hausdorff"] == "0.392" and published["focal"] == ""


def test_bad_flags_of_the_benchmarks():
    failed = run("bench_losses.py", "--repeats", "1")
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1


def test_copies_of_a_run_are_runs_of_their_own(results, tmp_path, capsys, monkeypatch):
    """A table refuses runs that are the same; all that a copy shares with the first is how it was trained."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import bench_runs

    for row in ("r0", "r1"):
        for seed in range(3):
            bench_runs.copy_run(results / "gdl" / "seed0", tmp_path / row / f"seed{seed}", seed)
    evaluate.main(["table", str(tmp_path), "--rows", "r0", "r1", "--name", "big"])
    lines = list(csv.DictReader((tmp_path / "big.csv").open()))
    assert [line["seeds"] for line in lines] == ["0 1 2"] * 2 and len({line["dsc"] for line in lines}) == 2
    assert not list(tmp_path.rglob("*.pt"))


def test_a_cost_per_run_is_of_the_runs_beyond_the_fewest(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import bench_runs

    fewest, more = {"make": 0.25, "table": 0.5}, {"make": 0.75, "table": 2.5}
    assert bench_runs.per_run(more, fewest, 100) == "make 5.0, table 20.0"
