"""A run's folder: whether it holds the run that was asked for, and what a session writes into it first."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from environment.atomic_outputs import written_together
from environment.provenance import provenance
from training.settings import Settings, first_difference, flag, settings_of_config
from utils import InputError, leftovers, read_json, read_rows, write_json

if TYPE_CHECKING:
    import torch

# Paths, and what writes each.
Files = Mapping[Path, Callable[[Path], None]]


def read_settings(out: Path) -> Settings:
    """The settings of the run in ``out``; ``InputError`` where there is none or its config.json is damaged."""
    path = out / "config.json"
    return settings_of_config(read_json(path), path)


def holds_run(out: Path) -> bool:
    """Whether ``out`` holds a run; ``InputError`` where it holds anything else."""
    if not out.is_dir() and os.path.lexists(out):
        found = "a link to nothing" if out.is_symlink() else "a file"
        raise InputError(f"{out}: expected a new folder or a run, found {found}")
    # A kill may have left an unfinished write.
    if not out.exists() or not set(out.iterdir()) - set(leftovers(out)):
        return False
    if not (out / "config.json").exists():
        raise InputError(f"{out}: expected a new or empty folder or a run, found neither")
    return True


def keep_precision(settings: Settings, out: Path) -> Settings:
    """Settings with the precision of the run in ``out`` in place of ``auto``, where there is a run."""
    if settings.precision != "auto" or not holds_run(out):
        return settings
    return replace(settings, precision=read_settings(out).precision)


def check_run_folder(out: Path, settings: Settings, *, resume: bool) -> bool:
    """True where there is a run to resume; ``InputError`` where it has other settings or was not asked for."""
    check_seed(out, settings.seed)
    if not holds_run(out):
        return False
    found = read_settings(out)
    if resume and can_train_longer(settings, found):
        found = replace(found, epochs=settings.epochs)
    name = first_difference(settings, found)
    if name is not None:
        raise InputError(
            f"{out}: expected a run with {name} {getattr(settings, name)}, found one with {getattr(found, name)}; "
            "choose another --out or remove it"
        )
    if not resume:
        raise InputError(f"{out}: expected a new folder, found a run of the same settings; --resume goes on with it")
    return (out / "last.pt").exists()


def check_seed(out: Path, seed: int) -> None:
    """``InputError`` where a folder's name says another seed than its run has: tables know runs by their folders."""
    if re.fullmatch(r"seed\d+", out.name) and out.name != f"seed{seed}":
        raise InputError(f"{out}: expected a folder named seed{seed} for --seed {seed}, found {out.name}")


def can_train_longer(settings: Settings, found: Settings) -> bool:
    """Whether only more epochs were asked for; not where schedule or learning rate are spread over all of them."""
    return not settings.is_spread and settings.epochs > found.epochs


def check_finished(out: Path, settings: Settings) -> None:
    """``InputError`` unless ``out`` holds a finished run of exactly these settings; nothing is written."""
    check_seed(out, settings.seed)
    if not holds_run(out):
        raise InputError(f"{out}: expected a finished run, found none")
    found = read_settings(out)
    name = first_difference(settings, found)
    if name == "data_fingerprint":
        raise InputError(
            f"{out}: found a run on other slices than those that --data names now; RESULTS=<folder> keeps both, or "
            f"remove {out}"
        )
    if name is not None:
        raise InputError(
            f"{out}: found a finished run with {flag(name)} {getattr(found, name)}, asked for {flag(name)} "
            f"{getattr(settings, name)}; RESULTS=<folder> keeps both, or remove {out}"
        )
    done = len(read_rows(out / "log.csv", ("epoch",)))
    if done != settings.epochs:
        raise InputError(f"{out}: expected a finished run of {settings.epochs} epochs, found {done}; --resume it")


def begin_session(
    out: Path, settings: Settings, data: Path, device: "torch.device",
    precision_seconds: dict[str, float] | None = None, files: Files = MappingProxyType({}),
) -> None:
    """Write what this process does, and ``files`` together with it, whole before the former metrics go."""
    with written_together(removing=metric_files(out)) as place:
        write_session(place, out, settings, data, device, precision_seconds)
        for path, write in files.items():
            write(place(path))


def metric_files(out: Path) -> list[Path]:
    """Those of a run that no longer hold once it is trained anew."""
    return [out / "metrics.csv", out / "metrics_2d.csv"]


def write_session(
    place: Callable[[Path], Path], out: Path, settings: Settings, data: Path, device: "torch.device",
    precision_seconds: dict[str, float] | None = None,
) -> None:
    """Write env.json and config.json where ``place`` puts them; all is read before the first is written."""
    config = {"settings": settings.to_json(), "data": str(data), "meta": read_json(data / "meta.json")}
    environment = provenance(device)
    if precision_seconds is not None:
        environment["precision_seconds_per_slice"] = precision_seconds
    if (earlier := former_sessions(out)):
        environment["earlier_sessions"] = earlier
    write_json(place(out / "env.json"), environment)
    write_json(place(out / "config.json"), config)


def former_sessions(out: Path) -> list[dict]:
    """What env.json says of the session before this one and of those before it; none of a run that is new."""
    path = out / "env.json"
    if not path.exists():
        return []
    former = read_json(path)
    earlier = former.pop("earlier_sessions", [])
    if not isinstance(earlier, list):
        raise InputError(f"{path}: expected a list of earlier_sessions, found {type(earlier).__name__}")
    return [*earlier, former]
