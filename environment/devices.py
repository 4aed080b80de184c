"""The device of a run, and what it computes fastest in."""

import contextlib
import os
from pathlib import Path

import torch

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
    """``auto`` takes CUDA where there is one; ``InputError`` where CUDA is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: expected a CUDA device, found none; use --device auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
