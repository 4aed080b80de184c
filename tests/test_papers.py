"""make papers: what is said at its start, against counts and seconds by hand."""

import sys
from pathlib import Path

import pytest

from environment import cores, devices
from sliced_data.meta import read_meta
from training import precision

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import papers

GDL = "--region gdl --epochs 10 --width 8 --batch-size 4"


@pytest.fixture(autouse=True)
def a_known_machine(monkeypatch):
    """Two cores, and a network that takes 2 s per slice in fp32 and 1 s in bf16, for which there are instructions."""
    papers.seconds_per_slice.cache_clear()
    monkeypatch.setattr(precision, "known_seconds", lambda *_: {"fp32": 2.0, "bf16": 1.0})
    monkeypatch.setattr(devices, "computes_in_bf16", lambda _: True)
    monkeypatch.setattr(cores, "core_count", lambda: 2)


def plan(data, results, *rows, seeds=(0, 1)):
    words = [word for dataset, row, flags in rows for word in ("--row", str(results / dataset), row, flags)]
    papers.main(["--data", str(data), "--device", "cpu", "--seeds", *map(str, seeds), *words])


def test_what_is_missing_is_said_with_the_place_to_get_it(tmp_path, capsys):
    plan(tmp_path, tmp_path / "results", ("isles", "gdl", GDL), ("isles", "boundary", GDL), ("kits", "rrw", GDL))
    isles, kits, total, *_ = capsys.readouterr().out.splitlines()
    assert isles.startswith(f"{tmp_path}/results/isles: missing: 4 runs left out; to have them get ")
    assert "17736412" in isles
    assert isles.endswith(f"into {tmp_path / 'raw' / 'isles'}")
    assert kits.startswith(f"{tmp_path}/results/kits: missing: 2 runs left out") and "kits19" in kits
    assert total.startswith("0 data sets; in all about 1 min")


def test_time_is_that_of_the_runs_that_are_left(sliced, tmp_path, capsys, monkeypatch):
    """10 epochs of the slices at 0.5 s each on two cores, a fifth on top, and 12 s; one of four runs is done."""
    n_slices = sum(case.n_slices for case in read_meta(sliced).cases if case.split == "train")
    done = tmp_path / "results" / "isles" / "gdl" / "seed1"
    done.mkdir(parents=True)
    (done / "metrics.csv").write_text("")
    minutes = round(3 * (12 + 1.2 * 10 * n_slices * 0.5) / 60)
    plan(sliced.parent, tmp_path / "results", ("isles", "gdl", GDL), ("isles", "boundary", GDL))
    first, total, last = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path}/results/isles: 2 rows, 3 of 4 runs to train, about {minutes} min"
    assert total == f"1 data sets; in all about {minutes} min here, from a measured step of each network"
    assert "run the same line again" in last


def test_without_instructions_the_time_is_that_of_fp32(sliced, tmp_path, capsys, monkeypatch):
    def minutes():
        papers.seconds_per_slice.cache_clear()
        plan(sliced.parent, tmp_path, ("isles", "gdl", GDL.replace("10", "1000")))
        return float(capsys.readouterr().out.split("about ")[1].split()[0])

    fast = minutes()
    monkeypatch.setattr(devices, "computes_in_bf16", lambda _: False)
    assert minutes() == pytest.approx(2 * fast, abs=1)


def test_raw_data_that_are_not_sliced_have_typical_sizes(tmp_path, capsys):
    (tmp_path / "raw" / "acdc").mkdir(parents=True)
    plan(tmp_path, tmp_path / "results", ("acdc", "rrw", "--region none --contour region-wise"), seeds=(0,))
    hours = (12 + 1.2 * 100 * 950 * 0.5) / 3600
    assert f"1 of 1 runs to train, about {hours:.0f} h" in capsys.readouterr().out


def test_a_demo_is_always_there_and_what_is_trained_takes_no_time(tmp_path, capsys):
    done = tmp_path / "results" / "isles-demo" / "gdl" / "seed0"
    done.mkdir(parents=True)
    (done / "metrics.csv").write_text("")
    plan(tmp_path, tmp_path / "results", ("isles-demo", "gdl", GDL), seeds=(0,))
    assert capsys.readouterr().out.splitlines()[0] == f"{tmp_path}/results/isles-demo: 1 rows, all trained"


@pytest.mark.parametrize(("seconds", "words"), [(5, "1 min"), (3500, "58 min"), (7300, "2 h"), (400_000, "5 days")])
def test_durations_in_words(seconds, words):
    assert papers.in_words(seconds) == words
