import atexit
import csv
import gc
import os
import shutil
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import evaluate
from raw_files import make_isles
from result_folders import case, write_run
from training_runs import read_log
from varied_data import SCANS, VAL, make_three_classes, make_varied, split_file

import dataloader
import preprocess
import train
from environment import devices
from training.epoch_totals import EpochTotals

# Small tensors: a second thread costs more than it brings, and far more where the cores are shared.
torch.set_num_threads(1)
# The same for the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
# Runs compute alike whatever processor tests them, and none waits for a measurement.
devices.CPUINFO = Path(os.devnull)
# What is measured for --precision auto is kept for other runs of a user: here, of this worker.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cache-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
# A shell starts what it leaves in the background deaf to Ctrl-C, and so would be the commands that tests stop.
for number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first: it waits for a cluster most of its time, and nobody waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_slurm.py")


def pytest_collection_finish() -> None:
    """What the imports have left stays to the end: looking through it for garbage took a tenth of the tests' time."""
    gc.collect()
    gc.freeze()


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
            flags = ("--width", "4", "--batch-size", "4", "--device", "cpu", "--epochs", "1", "--seed", str(seed))
            train.main(["--data", str(sliced), "--out", str(out), "--contour", contour, *flags])
            evaluate.main(["run", str(out), "--device", "cpu"])
    return root


def slice_varied(root, dataset, *flags):
    """32 x 32 slices of the raw data in ``root``: three cases train, two validate."""
    split = split_file(root, SCANS, VAL)
    where = ("--source", str(root / "raw"), "--dest", str(root / "data"), "--split", str(split), "--jobs", "1")
    preprocess.main([dataset, *where, "--size", "32", *flags])
    return root / "data"


@pytest.fixture(scope="session")
def varied(tmp_path_factory):
    """A sliced ISLES data set whose cases differ in spacing, shape and number of slices; the raw data beside it."""
    root = tmp_path_factory.mktemp("varied")
    make_varied(root / "raw")
    return slice_varied(root, "isles")


@pytest.fixture(scope="session")
def three_classes(tmp_path_factory):
    """As ``varied``, of background, gland and lesion in two channels."""
    root = tmp_path_factory.mktemp("three_classes")
    make_three_classes(root / "raw")
    return slice_varied(root, "glands", "--layout", "nnunet", "--normalise", "minmax")


def train_and_evaluate(data, out, *flags):
    """A run of four epochs that have learnt something different, evaluated."""
    small = ("--width", "4", "--batch-size", "2", "--epochs", "4", "--device", "cpu")
    train.main(["--data", str(data), "--out", str(out), *small, *flags])
    evaluate.main(["run", str(out), "--device", "cpu"])
    assert len({row["val_dsc_3d"] for row in read_log(out)}) == 4
    for row in csv.DictReader((out / "metrics.csv").open()):
        assert 0 < int(row["n_pred"]) < int(row["n_voxels"]) / 2 and 0 < float(row["dsc"]) < 1, row
    return out


@pytest.fixture(scope="session")
def trained(varied, tmp_path_factory):
    """A run on ``varied`` whose epochs differ and whose predictions are neither empty nor everything."""
    return train_and_evaluate(varied, tmp_path_factory.mktemp("trained") / "gdl" / "seed0", "--lr", "0.003")


@pytest.fixture(scope="session")
def trained_classes(three_classes, tmp_path_factory):
    """The same on ``three_classes``."""
    out = tmp_path_factory.mktemp("trained_classes") / "dice-ce" / "seed1"
    return train_and_evaluate(three_classes, out, "--region", "dice-ce", "--lr", "0.01", "--seed", "1")


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
