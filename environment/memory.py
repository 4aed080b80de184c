"""Free memory of the host and the device, within the limits of a cluster job or container."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes of the host's memory that this process may still fill, within its cluster job or container too.

    Where the system does not say, there is no limit.
    """
    free = [limit for limit in (meminfo("MemAvailable"), *cgroup_rooms()) if limit is not None]
    return max(0, min(free, default=sys.maxsize))


def free_memory(device: "torch.device") -> int:
    """Free bytes of the device that tensors would go to."""
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()


def meminfo(name: str) -> int | None:
    """One line of /proc/meminfo in bytes."""
    lines = (read_text(Path("/proc/meminfo")) or "").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def cgroup_folders(controller: str) -> Iterator[Path]:
    """The control groups of this process for one controller, from the innermost one up (versions 1 and 2)."""
    for line in (read_text(Path("/proc/self/cgroup")) or "").splitlines():
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
    lines = [line.split() for line in (read_text(stat) or "").splitlines()]
    return sum(int(value) for name, value in lines if name in ("inactive_file", "active_file"))


def read_number(path: Path) -> int | None:
    """The number in a file; None where there is no file, or no number because there is no limit."""
    text = read_text(path)
    return int(text) if text and text.isdigit() else None


def read_text(path: Path) -> str | None:
    """What a file of the system says, or None where there is no such file."""
    try:
        return path.read_text().strip()
    except OSError:
        return None
