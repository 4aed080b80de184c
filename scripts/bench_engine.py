"""What training costs on this machine beside the network: slices in memory or from the disk, float32 or bfloat16.

Absolute times depend on the machine; the ratios, measured in one process in turns, are what to compare.
"""

import argparse
import contextlib
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from bench import PixelNetwork, make_data

from boundary_loss.metrics import intersection_and_sizes
from dataloader import batches
from environment.cores import core_count, use_threads
from environment.provenance import package_version, processor
from networks import NETWORKS
from sliced_data.meta import read_meta
from training.settings import PAPER
from training.trainer import Trainer
from training.volume_metrics import volume_metrics
from utils import progress

ROOT = Path(__file__).resolve().parent.parent


def build(data: Path, *, resident: str = "auto", **settings: object) -> Trainer:
    """A trainer on the CPU with the boundary loss and these settings."""
    settings = {"contour": "boundary", "precision": "fp32", **settings}
    return Trainer(replace(PAPER, **settings), read_meta(data), torch.device("cpu"), resident=resident)


def in_turns(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The best time of each run, one round after the other, so that a busy machine is busy for all of them."""
    times = [{name: run() for name, run in runs.items()} for _ in range(rounds + 1)]
    return {name: min(found[name] for found in times[1:]) for name in runs}


def epoch(trainer: Trainer, steps: int | None = None) -> float:
    """Milliseconds per slice of one epoch, or of its first steps."""
    trainer.new_epoch()
    order = trainer.order(0)[: None if steps is None else steps * trainer.settings.batch_size]
    trainer.forward.train()
    start = time.perf_counter()
    with progress(total=0, leave=False) as bar:
        if steps is None:
            trainer.train_epoch(0, bar)
        else:
            for batch in batches(trainer.train, order, trainer.settings.batch_size, trainer.device):
                trainer.step(batch, 0, (0.99, 0.01))
    return (time.perf_counter() - start) / len(order) * 1e3


def compare_residences(data: Path, rounds: int) -> dict[str, float]:
    """Milliseconds per slice and epoch of everything but the network, with warm files."""
    NETWORKS["pixel"] = PixelNetwork
    trainers = {name: build(data, resident=name, network="pixel") for name in ("host", "stream")}
    return in_turns({name: lambda trainer=trainer: epoch(trainer) for name, trainer in trainers.items()}, rounds)


def compare_precisions(data: Path, width: int, rounds: int) -> dict[str, float]:
    """Milliseconds per slice of a step with the UNet in float32 and under bfloat16 autocast."""
    trainers = {
        name: build(data, width=width, precision=name, batch_size=2) for name in ("fp32", "bf16")
    }
    return in_turns({name: lambda trainer=trainer: epoch(trainer, 1) for name, trainer in trainers.items()}, rounds)


@contextlib.contextmanager
def timed(times: dict[str, list[float]], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    times.setdefault(part, []).append((time.perf_counter() - start) * 1e3)


def profile(data: Path, width: int, steps: int = 6) -> dict[str, float]:
    """Median milliseconds of the parts of a step of batch 8 in float32; the first two steps warm up."""
    trainer, times = build(data, width=width, resident="host"), {}
    trainer.forward.train()
    for step in range(steps + 2):
        with timed(times, "gathering the batch"):
            batch = trainer.train.take((torch.arange(8) + step) % len(trainer.train)).prepared()
        with timed(times, "forward"):
            logits = trainer.logits(batch.image)
        with timed(times, "losses"):
            terms = trainer.objective.terms(logits, batch.label, batch.maps, batch.spacing)
            loss = trainer.objective.weigh(terms, (0.99, 0.01))
        trainer.optimiser.zero_grad(set_to_none=True)
        with timed(times, "backward"):
            loss.backward()
        with timed(times, "gradient norm"):
            torch.nn.utils.get_total_norm([parameter.grad for parameter in trainer.network.parameters()])
        with timed(times, "Adam"):
            trainer.optimiser.step()
        with timed(times, "counts for DSC"):
            intersection_and_sizes(logits.argmax(1), batch.label, 2)
    return {part: statistics.median(values[2:]) for part, values in times.items()}


def validation_share(data: Path, step: float) -> float:
    """Share in per cent of the 3D metrics in an epoch of WMH's sizes (2,600 slices to train on, 480 to validate).

    The predictions are a pixel network's: noise, whose distances take longer than a trained network's.
    """
    trainer = build(data, resident="host", network="pixel")
    epoch(trainer)
    trainer.validate((0.99, 0.01))
    predictions = trainer.network(trainer.val.image.float()).argmax(1)
    counts = torch.stack(intersection_and_sizes(predictions, trainer.val.label, 2))      # (3, N, K)
    start = time.perf_counter()
    volume_metrics(trainer.val, counts, predictions, trainer.class_names)
    metrics = 480 * (time.perf_counter() - start) * 1e3 / len(trainer.val)
    return 100 * metrics / (2600 * step + metrics)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=4, help="phantom scans")
    parser.add_argument("--slices", type=int, default=48, help="slices per scan")
    parser.add_argument("--width", type=int, default=16, help="of the UNet whose precisions are compared")
    parser.add_argument("--rounds", type=int, default=4, help="measurements, of which the best counts")
    args = parser.parse_args()
    use_threads()
    with tempfile.TemporaryDirectory() as folder:
        data, _ = make_data(Path(folder), args.cases, args.slices)
        residence = compare_residences(data, args.rounds)
        precision = compare_precisions(data, args.width, args.rounds)
        share = validation_share(data, precision["fp32"])
        parts = profile(data, args.width)
    threads = f"{torch.get_num_threads()} threads of {core_count()} cores"
    print(f"{processor()}, {threads}, {platform.system()}, torch {package_version('torch')}")
    print(f"WMH phantom, {args.cases} x {args.slices} slices of 256 x 256\n")
    print("| what | ms per slice | beside it | ratio |\n| --- | --- | --- | --- |")
    host, stream, fp32, bf16 = (found[name] for found in (residence, precision) for name in found)
    ratio = round(fp32 / bf16, 2)   # as it is printed, and what is said of it below
    print(f"| training outside the network, streamed | {stream:.2f} | resident {host:.2f} | {host / stream:.2f} |")
    print(f"| step of the UNet of width {args.width}, bf16 | {bf16:.1f} | fp32 {fp32:.1f} | {ratio:.2f} |")
    print(f"| 3D DSC and HD95 of every epoch, share of it with that UNet | {share:.2f} % | | |")
    faster = "bf16 is the faster one" if ratio > 1 else "fp32 is the faster one" if ratio < 1 else "neither is faster"
    print(f"\non this CPU {faster}, measured here whatever --precision auto takes")
    print("\n| part of a step of that UNet, batch 8 | ms | share in per cent |\n| --- | --- | --- |")
    for part, ms in parts.items():
        print(f"| {part} | {ms:.1f} | {100 * ms / sum(parts.values()):.1f} % |")


if __name__ == "__main__":
    main()
