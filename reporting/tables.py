"""Tables from the metrics of finished runs: mean (sd) over seeds, the published figure beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from reporting.runs import METRICS, Run, published_figures, runs_of_rows
from reporting.table_formats import Cells, number, write_printed
from utils import write_rows

# What else a table needs to be read by, beside its rows' own losses and alphas.
PRINTED_SETTINGS = (
    "network", "width", "epochs", "batch_size", "lr", "alpha_step", "selection", "lr_rule", "distance_map",
)
EPOCHS = {"best": "that of the best validation DSC", "last": "the last"}
GRIDS = {"sliced": "the sliced grid", "native": "the scans' own grid"}
TABLE_COLUMNS = (
    "row",
    "class",
    "seeds",
    "cases",
    *(f"{name}{sd}" for name in METRICS for sd in ("", "_sd")),
    "missed",
    "false_alarms",
    "collapsed",
    "voxel_share",
    *(f"published_{name}{sd}" for name in METRICS for sd in ("", "_sd")),
    *(f"difference_{name}" for name in METRICS),
    "published_source",
)


@dataclass(frozen=True)
class Level:
    """Where metrics are computed: over whole volumes, as MedIA 2021 has them, or over slices, as MIDL 2019."""

    printed: tuple[tuple[str, str, int], ...]  # metric, its name in print, digits
    footnote: str


EMPTY_RULE = (
    "Where the prediction is empty (missed) or the reference alone is (false alarm), DSC is 0 and a distance the "
    "grid's diagonal; both empty: DSC 1, 0 mm. Missed and false alarms count volumes of all seeds. A row is collapsed "
    "where every prediction of every seed is empty."
)
LEVELS = {
    "volume": Level(
        printed=(("dsc", "DSC", 3), ("hd95_mm", "HD95 (mm)", 2)),
        footnote="Mean over the validation volumes (3D), then mean (sample sd) over seeds; HD95 pools the surface "
        "distances of both directions. " + EMPTY_RULE,
    ),
    "slice": Level(
        printed=(("dsc", "DSC (slices)", 3), ("hd_mm", "HD (slices, mm)", 3)),
        footnote="Mean over the validation slices (2D), then mean (sample sd) over seeds. " + EMPTY_RULE,
    ),
}


def seed_mean(run: Run, class_name: str, name: str, level: str) -> float:
    """The mean of a metric over one run's volumes, or over all their slices."""
    table = run.table(level)
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
    if "n_voxels" in every:
        line["voxel_share"] = float(every.n_ref.sum() / every.n_voxels.sum())
    return line


def collect(found: dict[str, list[Run]], level: str) -> list[dict]:
    """A line a row and class; a row without an evaluated run has a line without figures."""
    dataset = next(run for runs in found.values() for run in runs).settings.get("dataset", "")
    lines = []
    for row, runs in found.items():
        classes = list(dict.fromkeys(runs[0].metrics["class"])) if runs else [""]
        for name in classes:
            summary = summarise(runs, name, level) if runs else {"class": "", "seeds": "", "cases": 0}
            line = {"row": row, **summary, **published_figures(dataset, row, level)}
            line |= {
                f"difference_{metric}": line[metric] - line[f"published_{metric}"]
                for metric in METRICS
                if metric in line and f"published_{metric}" in line
            }
            lines.append(line)
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
    # All runs of a table were measured alike.
    measured = next(run for runs in found.values() for run in runs).measured
    epoch = EPOCHS.get(measured.get("checkpoint"), "unknown")
    return f"Settings: {', '.join(parts)}; epoch evaluated: {epoch}, on {GRIDS[measured.get('space', 'sliced')]}."


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
    notes = [describe_settings(found), LEVELS[level].footnote]
    without = [row for row, runs in found.items() if not runs]
    if without:
        notes.insert(0, f"No finished run of {', '.join(without)}.")
    return write_printed(results, name, header, body, notes)


def cell(value) -> object:
    """An empty cell stands for what is not there; zero never does."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def layout(lines: Sequence[dict], level: Level) -> tuple[list[str], list[Cells]]:
    """Header and body of the printed table; each cell with whether it is the best of its column."""
    several = len({line["class"] for line in lines if line["class"]}) > 1
    has_published = any("published_dsc" in line for line in lines)
    titles = [title for _, title, _ in level.printed]
    header = ["row", *(["class", "share of voxels"] if several else []), *titles]
    header += [f"{word} {title}" for word in ("published", "difference") for title in titles] if has_published else []
    header += ["seeds", "missed", "false alarms"]
    body = []
    for line in lines:
        runs = len(line["seeds"].split())
        peers = [other for other in lines if other["class"] == line["class"] and not other.get("collapsed", True)]
        cells = [(line["row"], False), *([(line["class"], False), (share(line), False)] if several else [])]
        cells += [measured(line, name, digits, peers) for name, _, digits in level.printed]
        if has_published:
            cells += [(published(line, name), False) for name, _, _ in level.printed]
            cells += [(difference(line, name, digits), False) for name, _, digits in level.printed]
        cells += [(str(runs) if runs else "no run", False)]
        cells += [
            (f"{line[key]} of {line['cases'] * runs}" if runs else "", False) for key in ("missed", "false_alarms")
        ]
        body.append(cells)
    return header, body


def share(line: dict) -> str:
    return f"{100 * line['voxel_share']:.3g} %" if "voxel_share" in line else ""


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


def difference(line: dict, name: str, digits: int) -> str:
    """Ours minus the published mean."""
    if f"difference_{name}" not in line or (line["collapsed"] and name != "dsc"):
        return ""
    return number(line[f"difference_{name}"], digits, signed=True)


def mean_sd(mean: float, sd: float, digits: int) -> str:
    return number(mean, digits) + ("" if math.isnan(mean) or math.isnan(sd) else f" ({number(sd, digits)})")
