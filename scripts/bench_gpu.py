"""Full-size training on a GPU: a step, the share of the contour losses in it, a row of Table 1, several runs at once.

Random data of the sizes of the real ones (ISLES: 74 scans, 390 training slices of 5 channels; WMH: 50 scans, 2,600 of
2), 256 x 256, the reference UNet of width 64, batch 8. Rows take turns in each measurement. `--device cpu --width 16
--size 96 --steps 3 --epochs 2` tries the script where there is no GPU.
"""

import argparse
import csv
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from bench_data import lesions, make_linked_data

from boundary_loss.distance import edt
from environment.devices import select_device
from environment.provenance import package_version, processor
from sliced_data.meta import read_meta
from training.settings import PAPER
from training.trainer import Trainer
from utils import progress

ROOT = Path(__file__).resolve().parent.parent

ROWS = {"gdl": "none", "gdl-boundary": "boundary", "gdl-hausdorff": "hausdorff"}
SIZES = {"ISLES": {"train": 390, "val": 112, "channels": 5, "slices_a_case": 5},
         "WMH": {"train": 2600, "val": 480, "channels": 2, "slices_a_case": 48}}


def build(args: argparse.Namespace, data: Path, contour: str, device: torch.device) -> Trainer:
    precision = "bf16" if device.type == "cuda" else "fp32"
    settings = replace(PAPER, contour=contour, width=args.width, precision=precision, compile=args.compile)
    return Trainer(settings, read_meta(data), device)


def step_times(args: argparse.Namespace, data: Path, device: torch.device) -> dict[str, float]:
    """Median ms of a step of each row, over runs of ten steps that take turns."""
    trainers = {row: build(args, data, contour, device) for row, contour in ROWS.items()}
    index = torch.arange(8, device=device)
    times = {row: [] for row in ROWS}
    for turn in progress(range(args.steps + 3), desc="steps", unit="turn"):
        for row, trainer in trainers.items():
            trainer.forward.train()
            trainer.new_epoch()
            batch = trainer.train.take(index).prepared()
            synchronise(device)
            start = time.perf_counter()
            for _ in range(10 if device.type == "cuda" else 1):
                trainer.step(batch, 0, (0.99, 0.01))
            synchronise(device)
            if turn >= 3:  # the first turns compile and warm up
                times[row].append((time.perf_counter() - start) * 1e3 / (10 if device.type == "cuda" else 1))
    return {row: statistics.median(values) for row, values in times.items()}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def start_row(args: argparse.Namespace, data: Path, out: Path, contour: str) -> subprocess.Popen:
    flags = ["--data", data, "--out", out, "--contour", contour, "--width", args.width, "--device", args.device,
             "--epochs", args.epochs, "--compile" if args.compile else "--no-compile"]
    return subprocess.Popen([sys.executable, ROOT / "train.py", *map(str, flags)], stdout=subprocess.DEVNULL)


def finish(processes: Sequence[subprocess.Popen]) -> None:
    """Wait for all; end this program where one failed, which has said why."""
    codes = [process.wait() for process in processes]
    if any(codes):
        sys.exit("a run failed")


def logged(out: Path, column: str) -> list[float]:
    """A column of a run's log from the second epoch on: the first compiles."""
    with (out / "log.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file)][1:]


def row_minutes(args: argparse.Namespace, data: Path, out: Path, contour: str) -> tuple[float, float, float]:
    """Minutes that 100 epochs take (the first, with compilation, as measured), seconds of an epoch, of the process."""
    start = time.perf_counter()
    finish([start_row(args, data, out, contour)])
    process = time.perf_counter() - start
    seconds = logged(out, "seconds")
    epoch = statistics.median(seconds)
    return (process + epoch * (100 - args.epochs)) / 60, epoch, process


def slices_per_second(args: argparse.Namespace, data: Path, folder: Path, runs: int) -> float:
    """Slices that so many runs of gdl-boundary at once on one device train on in a second, in all."""
    outs = [folder / f"{runs}-at-once-{number}" for number in range(runs)]
    finish([start_row(args, data, out, "boundary") for out in outs])
    return sum(statistics.median(logged(out, "slices_per_second")) for out in outs)


def transform_time(size: int, device: torch.device) -> float:
    """Median ms of the exact distance transform of 16 masks on the device."""
    masks = torch.from_numpy(lesions(16, size)).to(device)
    spacing = torch.full((16, 2), 0.9, device=device)
    times = []
    for _ in range(23):
        synchronise(device)
        start = time.perf_counter()
        edt(masks, spacing)
        synchronise(device)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20, help="timed turns of ten steps (of one on a CPU)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs trained of each row, from which 100 are told")
    parser.add_argument("--together", type=int, default=3, help="runs on the device at once, as make -j3 has them")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES), help="data sets to train on")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile")
    args = parser.parse_args()
    device = select_device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    print(f"{name}, torch {package_version('torch')}, Python {platform.python_version()}, width {args.width}, "
          f"{args.size} x {args.size}, batch 8{'' if args.compile else ', not compiled'}\n")
    with tempfile.TemporaryDirectory() as folder:
        data = {name: make_linked_data(Path(folder) / name, size=args.size, **SIZES[name]) for name in args.sizes}
        steps = step_times(args, data[args.sizes[-1]], device)
        print("| step | ms | beside gdl |\n| --- | --- | --- |")
        for row, ms in steps.items():
            print(f"| {row} | {ms:.2f} | {100 * (ms / steps['gdl'] - 1):+.1f} % |")
        print(f"\nexact distance transform of 16 masks on the device: {transform_time(args.size, device):.2f} ms\n")
        print("| row | 100 epochs (min) | an epoch (s) | the process of "
              f"{args.epochs} epochs (s) |\n| --- | --- | --- | --- |")
        for name in args.sizes:
            for row, contour in ROWS.items():
                minutes, epoch, process = row_minutes(args, data[name], Path(folder) / f"{name}-{row}", contour)
                print(f"| {name} {row} | {minutes:.2f} | {epoch:.2f} | {process:.1f} |", flush=True)
        print("\n| runs at once | slices per second in all | times one run |\n| --- | --- | --- |")
        rates = {runs: slices_per_second(args, data[args.sizes[0]], Path(folder), runs) for runs in (1, args.together)}
        for runs, rate in rates.items():
            print(f"| {runs} | {rate:.0f} | {rate / rates[1]:.2f} |", flush=True)
    if device.type == "cuda":
        print(f"\npeak memory of the steps: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
