"""What the machine gives a run: memory that is free, cores, algorithms that repeat themselves."""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

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


def fastest_precision(device: torch.device) -> str:
    """bf16 where the device computes in it (older GPUs emulate it, CPUs are slower in it), else fp32."""
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


def use_threads() -> None:
    """One thread a physical core, unless the user's environment says how many."""
    if "OMP_NUM_THREADS" not in os.environ and "MKL_NUM_THREADS" not in os.environ:
        torch.set_num_threads(core_count())


class Compiled(nn.Module):
    """A network through ``torch.compile``; as it is, after one warning, from the call on that cannot be compiled."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        # Static shapes: a second graph for the last, smaller batch, and full speed for all others in every epoch.
        self.call = torch.compile(network, dynamic=False)
        # The backward pass is compiled with the forward one, where a failure can still be gone around.
        from torch._functorch import config

        if hasattr(config, "force_non_lazy_backward_lowering"):  # older versions do not know it
            config.force_non_lazy_backward_lowering = True

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.call is self.network:
            return self.network(*inputs)
        # Imported by torch.compile's first call in any case, and too slow for a run that does not compile.
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self.call(*inputs)
        except TorchDynamoException as error:
            cause = getattr(error, "inner_exception", None) or error.__cause__ or error
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            # Whatever else is wrong with the network itself is raised again without the compiler.
            line = next(iter(str(cause).strip().splitlines()), "")
            print(f"warning: going on without torch.compile: {type(cause).__name__}: {line}", file=sys.stderr)
            self.call = self.network
            return self.network(*inputs)
