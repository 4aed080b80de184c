"""What kind of value each fact of meta.json has; read without torch, since tables of finished runs need it too."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from utils import InputError

MAX_NAMES = 254     # of classes, whose numbers are bytes, or of channels
MAX_SIZE = 4096     # pixels of a slice's side


def is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def are_names(value: object) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= MAX_NAMES and all(map(is_text, value))


def are_intensities(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and len(row) == 4 and all(map(is_number, row)) for row in value
    )


def are_counts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(count, int) and 0 <= count < 2**53 for count in value.values())


def or_none(is_kind: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_kind(value)


def is_switch(value: object) -> bool:
    return isinstance(value, bool)


def is_spacing(value: object) -> bool:
    return is_number(value) and value > 0  # type: ignore[operator]


FACTS: dict[str, tuple[Callable[[object], bool], str]] = {
    "dataset": (is_text, "a name"),
    "layout": (or_none(is_text), "a name or null"),
    "class_names": (are_names, f"1 to {MAX_NAMES} names"),
    "modalities": (are_names, f"1 to {MAX_NAMES} names"),
    "distance_map": (is_text, "a name"),
    "unit": (lambda value: value in ("mm", "px"), "mm or px"),
    "normalise": (is_text, "a name"),
    "fit": (is_text, "a name"),
    "resize_labels": (is_text, "a name"),
    "spacing": (or_none(is_spacing), "a positive number or null"),
    "max_share": (or_none(is_number), "a number or null"),
    "classes": (or_none(are_names), "a list of names or null"),
    "all_slices": (is_switch, "true or false"),
    "has_ignored": (is_switch, "true or false"),
    "intensities": (or_none(are_intensities), "lists of four numbers or null"),
    "source": (or_none(is_text), "a path or null"),
    "checksums": (or_none(is_text), "a digest or null"),
    "seal": (is_text, "a digest"),
    "slices": (are_counts, "numbers of slices"),
    "split": (lambda value: isinstance(value, dict), "the rule of the split"),
    # Of nnU-Net's layout.
    "endings": (are_names, "endings of files"),
    "has_colours": (is_switch, "true or false"),
    "label_values": (are_counts, "classes of label values"),
}


def check_facts(facts: Mapping[str, object], path: Path) -> None:
    """``InputError`` names the first fact of a meta.json (in ``path``) that is of another kind; none need be there."""
    for name, (is_kind, expected) in FACTS.items():
        if name in facts and not is_kind(facts[name]):
            raise InputError(f"{path}: expected {expected} in {name}, found {facts[name]!r:.60}")


def check_size(size: object) -> int:
    """The side of a slice in pixels; ``ValueError`` for other than a multiple of 8 from 16 to MAX_SIZE."""
    if not isinstance(size, int) or not 16 <= size <= MAX_SIZE or size % 8:
        raise ValueError(f"size {size!r:.60}")
    return size
