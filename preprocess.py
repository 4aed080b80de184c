"""Slice raw volumes into 2D .npy files with 2D and 3D signed distance maps (Kervadec et al. 2021, 3.3 and 3.5)."""

import argparse
import contextlib
import csv
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dataloader import FORMAT
from datasets import DATASETS, Case, Volume, find_cases, read_case
from distance import distance_maps
from grid import resize, scale
from provenance import PACKAGES, package_version
from utils import (
    InputError,
    Parser,
    StoppedError,
    cpu_count,
    exclusive,
    naming,
    progress,
    read_json,
    run_command,
    write_json,
    write_rows,
)

KINDS = ("image", "label", "phi2d", "phi3d")
CASE_COLUMNS = (
    "case_id", "patient_id", "split", "n_slices", "n_lesion_slices",
    "spacing_x_mm", "spacing_y_mm", "spacing_z_mm", "size_x", "size_y", "source",
)


@dataclass(frozen=True)
class SliceJob:
    """What one worker needs to slice one case."""

    dataset: str
    case: Case
    split: str
    folder: Path
    size: int
    convention: str


def slice_case(job: SliceJob) -> dict:
    """Write every slice of one case; returns its line of cases.csv, and a digest of what was written."""
    torch.set_num_threads(1)
    raw = read_case(job.dataset, job.case)
    volume = resize(Volume(scale(raw.image), raw.label, raw.spacing), job.size)
    classes = len(DATASETS[job.dataset].class_names)
    phi3d = distance_maps(volume.label, classes, volume.spacing, convention=job.convention)    # (K, X, Y, Z)
    digest = hashlib.sha256()
    for z in range(volume.label.shape[2]):
        label = np.ascontiguousarray(volume.label[:, :, z])
        phi2d = distance_maps(label, classes, volume.spacing[:2], convention=job.convention)   # (K, X, Y)
        arrays = {
            "image": volume.image[..., z].astype(np.float16),
            "label": label,
            "phi2d": phi2d.astype(np.float16),
            "phi3d": phi3d[..., z].astype(np.float16),
        }
        for kind in KINDS:
            array = np.ascontiguousarray(arrays[kind])
            path = job.folder / job.split / kind / f"{job.case.case_id}_{z:04d}.npy"
            with naming(path):
                np.save(path, array)
            digest.update(array)
    return {
        "digest": digest.hexdigest(),
        "case_id": job.case.case_id,
        "patient_id": job.case.patient_id or job.case.case_id,
        "split": job.split,
        "n_slices": volume.label.shape[2],
        "n_lesion_slices": int((volume.label > 0).any(axis=(0, 1)).sum()),
        **{f"spacing_{axis}_mm": round(mm, 6) for axis, mm in zip("xyz", volume.spacing, strict=True)},
        "size_x": raw.label.shape[0],
        "size_y": raw.label.shape[1],
        "source": job.case.source,
    }


def split_by_scan(case_ids: Sequence[str], n_val: int, seed: int) -> set[str]:
    """The validation cases of the authors' own split: a seeded sample over the scans in plain string order."""
    return set(random.Random(seed).sample(sorted(case_ids), n_val))


def split_by_patient(cases: Sequence[Case], n_val: int, seed: int) -> set[str]:
    """Validation cases without leakage: whole patients in seeded random order, as long as they fit ``n_val`` scans."""
    scans: dict[str, list[str]] = {}
    for case in cases:
        if case.patient_id is None:
            raise InputError(f"{case.case_id}: expected a .json sidecar that names the patient, found none (--group)")
        scans.setdefault(case.patient_id, []).append(case.case_id)
    validation: set[str] = set()
    for patient in random.Random(seed).sample(sorted(scans), len(scans)):
        if len(validation) + len(scans[patient]) <= n_val:
            validation.update(scans[patient])
    return validation


def read_split(path: Path) -> dict[str, list[str]]:
    """Lists of case ids: JSON {"train": [...], "val": [...]}, a cases.csv, or one validation case a line."""
    if path.suffix == ".json":
        return read_json(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a readable split file, found {error}") from None
    if path.suffix == ".csv":
        rows = list(csv.DictReader(lines))
        if not rows or not {"case_id", "split"} <= set(rows[0]):
            found = lines[0] if lines else "nothing"
            raise InputError(f"{path}: expected the columns case_id and split, found {found}")
        return {part: [row["case_id"] for row in rows if row["split"] == part] for part in {r["split"] for r in rows}}
    return {"val": [line.strip() for line in lines if line.strip() and not line.startswith("#")]}


def split_by_file(cases: Sequence[Case], path: Path) -> dict[str, str]:
    """case id -> train or val, as the file says; without a train list, every other case trains."""
    lists = read_split(path)
    if not set(lists) <= {"train", "val"} or not all(isinstance(ids, list) for ids in lists.values()):
        raise InputError(f"{path}: expected lists named train and val, found {', '.join(map(str, lists))}")
    known = {case.case_id for case in cases}
    split: dict[str, str] = {}
    for part, case_ids in lists.items():
        for case_id in map(str, case_ids):
            if case_id not in known:
                raise InputError(f"{path}: expected cases of the data set, found {case_id}, none of its {len(known)}")
            if case_id in split:
                raise InputError(f"{path}: expected each case once, found {case_id} twice")
            split[case_id] = part
    if "train" not in lists:
        split |= {case_id: "train" for case_id in known - set(split)}
    return split


def choose_split(cases: Sequence[Case], args: argparse.Namespace) -> tuple[dict[str, str], dict]:
    """case id -> train or val, and the rule as meta.json keeps it."""
    if args.split:
        split = split_by_file(cases, args.split)
        rule = {"rule": "file", "file": args.split.name}
    else:
        n_val = DATASETS[args.dataset].validation_cases if args.val is None else args.val
        if not 0 < n_val < len(cases):
            raise InputError(
                f"{args.source}: expected more than {n_val} cases (--val {n_val} needs 1 to train on), "
                f"found {len(cases)}" if n_val > 0 else f"--val: expected at least 1 case, found {n_val}"
            )
        if args.group == "patient":
            validation = split_by_patient(cases, n_val, args.split_seed)
        else:
            validation = split_by_scan([case.case_id for case in cases], n_val, args.split_seed)
        split = {case.case_id: "val" if case.case_id in validation else "train" for case in cases}
        rule = {"rule": args.group, "seed": args.split_seed, "val": n_val}
    for part in ("train", "val"):
        if part not in split.values():
            raise InputError(f"{args.split or args.source}: expected at least one case for {part}, found none")
    return split, rule


def watch_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and do not outlive it if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def slice_cases(jobs: Sequence[SliceJob], workers: int) -> list[dict]:
    """The lines of cases.csv, in the order of ``jobs``."""
    rows: dict[str, dict] = {}
    # Nothing in the parent has started threads yet, so forking is safe; elsewhere it is not the default.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with progress(total=len(jobs), desc="slicing", unit="case") as bar:
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=watch_parent) as pool:
            futures = [pool.submit(slice_case, job) for job in jobs]
            try:
                for future in as_completed(futures):
                    row = future.result()
                    rows[row["case_id"]] = row
                    bar.update()
            except BrokenProcessPool:
                raise StoppedError("a worker was killed, perhaps for want of memory; try --jobs 1") from None
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    return [rows[job.case.case_id] for job in jobs]


def build(args: argparse.Namespace, cases: Sequence[Case], folder: Path) -> str:
    """Fill ``folder`` with the sliced data set; returns a line that says what it holds."""
    split, rule = choose_split(cases, args)
    for part in ("train", "val"):
        for kind in KINDS:
            (folder / part / kind).mkdir(parents=True)
    used = [case for case in cases if case.case_id in split]
    jobs = [
        SliceJob(args.dataset, case, split[case.case_id], folder, args.size, args.distance_map) for case in used
    ]
    rows = slice_cases(jobs, args.jobs)
    dataset = DATASETS[args.dataset]
    content = hashlib.sha256("".join(row.pop("digest") for row in rows).encode()).hexdigest()
    write_rows(folder / "cases.csv", rows, CASE_COLUMNS)
    write_json(folder / "meta.json", {
        "format": FORMAT,
        "dataset": args.dataset,
        "size": args.size,
        "class_names": list(dataset.class_names),
        "modalities": list(dataset.modalities),
        "distance_map": args.distance_map,
        "split": rule,
        "slices": {part: sum(row["n_slices"] for row in rows if row["split"] == part) for part in ("train", "val")},
        "content": content,
        "source": str(args.source),
        "versions": {name: package_version(name) for name in PACKAGES},
    })
    left_out = f", {len(cases) - len(used)} cases in neither list" if len(used) < len(cases) else ""
    counts = [(part, sum(row["split"] == part for row in rows)) for part in ("train", "val")]
    slices = sum(row["n_slices"] for row in rows)
    return f"{slices} slices, " + ", ".join(f"{n} cases for {part}" for part, n in counts) + left_out


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
    parser.add_argument("--distance-map", choices=("paper", "reference"), default="paper",
                        help="signed distance as the text says, or as the authors' code computes it")
    parser.add_argument("--jobs", type=int, default=cpu_count(), help="processes")
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
