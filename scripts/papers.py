"""What `make papers` is about to make: the data sets that are there, the runs that are missing, how long they take."""

from environment.startup import begin  # first, so that a stop is one line while the rest is imported, too

begin(__name__)

import functools
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from environment.command import Parser, device_name, run_command

# Slices to train on, about, where they are not sliced yet: of the papers' data, and of the phantoms.
TRAINING_SLICES = {"isles": 400, "wmh": 3000, "acdc": 950, "brats": 16_000, "kits": 8000, "busi": 340}
PHANTOM_SLICES, PHANTOM_SIZE = 150, 96
# Validation, evaluation and two starts of Python, beside the steps of a run.
BESIDE, SECONDS_PER_RUN = 1.2, 12


def parse(arguments: Sequence[str] | None) -> Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the slices, with raw/ in it")
    parser.add_argument("--device", type=device_name, default="auto")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--row", nargs=3, action="append", default=[], metavar=("FOLDER", "ROW", "FLAGS"),
                        help="a row of the data set that a folder of runs is named after, and its flags of train.py")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    from environment.cores import use_threads

    use_threads()
    total, there = 0.0, set()
    for folder in dict.fromkeys(Path(name) for name, _, _ in args.row):
        rows = {row: shlex.split(flags) for name, row, flags in args.row if Path(name) == folder}
        runs = [(row, seed) for row in rows for seed in args.seeds]
        # What a run has when it has been trained and evaluated.
        missing = [row for row, seed in runs if not (folder / row / f"seed{seed}" / "metrics.csv").exists()]
        if not is_there(args.data, folder.name):
            print(f"{folder}: missing: {len(runs)} runs left out; to have them get {download(folder.name)} into "
                  f"{args.data / 'raw' / folder.name}")
            continue
        there.add(folder.name)
        seconds = sum(seconds_of_run(args.data / folder.name, rows[row], args.device) for row in missing)
        total += seconds
        left = f"{len(missing)} of {len(runs)} runs to train, about {in_words(seconds)}" if missing else "all trained"
        print(f"{folder}: {len(rows)} rows, {left}")
    print(f"{len(there)} data sets; in all about {in_words(total)} here, from a measured step of each network")
    print("a stopped make goes on where it was: run the same line again", flush=True)


def is_demo(dataset: str) -> bool:
    return dataset.endswith("-demo")


def is_there(data: Path, dataset: str) -> bool:
    """Whether there is something to slice, or slices; a demo's raw data are generated."""
    return is_demo(dataset) or (data / "raw" / dataset).exists() or (data / dataset / "meta.json").exists()


def download(dataset: str) -> str:
    from raw_data import find_dataset

    return find_dataset(dataset).download


def seconds_of_run(data: Path, flags: Sequence[str], device: str) -> float:
    """About how long the run of a row takes: its epochs of its slices, at the speed of its network."""
    import train

    settings, _ = train.parse(["--data", str(data), "--out", "run", *flags])
    meta, n_slices = facts(data)
    shape = (len(meta.modalities), len(meta.class_names), meta.size)
    step = seconds_per_slice(settings.network, settings.width, settings.batch_size, shape, device)
    return SECONDS_PER_RUN + BESIDE * settings.epochs * n_slices * step


@functools.lru_cache
def seconds_per_slice(
    network: str, width: int | None, batch_size: int, shape: tuple[int, int, int], device: str
) -> float:
    """Of a step with a network on channels, classes and pixels as in ``shape``."""
    from environment.cores import core_count
    from environment.devices import computes_in_bf16, select_device
    from training.precision import known_seconds
    from training.settings import PAPER

    where = select_device(device)
    channels, classes, size = shape
    settings = replace(PAPER, network=network, width=width, batch_size=batch_size)
    meta = SimpleNamespace(modalities=range(channels), class_names=range(classes), size=size)
    if where.type == "cuda":
        return seconds_on_cuda(settings, meta, bf16=computes_in_bf16(where))
    seconds = known_seconds(settings, meta)
    return (min(seconds.values()) if computes_in_bf16(where) else seconds["fp32"]) / core_count()


def seconds_on_cuda(settings, meta, *, bf16: bool) -> float:
    """Seconds per slice of a forward and backward pass of a batch, the best of a few."""
    import torch

    from networks import build_network

    network = build_network(settings.network, len(meta.modalities), len(meta.class_names), width=settings.width)
    network = network.to("cuda", memory_format=torch.channels_last)
    image = torch.rand(settings.batch_size, len(meta.modalities), meta.size, meta.size, device="cuda")
    times = []
    for _ in range(5):
        start = time.perf_counter()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=bf16):
            logits = network(image.to(memory_format=torch.channels_last))
        logits.float().square().mean().backward()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times) / settings.batch_size


def facts(data: Path) -> tuple[SimpleNamespace, int]:
    """Channels, classes and size of the slices, and how many train; typical ones where they are not made yet."""
    from raw_data import find_dataset
    from sliced_data.meta import read_meta

    if (data / "meta.json").exists():
        meta = read_meta(data)
        n_slices = sum(case.n_slices for case in meta.cases if case.split == "train")
        return SimpleNamespace(modalities=meta.modalities, class_names=meta.class_names, size=meta.size), n_slices
    raw = find_dataset(data.name.removesuffix("-demo"))
    known = SimpleNamespace(modalities=raw.modalities, class_names=raw.class_names, size=raw.recipe.size)
    if is_demo(data.name):
        known.size = PHANTOM_SIZE
        return known, PHANTOM_SLICES
    return known, TRAINING_SLICES[data.name]


def in_words(seconds: float) -> str:
    """A duration as people say it."""
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{max(minutes, 1)} min"
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


if __name__ == "__main__":
    sys.exit(run_command(main))
