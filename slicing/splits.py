"""Which cases train and which validate."""

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from raw_data.dataset import Case
from slicing.options import Options
from slicing.selection import group_images, warn_of_same_images
from utils import InputError, parse_json, parse_rows, read_text


def split_by_scan(case_ids: Sequence[str], n_val: int, seed: int) -> set[str]:
    """The validation cases of the authors' own split: a seeded sample over the scans in plain string order."""
    return set(random.Random(seed).sample(sorted(case_ids), n_val))


def split_by_group(group_of: Mapping[str, str], n_val: int, seed: int) -> set[str]:
    """Validation cases without leakage: whole groups in seeded random order, as long as they fit ``n_val`` cases.

    ``group_of``: case id -> its patient, or what else must not be parted.
    """
    members: dict[str, list[str]] = {}
    for case_id, group in group_of.items():
        members.setdefault(group, []).append(case_id)
    validation: set[str] = set()
    for group in random.Random(seed).sample(sorted(members), len(members)):
        if len(validation) + len(members[group]) <= n_val:
            validation.update(members[group])
    return validation


def group_patients(cases: Sequence[Case], expected: str) -> dict[str, str]:
    """case id -> patient; ``InputError`` where a case has none."""
    for case in cases:
        if case.patient_id is None:
            raise InputError(f"{case.case_id}: expected {expected}, found none (--group)")
    return {case.case_id: str(case.patient_id) for case in cases}


def split_by_parity(cases: Sequence[Case]) -> set[str]:
    """The validation cases of the region-wise paper: the odd numbers among patients (or cases, without patients)."""
    validation = set()
    for case in cases:
        numbers = re.findall(r"\d+", case.patient_id or case.case_id)
        if not numbers:
            raise InputError(f"{case.case_id}: expected a number in its name to split by, found none; use --val")
        if int(numbers[-1]) % 2:
            validation.add(case.case_id)
    return validation


def split_by_turns(cases: Sequence[Case]) -> set[str]:
    """The validation cases where the first, third, ... in plain string order train and the others validate."""
    return set(sorted(case.case_id for case in cases)[1::2])


def read_split(path: Path) -> dict[str, list[str]]:
    """Lists of case ids: JSON {"train": [...], "val": [...]}, the first fold of nnU-Net's splits_final.json (a list of
    such), a cases.csv, or one validation case a line."""
    if path.suffix == ".json":
        return read_folds(path)[0]
    try:
        text = read_text(path)
        rows = parse_rows(text) if path.suffix == ".csv" else []
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a readable split file, found {error}") from None
    if path.suffix == ".csv":
        if not rows or not {"case_id", "split"} <= set(rows[0]):
            found = text.splitlines()[0] if text else "nothing"
            raise InputError(f"{path}: expected the columns case_id and split, found {found}")
        return {part: [row["case_id"] for row in rows if row["split"] == part] for part in {r["split"] for r in rows}}
    return {"val": [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]}


def read_folds(path: Path) -> list[dict]:
    """The folds of a JSON file; ``InputError`` where it is damaged or has none."""
    try:
        folds = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a readable JSON file, found {error}") from None
    folds = folds if isinstance(folds, list) else [folds]
    if not folds or not isinstance(folds[0], dict):
        raise InputError(f"{path}: expected lists named train and val, or a list of such folds, found {folds!r:.60}")
    return folds


def split_by_file(known: set[str], path: Path) -> dict[str, str]:
    """case id -> train or val, as the file says of the ``known`` ones; without a train list, every other trains."""
    lists = read_split(path)
    if not set(lists) <= {"train", "val"} or not all(isinstance(ids, list) for ids in lists.values()):
        raise InputError(f"{path}: expected lists named train and val, found {', '.join(map(str, lists))}")
    split: dict[str, str] = {}
    for part, case_ids in lists.items():
        for case_id in map(str, case_ids):
            if case_id not in known:
                raise InputError(f"{path}: expected cases of the data set, found {case_id}, none of its {len(known)}")
            if case_id in split:
                raise InputError(f"{path}: expected each case once, found {case_id} twice")
            split[case_id] = part
    if "train" not in lists:
        split |= dict.fromkeys(known - set(split), "train")
    return split


def choose_split(cases: Sequence[Case], options: Options) -> tuple[dict[str, str], dict]:
    """case id -> train or val, and the rule as meta.json keeps it."""
    chosen = options.split
    images = group_images(cases, options.raw) if options.raw.is_2d else {}
    if chosen.file is not None:
        split = split_by_file({case.case_id for case in cases}, chosen.file)
        rule = {"rule": "file", "file": chosen.file.name}
    elif chosen.rule == "parity":
        validation = split_by_parity(cases)
        split = {case.case_id: "val" if case.case_id in validation else "train" for case in cases}
        rule = {"rule": "parity"}
    elif chosen.rule == "alternate":
        validation = split_by_turns(cases)
        split = {case.case_id: "val" if case.case_id in validation else "train" for case in cases}
        rule = {"rule": "alternate"}
    else:
        split, rule = split_at_random(cases, options, images)
    for part in ("train", "val"):
        if part not in split.values():
            raise InputError(f"{chosen.file or options.source}: expected at least one case for {part}, found none")
    if chosen.rule != "image":
        warn_of_same_images(images, split)
    return split, rule


def split_at_random(
    cases: Sequence[Case], options: Options, images: Mapping[str, str]
) -> tuple[dict[str, str], dict]:
    chosen = options.split
    n_val = max(1, round(len(cases) / 5)) if chosen.val is None else chosen.val
    if n_val >= len(cases):
        raise InputError(
            f"{options.source}: expected more than {n_val} cases (--val {n_val} needs 1 to train on), "
            f"found {len(cases)}"
        )
    if chosen.rule == "patient":
        validation = split_by_group(group_patients(cases, options.raw.patients), n_val, chosen.seed)
    elif chosen.rule == "image":
        validation = split_by_group(images, n_val, chosen.seed)
    else:
        validation = split_by_scan([case.case_id for case in cases], n_val, chosen.seed)
    split = {case.case_id: "val" if case.case_id in validation else "train" for case in cases}
    rule = {"rule": chosen.rule, "seed": chosen.seed, "val": n_val}
    return split, rule if chosen.val is not None else rule | {"val_share": 0.2}
