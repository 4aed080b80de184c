"""Which cases train and which validate."""

import argparse
import csv
import random
from collections.abc import Sequence
from pathlib import Path

from raw_data import DATASETS
from raw_data.dataset import Case
from utils import (
    InputError,
    read_json,
)


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
