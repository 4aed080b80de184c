"""What the machine gives a run: memory that is free, cores, algorithms that repeat themselves."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

CGROUPS = Path("/sys/fs/cgroup")


def use_deterministic_algorithms() -> None:
    """The same bits from the same machine each time, on CUDA too; to be called before CUDA starts.

    An operation that has no such algorithm raises ``RuntimeError`` with its name.
    """
    # cuBLAS reads it when it starts; with a workspace of fixed size it always chooses the same algorithm.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def available_memory() -> int:
    """Bytes of the host's memory that this process may still fill, within its cluster job or container too.

    Where the system does not say, there is no limit.
    """
    free = [limit for limit in (meminfo("MemAvailable"), *cgroup_rooms()) if limit is not None]
    return max(0, min(free, default=sys.maxsize))


def free_memory(device: torch.device) -> int:
    """Free bytes of the device that tensors would go to."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()


def meminfo(name: str) -> int | None:
    """One line of /proc/meminfo in bytes."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def cgroup_folders(controller: str) -> Iterator[Path]:
    """The control groups of this process for one controller, from the innermost one up (versions 1 and 2)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controllers if controllers else CGROUPS
        # Inside a container its own group is mounted as the root, and the path is that of the host.
        for folder in (root / path.lstrip("/"), *(root / path.lstrip("/")).parents):
            if folder.is_relative_to(root) and folder.is_dir():
                yield folder


def cgroup_rooms() -> Iterator[int]:
    """Bytes between the use and the limit of each control group; files in its cache make room when it is wanted."""
    for folder in cgroup_folders("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            values = [read_number(folder / name) for name in (limit, used)]
            if None not in values:
                yield values[0] - values[1] + cached(folder / "memory.stat")


def cached(stat: Path) -> int:
    """Bytes of files that a control group may drop."""
    try:
        lines = [line.split() for line in stat.read_text().splitlines()]
    except OSError:
        return 0
    return sum(int(value) for name, value in lines if name in ("inactive_file", "active_file"))


def read_number(path: Path) -> int | None:
    """The number in a file; None where there is no file, or no number because there is no limit."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
