"""Four .npy files per slice, as slicing writes them, against one per case and kind, from warm, cold and slow files.

What a run with the boundary loss reads: image, label and 2D maps, once in their order (resident: in one thread, as
training does, or in 16) and in a shuffled order in batches of eight, read ahead by the loader's two threads (streamed).
Cold files are dropped from the page cache (posix_fadvise), not the names of the folders. A network file system is
simulated: each open waits for so long. Wall time per slice, the ways in turns, the best of the rounds. No value is
checked.
"""
import argparse
import os
import platform
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dataloader import prefetched
from environment.cores import core_count
from environment.provenance import processor

SLICES_PER_CASE = 40
KINDS = {"image": (2, np.float16), "label": (1, np.uint8), "phi2d": (2, np.float16), "phi3d": (2, np.float16)}
READ = ("image", "label", "phi2d")
HEADER = 128    # bytes of what np.save writes before values of few axes


@dataclass(frozen=True)
class Files:
    """The same slices in two layouts below one folder, and how long an open waits (s)."""

    root: Path
    cases: int
    size: int
    latency: float = 0.0

    def __len__(self) -> int:
        return self.cases * SLICES_PER_CASE

    def empty(self, count: int, kind: str) -> np.ndarray:
        channels, dtype = KINDS[kind]
        return np.empty((count, channels, self.size, self.size), dtype)

    def marks(self) -> np.ndarray:
        """What the voxels of each slice hold, (N, 1, 1, 1)."""
        return np.arange(len(self)).reshape(-1, 1, 1, 1) % 251

    def write(self) -> None:
        for kind in KINDS:
            for layout in ("slice", "case"):
                (self.root / layout / kind).mkdir(parents=True)
            for case in range(self.cases):
                volume = self.empty(SLICES_PER_CASE, kind)
                volume[:] = self.marks()[case * SLICES_PER_CASE :][:SLICES_PER_CASE]
                np.save(self.root / "case" / kind / f"{case}.npy", volume)
                for z, values in enumerate(volume):
                    np.save(self.root / "slice" / kind / f"{case}_{z:04d}.npy", values)

    def drop(self) -> None:
        """Out of the page cache with all of them; only what is on the disk can be dropped."""
        for path in self.root.rglob("*.npy"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def fill(self, name: str, out: np.ndarray, *, behind: int = 0) -> None:
        """Read the values of a file that begin ``behind`` bytes after its first."""
        if self.latency:
            time.sleep(self.latency)
        with (self.root / name).open("rb", buffering=0) as file:
            file.seek(HEADER + behind)
            if file.readinto(out) != out.nbytes:
                raise OSError(f"{name}: expected {out.nbytes} bytes behind {behind}, found fewer")

    def fill_slice(self, layout: str, kind: str, index: int, out: np.ndarray) -> None:
        case, z = divmod(index, SLICES_PER_CASE)
        if layout == "slice":
            self.fill(f"slice/{kind}/{case}_{z:04d}.npy", out)
        else:
            self.fill(f"case/{kind}/{case}.npy", out, behind=z * out.nbytes)

    def resident(self, layout: str, threads: int = 1) -> dict[str, np.ndarray]:
        """All slices that training reads, kind -> (N, C, H, W)."""
        arrays = {kind: self.empty(len(self), kind) for kind in READ}
        with ThreadPoolExecutor(threads) as pool:
            for kind, array in arrays.items():
                if layout == "slice":
                    list(pool.map(lambda i: self.fill_slice(layout, kind, i, array[i]), range(len(self))))  # noqa: B023
                else:
                    cases = enumerate(np.split(array, self.cases))
                    list(pool.map(lambda one: self.fill(f"case/{kind}/{one[0]}.npy", one[1]), cases))      # noqa: B023
        return arrays

    def streamed(self, layout: str) -> Iterator[dict[str, np.ndarray]]:
        """Batches of eight, kind -> (B, C, H, W), in a shuffled order."""
        def fetch(places: torch.Tensor) -> dict[str, np.ndarray]:
            batch = {kind: self.empty(len(places), kind) for kind in READ}
            for kind, array in batch.items():
                for row, index in enumerate(places.tolist()):
                    self.fill_slice(layout, kind, index, array[row])
            return batch

        return prefetched(fetch, torch.randperm(len(self)).split(8))


WAYS = {
    "resident, per slice": lambda files: files.resident("slice"),
    "in 16 threads": lambda files: files.resident("slice", threads=16),
    "per case": lambda files: files.resident("case"),
    "streamed, per slice": lambda files: deque(files.streamed("slice"), maxlen=0),
    "by offset in a case": lambda files: deque(files.streamed("case"), maxlen=0),
}


def best(files: Files, *, cold: bool, rounds: int) -> list[float]:
    """Milliseconds per slice of each of the ways, after a round to warm up."""
    times = []
    for _ in range(rounds + 1):
        times.append([])
        for way in WAYS.values():
            if cold:
                files.drop()
            start = time.perf_counter()
            way(files)
            times[-1].append(1e3 * (time.perf_counter() - start) / len(files))
    return [min(found) for found in zip(*times[1:], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=12, help=f"cases of {SLICES_PER_CASE} slices")
    parser.add_argument("--size", type=int, default=256, help="pixels across")
    parser.add_argument("--latency", type=float, nargs="*", default=[1, 5], help="of an open, ms")
    parser.add_argument("--rounds", type=int, default=3, help="measurements, of which the best counts")
    parser.add_argument("--folder", type=Path, help="where to write the files, for instance on a network file system")
    args = parser.parse_args()
    print(f"{processor()}, {core_count()} cores, {platform.system()}, {args.cases * SLICES_PER_CASE} slices of "
          f"{args.size} x {args.size}, ms per slice\n")
    print(f"| files | {' | '.join(WAYS)} |\n|{' --- |' * (len(WAYS) + 1)}", flush=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        files = Files(Path(folder), args.cases, args.size)
        files.write()
        variants = {"warm": (files, False), "cold": (files, True)}
        for ms in args.latency:
            variants[f"warm, an open takes {ms:g} ms more"] = (replace(files, latency=ms / 1e3), False)
        for name, (variant, cold) in variants.items():
            found = best(variant, cold=cold, rounds=args.rounds)
            print(f"| {name} | {' | '.join(f'{ms:.3f}' for ms in found)} |", flush=True)


if __name__ == "__main__":
    main()
