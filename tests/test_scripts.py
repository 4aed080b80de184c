"""The benchmarks run and print what they promise; what they measure depends on the machine."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert f"on this CPU {'bf16' if ratios[1] > 1 else 'fp32'} is the faster one" in done.stdout


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
