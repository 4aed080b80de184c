"""Cores that this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from environment.memory import cgroup_folders, read_text


def core_count() -> int:
    """Physical cores that this process may use: of its affinity mask, and within the quota of its container."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    # Two threads of one core share its arithmetic units: the second brings a convolution nothing.
    siblings = Path("/sys/devices/system/cpu")
    cores = {read_text(siblings / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu) for cpu in usable}
    return max(1, min(len(cores), *cpu_quotas(), len(usable)))


def cpu_quotas() -> Iterator[int]:
    """Cores' worth of time that each control group of this process allows, rounded up."""
    for folder in cgroup_folders("cpu"):
        words = (read_text(folder / "cpu.max") or "").split() or [
            read_text(folder / f"cpu.cfs_{name}_us") or "max" for name in ("quota", "period")
        ]
        if len(words) == 2 and all(word.isdigit() for word in words):
            yield max(1, math.ceil(int(words[0]) / int(words[1])))


def use_threads() -> None:
    """One thread a physical core, unless the user's environment says how many."""
    import torch  # here, since to count cores needs none

    if "OMP_NUM_THREADS" not in os.environ and "MKL_NUM_THREADS" not in os.environ:
        torch.set_num_threads(core_count())
