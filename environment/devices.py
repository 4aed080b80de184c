"""The device of a run, and what it computes fastest in."""

import os

import torch

from utils import InputError


def use_deterministic_algorithms() -> None:
    """The same bits from the same machine each time, on CUDA too; to be called before CUDA starts.

    An operation that has no such algorithm raises ``RuntimeError`` with its name.
    """
    # cuBLAS reads it when it starts; with a workspace of fixed size it always chooses the same algorithm.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def fastest_precision(device: torch.device) -> str:
    """bf16 where the device computes in it (older GPUs emulate it, CPUs are slower in it), else fp32."""
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


def select_device(name: str) -> torch.device:
    """``auto`` takes CUDA where there is one; ``InputError`` where CUDA is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: expected a CUDA device, found none; use --device auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
