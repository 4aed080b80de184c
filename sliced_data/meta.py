"""Description of a sliced data set: meta.json and cases.csv."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sliced_data.checksums import read_checksums
from sliced_data.facts import check_facts, check_size
from sliced_data.slices import PartFiles, SlicedCase
from utils import InputError, check_file_name, current_word, read_bytes, read_json, read_rows

FORMAT = 1
MAX_SLICES = 10_000     # of a case: their numbers have four digits
MIN_SPACING, MAX_SPACING = 1e-6, 1e6     # mm
PARTS = ("train", "val")
KINDS = ("image", "label", "phi2d", "phi3d")
# Facts that older data sets do not state, and what was true of them.
DEFAULTS = {
    "layout": None, "unit": "mm", "normalise": "minmax", "fit": "resize", "spacing": None, "max_share": None,
    "classes": None, "all_slices": True, "has_ignored": False, "intensities": None, "resize_labels": "nearest",
}


@dataclass(frozen=True)
class Meta:
    """What a sliced data set says of itself."""

    root: Path
    dataset: str
    size: int
    class_names: tuple[str, ...]
    modalities: tuple[str, ...]
    convention: str     # of the stored distance maps: "paper" or "authors"
    unit: str           # of spacings and distances: "mm" or "px"
    cases: tuple[SlicedCase, ...]
    fingerprint: str
    source: str | None  # where the raw data were
    has_ignored: bool   # whether labels have voxels of no known class, IGNORED
    facts: dict         # meta.json, with the defaults of what it does not state


def read_meta(root: Path) -> Meta:
    """meta.json and cases.csv of a data set; ``InputError`` where one is missing, damaged or of another version."""
    if not root.is_dir():
        raise InputError(f"{root}: expected a sliced data set, found nothing; make it with preprocess.py")
    meta = read_json(root / "meta.json")
    if meta.get("format") != FORMAT:
        raise InputError(f"{root / 'meta.json'}: expected format {FORMAT}, found {meta.get('format')}; slice again")
    check_facts(meta, root / "meta.json")
    facts = state_facts(meta)
    spacing = spacing_columns(facts["unit"])
    rows = read_rows(root / "cases.csv", ("case_id", "split", "n_slices", *spacing))
    check_cases(rows, root / "cases.csv")
    try:
        found = Meta(
            root=root,
            dataset=meta["dataset"],
            size=check_size(meta["size"]),
            class_names=tuple(meta["class_names"]),
            modalities=tuple(meta["modalities"]),
            convention=current_word(meta["distance_map"]),
            unit=facts["unit"],
            cases=tuple(parse_case(row, spacing, root / "cases.csv") for row in rows),
            fingerprint=fingerprint(meta, read_cases(root)),
            source=meta.get("source"),
            has_ignored=bool(facts["has_ignored"]),
            facts=facts,
        )
    except (KeyError, TypeError, ValueError) as error:
        expected = "dataset, size, class_names, modalities and distance_map"
        raise InputError(f"{root / 'meta.json'}: expected {expected}, found {error!r}") from None
    check_seal(meta, root)
    return found


def state_facts(meta: dict) -> dict:
    """The content of meta.json with what older data sets do not state, in the names of today."""
    facts = {**DEFAULTS, **meta}
    if "distance_map" in facts:
        facts["distance_map"] = current_word(facts["distance_map"])
    return facts


def fingerprint(meta: dict, cases: bytes) -> str:
    """A digest of what was sliced and how, not of the raw data's place or versions: the same slices are the same data.

    Of the facts as the first data sets stated them, so that one keeps its fingerprint when it is sliced again.
    """
    described = {
        key: value for key, value in meta.items()
        if key not in ("source", "versions", "checksums", "seal") and (key not in DEFAULTS or value != DEFAULTS[key])
    }
    if described.get("distance_map") == "authors":
        described["distance_map"] = "reference"
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode() + cases).hexdigest()


def seal(meta: dict, cases: bytes) -> str:
    """A digest of all that tells what the slices are, their checksums included; meta.json states it."""
    return hashlib.sha256(f"{fingerprint(meta, cases)} {meta.get('checksums')}".encode()).hexdigest()


def check_seal(meta: dict, root: Path) -> None:
    """``InputError`` where meta.json or cases.csv is not as it was written; older data sets have no seal."""
    if "seal" in meta and meta["seal"] != seal(meta, read_cases(root)):
        raise InputError(f"{root}: expected meta.json and cases.csv as they were written, found others; slice again")


def read_cases(root: Path) -> bytes:
    """The content of cases.csv; ``InputError`` where there is none."""
    try:
        return read_bytes(root / "cases.csv")
    except OSError as error:
        raise InputError(f"{root / 'cases.csv'}: expected the cases of a sliced data set, found {error}") from None


def spacing_columns(unit: str) -> tuple[str, str, str]:
    """The columns of cases.csv that hold the spacing of the sliced grid."""
    return f"spacing_x_{unit}", f"spacing_y_{unit}", f"spacing_z_{unit}"


def check_cases(rows: list[dict[str, str]], path: Path) -> None:
    """``InputError`` where a case comes twice, or is in no part."""
    seen: set[str] = set()
    for row in rows:
        check_file_name(row["case_id"], f"{path}: case_id")
        if row["split"] not in ("train", "val"):
            raise InputError(f"{path}: {row['case_id']}: expected the split train or val, found {row['split']}")
        if row["case_id"] in seen:
            raise InputError(f"{path}: expected each case once, found {row['case_id']} twice")
        seen.add(row["case_id"])


def parse_case(row: dict[str, str], columns: Sequence[str], path: Path) -> SlicedCase:
    expected = f"{', '.join(('n_slices', *columns))}"
    try:
        n_slices, *spacing = int(row["n_slices"]), *(float(row[column]) for column in columns)
    except ValueError:
        raise InputError(f"{path}: {row['case_id']}: expected numbers in {expected}, found {row}") from None
    if n_slices > MAX_SLICES:
        raise InputError(f"{path}: {row['case_id']}: expected at most {MAX_SLICES} slices, found {n_slices}")
    if n_slices < 1 or not all(MIN_SPACING <= number <= MAX_SPACING for number in spacing):
        limits = f"spacings from {MIN_SPACING:g} to {MAX_SPACING:g}"
        raise InputError(f"{path}: {row['case_id']}: expected positive numbers in {expected}, {limits}, found {row}")
    return SlicedCase(row["case_id"], row["split"], n_slices, (spacing[0], spacing[1], spacing[2]))


def part_files(meta: Meta, part: str, *, maps: str | None = None, convention: str | None = None) -> PartFiles:
    """What ``part`` ("train" or "val") consists of.

    ``maps`` is "phi2d", "phi3d", a region-wise kind ("rrw", "boundary", "ac", "cao", "hausdorff"), such a kind with
    "-3d" after it, or None. Signed distances of another ``convention`` than the stored ones are computed from the
    labels.
    """
    cases = tuple(case for case in meta.cases if case.split == part)
    names = tuple(f"{case.case_id}_{z:04d}" for case in cases for z in range(case.n_slices))
    if not names:
        raise InputError(f"{meta.root / 'cases.csv'}: expected cases for {part}, found none")
    stated = meta.facts.get("slices")
    if isinstance(stated, dict) and isinstance(stated.get(part), int) and len(names) < stated[part]:
        raise InputError(
            f"{meta.root / 'cases.csv'}: expected the {stated[part]} slices for {part} that meta.json has, found "
            f"{len(names)}"
        )
    grid = (meta.size, meta.size)
    stored = {"image": ((len(meta.modalities), *grid), np.dtype(np.float16)), "label": (grid, np.dtype(np.uint8))}
    if maps in ("phi2d", "phi3d") and convention in (None, meta.convention):
        stored[maps] = ((len(meta.class_names), *grid), np.dtype(np.float16))
    sums = read_checksums(meta.root, meta.facts.get("checksums"))
    return PartFiles(
        meta.root / part, cases, names, stored, maps, convention, len(meta.class_names), meta.has_ignored, sums
    )
