"""Processor time of a row's commands in this checkout and in another commit's, in turns, the least of some rounds.

    git worktree add ../before 71d9d10
    python scripts/bench_versions.py ../before

71d9d10 is the last commit before the packages of today's layout. Both run with this interpreter, on one core, with the
same flags, each on slices of its own. The network has one channel at full resolution, so that an epoch is mostly what
surrounds it.
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench import make_raw
from bench_runs import ROOT, seconds

from environment.provenance import package_version, processor

ROW = "gdl-boundary"
EPOCHS = (1, 5)     # the second run costs four epochs more
TRAIN = ("--region", "gdl", "--contour", "boundary", "--width", "1", "--batch-size", "8", "--device", "cpu",
         "--precision", "fp32")


def call(checkout: Path, *words: object) -> float:
    """Processor seconds of a command of a checkout."""
    return seconds(sys.executable, *words, checkout=checkout)


def row_seconds(checkout: Path, raw: Path, folder: Path) -> dict[str, float]:
    """Seconds of each part of a row of two runs; ``folder`` is new."""
    data, results = folder / "data", folder / "results"
    found = {"slicing": call(checkout, "preprocess.py", "wmh", "--source", raw, "--dest", data, "--val", 1)}
    short, long = (
        call(checkout, "train.py", "--data", data, "--out", results / ROW / f"seed{seed}", *TRAIN, "--seed", seed,
                "--epochs", epochs)
        for seed, epochs in enumerate(EPOCHS)
    )
    epoch = (long - short) / (EPOCHS[1] - EPOCHS[0])
    found |= {"start and reading": short - epoch, "an epoch with its validation": epoch}
    run = results / ROW / "seed1"
    found["evaluation"] = call(checkout, "eval.py", "run", run, "--device", "cpu")
    found["table"] = call(checkout, "eval.py", "table", results, "--rows", ROW, "--name", ROW)
    found["curves"] = call(checkout, "eval.py", "curves", results, "--rows", ROW, "--name", "curves")
    found["report"] = call(checkout, "eval.py", "report", results, "--rows", ROW, "--seed", 1, "--baseline", ROW)
    return found


def least(rounds: list[Mapping[str, float]]) -> dict[str, float]:
    return {part: min(found[part] for found in rounds) for part in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="checkout of the other commit")
    parser.add_argument("--cases", type=int, default=4, help="phantom scans, one of them to validate")
    parser.add_argument("--slices", type=int, default=24, help="slices per scan")
    parser.add_argument("--rounds", type=int, default=3, help="of both, in turns")
    args = parser.parse_args()
    if not (args.other / "preprocess.py").is_file():
        parser.error(f"{args.other}: expected a checkout of this project, found no preprocess.py in it")
    os.environ["OMP_NUM_THREADS"] = "1"
    checkouts = {"other": args.other.resolve(), "this": ROOT}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as temporary:
        raw = make_raw(Path(temporary), args.cases, args.slices)
        for number in range(args.rounds):
            for name, checkout in checkouts.items():
                rounds[name].append(row_seconds(checkout, raw, Path(temporary) / f"{name}{number}"))
    print(f"{processor()}, one core, {platform.system()}, torch {package_version('torch')}")
    print(f"WMH phantom, {args.cases} x {args.slices} slices of 256 x 256, {ROW}, UNet of width 1\n")
    print("| processor seconds | other | this | this / other |\n| --- | --- | --- | --- |")
    other, this = (least(rounds[name]) for name in checkouts)
    for part, before in other.items():
        print(f"| {part} | {before:.2f} | {this[part]:.2f} | {this[part] / before:.2f} |")


if __name__ == "__main__":
    main()
