import os
from dataclasses import replace

import pytest
import torch
from commands import evaluate
from raw_files import make_isles
from result_folders import case, write_run

import dataloader
import preprocess
import train
from training.epoch_totals import EpochTotals

# Small tensors: a second thread costs more than it brings, and far more where the cores are shared.
torch.set_num_threads(1)
# The same for the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def sliced(tmp_path_factory):
    """A sliced ISLES data set of three cases, nine slices, 32 x 32: two cases train, one validates."""
    root = tmp_path_factory.mktemp("sliced")
    make_isles(root / "raw")
    dest = root / "data" / "isles"
    preprocess.main(
        ["isles", "--source", str(root / "raw"), "--dest", str(dest), "--size", "32", "--val", "1", "--jobs", "1"]
    )
    return dest


@pytest.fixture(scope="session")
def results(sliced, tmp_path_factory):
    """Two rows, two seeds, one epoch each, evaluated."""
    root = tmp_path_factory.mktemp("runs") / "results" / "isles"
    for row, contour in (("gdl", "none"), ("gdl-boundary", "boundary")):
        for seed in (0, 1):
            out = root / row / f"seed{seed}"
            flags = ("--width", "16", "--batch-size", "4", "--device", "cpu", "--epochs", "1", "--seed", str(seed))
            train.main(["--data", str(sliced), "--out", str(out), "--contour", contour, *flags])
            evaluate.main(["run", str(out), "--device", "cpu"])
    return root


@pytest.fixture
def handmade(tmp_path):
    root = tmp_path / "isles"
    write_run(root / "gdl" / "seed0", [case("1", 0.4, 2.0), case("2", 0.0, 30.0, n_pred=0)], {"seed": 0, "lr": 0.001})
    write_run(root / "gdl" / "seed1", [case("1", 0.5, 4.0), case("2", 0.5, 8.0)], {"seed": 1, "lr": 0.001})
    write_run(root / "focal" / "seed0", [case("1", 0.9, 1.0), case("2", 0.7, 2.0)], {"seed": 0, "lr": 0.001})
    write_run(
        root / "boundary" / "seed0", [case("1", 0.0, 30.0, n_pred=0), case("2", 0.0, 30.0, n_pred=0)], {"seed": 0}
    )
    return root


@pytest.fixture
def float64(monkeypatch):
    """Batches and totals of training in float64; a network follows with `double`."""
    prepared, empty = dataloader.Batch.prepared, EpochTotals.empty

    def as_float64(batch):
        batch = prepared(batch)
        maps = None if batch.maps is None else batch.maps.double()
        return replace(batch, image=batch.image.double(), maps=maps)

    def empty64(*arguments):
        totals = empty(*arguments)
        return replace(totals, steps=totals.steps.double())

    monkeypatch.setattr(dataloader.Batch, "prepared", as_float64)
    monkeypatch.setattr(EpochTotals, "empty", staticmethod(empty64))
