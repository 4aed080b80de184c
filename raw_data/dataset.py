"""What a raw data set is: its modalities, its classes, how its files are named, where to get them."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from raw_data.files import RawFile
from utils import InputError


@dataclass(frozen=True)
class Case:
    """One scan: a file for each modality (in the order of the network's channels), its label, its patient."""

    case_id: str
    patient_id: str | None
    images: tuple[RawFile, ...]
    label: RawFile
    source: str


@dataclass(frozen=True)
class Dataset:
    """A raw data set: what a case consists of, how its files are named and where to get them."""

    modalities: tuple[str, ...]
    class_names: tuple[str, ...]
    class_of_label: Mapping[int, int]
    validation_cases: int
    pattern: re.Pattern
    ignored_folders: frozenset[str]
    layout: str
    download: str
    patient_of: Callable[[Mapping[str, RawFile], str], str | None]


def match_files(
    dataset: Dataset, files: Iterable[str], ignored_folders: frozenset[str] = frozenset()
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """case id -> {modality or "label": path}, and case id -> folder, of the paths that the layout knows."""
    found: dict[str, dict[str, str]] = {}
    folders: dict[str, str] = {}
    for path in sorted(files):
        match = dataset.pattern.search(path)
        if not match or ignored_folders & {part.lower() for part in path.split("/")[:-1]}:
            continue
        case_id, folder = match["case"], path[: match.end("case")]
        if folders.setdefault(case_id, folder) != folder:
            raise InputError(f"{case_id}: expected one folder of this case, found {folders[case_id]} and {folder}")
        kind = "label" if match["label"] else modality_of(dataset, match.groupdict())
        case = found.setdefault(case_id, {})
        if kind in case:
            raise InputError(f"{case_id}: expected one file of {kind}, found {case[kind]} and {path}")
        case[kind] = path
    return found, folders


def modality_of(dataset: Dataset, groups: Mapping[str, str | None]) -> str:
    tail = groups.get("plain") or groups["map"]
    return next(modality for modality in dataset.modalities if modality.removeprefix("CT_") == tail)


def build_case(
    dataset: Dataset, case_id: str, folder: str, paths: Mapping[str, str], files: Mapping[str, RawFile]
) -> Case:
    for kind in (*dataset.modalities, "label"):
        if kind not in paths:
            found = ", ".join(sorted(paths.values()))
            raise InputError(f"{case_id}: expected a file of {kind} ({dataset.layout}), found only {found}")
    label_path = paths["label"]
    return Case(
        case_id=case_id,
        patient_id=dataset.patient_of(files, label_path),
        images=tuple(files[paths[modality]] for modality in dataset.modalities),
        label=files[label_path],
        source=folder,
    )


def classes_of(dataset: Dataset, case: Case, label: np.ndarray) -> np.ndarray:
    """Map raw label values (X, Y, Z) to classes (X, Y, Z) uint8."""
    classes = np.zeros(label.shape, dtype=np.uint8)
    for value in np.unique(label):
        if value not in dataset.class_of_label:
            expected = ", ".join(map(str, dataset.class_of_label))
            raise InputError(f"{case.case_id}: expected label values {expected}, found {value:g} in {case.label}")
        classes[label == value] = dataset.class_of_label[value]
    return classes
