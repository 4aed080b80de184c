"""Each row against a baseline, paired over cases: difference, interval, p of permutation tests, Holm's correction."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from reporting.runs import Run, runs_of_rows
from reporting.statistics import PERMUTATIONS, RESAMPLES, bootstrap_interval, holm, permutation_test
from reporting.table_formats import Cells, number, write_printed
from reporting.tables import EMPTY_RULE, LEVELS, describe_settings
from utils import InputError, write_rows

# Metric: name in print, digits, whether more is better.
COMPARED = {
    "dsc": ("DSC", 3, True),
    "hd95_mm": ("HD95 (mm)", 2, False),
    "hd_mm": ("HD (mm)", 2, False),
    "hd95_max_mm": ("HD95, directed maximum (mm)", 2, False),
    "assd_mm": ("ASSD (mm)", 2, False),
    "surface_dice": ("surface Dice", 3, True),
    "avd_percent": ("AVD (%)", 1, False),
    "lesion_recall": ("lesion recall", 3, True),
    "lesion_precision": ("lesion precision", 3, True),
    "lesion_f1": ("lesion F1", 3, True),
}
COLUMNS = (
    "row", "baseline", "class", "metric", "cases", "seeds", "baseline_seeds", "difference", "ci_low", "ci_high",
    "p", "p_holm", "p_better", "p_better_holm",
)


def case_means(runs: Sequence[Run], class_name: str, metric: str, level: str) -> pd.Series:
    """A metric of one class, by case id: the mean over a row's seeds."""
    tables = []
    for run in runs:
        table = run.table(level)
        if metric not in table:
            raise InputError(f"{run.folder}: expected metrics with a column {metric}, found none; evaluate it again")
        tables.append(table[table["class"] == class_name].set_index("case_id")[metric])
    every = pd.concat(tables)
    if every.isna().any():
        case_id = every.index[every.isna()][0]
        raise InputError(f"{runs[0].folder.parent}: expected a {metric} of every case, found none of {case_id}")
    return every.groupby(level=0).mean()


def compare(
    row: Sequence[Run], baseline: Sequence[Run], class_name: str, metric: str, *, level: str, permutations: int
) -> dict:
    """Row minus baseline over the cases, which are paired by their id."""
    ours, theirs = (case_means(runs, class_name, metric, level) for runs in (row, baseline))
    differences = (ours - theirs.reindex(ours.index)).to_numpy()
    low, high = bootstrap_interval(differences)
    better = "greater" if COMPARED[metric][2] else "less"
    return {
        "row": row[0].folder.parent.name, "baseline": baseline[0].folder.parent.name,
        "class": class_name, "metric": metric, "cases": len(differences),
        "seeds": " ".join(str(run.seed) for run in row), "baseline_seeds": " ".join(str(run.seed) for run in baseline),
        "difference": float(differences.mean()), "ci_low": low, "ci_high": high,
        "p": permutation_test(differences, permutations=permutations),
        "p_better": permutation_test(differences, alternative=better, permutations=permutations),
    }


def collect(
    found: dict[str, list[Run]], baseline: str, metrics: Sequence[str], *, level: str, permutations: int
) -> list[dict]:
    """A line a class, metric and row; Holm's correction is over the rows of one class and metric."""
    lines = []
    for class_name in dict.fromkeys(found[baseline][0].metrics["class"]):
        for metric in metrics:
            family = [
                compare(runs, found[baseline], class_name, metric, level=level, permutations=permutations)
                for row, runs in found.items()
                if runs and row != baseline
            ]
            for kind in ("p", "p_better"):
                for line, corrected in zip(family, holm([line[kind] for line in family]), strict=True):
                    line[f"{kind}_holm"] = corrected
            lines += family
    return lines


def write_comparison(
    results: Path, rows: Sequence[str], name: str, *, baseline: str, metrics: Sequence[str] = (),
    level: str = "volume", seeds: Sequence[int] | None = None, permutations: int = PERMUTATIONS,
) -> str:
    """Write NAME.csv, .md and .tex into ``results``; returns the text of the .md.

    ``metrics`` are of ``COMPARED``, by default those of the table of this level. ``InputError`` where the baseline
    has no finished run, where no other row has one, or where a case is missing in one run.
    """
    found = runs_of_rows(results, list(dict.fromkeys([baseline, *rows])), seeds)
    if not found[baseline]:
        raise InputError(f"{results}: expected an evaluated run of the baseline {baseline}, found none")
    if not any(runs for row, runs in found.items() if row != baseline):
        raise InputError(f"{results}: expected an evaluated run of a row beside {baseline}, found none")
    metrics = metrics or [metric for metric, _, _ in LEVELS[level].printed]
    lines = collect(found, baseline, metrics, level=level, permutations=permutations)
    write_rows(results / f"{name}.csv", lines, COLUMNS)
    header, body = layout(lines)
    notes = [describe(found, baseline, lines, level, permutations), EMPTY_RULE, describe_settings(found)]
    return write_printed(results, name, header, body, notes)


def describe(
    found: dict[str, list[Run]], baseline: str, lines: Sequence[dict], level: str, permutations: int
) -> str:
    cases = lines[0]["cases"]
    kind = f"all {2**cases}" if 2**cases <= permutations else f"{permutations} random"
    without = [row for row, runs in found.items() if not runs]
    left_out = f" No finished run of {', '.join(without)}." if without else ""
    return (
        f"Row minus {baseline}, paired over {cases} validation cases by their id ({level} metrics, a case's mean over "
        f"its row's seeds). Interval: 95 % percentile bootstrap over cases, {RESAMPLES} resamples. p: paired "
        f"permutation test of the absolute mean difference, {kind} permutations; p better: of the mean difference "
        f"with its sign. Holm: corrected over the {len({line['row'] for line in lines})} rows; bold below 0.05. The "
        f"cases are those of one split and seeds are averaged: p says nothing of other splits.{left_out}"
    )


def layout(lines: Sequence[dict]) -> tuple[list[str], list[Cells]]:
    several = len({line["class"] for line in lines}) > 1
    header = ["row", *(["class"] if several else []), "metric", "difference", "95 % interval", "p", "p (Holm)",
              "p better", "p better (Holm)"]
    body = []
    for line in lines:
        title, digits, _ = COMPARED[line["metric"]]
        texts = [line["row"], *([line["class"]] if several else []), title,
                 number(line["difference"], digits, signed=True), interval(line, digits)]
        cells = [(text, False) for text in texts]
        for kind in ("p", "p_better"):
            cells += [(p_value(line[kind]), False), (p_value(line[f"{kind}_holm"]), line[f"{kind}_holm"] < 0.05)]
        body.append(cells)
    return header, body


def interval(line: dict, digits: int) -> str:
    if math.isnan(line["ci_low"]):
        return "NA"
    return f"[{number(line['ci_low'], digits, signed=True)}, {number(line['ci_high'], digits, signed=True)}]"


def p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
