"""A copy of the project, to make in it as its user does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "boundary_loss", "engines", "environment", "evaluation", "raw_data", "reporting", "sliced_data", "slicing",
    "training",
)


def copy_project(folder: Path) -> Path:
    """Copy what make needs to ``folder``; the copy's environment is this interpreter."""
    folder.mkdir()
    for pattern in ("*.py", "*.mk", "Makefile", "requirements*.txt", "pyproject.toml"):
        for path in ROOT.glob(pattern):
            shutil.copy(path, folder)
    for name in ("scripts", "published", *PACKAGES):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (folder / ".venv" / ".ready").touch()
    return folder


def make_phantom(project: Path, name: str) -> None:
    """Three cases of three slices in the raw layout of ``name``, in raw/``name`` of a copy."""
    phantom = [project / ".venv" / "bin" / "python", "scripts/phantom.py", name, "--out", f"raw/{name}"]
    size = ("--cases", "3", "--slices", "3", "--in-plane", "48")
    subprocess.run([*phantom, *size], cwd=project, check=True, capture_output=True)


def without_make(environment: dict[str, str] = os.environ) -> dict[str, str]:
    """Variables of a make around this test run must not reach the one inside."""
    return {name: value for name, value in environment.items() if not name.startswith("MAKE") and name != "MFLAGS"}


def make(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    variables = {**without_make(), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(["make", *arguments], cwd=project, capture_output=True, text=True, env=variables)
