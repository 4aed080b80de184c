"""What a terminal shows while a command works: each bar's words, its length, and whether it stays."""

import io

import numpy as np
import pytest
import tqdm
from commands import evaluate
from raw_files import make_busi, make_isles
from training_runs import SMALL

import preprocess
import train
import utils
from raw_data import DATASETS
from slicing import selection
from slicing.options import resolve


@pytest.fixture
def bars(monkeypatch):
    """(words, unit, length, whether it stays) of each bar that is begun, and where it ends; none goes beyond."""
    begun = []

    class Bar(tqdm.tqdm):
        def __init__(self, iterable=None, **options):
            super().__init__(iterable, **{**options, "disable": False, "file": io.StringIO()})
            begun.append(self)

    monkeypatch.setattr(utils, "tqdm", Bar)

    def shown():
        ends = {(bar.n, bar.total) for bar in begun}
        assert all(at == total for at, total in ends), ends
        found = [(bar.desc.removesuffix(": "), bar.unit, bar.total, bar.leave) for bar in begun]
        begun.clear()
        return found

    return shown


def test_bars_of_slicing(tmp_path, bars):
    make_isles(tmp_path / "raw")
    where = ("--source", str(tmp_path / "raw"), "--dest", str(tmp_path / "data"))
    preprocess.main(["isles", *where, "--size", "32", "--val", "1", "--jobs", "1", "--normalise", "clip-zscore"])
    assert bars() == [("measuring intensities", "case", 2, True), ("slicing", "case", 3, True)]


def test_bars_of_reading_masks(tmp_path, bars):
    root = make_busi(tmp_path / "raw")
    cases = DATASETS["busi"].find_cases(root)
    flags = preprocess.parse(["busi", "--source", str(root), "--dest", "d", "--max-share", "1"])
    selection.select(cases, resolve(flags))
    assert bars() == [("reading masks", "image", len(cases), False)]


def test_bars_of_a_run_and_of_what_is_made_of_it(sliced, tmp_path, bars):
    out = tmp_path / "isles" / "rrw" / "seed0"
    flags = (*SMALL, "--epochs", "2", "--region", "none", "--contour", "region-wise", "--snapshot-epochs", "1", "2")
    train.main(["--data", str(sliced), "--out", str(out), *flags])
    loading = [("reading train", "slice", 6, False), ("distance maps", "case", 2, False),
               ("reading val", "slice", 3, False), ("distance maps", "case", 1, False)]
    assert bars() == [*loading, ("rrw seed0", "slice", 12, True)]
    # A run that goes on begins where it was.
    train.main(["--data", str(sliced), "--out", str(out), *flags, "--epochs", "3", "--resume"])
    assert bars() == [*loading, ("rrw seed0", "slice", 18, True)]
    evaluate.main(["run", str(out), "--device", "cpu"])
    reading = ("reading val", "slice", 3, False)
    assert bars() == [reading, ("predicting", "case", 1, False), ("measuring", "case", 1, True)]
    evaluate.main(["report", str(tmp_path / "isles")])
    assert bars() == [reading, ("drawing", "case", 1, False)]
    evaluate.main(["gradients", str(tmp_path / "isles"), "--rows", "rrw", "--device", "cpu"])
    assert ("rrw seed0", "snapshot", 2, False) in bars()
    np.save(tmp_path / "mask.npy", np.eye(4, dtype=np.uint8))
    evaluate.main(["score", *[str(tmp_path / "mask.npy")] * 2, "--out", str(tmp_path / "scores.csv")])
    assert bars() == [("scoring", "case", 1, True)]


def test_bars_of_streamed_slices(sliced, tmp_path, bars):
    train.main(["--data", str(sliced), "--out", str(tmp_path / "gdl" / "seed0"), *SMALL, "--resident", "stream"])
    assert bars()[:2] == [("checking train", "slice", 6, False), ("checking val", "slice", 3, False)]
