"""Evaluated runs in a folder of results, read and checked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evaluation.metric_catalogue import CATALOGUE, COLUMNS, LARGEST, LENGTH, MEASURED_WITH, Column
from published import ENGINE_PREFIX, published_rows
from reporting.levels import LEVELS, SLICE, VOLUME
from sliced_data.facts import check_facts
from training.settings import settings_of_config
from utils import InputError, check_file_name, check_text, parse_number, read_json, read_rows

# Those that every metrics.csv has had from the first.
METRICS = ("dsc", "hd95_mm", "hd_mm")
TEXT_COLUMNS = frozenset(column.key for column in COLUMNS if column.is_text)


@dataclass(frozen=True)
class Run:
    """A finished run: its seed, folder, settings, its data set's meta.json, and one line per case and class."""

    seed: int
    folder: Path
    settings: dict
    meta: dict
    metrics: pd.DataFrame
    metrics_2d: pd.DataFrame | None

    @property
    def row(self) -> str:
        return self.folder.parent.name

    @property
    def dataset(self) -> str:
        return self.settings.get("dataset", "")

    @property
    def length_unit(self) -> str:
        """Of its distances: mm, or px where its data set has no spacing."""
        return self.meta.get("unit", LENGTH)

    @property
    def measured(self) -> dict:
        """How its metrics were measured, where they say it; runs that are compared agree in all of it."""
        return {name: str(self.metrics[name].iloc[0]) for name in MEASURED_WITH if name in self.metrics}

    @property
    def class_names(self) -> list[str]:
        return list(dict.fromkeys(self.metrics["class"]))

    def table(self, level: str) -> pd.DataFrame:
        """Its metrics over volumes or slices, one line per case and class; ``InputError`` where there are none."""
        table = self.metrics_2d if LEVELS[level].file == SLICE.file else self.metrics
        if table is None:
            raise InputError(f"{self.folder}: expected a {LEVELS[level].file}, found none; evaluate the run again")
        return table

    def of_class(self, class_name: str, level: str = VOLUME.name) -> pd.DataFrame:
        table = self.table(level)
        return table[table["class"] == class_name]


def find_runs(results: Path, row: str, seeds: Sequence[int] | None = None) -> list[Run]:
    """The evaluated runs of a row, by seed, all or those of ``seeds``; ``InputError`` where their settings differ."""
    runs = [read_run(seed, folder) for seed, folder in finished_folders(results, row, seeds).items()]
    check_distinct(runs)
    for run in runs[1:]:
        for name in sorted(run.settings.keys() | runs[0].settings.keys()):
            if name != "seed" and run.settings.get(name) != runs[0].settings.get(name):
                raise InputError(
                    f"{run.folder}: expected the settings of {runs[0].folder.name}, found {name} "
                    f"{run.settings.get(name)} instead of {runs[0].settings.get(name)}"
                )
    return runs


def check_distinct(runs: Sequence[Run]) -> None:
    """``InputError`` where two runs are one: their training losses agree in every digit of every epoch.

    Also where a log.csv that would say so is missing or damaged; a single run needs none.
    """
    seen: dict[str, Run] = {}
    for run in runs if len(runs) > 1 else ():
        losses = " ".join(row["train_loss"] for row in read_rows(run.folder / "log.csv", ("train_loss",)))
        if losses in seen:
            raise InputError(f"{run.folder}: expected a run of its own, found that of {seen[losses].folder} once more")
        seen[losses] = run


def finished_folders(results: Path, row: str, seeds: Sequence[int] | None = None) -> dict[int, Path]:
    """seed -> folder of the evaluated runs of a row, in the order of the seeds."""
    folders = {}
    for path in sorted((results / row).glob("seed*/metrics.csv")):
        number = re.fullmatch(r"seed(\d+)", path.parent.name)
        if number is None:
            continue
        seed = int(number.group(1))
        if path.parent.name != f"seed{seed}":
            raise InputError(f"{path.parent}: expected the run of seed {seed} in seed{seed}, found {path.parent.name}")
        if not seeds or seed in seeds:
            folders[seed] = path.parent
    return dict(sorted(folders.items()))


def finished_rows(
    results: Path, tables: Mapping[str, Sequence[str]], seeds: Sequence[int] | None = None
) -> list[str]:
    """The rows that have an evaluated run (of one of ``seeds``): those of the tables in their order, then the others.

    ``InputError`` where there is none.
    """
    there = sorted({path.parents[1].name for path in results.glob("*/seed*/metrics.csv")})
    ordered = dict.fromkeys([*(row for rows in tables.values() for row in rows), *there])
    for row in there:
        check_text(row, f"{results}: row")
    finished = [row for row in ordered if finished_folders(results, row, seeds)]
    if not finished:
        of_seeds = f" of seed {' or '.join(map(str, seeds))}" if seeds else ""
        raise InputError(f"{results}: expected an evaluated run{of_seeds}, found none; train a row first")
    return finished


def read_run(seed: int, folder: Path) -> Run:
    path = folder / "config.json"
    config = read_json(path)
    settings = settings_of_config(config, path).to_json()
    if "seed" in config["settings"] and settings["seed"] != seed:
        raise InputError(f"{path}: expected the run of seed {seed}, as its folder says, found seed {settings['seed']}")
    metrics = read_metrics(folder / VOLUME.file, ("n_ref", "n_pred"))
    slices = folder / SLICE.file
    meta = config.get("meta", {})
    if not isinstance(meta, dict):
        raise InputError(f"{path}: expected the data set's meta.json in meta, found {type(meta).__name__}")
    check_facts(meta, path)
    metrics_2d = read_metrics(slices, ("n_slices",)) if slices.exists() else None
    if metrics_2d is not None:
        check_volumes(metrics_2d, metrics, slices)
    return Run(seed=seed, folder=folder, settings=settings, meta=meta, metrics=metrics, metrics_2d=metrics_2d)


def check_volumes(metrics_2d: pd.DataFrame, metrics: pd.DataFrame, path: Path) -> None:
    """``InputError`` unless the means over slices are those of the volumes' cases and classes."""
    volumes, slices = (set(zip(table["case_id"], table["class"], strict=True)) for table in (metrics, metrics_2d))
    if volumes != slices:
        found = " ".join(min(volumes ^ slices))
        raise InputError(f"{path}: expected the cases and classes of {VOLUME.file}, found {found} in only one")


def read_metrics(path: Path, counts: tuple[str, ...]) -> pd.DataFrame:
    """A line per case and class: numbers, but for TEXT_COLUMNS; NaN for one that is left out and may be."""
    needed = (*METRICS, *counts)
    rows = read_rows(path, ("case_id", "class", *needed))
    # Lists to the end: a table of a thousand runs has some twenty thousand of such columns, each slow in pandas.
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    for name in columns.keys() - TEXT_COLUMNS:
        try:
            values = np.array([parse_number(text if text or name in needed else "nan") for text in columns[name]])
        except ValueError as error:
            raise InputError(f"{path}: expected numbers in {name}, found {error}") from None
        check_numbers(values, name, path, columns["case_id"], is_needed=name in needed)
        columns[name] = values
    cases = [(row["case_id"], row["class"]) for row in rows]
    for case_id in dict.fromkeys(case_id for case_id, _ in cases):
        check_file_name(case_id, f"{path}: case_id")
    if len(set(cases)) < len(cases):
        twice = next(case for number, case in enumerate(cases) if case in cases[:number])
        raise InputError(f"{path}: expected one line per case and class, found {twice[0]} twice")
    return pd.DataFrame(columns)


def check_numbers(values: np.ndarray, name: str, path: Path, case_ids: Sequence[str], *, is_needed: bool) -> None:
    """``InputError`` where a number cannot be the metric's or count's; one that is not needed may be left out."""
    column = CATALOGUE.get(name) or Column(name, name, lowest=-LARGEST)     # one of the user's own
    bad = ~column.says(values) & (is_needed | ~np.isnan(values))
    if bad.any():
        first = int(bad.argmax())
        raise InputError(f"{path}: expected {column.expected}, found {values[first]:g} of {case_ids[first]}")


def runs_of_rows(results: Path, rows: Sequence[str], seeds: Sequence[int] | None = None) -> dict[str, list[Run]]:
    """The evaluated runs of each row, all on the same data, none for a row that has no finished run yet.

    ``InputError`` lists the rows there are where a row is neither a folder here nor one of the papers'.
    """
    if not results.is_dir():
        raise InputError(f"{results}: expected a folder of results, found nothing; train a row first")
    known = sorted({path.parents[1].name for path in results.glob("*/seed*/metrics.csv")})
    found = {row: find_runs(results, row, seeds) for row in rows}
    for row in rows:
        if not found[row] and not (results / row).is_dir() and row.removeprefix(ENGINE_PREFIX) not in published_rows():
            raise InputError(f"{results}: expected rows with an evaluated run ({', '.join(known)}), found {row}")
    every = [run for runs in found.values() for run in runs]
    if not every:
        raise InputError(f"{results}: expected an evaluated run of {', '.join(rows)}, found only {', '.join(known)}")
    places: dict[Path, Run] = {}
    for run in every:
        check_comparable(run, every[0])
        first = places.setdefault(run.folder.resolve(), run)
        if first is not run:    # a link
            raise InputError(f"{run.folder}: expected a run of its own, found that of {first.folder} once more")
    return found


def evaluated_runs(
    results: Path, rows: Sequence[str], seeds: Sequence[int] | None = None
) -> dict[str, list[Run]]:
    """The runs of each row, of which there is at least one."""
    runs = runs_of_rows(results, rows, seeds)
    missing = [row for row in rows if not runs[row]]
    if missing:
        raise InputError(f"{results}: expected an evaluated run of each row, found none of {', '.join(missing)}")
    return runs


def first_run(found: Mapping[str, Sequence[Run]]) -> Run:
    """The first of all runs, which agree in their data and in how they were measured."""
    return next(run for runs in found.values() for run in runs)


def check_comparable(run: Run, first: Run) -> None:
    """``InputError`` unless both runs were evaluated on the same cases of the same data."""
    if run.settings.get("data_fingerprint") != first.settings.get("data_fingerprint"):
        raise InputError(f"{run.folder}: expected the data of {first.folder}, found a run on other data")
    for name, wanted in first.measured.items():
        found = run.measured.get(name, wanted)
        if found != wanted:
            raise InputError(
                f"{run.folder}: expected metrics of {name} {wanted or 'none'}, as {first.folder} has, found "
                f"{found or 'none'}; evaluate one of them again"
            )
    classes = set(first.class_names) ^ set(run.class_names)
    if classes:
        found = f"found {sorted(classes)[0]} in only one"
        raise InputError(f"{run.folder}: expected the classes of {first.folder}, {found}")
    missing = set(first.metrics["case_id"]) ^ set(run.metrics["case_id"])
    if missing:
        raise InputError(f"{run.folder}: expected the cases of {first.folder}, found {sorted(missing)[0]} in only one")
