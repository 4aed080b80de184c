"""Slice raw volumes into 2D .npy files with 2D and 3D signed distance maps (Kervadec et al. 2021, 3.3 and 3.5)."""
import argparse
import contextlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from environment.cores import core_count
from raw_data import DATASETS, find_cases
from slicing.slicer import build
from slicing.splits import choose_split
from utils import (
    InputError,
    Parser,
    current_word,
    exclusive,
    run_command,
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("dataset", choices=sorted(DATASETS), help="the layout of the raw data")
    parser.add_argument("--source", type=Path, required=True, help="folder (or zip) with the raw data as downloaded")
    parser.add_argument("--dest", type=Path, required=True, help="folder to make, for instance data/isles")
    parser.add_argument("--size", type=int, default=256, help="slices become SIZE x SIZE pixels, a multiple of 8")
    parser.add_argument("--val", type=int, help="scans for validation (the paper's: isles 20, wmh 10)")
    parser.add_argument("--split", type=Path, help="lists of case ids: .json, .csv, or one validation case a line")
    parser.add_argument("--split-seed", type=int, default=0, help="seed of the random split")
    parser.add_argument("--group", choices=("scan", "patient"), default="scan",
                        help="split by scan, as the authors did, or by patient, without leakage")
    parser.add_argument("--distance-map", choices=("paper", "authors"), type=current_word, default="paper",
                        help="signed distance as the text says, or as the authors' code computes it")
    parser.add_argument("--jobs", type=int, default=core_count(), help="processes")
    args = parser.parse_args(arguments)
    if args.size < 16 or args.size % 8:
        raise InputError(f"--size: expected a multiple of 8, at least 16, found {args.size}")
    if args.jobs < 1:
        raise InputError(f"--jobs: expected at least 1, found {args.jobs}")
    if args.split and (args.val is not None or args.group == "patient"):
        raise InputError("--split: expected no --val and no --group beside it, since the file says who validates")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    if args.dest.exists():
        raise InputError(f"{args.dest}: expected a new folder, found it there already; remove it to slice again")
    cases = find_cases(args.dataset, args.source)
    choose_split(cases, args)
    # The folder gets its name only when it is whole; what a killed run left is cleared here.
    partial = args.dest.with_name(f".{args.dest.name}.partial")
    new_parents = [parent for parent in partial.parents if not parent.exists()]
    partial.mkdir(parents=True, exist_ok=True)
    with exclusive(partial):
        try:
            clear(partial)
            summary = build(args, cases, partial)
            partial.rename(args.dest)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(OSError):
                for parent in new_parents:
                    parent.rmdir()
            raise
    print(f"{args.dest}: {summary}")


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


if __name__ == "__main__":
    sys.exit(run_command(main))
