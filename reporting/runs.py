"""Evaluated runs in a folder of results, read and checked, and the papers' own figures for their rows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils import InputError, read_json, read_rows

METRICS = ("dsc", "hd95_mm", "hd_mm")
TEXT_COLUMNS = ("case_id", "class", "outcome", "checkpoint", "space", "ignore_label")
# Metrics over whole volumes, as MedIA 2021 has them, or over slices, as MIDL 2019.
FILES = {"volume": "metrics.csv", "slice": "metrics_2d.csv"}
PUBLISHED_FOLDER = Path(__file__).resolve().parents[1] / "published"
PUBLISHED = {"volume": ("media2021_table1.csv", "media2021_table3.csv"), "slice": ("midl2019_table1.csv",)}


@dataclass(frozen=True)
class Run:
    """A finished run: its seed, folder, settings, and metrics with a line a case and class."""

    seed: int
    folder: Path
    settings: dict
    metrics: pd.DataFrame
    metrics_2d: pd.DataFrame | None

    @property
    def measured(self) -> dict:
        """How its metrics were measured, where they say it; runs that are compared agree in all of it."""
        names = ("space", "checkpoint", "tolerance_mm", "ignore_label")
        return {name: str(self.metrics[name].iloc[0]) for name in names if name in self.metrics}

    def table(self, level: str) -> pd.DataFrame:
        """Its metrics over volumes or slices, a line a case and class; ``InputError`` where there are none."""
        table = self.metrics if level == "volume" else self.metrics_2d
        if table is None:
            raise InputError(f"{self.folder}: expected a {FILES[level]}, found none; evaluate the run again")
        return table


def find_runs(results: Path, row: str, seeds: Sequence[int] | None = None) -> list[Run]:
    """The evaluated runs of a row, by seed, all or those of ``seeds``; ``InputError`` where their settings differ."""
    folders = {}
    for folder in (results / row).glob("seed*"):
        number = re.fullmatch(r"seed(\d+)", folder.name)
        if number and (folder / "metrics.csv").exists() and (not seeds or int(number.group(1)) in seeds):
            folders[int(number.group(1))] = folder
    runs = [read_run(seed, folders[seed]) for seed in sorted(folders)]
    for run in runs[1:]:
        for name in sorted(run.settings.keys() | runs[0].settings.keys()):
            if name != "seed" and run.settings.get(name) != runs[0].settings.get(name):
                raise InputError(
                    f"{run.folder}: expected the settings of {runs[0].folder.name}, found {name} "
                    f"{run.settings.get(name)} instead of {runs[0].settings.get(name)}"
                )
    return runs


def read_run(seed: int, folder: Path) -> Run:
    settings = read_json(folder / "config.json").get("settings", {})
    metrics = read_metrics(folder / "metrics.csv", ("n_ref", "n_pred"))
    slices = folder / "metrics_2d.csv"
    return Run(seed, folder, settings, metrics, read_metrics(slices, ("n_slices",)) if slices.exists() else None)


def read_metrics(path: Path, counts: tuple[str, ...]) -> pd.DataFrame:
    metrics = pd.DataFrame(read_rows(path, ("case_id", "class", *METRICS, *counts)))
    for column in set(metrics) - set(TEXT_COLUMNS):
        try:
            values = metrics[column] if column in (*METRICS, *counts) else metrics[column].replace("", "nan")
            metrics[column] = values.astype(float)
        except ValueError as error:
            raise InputError(f"{path}: expected numbers in {column}, found {error}") from None
    twice = metrics[metrics.duplicated(["case_id", "class"])]
    if len(twice):
        raise InputError(f"{path}: expected a line a case and class, found {twice['case_id'].iloc[0]} twice")
    return metrics


def runs_of_rows(results: Path, rows: Sequence[str], seeds: Sequence[int] | None = None) -> dict[str, list[Run]]:
    """The evaluated runs of each row, all on the same data, none for a row that has no finished run yet.

    ``InputError`` lists the rows there are where a row is neither a folder here nor one of the papers'.
    """
    if not results.is_dir():
        raise InputError(f"{results}: expected a folder of results, found nothing; train a row first")
    known = sorted({path.parents[1].name for path in results.glob("*/seed*/metrics.csv")})
    found = {row: find_runs(results, row, seeds) for row in rows}
    for row in rows:
        if not found[row] and not (results / row).is_dir() and not is_published(row):
            raise InputError(f"{results}: expected rows with an evaluated run ({', '.join(known)}), found {row}")
    every = [run for runs in found.values() for run in runs]
    if not every:
        raise InputError(f"{results}: expected an evaluated run of {', '.join(rows)}, found only {', '.join(known)}")
    for run in every:
        check_comparable(run, every[0])
    return found


def is_published(row: str) -> bool:
    return any(published_figures(dataset, row, level) for dataset in ("isles", "wmh") for level in PUBLISHED)


def check_comparable(run: Run, reference: Run) -> None:
    """``InputError`` unless both runs were evaluated on the same cases of the same data."""
    if run.settings.get("data_fingerprint") != reference.settings.get("data_fingerprint"):
        raise InputError(f"{run.folder}: expected the data of {reference.folder}, found a run on other data")
    for name, wanted in reference.measured.items():
        found = run.measured.get(name, wanted)
        if found != wanted:
            raise InputError(
                f"{run.folder}: expected metrics of {name} {wanted or 'none'}, as {reference.folder} has, found "
                f"{found or 'none'}; evaluate one of them again"
            )
    missing = set(reference.metrics["case_id"]) ^ set(run.metrics["case_id"])
    if missing:
        raise InputError(
            f"{run.folder}: expected the cases of {reference.folder}, found {sorted(missing)[0]} in only one"
        )


def published_figures(dataset: str, row: str, level: str = "volume") -> dict:
    """The papers' own figures for a row, or nothing; a phantom has none."""
    for name in PUBLISHED[level]:
        table = pd.read_csv(PUBLISHED_FOLDER / name)
        found = table[(table["dataset"] == dataset) & (table["row"] == row)]
        if len(found):
            figures = found.iloc[0].to_dict()
            return {f"published_{key}": value for key, value in figures.items() if key not in ("row", "dataset")}
    return {}
