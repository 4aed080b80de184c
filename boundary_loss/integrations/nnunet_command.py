"""boundary-loss-nnunet: lets nnU-Net v2 find the trainers of `boundary_loss.integrations.nnunet`."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

TRAINERS = (
    "nnUNetTrainerBoundary",
    "nnUNetTrainerDice",
    "nnUNetTrainerDiceBoundary",
    "nnUNetTrainerDiceBoundary_authors",
    "nnUNetTrainerDice_authors",
    "nnUNetTrainerFocal",
    "nnUNetTrainerFocal_authors",
    "nnUNetTrainerRRW",
    "nnUNetTrainerRRWCrossEntropy",
    "nnUNetTrainerRRWVolume",
    "nnUNetTrainerRRW_authors",
)
FILE_NAME = "boundary_loss_trainers.py"
MARK = '"""Trainers of the boundary-loss library; `boundary-loss-nnunet uninstall` removes this file."""'
# Where the library is gone, nnU-Net finds its other trainers as before.
CONTENT = f"""{MARK}

from importlib.util import find_spec

if find_spec("boundary_loss") is not None:
    from boundary_loss.integrations.nnunet import (
{"".join(f"        {name},{chr(10)}" for name in TRAINERS)}    )
"""


def trainer_folder() -> Path:
    """The folder in which nnU-Net looks for trainers first; `ValueError` where nnU-Net is not installed."""
    found = importlib.util.find_spec("nnunetv2")
    if found is None or not found.submodule_search_locations:
        wanted = "expected nnunetv2 in this environment, found none; pip install 'boundary-loss[nnunet]'"
        raise ValueError(f"nnU-Net: {wanted}")
    folder = Path(found.submodule_search_locations[0]) / "training" / "nnUNetTrainer"
    if not (folder / "nnUNetTrainer.py").is_file():
        raise ValueError(f"{folder}: expected nnUNetTrainer.py of nnU-Net v2, found none")
    return folder


def check_own(path: Path) -> None:
    """`ValueError` where a file is there that this command did not write."""
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(MARK):
        raise ValueError(f"{path}: expected a file of boundary-loss-nnunet, found another")


def install(folder: Path) -> Path:
    """Write the module that names the trainers into a folder; no other file changes."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder, found {'a file' if folder.exists() else 'nothing'}")
    path = folder / FILE_NAME
    check_own(path)
    path.write_text(CONTENT, encoding="utf-8")
    return path


def uninstall(folder: Path) -> Path:
    """Remove what `install` wrote."""
    path = folder / FILE_NAME
    check_own(path)
    if not path.exists():
        raise ValueError(f"{path}: expected a file of boundary-loss-nnunet, found none")
    path.unlink()
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 done, 2 bad input, with one line on stderr."""
    parser = argparse.ArgumentParser(prog="boundary-loss-nnunet", description=__doc__, allow_abbrev=False)
    parser.add_argument("action", choices=("install", "uninstall"))
    parser.add_argument("--folder", type=Path, help="a folder of yours, named in nnUNet_extTrainer (nnU-Net's own)")
    args = parser.parse_args(arguments)
    try:
        path = (install if args.action == "install" else uninstall)(args.folder or trainer_folder())
    except (OSError, ValueError) as error:
        print(f"boundary-loss-nnunet: error: {error}", file=sys.stderr)
        return 2
    if args.action == "uninstall":
        print(f"removed {path}")
    elif args.folder is None:
        print(f"{path}: nnUNetv2_train and nnUNetv2_predict know nnUNetTrainerBoundary and the others")
    else:
        print(f"{path}: export nnUNet_extTrainer={path.parent.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
