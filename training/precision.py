"""The arithmetic of a run: what was asked for, what its folder says, or what is faster on this processor."""

import json
import os
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import torch

from environment.devices import computes_in_bf16
from environment.provenance import processor
from networks import NETWORKS, build_network
from sliced_data.meta import Meta
from training.run_folder import keep_precision
from training.settings import Settings
from utils import InputError, read_json, write_json

# Seconds that a measurement may take, and passes of each batch.
AT_MOST, ROUNDS = 1.8, 3
# How many times as fast bf16 has to be: for less its rounding is not worth it, nor sure to be faster.
WORTH = 1.1


def resolve_precision(
    settings: Settings, out: Path, meta: Meta, device: torch.device
) -> tuple[Settings, dict[str, float] | None]:
    """Settings with a precision in place of ``auto``, and the seconds per slice that chose it, where any did.

    A run keeps the precision that it began with. A new one takes bf16 where the device has instructions for it; on a
    CPU also only where a step of this network and batch was measured to be faster in it.
    """
    settings = keep_precision(settings, out)
    if settings.precision != "auto":
        return settings, None
    if not computes_in_bf16(device):
        return replace(settings, precision="fp32"), None
    if device.type == "cuda":
        return replace(settings, precision="bf16"), None
    seconds = known_seconds(settings, meta)
    is_faster = seconds["bf16"] * WORTH < seconds["fp32"]
    return replace(settings, precision="bf16" if is_faster else "fp32"), seconds


def known_seconds(settings: Settings, meta: Meta) -> dict[str, float]:
    """What was measured here before for such runs, or now: so that all runs of a table compute alike."""
    path, what = cache_path(), description(settings, meta)
    if (found := recorded(path, what)) is not None:
        return found
    seconds = measure_precisions(settings, meta)
    # Of two runs that measured at once, the first to end has decided.
    seconds = recorded(path, what) or seconds
    known = {}
    with suppress(InputError, OSError):
        known = read_json(path)
    # A home folder that cannot be written is no reason not to train.
    with suppress(OSError):
        write_json(path, known | {what: seconds})
    return seconds


def recorded(path: Path, what: str) -> dict[str, float] | None:
    """The seconds of ``what`` that were kept; None where there are none, or what is there is damaged."""
    with suppress(InputError, OSError, KeyError, TypeError, ValueError):
        known = read_json(path)[what]
        return {name: float(known[name]) for name in ("fp32", "bf16")}
    return None


def cache_path() -> Path:
    """Where measurements are kept for the next runs of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "boundary-loss" / "precision.json"


def description(settings: Settings, meta: Meta) -> str:
    """All that the speed of a step depends on."""
    return json.dumps({
        "processor": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "network": settings.network, "width": settings.width, "batch_size": settings.batch_size,
        "channels": len(meta.modalities), "classes": len(meta.class_names), "size": meta.size,
    })


def measure_precisions(settings: Settings, meta: Meta) -> dict[str, float]:
    """Seconds per slice of a forward and backward pass on one core in fp32 and bf16, in turns, the best of each.

    The core's own seconds: other processes, and runs beside this one, change them little. The measurement begins with
    less than a slice and grows to the whole batch as long as its time lasts.
    """
    network = build_network(settings.network, len(meta.modalities), len(meta.class_names), width=settings.width)
    network = network.to(memory_format=torch.channels_last)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure(network, settings, meta)
    finally:
        torch.set_num_threads(threads)


def measure(network: torch.nn.Module, settings: Settings, meta: Meta) -> dict[str, float]:
    """``measure_precisions`` of a network."""
    multiple = NETWORKS[settings.network].size_multiple
    begun, pixels, best = time.thread_time(), 0, {"fp32": 0.0, "bf16": 0.0}
    for n_slices, size in growing_batches(settings.batch_size, meta.size, multiple):
        image = torch.rand(n_slices, len(meta.modalities), size, size).to(memory_format=torch.channels_last)
        expected = sum(best.values()) * n_slices * size**2 / max(pixels, 1)
        rounds: list[dict[str, float]] = []
        while len(rounds) < ROUNDS and time.thread_time() - begun + expected * max(1, 2 - len(rounds)) < AT_MOST:
            rounds.append({name: seconds_of(network, image, name) for name in best})
            expected = sum(rounds[-1].values())
        if not rounds:
            break
        # The first round warms up.
        best = {name: min(seconds[name] for seconds in rounds[1:] or rounds) for name in best}
        pixels = n_slices * size**2
    return {name: seconds * meta.size**2 / pixels for name, seconds in best.items()}


def growing_batches(batch_size: int, size: int, multiple: int) -> list[tuple[int, int]]:
    """(slices, pixels of their sides): half of a slice's sides, then 1, 2, 4, ... slices, the batch."""
    batches = [(1, size // 2)] if size % (2 * multiple) == 0 else []
    batches += [(2**power, size) for power in range(batch_size.bit_length()) if 2**power < batch_size]
    # Batch norm needs more than one value per channel where the network is narrowest.
    return [*((n, side) for n, side in batches if n * (side // multiple) ** 2 > 1), (batch_size, size)]


def seconds_of(network: torch.nn.Module, image: torch.Tensor, precision: str) -> float:
    """Seconds of this thread in one forward and backward pass."""
    start = time.thread_time()
    with torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else nullcontext():
        logits = network(image)                     # (B, K, H, W)
    logits.float().square().mean().backward()
    return time.thread_time() - start
