"""Processor seconds of a row from scratch and their shares, and each part against the plain baseline of the same run.

One seed of gdl-boundary on the WMH phantom, 256 x 256, one thread: the commands as make calls them, processes that they
start included. What other programs do on the machine changes processor seconds little.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from bench import make_raw, our_epoch, plain_epoch, processor_clock, read_labels, scipy_slicing
from bench_metrics import measure as measure_metrics
from bench_row_training import NETWORK, READING, TRAINING, VALIDATION
from bench_runs import ROOT, seconds
from bench_score import measure as measure_score
from bench_score import shifted, write_mask

from dataloader import load_slices
from environment.provenance import package_version, processor
from evaluation.mask_files import MaskPair
from raw_data.files import RawFile
from sliced_data.meta import read_meta

SLICING, EVALUATION, TABLE = "slicing", "evaluation", "table"
ROW, PAPER_EPOCHS = "gdl-boundary", 100
FLAGS = ("--region", "gdl", "--contour", "boundary", "--device", "cpu", "--precision", "fp32")


def row_seconds(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Processor seconds of each part of a row; leaves the sliced data in ``folder / "data"``."""
    raw, data, results = make_raw(folder, args.cases, args.slices), folder / "data", folder / "results" / "wmh"
    run, python = results / ROW / "seed0", sys.executable
    size = ("--width", args.width, "--epochs", args.epochs, "--batch-size", args.batch_size)
    found = {SLICING: seconds(python, "preprocess.py", "wmh", "--source", raw, "--dest", data, "--val", 1)}
    command = (python, "scripts/bench_row_training.py", "--data", data, "--out", run, *FLAGS, *size)
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found |= {part: json.loads(done.stdout)[part] for part in (READING, NETWORK, TRAINING, VALIDATION)}
    found[EVALUATION] = seconds(python, "eval.py", "run", run, "--device", "cpu")
    found[TABLE] = seconds(python, "eval.py", "table", results, "--rows", ROW, "--name", ROW)
    return found


# What a table is at the least: the mean over cases of each run, then mean and sd over runs.
PLAIN_TABLE = """
import sys
from pathlib import Path
import pandas as pd
runs = [pd.read_csv(path) for path in sorted(Path(sys.argv[1]).glob("seed*/metrics.csv"))]
means = pd.DataFrame([run[["dsc", "hd95_mm"]].mean() for run in runs])
means.agg(["mean", "std"]).to_csv(Path(sys.argv[1]) / "plain.csv")
"""


def reading(data: Path) -> tuple[float, float]:
    """Processor seconds per slice to have the training slices in memory: ours, checked; and NumPy's, unchecked."""
    meta = read_meta(data)
    start = processor_clock()
    count = len(load_slices(meta, "train", maps="phi2d"))
    read = processor_clock()
    for kind in ("image", "label", "phi2d"):
        np.stack([np.load(path) for path in sorted((data / "train" / kind).iterdir())])
    return (read - start) / count, (processor_clock() - read) / count


def baselines(folder: Path, slicing: float, batch_size: int) -> list[tuple[str, float, str, float]]:
    """What, ours, the name and figure of the plain baseline, processor milliseconds; ``slicing`` is ours per slice."""
    data, row = folder / "data", folder / "results" / "wmh" / ROW
    read, plain_read = reading(data)
    table = seconds(sys.executable, "eval.py", "table", row.parent, "--rows", ROW, "--name", ROW)
    plain_table = seconds(sys.executable, "-c", PLAIN_TABLE, row)
    trained, _ = our_epoch(data, batch_size, clock=processor_clock)
    plain = plain_epoch(data / "train", batch_size, clock=processor_clock)
    case = next(case for case in read_meta(data).cases if case.split == "val")
    mask = read_labels(data, case) == 1
    _, medpy_s, _, hd95_s, *_ = measure_metrics(shifted(mask), mask, case.spacing, 1)
    reference, prediction = (
        RawFile(write_mask(folder / f"{name}.nii.gz", voxels, case.spacing))
        for name, voxels in (("reference", mask), ("prediction", shifted(mask)))
    )
    score_medpy_s, score_s, _ = measure_score(MaskPair(case.case_id, prediction, reference))
    maps = scipy_slicing(data, clock=processor_clock)
    return [
        ("slicing, all of it, per slice", 1e3 * slicing, "SciPy's maps alone", 1e3 * maps),
        ("reading, all values checked, per slice", 1e3 * read, "np.load and np.stack", 1e3 * plain_read),
        ("training outside the network, per slice and epoch", 1e3 * trained,
         "a .npy per sample, DataLoader workers, SciPy's maps online", 1e3 * plain),
        ("validation: 3D HD95 of a case", 1e3 * hd95_s, "medpy", 1e3 * medpy_s),
        ("evaluation: files read, all metrics of a case", 1e3 * score_s, "medpy's four", 1e3 * score_medpy_s),
        ("table of one run, with the start of its process", 1e3 * table, "pandas", 1e3 * plain_table),
    ]


def shares(found: dict[str, float], epochs: int) -> list[str]:
    """A line per part: seconds, share, and the share in a row of the paper's epochs on the same slices."""
    repeated = (NETWORK, TRAINING, VALIDATION)
    paper = {part: value * (PAPER_EPOCHS / epochs if part in repeated else 1) for part, value in found.items()}
    totals = sum(found.values()), sum(paper.values())
    return [
        f"| part | processor seconds | share | share in {PAPER_EPOCHS} epochs |", "| --- | --- | --- | --- |",
        *(f"| {part} | {value:.2f} | {100 * value / totals[0]:.1f} % | {100 * paper[part] / totals[1]:.2f} % |"
          for part, value in found.items()),
        f"| all | {totals[0]:.2f} | 100 % | 100 % |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=4, help="phantom scans, one of them to validate")
    parser.add_argument("--slices", type=int, default=48, help="slices per scan")
    parser.add_argument("--width", type=int, default=16, help="of the UNet")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of the row")
    parser.add_argument("--batch-size", type=int, default=8, help="slices per step")
    args = parser.parse_args()
    # Threads that spin while they wait would count as work.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found = row_seconds(folder, args)
        compared = baselines(folder, found[SLICING] / (args.cases * args.slices), args.batch_size)
    print(f"{processor()}, one thread, {platform.system()}, torch {package_version('torch')}")
    print(f"WMH phantom, {args.cases} x {args.slices} slices of 256 x 256, {ROW}, UNet of width {args.width}, "
          f"{args.epochs} epochs, batch {args.batch_size}\n")
    print("\n".join(shares(found, args.epochs)))
    print("\n| processor ms | ours | beside it | beside it / ours |\n| --- | --- | --- | --- |")
    for what, ours, name, baseline in compared:
        print(f"| {what} | {ours:.2f} | {name}: {baseline:.2f} | {baseline / ours:.2f} |")


if __name__ == "__main__":
    main()
