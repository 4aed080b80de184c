"""Snapshots of a run: the weights after chosen epochs, beside those of the best and the last one."""

import re
from collections.abc import Sequence
from pathlib import Path

from utils import InputError


def snapshot_name(epochs: int) -> str:
    """The name of the checkpoint after so many epochs, without its ending."""
    return f"epoch{epochs:04d}"


def snapshot_epochs(folder: Path) -> list[int]:
    """After how many epochs a run in ``folder`` has snapshots, in their order."""
    names = (re.fullmatch(r"epoch(\d{4,})", path.stem) for path in folder.glob("epoch*.pt"))
    return sorted(int(found.group(1)) for found in names if found)


def check_snapshots(wanted: Sequence[int], epochs: int) -> None:
    """``InputError`` where a snapshot is wanted after more epochs than a run has, or fewer than one."""
    for epoch in wanted:
        if not 1 <= epoch <= epochs:
            raise InputError(f"--snapshot-epochs: expected 1 to {epochs}, the epochs of the run, found {epoch}")


def check_kept(wanted: Sequence[int], out: Path, trained: int) -> None:
    """``InputError`` where one of the ``wanted`` snapshots is not in ``out`` though so many epochs are trained."""
    missing = [epoch for epoch in wanted if epoch <= trained and epoch not in snapshot_epochs(out)]
    if missing:
        raise InputError(
            f"{out}: expected snapshots after {' '.join(map(str, wanted))} epochs, found none after {missing[0]}, "
            f"which is trained already; RESULTS=<folder> keeps both, or remove {out}"
        )
