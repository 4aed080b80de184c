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
METRICS = ("dsc", "hd95_mm", "hd_mm")
# What else a table needs to be read by, beside its rows' own losses and alphas.
PRINTED_SETTINGS = (
    "network", "width", "epochs", "batch_size", "lr", "alpha_step", "selection", "lr_rule", "distance_map",
)
TABLE_COLUMNS = (
    "row",
    "class",
    "seeds",
    "cases",
    *(f"{name}{sd}" for name in METRICS for sd in ("", "_sd")),
    "missed",
    "false_alarms",
    "collapsed",
    *(f"published_{name}{sd}" for name in METRICS for sd in ("", "_sd")),
    "published_source",
)


@dataclass(frozen=True)
class Level:
    """Where metrics are computed: over whole volumes, as MedIA 2021 has them, or over slices, as MIDL 2019."""

    file: str
    printed: tuple[tuple[str, str, int], ...]  # metric, its name in print, digits
    published: tuple[str, ...]  # files of the papers' figures
    footnote: str


EMPTY_RULE = (
    "Where the prediction is empty (missed) or the reference alone is (false alarm), DSC is 0 and a distance the "
    "grid's diagonal; both empty: DSC 1, 0 mm. Missed and false alarms count volumes of all seeds. A row is collapsed "
    "where every prediction of every seed is empty."
)
LEVELS = {
    "volume": Level(
        file="metrics.csv",
        printed=(("dsc", "DSC", 3), ("hd95_mm", "HD95 (mm)", 2)),
        published=("media2021_table1.csv", "media2021_table3.csv"),
        footnote="Mean over the validation volumes (3D), then mean (sample sd) over seeds; HD95 pools the surface "
        "distances of both directions. " + EMPTY_RULE,
    ),
    "slice": Level(
        file="metrics_2d.csv",
        printed=(("dsc", "DSC (slices)", 3), ("hd_mm", "HD (slices, mm)", 3)),
        published=("midl2019_table1.csv",),
        footnote="Mean over the validation slices (2D), then mean (sample sd) over seeds. " + EMPTY_RULE,
    ),
}


@dataclass(frozen=True)
class Run:
    """A finished run: its seed, folder, settings, and metrics with a line a case and class."""

    seed: int
    folder: Path
    settings: dict
    metrics: pd.DataFrame
    metrics_2d: pd.DataFrame | None

    @property
    def checkpoints(self) -> set[str]:
        """Which epoch was evaluated: best or last."""
        return set(self.metrics.get("checkpoint", ["unknown"]))


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
    for column in (*METRICS, *counts):
        try:
            metrics[column] = metrics[column].astype(float)
        except ValueError as error:
            raise InputError(f"{path}: expected numbers in {column}, found {error}") from None
    return metrics


def published_figures(dataset: str, row: str, level: str = "volume") -> dict:
    """The papers' own figures for a row, or nothing; a phantom has none."""
    for name in LEVELS[level].published:
        table = pd.read_csv(PUBLISHED / name)
        found = table[(table["dataset"] == dataset) & (table["row"] == row)]
        if len(found):
            figures = found.iloc[0].to_dict()
            return {f"published_{key}": value for key, value in figures.items() if key not in ("row", "dataset")}
    return {}


def seed_mean(run: Run, class_name: str, name: str, level: str) -> float:
    """The mean of a metric over one run's volumes, or over all their slices."""
    table = run.metrics if level == "volume" else run.metrics_2d
    if table is None:
        raise InputError(f"{run.folder}: expected a {LEVELS[level].file}, found none; evaluate the run again")
    table = table[table["class"] == class_name]
    return float(np.average(table[name], weights=table["n_slices"] if level == "slice" else None))


def summarise(runs: Sequence[Run], class_name: str, level: str) -> dict:
    """Mean and sd over seeds of the mean over volumes or slices, for one class."""
    every = pd.concat([run.metrics[run.metrics["class"] == class_name] for run in runs])
    line = {"class": class_name, "seeds": " ".join(str(run.seed) for run in runs), "cases": len(every) // len(runs)}
    for name in METRICS:
        means = [seed_mean(run, class_name, name, level) for run in runs]
        line[name] = float(np.mean(means))
        line[f"{name}_sd"] = float(np.std(means, ddof=1)) if len(means) > 1 else math.nan
    line["missed"] = int(((every.n_ref > 0) & (every.n_pred == 0)).sum())
    line["false_alarms"] = int(((every.n_ref == 0) & (every.n_pred > 0)).sum())
    line["collapsed"] = bool((every.n_pred == 0).all())
    return line


def runs_of_rows(results: Path, rows: Sequence[str], seeds: Sequence[int] | None = None) -> dict[str, list[Run]]:
    """The evaluated runs of each row, all on the same data; ``InputError`` lists the rows there are."""
    if not results.is_dir():
        raise InputError(f"{results}: expected a folder of results, found nothing; train a row first")
    known = sorted({path.parents[1].name for path in results.glob("*/seed*/metrics.csv")})
    found = {row: find_runs(results, row, seeds) for row in rows}
    for row in rows:
        if not found[row] and not is_published(row):
            raise InputError(f"{results}: expected rows with an evaluated run ({', '.join(known)}), found {row}")
    every = [run for runs in found.values() for run in runs]
    if not every:
        raise InputError(f"{results}: expected an evaluated run of {', '.join(rows)}, found only {', '.join(known)}")
    for run in every:
        check_comparable(run, every[0])
    return found


def is_published(row: str) -> bool:
    return any(published_figures(dataset, row, level) for dataset in ("isles", "wmh") for level in LEVELS)


def collect(found: dict[str, list[Run]], level: str) -> list[dict]:
    """A line a row and class; a row without an evaluated run has a line without figures."""
    dataset = next(run for runs in found.values() for run in runs).settings.get("dataset", "")
    lines = []
    for row, runs in found.items():
        classes = list(dict.fromkeys(runs[0].metrics["class"])) if runs else [""]
        for name in classes:
            summary = summarise(runs, name, level) if runs else {"class": "", "seeds": "", "cases": 0}
            lines.append({"row": row, **summary, **published_figures(dataset, row, level)})
    return lines


def describe_settings(found: dict[str, list[Run]]) -> str:
    """What the runs share, or what each row has where they differ: a table of unlike runs says so."""
    parts = []
    for name in PRINTED_SETTINGS:
        values = {row: runs[0].settings.get(name) for row, runs in found.items() if runs}
        if len(set(values.values())) == 1:
            parts.append(f"{name} {next(iter(values.values()))}")
        else:
            parts.append(f"**{name} differs** ({', '.join(f'{row} {value}' for row, value in values.items())})")
    kinds = sorted({kind for runs in found.values() for run in runs for kind in run.checkpoints})
    return f"Settings: {', '.join(parts)}; epoch evaluated: {', '.join(kinds)}."


def check_comparable(run: Run, reference: Run) -> None:
    """``InputError`` unless both runs were evaluated on the same cases of the same data."""
    if run.settings.get("data_fingerprint") != reference.settings.get("data_fingerprint"):
        raise InputError(f"{run.folder}: expected the data of {reference.folder}, found a run on other data")
    missing = set(reference.metrics["case_id"]) ^ set(run.metrics["case_id"])
    if missing:
        raise InputError(
            f"{run.folder}: expected the cases of {reference.folder}, found {sorted(missing)[0]} in only one"
        )


def write_table(
    results: Path, rows: Sequence[str], name: str, *, level: str = "volume", seeds: Sequence[int] | None = None
) -> str:
    """Write NAME.csv, .md and .tex into ``results``; returns the text of the .md."""
    found = runs_of_rows(results, rows, seeds)
    lines = collect(found, level)
    write_rows(
        results / f"{name}.csv", [{key: cell(line.get(key)) for key in TABLE_COLUMNS} for line in lines], TABLE_COLUMNS
    )
    header, body = layout(lines, LEVELS[level])
    text = markdown(header, body) + f"\n\n{describe_settings(found)}\n\n{LEVELS[level].footnote}\n"
    write_text(results / f"{name}.tex", latex(header, body))
    write_text(results / f"{name}.md", text)
    return text


def cell(value) -> object:
    """An empty cell stands for what is not there; zero never does."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def layout(lines: Sequence[dict], level: Level) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Header and body of the printed table; each cell with whether it is the best of its column."""
    classes = len({line["class"] for line in lines if line["class"]}) > 1
    has_published = any("published_dsc" in line for line in lines)
    titles = [title for _, title, _ in level.printed]
    header = ["row", *(["class"] if classes else []), *titles]
    header += [f"published {title}" for title in titles] if has_published else []
    header += ["seeds", "missed", "false alarms"]
    body = []
    for line in lines:
        runs = len(line["seeds"].split())
        peers = [other for other in lines if other["class"] == line["class"] and not other.get("collapsed", True)]
        cells = [(line["row"], False), *([(line["class"], False)] if classes else [])]
        cells += [measured(line, name, digits, peers) for name, _, digits in level.printed]
        if has_published:
            cells += [(published(line, name), False) for name, _, _ in level.printed]
        cells += [(str(runs) if runs else "no run", False)]
        cells += [
            (f"{line[key]} of {line['cases'] * runs}" if runs else "", False) for key in ("missed", "false_alarms")
        ]
        body.append(cells)
    return header, body


def measured(line: dict, name: str, digits: int, peers: Sequence[dict]) -> tuple[str, bool]:
    """A cell of ours, and whether none of the peers is better; a collapsed row has no distance worth the name."""
    if name not in line:
        return "", False
    if line["collapsed"] and name != "dsc":
        return f"collapsed ({line['missed']} missed)", False
    best = max if name == "dsc" else min
    is_best = len(peers) > 1 and not line["collapsed"] and line[name] == best(peer[name] for peer in peers)
    return mean_sd(line[name], line[f"{name}_sd"], digits), is_best


def published(line: dict, name: str) -> str:
    if f"published_{name}" not in line:
        return ""
    return mean_sd(line[f"published_{name}"], line[f"published_{name}_sd"], 3)


def mean_sd(mean: float, sd: float, digits: int) -> str:
    if math.isnan(mean):
        return "NA"
    return f"{mean:.{digits}f}" + (f" ({sd:.{digits}f})" if not math.isnan(sd) else "")


def markdown(header: Sequence[str], body: Sequence[Sequence[tuple[str, bool]]]) -> str:
    table = [list(header), *[[f"**{text}**" if best else text for text, best in cells] for cells in body]]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def latex(header: Sequence[str], body: Sequence[Sequence[tuple[str, bool]]]) -> str:
    """A tabular with booktabs rules that compiles as it stands inside a table environment."""
    lines = [
        r"\begin{tabular}{l" + "c" * (len(header) - 1) + "}",
        r"\toprule",
        " & ".join(map(escape, header)) + r" \\",
        r"\midrule",
    ]
    for cells in body:
        lines.append(
            " & ".join(rf"\textbf{{{escape(text)}}}" if best else escape(text) for text, best in cells) + r" \\"
        )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def escape(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text)
