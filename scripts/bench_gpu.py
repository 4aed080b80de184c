"""Full-size training on a GPU: time of a step, share of the contour losses in it, time of a row of Table 1.

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


def row_minutes(args: argparse.Namespace, data: Path, out: Path, contour: str) -> tuple[float, float, float]:
    """Minutes that 100 epochs take (the first, with compilation, as measured), seconds of an epoch, of the process."""
    start = time.perf_counter()
    flags = ["--data", data, "--out", out, "--contour", contour, "--width", args.width, "--device", args.device,
             "--epochs", args.epochs, "--compile" if args.compile else "--no-compile"]
    subprocess.run([sys.executable, ROOT / "train.py", *map(str, flags)], check=True, stdout=subprocess.DEVNULL)
    process = time.perf_counter() - start
    with (out / "log.csv").open() as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    epoch = statistics.median(seconds[1:])
    return (process + epoch * (100 - len(seconds))) / 60, epoch, process


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
    if device.type == "cuda":
        print(f"\npeak memory of the steps: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
