"""Provenance: versions, commit, command line, hardware."""
import contextlib
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from environment.cores import core_count

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "numpy", "scipy", "nibabel", "edt", "pandas", "matplotlib")


def git(*arguments: str) -> str | None:
    """What a git command prints about this project's own checkout, or None outside one."""
    folder = Path(__file__).resolve().parent
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, encoding="utf-8", errors="replace",
            check=True, timeout=20,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def provenance(device: "torch.device | None" = None) -> dict:
    """Versions, commit and uncommitted diff, command line and hardware of the running process."""
    import torch  # the processor's name is asked for without it

    commit = git("rev-parse", "HEAD")
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git_commit": commit.strip() if commit else None,
        "git_diff": git("diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD") if commit else None,
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": processor(),
        "cores": core_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device and device.type == "cuda" else "cpu",
        "cuda": torch.version.cuda,
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def package_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
