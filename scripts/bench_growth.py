"""Cost a slice from 500 to 100,000 slices, resident and streamed, outside the network; and streaming within a limit.

Slices of 32 x 32, sixteen files under many names: what is measured is the program's own cost a slice, from warm files,
with a network of one 1x1 convolution. Each size runs in fresh processes. The last part trains on a set whose slices
would fill several times the memory that the process may allocate (RLIMIT_DATA).
"""
import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_data import make_linked_data

from environment.cores import core_count
from environment.provenance import package_version, processor
from utils import progress

ROOT = Path(__file__).resolve().parent.parent

# A process of its own. Its arguments: scripts, data, where slices live, width (0: one convolution), limit.
CHILD = """
import json, sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from bench import PixelNetwork
import networks
from sliced_data.meta import read_meta
from training.settings import PAPER
from training.trainer import Trainer
from utils import progress

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

networks.NETWORKS["pixel"] = PixelNetwork
data, resident, width = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
settings = replace(
    PAPER, contour="boundary", network="unet" if width else "pixel", width=width or 1, precision="fp32"
)
if len(sys.argv) > 5:
    import resource
    used = memory("VmData")
    resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[5]), used + int(sys.argv[5])))
torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # what it imports is no cost of slices
before, start = memory("VmRSS"), time.perf_counter()
trainer = Trainer(settings, read_meta(data), torch.device("cpu"), resident=resident)
loaded = time.perf_counter() - start
with progress(total=0, leave=False) as bar:
    epochs = []
    for epoch in range(1 if len(trainer.train) > 20000 else 2):
        trainer.new_epoch()
        start = time.perf_counter()
        trainer.train_epoch(epoch, bar)
        epochs.append(time.perf_counter() - start)
    start = time.perf_counter()
    trainer.validate((0.99, 0.01))
count = len(trainer.train)
print(json.dumps({"load_ms": 1e3 * loaded / (count + len(trainer.val)), "epoch_ms": 1e3 * min(epochs) / count,
                  "validate_ms": 1e3 * (time.perf_counter() - start) / len(trainer.val),
                  "peak_mib": (memory("VmHWM") - before) / 2**20}))
"""


def measure(data: Path, resident: str, width: int = 0, limit: int | None = None) -> dict:
    arguments = [ROOT / "scripts", data, resident, width, *([limit] if limit else [])]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        return {"error": last}
    return json.loads(done.stdout.strip().splitlines()[-1])


def growth(folder: Path, sizes: list[int]) -> list[str]:
    header = "| slices | where | reading, ms per slice | training without network, ms per slice | memory added, MiB |"
    lines = [header, "| --- | --- | --- | --- | --- |"]
    for count in progress(sizes, desc="growth", unit="size"):
        data = make_linked_data(folder / str(count), train=count, val=80, channels=2, size=32)
        for resident in ("host", "stream"):
            found = measure(data, resident)
            lines.append(f"| {count} | {resident} | {found['load_ms']:.3f} | {found['epoch_ms']:.3f} | "
                         f"{found['peak_mib']:.0f} |")
    return lines


def streaming(folder: Path, size: int, width: int, count: int) -> list[str]:
    """Resident against streamed epochs with a real network, in turns."""
    data = make_linked_data(folder / f"network{size}", train=count, val=16, channels=2, size=size)
    turns = {"host": [], "stream": []}
    for _ in range(3):
        for resident, epochs in turns.items():
            epochs.append(measure(data, resident, width)["epoch_ms"])
    best = {resident: min(epochs) for resident, epochs in turns.items()}
    return [f"UNet of width {width}, {count} slices of {size} x {size}: resident {best['host']:.1f}, streamed "
            f"{best['stream']:.1f} ms per slice: {100 * best['host'] / best['stream']:.0f} % of the resident speed"]


def limited(folder: Path, count: int, size: int, limit_mib: int) -> list[str]:
    data = make_linked_data(folder / "limited", train=count, val=16, channels=2, size=size)
    gib = count * size**2 * (2 * 2 + 1 + 2 * 2) / 2**30
    lines = [f"{count} slices of {size} x {size}, {gib:.1f} GiB, in a process that may add {limit_mib} MiB:"]
    for resident in ("host", "stream"):
        found = measure(data, resident, limit=limit_mib * 2**20)
        if "error" in found:
            lines.append(f"- {resident}: {found['error']}")
        else:
            epoch, peak = found["epoch_ms"], found["peak_mib"]
            lines.append(f"- {resident}: an epoch at {epoch:.1f} ms per slice, {peak:.0f} MiB added")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 5000, 100_000], help="training slices")
    args = parser.parse_args()
    print(f"{processor()}, {core_count()} cores, {platform.system()}, torch {package_version('torch')}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for part in (
            lambda root: growth(root, args.sizes),
            lambda root: streaming(root, size=96, width=16, count=160),
            lambda root: limited(root, count=3000, size=256, limit_mib=1024),
        ):
            print("\n".join(part(Path(folder))) + "\n", flush=True)


if __name__ == "__main__":
    main()
