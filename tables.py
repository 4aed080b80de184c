"""Tables from the metrics of finished runs: mean (sd) over seeds, the published figure beside it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils import InputError, read_json, read_rows, write_rows, write_text

PUBLISHED = Path(__file__).resolve().parent / "published"
# Each file with what its rows are called here beyond their own names.
PUBLISHED_FILES = (("media2021_table1.csv", ""), ("media2021_table3.csv", ""), ("midl2019_table1.csv", "midl-"))
TABLE_COLUMNS = (
    "row", "class", "seeds", "cases", "dsc", "dsc_sd", "hd95_mm", "hd95_mm_sd", "missed", "false_alarms", "collapsed",
    "published_dsc", "published_dsc_sd", "published_hd95_mm", "published_hd95_mm_sd", "published_source",
)
FOOTNOTE = (
    "Mean over the validation volumes (3D), then mean (sample sd) over seeds; HD95 pools the surface distances of both "
    "directions. A volume whose prediction is empty (missed) or whose reference alone is empty (false alarm) has DSC 0 "
    "and the grid's diagonal as its distance; both empty: DSC 1, 0 mm. A row is collapsed where every prediction of "
    "every seed is empty."
)


@dataclass(frozen=True)
class Run:
    """A finished run: its seed, folder, settings, and metrics with a line a case and class."""

    seed: int
    folder: Path
    settings: dict
    metrics: pd.DataFrame


def find_runs(results: Path, row: str) -> list[Run]:
    """The evaluated runs of a row, by seed; ``InputError`` where two seeds differ in their settings."""
    folders = {}
    for folder in (results / row).glob("seed*"):
        number = re.fullmatch(r"seed(\d+)", folder.name)
        if number and (folder / "metrics.csv").exists():
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
    path = folder / "metrics.csv"
    metrics = pd.DataFrame(read_rows(path, ("case_id", "class", "dsc", "hd95_mm", "hd_mm", "n_ref", "n_pred")))
    for column in ("dsc", "hd95_mm", "hd_mm", "n_ref", "n_pred"):
        try:
            metrics[column] = metrics[column].astype(float)
        except ValueError as error:
            raise InputError(f"{path}: expected numbers in {column}, found {error}") from None
    settings = read_json(folder / "config.json").get("settings", {})
    return Run(seed, folder, settings, metrics)


def published_figures(dataset: str, row: str) -> dict:
    """The papers' own figures for a row, or nothing; a phantom has none."""
    for name, prefix in PUBLISHED_FILES:
        table = pd.read_csv(PUBLISHED / name)
        found = table[(table["dataset"] == dataset) & (prefix + table["row"] == row)]
        if len(found):
            figures = found.iloc[0].to_dict()
            return {f"published_{key}": value for key, value in figures.items() if key not in ("row", "dataset")}
    return {}


def summarise(runs: Sequence[Run], class_name: str) -> dict:
    """Mean and sd over seeds of the mean over cases, for one class."""
    metrics = [run.metrics[run.metrics["class"] == class_name] for run in runs]
    line = {"class": class_name, "seeds": " ".join(str(run.seed) for run in runs), "cases": len(metrics[0])}
    for name in ("dsc", "hd95_mm"):
        means = [table[name].mean() for table in metrics]
        line[name] = float(np.mean(means))
        line[f"{name}_sd"] = float(np.std(means, ddof=1)) if len(means) > 1 else math.nan
    every = pd.concat(metrics)
    line["missed"] = int(((every.n_ref > 0) & (every.n_pred == 0)).sum())
    line["false_alarms"] = int(((every.n_ref == 0) & (every.n_pred > 0)).sum())
    line["collapsed"] = bool((every.n_pred == 0).all())
    return line


def collect(results: Path, rows: Sequence[str]) -> list[dict]:
    """A line a row and class; a row without an evaluated run has a line without figures."""
    if not results.is_dir():
        raise InputError(f"{results}: expected a folder of results, found nothing; train a row first")
    lines, reference = [], None
    for row in rows:
        runs = find_runs(results, row)
        for run in runs:
            reference = reference or run
            check_comparable(run, reference)
        classes = list(dict.fromkeys(runs[0].metrics["class"])) if runs else [""]
        for name in classes:
            summary = summarise(runs, name) if runs else {"class": "", "seeds": "", "cases": 0}
            lines.append({"row": row, **summary, **published_figures(results.resolve().name, row)})
    if reference is None:
        raise InputError(f"{results}: expected an evaluated run of {', '.join(rows)}, found none; train a row first")
    return lines


def check_comparable(run: Run, reference: Run) -> None:
    """``InputError`` unless both runs were evaluated on the same cases of the same data."""
    if run.settings.get("data_fingerprint") != reference.settings.get("data_fingerprint"):
        raise InputError(f"{run.folder}: expected the data of {reference.folder}, found a run on other data")
    missing = set(reference.metrics["case_id"]) ^ set(run.metrics["case_id"])
    if missing:
        raise InputError(f"{run.folder}: expected the cases of {reference.folder}, found {sorted(missing)[0]} in only one")


def write_table(results: Path, rows: Sequence[str], name: str) -> str:
    """Write NAME.csv, .md and .tex into ``results``; returns the text of the .md."""
    lines = collect(results, rows)
    write_rows(results / f"{name}.csv", [{key: cell(line.get(key)) for key in TABLE_COLUMNS} for line in lines], TABLE_COLUMNS)
    header, body = layout(lines)
    text = markdown(header, body) + f"\n\n{FOOTNOTE}\n"
    write_text(results / f"{name}.tex", latex(header, body))
    write_text(results / f"{name}.md", text)
    return text


def cell(value) -> object:
    """An empty cell stands for what is not there; zero never does."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def layout(lines: Sequence[dict]) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Header and body of the printed table; each cell with whether it is the best of its column."""
    classes = len({line["class"] for line in lines if line["class"]}) > 1
    has_published = any("published_dsc" in line for line in lines)
    header = ["row", *(["class"] if classes else []), "DSC", "HD95 (mm)"]
    header += ["published DSC", "published HD95 (mm)"] if has_published else []
    header += ["seeds", "missed", "false alarms"]
    body = []
    for line in lines:
        cells = [(line["row"], False), *([(line["class"], False)] if classes else [])]
        peers = [other for other in lines if other["class"] == line["class"] and not other.get("collapsed", True)]
        cells += [measured(line, "dsc", 3, peers, best=max), measured(line, "hd95_mm", 2, peers, best=min)]
        if has_published:
            cells += [(published(line, "dsc", 3), False), (published(line, "hd95_mm", 3), False)]
        runs = len(line["seeds"].split())
        total = line["cases"] * runs
        cells += [(str(runs) if runs else "no run", False)]
        cells += [(f"{line[key]} of {total}" if runs else "", False) for key in ("missed", "false_alarms")]
        body.append(cells)
    return header, body


def measured(line: dict, name: str, digits: int, peers: Sequence[dict], best) -> tuple[str, bool]:
    if name not in line:
        return "", False
    if line["collapsed"]:
        return "collapsed", False
    text = mean_sd(line[name], line[f"{name}_sd"], digits)
    return text, len(peers) > 1 and line[name] == best(peer[name] for peer in peers)


def published(line: dict, name: str, digits: int) -> str:
    if f"published_{name}" not in line:
        return ""
    return mean_sd(line[f"published_{name}"], line[f"published_{name}_sd"], digits)


def mean_sd(mean: float, sd: float, digits: int) -> str:
    if math.isnan(mean):
        return "NA"
    return f"{mean:.{digits}f}" + (f" ({sd:.{digits}f})" if not math.isnan(sd) else "")


def markdown(header: Sequence[str], body: Sequence[Sequence[tuple[str, bool]]]) -> str:
    table = [list(header), *[[f"**{text}**" if best else text for text, best in cells] for cells in body]]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in table]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def latex(header: Sequence[str], body: Sequence[Sequence[tuple[str, bool]]]) -> str:
    """A tabular with booktabs rules that compiles as it stands inside a table environment."""
    lines = [r"\begin{tabular}{l" + "c" * (len(header) - 1) + "}", r"\toprule", " & ".join(map(escape, header)) + r" \\", r"\midrule"]
    for cells in body:
        lines.append(" & ".join(rf"\textbf{{{escape(text)}}}" if best else escape(text) for text, best in cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def escape(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text)
