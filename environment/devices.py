"""The device of a run, and what it computes fastest in."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from environment.command import device_name
from environment.gpus import claimed_gpu
from utils import InputError

CPUINFO = Path("/proc/cpuinfo")


def use_deterministic_algorithms() -> None:
    """The same bits from the same machine each time, on CUDA too; to be called before CUDA starts.

    An operation that has no such algorithm raises ``RuntimeError`` with its name.
    """
    # cuBLAS reads it when it starts; with a workspace of fixed size it always chooses the same algorithm.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; older GPUs and processors emulate it, slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags())


def cpu_flags() -> set[str]:
    """The processor's instruction sets as Linux names them (ARM: "Features"); nothing where it does not say."""
    with contextlib.suppress(OSError):
        for line in CPUINFO.read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return set(line.partition(":")[2].split())
    return set()


def select_device(name: str) -> torch.device:
    """``auto`` takes CUDA where there is one; ``InputError`` where CUDA, or that GPU of it, is asked for and absent."""
    device_name(name)
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if there else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not there:
        raise InputError(f"--device {name}: expected a CUDA device, found none; use --device auto or cpu")
    if device.index is not None and device.index >= there:
        raise InputError(f"--device {name}: expected one of {there} CUDA devices, cuda:0 to cuda:{there - 1}")
    return device


@contextlib.contextmanager
def claimed_device(name: str) -> Iterator[torch.device]:
    """The device of ``select_device``, for the time of the block; of several GPUs the one with the fewest runs.

    It becomes the one that CUDA calls its current device.
    """
    device = select_device(name)
    with contextlib.ExitStack() as stack:
        if device.type == "cuda":
            count = torch.cuda.device_count()
            if device.index is None and count > 1:
                device = torch.device("cuda", stack.enter_context(claimed_gpu(count)))
            torch.cuda.set_device(device.index or 0)
        yield device
