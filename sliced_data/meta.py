"""Description of a sliced data set: meta.json and cases.csv."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sliced_data.slices import Case, Layout
from utils import InputError, current_word, read_json, read_rows

FORMAT = 1
CASE_NUMBERS = {"n_slices": int, "spacing_x_mm": float, "spacing_y_mm": float, "spacing_z_mm": float}


@dataclass(frozen=True)
class Meta:
    """What a sliced data set says of itself."""

    root: Path
    dataset: str
    size: int
    class_names: tuple[str, ...]
    modalities: tuple[str, ...]
    convention: str     # of the stored distance maps: "paper" or "reference"
    cases: tuple[Case, ...]
    fingerprint: str
    source: str | None  # where the raw data were


def read_meta(root: Path) -> Meta:
    """meta.json and cases.csv of a data set; ``InputError`` where one is missing, damaged or of another version."""
    if not root.is_dir():
        raise InputError(f"{root}: expected a sliced data set, found nothing; make it with preprocess.py")
    meta = read_json(root / "meta.json")
    if meta.get("format") != FORMAT:
        raise InputError(f"{root / 'meta.json'}: expected format {FORMAT}, found {meta.get('format')}; slice again")
    rows = read_rows(root / "cases.csv", ("case_id", "split", *CASE_NUMBERS))
    # What was sliced and how, not from where or with which versions: the same slices made anew are the same data.
    described = json.dumps(
        {key: value for key, value in meta.items() if key not in ("source", "versions")}, sort_keys=True
    )
    digest = hashlib.sha256(described.encode() + (root / "cases.csv").read_bytes())
    check_cases(rows, root / "cases.csv")
    try:
        if int(meta["size"]) < 16 or int(meta["size"]) % 8:
            raise ValueError(f"size {meta['size']}")
        return Meta(
            root=root,
            dataset=meta["dataset"],
            size=int(meta["size"]),
            class_names=tuple(meta["class_names"]),
            modalities=tuple(meta["modalities"]),
            convention=current_word(meta["distance_map"]),
            cases=tuple(parse_case(row, root / "cases.csv") for row in rows),
            fingerprint=digest.hexdigest(),
            source=meta.get("source"),
        )
    except (KeyError, TypeError, ValueError) as error:
        expected = "dataset, size, class_names, modalities and distance_map"
        raise InputError(f"{root / 'meta.json'}: expected {expected}, found {error!r}") from None


def check_cases(rows: list[dict[str, str]], path: Path) -> None:
    """``InputError`` where a case comes twice, or is in no part."""
    seen: set[str] = set()
    for row in rows:
        if row["split"] not in ("train", "val"):
            raise InputError(f"{path}: {row['case_id']}: expected the split train or val, found {row['split']}")
        if row["case_id"] in seen:
            raise InputError(f"{path}: expected each case once, found {row['case_id']} twice")
        seen.add(row["case_id"])


def parse_case(row: dict[str, str], path: Path) -> Case:
    try:
        numbers = {name: kind(row[name]) for name, kind in CASE_NUMBERS.items()}
    except ValueError:
        expected = ", ".join(CASE_NUMBERS)
        raise InputError(f"{path}: {row['case_id']}: expected numbers in {expected}, found {row}") from None
    if not all(0 < number < math.inf for number in numbers.values()):
        raise InputError(f"{path}: {row['case_id']}: expected positive numbers in {', '.join(numbers)}, found {row}")
    spacing = tuple(numbers[f"spacing_{axis}_mm"] for axis in "xyz")
    return Case(row["case_id"], row["split"], numbers["n_slices"], spacing)


def part_layout(meta: Meta, part: str, *, maps: str | None = None, convention: str | None = None) -> Layout:
    """What ``part`` ("train" or "val") consists of.

    ``maps`` is "phi2d", "phi3d", one of the region-wise kinds ("rrw", "boundary", "ac", "cao"), or None. Signed
    distances of another ``convention`` than the stored ones are computed from the labels.
    """
    cases = tuple(case for case in meta.cases if case.split == part)
    names = tuple(f"{case.case_id}_{z:04d}" for case in cases for z in range(case.n_slices))
    if not names:
        raise InputError(f"{meta.root / 'cases.csv'}: expected cases for {part}, found none")
    grid = (meta.size, meta.size)
    stored = {"image": ((len(meta.modalities), *grid), np.dtype(np.float16)), "label": (grid, np.dtype(np.uint8))}
    if maps in ("phi2d", "phi3d") and convention in (None, meta.convention):
        stored[maps] = ((len(meta.class_names), *grid), np.dtype(np.float16))
    return Layout(meta.root / part, cases, names, stored, maps, convention, len(meta.class_names))
