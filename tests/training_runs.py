"""Small runs of train.py, and what of two runs must agree bit for bit."""

import csv
from pathlib import Path

import torch

import train

SMALL = ("--width", "4", "--epochs", "3", "--batch-size", "4", "--device", "cpu")
CLOCK = ("seconds", "slices_per_second")


def run(data: Path, out: Path, *flags: str) -> list[dict[str, str]]:
    """Train in this process; returns the lines of the log."""
    train.main(["--data", str(data), "--out", str(out), *SMALL, *flags])
    return read_log(out)


def read_log(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open() as file:
        return list(csv.DictReader(file))


def same(one, other) -> bool:
    """Equal logs, but for the clock."""
    strip = [[{k: v for k, v in row.items() if k not in CLOCK} for row in log] for log in (one, other)]
    return strip[0] == strip[1]


def identical(one, other) -> bool:
    """Equal states: tensors bit for bit, plain values as they are, the clock aside."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        keys = [key for key in one if key not in CLOCK]
        return keys == [key for key in other if key not in CLOCK] and all(identical(one[k], other[k]) for k in keys)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(identical, one, other))
    return one == other or (one != one and other != other)


def assert_same_run(one: Path, other: Path) -> None:
    """Two run folders agree: logs, weights, optimisers, learning rates and generators."""
    assert same(read_log(one), read_log(other))
    for name in ("last.pt", "best.pt"):
        states = [torch.load(folder / name, weights_only=True) for folder in (one, other)]
        for key in states[0]:
            assert identical(states[0][key], states[1][key]), (name, key)
