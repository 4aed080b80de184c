"""Time of a training step with each loss, in the form of Table 2 (Kervadec et al. 2021), on the device of this machine.

Each row is timed on random slices of the sizes of ISLES (5 channels, batch 4) and WMH (2 channels, batch 8): a whole
step (image to updated weights) of the reference UNet, and the losses alone (logits to their gradient). Rows take turns,
so that a busy machine slows all of them alike.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from bench_data import lesions

from boundary_loss.distance import distance_maps, region_wise_map
from environment.command import device_name, run_command
from environment.devices import select_device
from environment.provenance import package_version, processor
from losses import CONTOUR_LOSSES, REGION_LOSSES
from networks import UNet
from utils import InputError, progress, write_rows, write_text

ROOT = Path(__file__).resolve().parent.parent

SIZES = {"isles": (5, 4), "wmh": (2, 8)}  # channels, batch of Table 2
SPACING = (0.9, 0.9)
COLUMNS = (
    "row",
    "dataset",
    "batch_size",
    "seconds_per_batch",
    "sd",
    "loss_ms",
    "loss_ms_beside_gdl",
    "published_seconds_per_batch",
)


class Step:
    """One row on one size: the losses with their targets, and a network to train."""

    def __init__(self, region: str, contour: str, dataset: str, args: argparse.Namespace, device: torch.device):
        channels, batch = SIZES[dataset]
        label = lesions(batch, args.size)
        self.losses = [
            registry[name]().to(device)
            for registry, name in ((REGION_LOSSES, region), (CONTOUR_LOSSES, contour))
            if name != "none"
        ]
        self.targets = [self.target(loss, label, device) for loss in self.losses]
        self.spacing = torch.tensor([SPACING] * batch, device=device)
        self.image = torch.rand(batch, channels, args.size, args.size, device=device).contiguous(
            memory_format=torch.channels_last
        )
        self.network = UNet(channels, 2, width=args.width).to(device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.Adam(self.network.parameters())
        self.bf16 = device.type == "cuda"

    @staticmethod
    def target(loss: torch.nn.Module, label: np.ndarray, device: torch.device) -> torch.Tensor:
        if loss.target_kind == "label":
            return torch.from_numpy(label).long().to(device)
        if loss.target_kind == "phi":
            maps = [distance_maps(one, 2, SPACING) for one in label]
        else:
            maps = [region_wise_map(one, 2, loss.map_kind, SPACING) for one in label]
        return torch.from_numpy(np.stack(maps)).to(device)

    def loss(self, logits: torch.Tensor) -> torch.Tensor:
        return sum(
            loss(logits, target, self.spacing)
            for loss, target in zip(self.losses, self.targets, strict=True)
        )

    def run(self) -> None:
        with torch.autocast(self.image.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            logits = self.network(self.image)
        self.optimiser.zero_grad(set_to_none=True)
        self.loss(logits).backward()
        self.optimiser.step()

    def run_loss(self) -> None:
        logits = torch.randn(len(self.image), 2, *self.image.shape[2:], device=self.image.device, requires_grad=True)
        self.loss(logits).backward()


def seconds(work, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def rows_of(losses: str) -> dict[str, tuple[str, str]]:
    paper = {"gdl": ("gdl", "none"), "gdl-boundary": ("gdl", "boundary"), "gdl-hausdorff": ("gdl", "hausdorff")}
    if losses == "paper":
        return paper
    regional = {name: (name, "none") for name in REGION_LOSSES}
    return {**paper, **regional, **{f"gdl-{name}": ("gdl", name) for name in CONTOUR_LOSSES}}


def measure(args: argparse.Namespace, dataset: str, device: torch.device) -> list[dict]:
    steps = {row: Step(*names, dataset, args, device) for row, names in rows_of(args.losses).items()}
    whole, alone = ({row: [] for row in steps} for _ in range(2))
    for turn in progress(range(args.repeats + 1), desc=dataset, unit="turn"):
        for row, step in steps.items():
            times = seconds(step.run, device), statistics.median(seconds(step.run_loss, device) for _ in range(5))
            if turn:  # the first turn warms up
                whole[row].append(times[0])
                alone[row].append(times[1] * 1e3)
    published = pd.read_csv(ROOT / "published" / "media2021_table2.csv").query("dataset == @dataset").set_index("row")
    baseline = statistics.median(alone["gdl"])
    return [
        {
            "row": row,
            "dataset": dataset,
            "batch_size": SIZES[dataset][1],
            "seconds_per_batch": statistics.mean(whole[row]),
            "sd": statistics.stdev(whole[row]),
            "loss_ms": statistics.median(alone[row]),
            "loss_ms_beside_gdl": statistics.median(alone[row]) - baseline,
            "published_seconds_per_batch": published["seconds_per_batch"].get(row, ""),
        }
        for row in steps
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--losses", choices=("paper", "all"), default="all", help="the rows of Table 2, or every loss (default)"
    )
    parser.add_argument("--width", type=int, help="the UNet's width (default: 64 on CUDA, 16 on the CPU)")
    parser.add_argument("--size", type=int, default=256, help="slices are SIZE x SIZE (default 256)")
    parser.add_argument("--repeats", type=int, default=5, help="timed turns (default 5)")
    parser.add_argument("--device", type=device_name, default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "results", help="folder for table2.csv and table2.md")
    args = parser.parse_args(arguments)
    if args.repeats < 2:
        raise InputError(f"--repeats: expected at least 2, found {args.repeats}")
    device = select_device(args.device)
    args.width = args.width or (64 if device.type == "cuda" else 16)
    rows = [row for dataset in SIZES for row in measure(args, dataset, device)]
    write_rows(args.out / "table2.csv", rows, COLUMNS)
    text = table(rows, args, device)
    write_text(args.out / "table2.md", text)
    print(text)


def table(rows: list[dict], args: argparse.Namespace, device: torch.device) -> str:
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{processor()}, {torch.get_num_threads()} threads"
    )
    lines = [
        f"seconds per batch, mean (sd) of {args.repeats}: UNet of width {args.width} at {args.size} x {args.size} on "
        f"{name}, torch {package_version('torch')}. Beside it the losses alone, forward and backward, in ms (median), "
        "and the paper's figure (width 64, GTX 1080 Ti).",
        "",
        "| row | ISLES, batch 4 (s) | losses (ms) | published (s) | WMH, batch 8 (s) | losses (ms) | published (s) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    by_dataset = [[row for row in rows if row["dataset"] == dataset] for dataset in SIZES]
    for pair in zip(*by_dataset, strict=True):
        cells = []
        for row in pair:
            step = f"{row['seconds_per_batch']:.3f} ({row['sd']:.3f})"
            cells += [step, f"{row['loss_ms']:.1f}", str(row["published_seconds_per_batch"])]
        lines.append(f"| {pair[0]['row']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(run_command(main))
