"""Each row against a baseline, paired over cases: difference, interval, p of permutation tests, Holm's correction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from evaluation.metric_catalogue import CATALOGUE, Column
from reporting.levels import EMPTY_RULE, LEVELS
from reporting.run_settings import settings_note
from reporting.runs import Run, first_run, runs_of_rows
from reporting.statistics import PERMUTATIONS, RESAMPLES, bootstrap_interval, holm, permutation_test
from reporting.table_formats import PrintedTable, Text, format_number
from utils import InputError

COLUMNS = (
    "row", "baseline", "class", "metric", "cases", "seeds", "baseline_seeds", "difference", "ci_low", "ci_high",
    "p", "p_holm", "p_better", "p_better_holm",
)
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Protocol:
    """How rows are compared: the baseline, over volumes or slices, with how many permutations."""

    baseline: str
    level: str = "volume"
    permutations: int = PERMUTATIONS


@dataclass(frozen=True)
class PairedResult:
    """A row minus the baseline in one metric of one class, over the same cases."""

    row: str
    baseline: str
    class_name: str
    metric: Column
    cases: int
    seeds: tuple[int, ...]
    baseline_seeds: tuple[int, ...]
    difference: float
    interval: tuple[float, float]       # nan for one case
    p: float                            # of the absolute mean difference
    p_better: float                     # of the mean difference with its sign
    p_holm: float = math.nan
    p_better_holm: float = math.nan


def case_means(runs: Sequence[Run], class_name: str, metric: str, level: str) -> pd.Series:
    """A metric of one class, by case id: the mean over a row's seeds."""
    tables = []
    for run in runs:
        table = run.of_class(class_name, level)
        if metric not in table:
            raise InputError(f"{run.folder}: expected metrics with a column {metric}, found none; evaluate it again")
        tables.append(table.set_index("case_id")[metric])
    every = pd.concat(tables)
    if every.isna().any():
        case_id = every.index[every.isna()][0]
        raise InputError(f"{runs[0].folder.parent}: expected a {metric} of every case, found none of {case_id}")
    return every.groupby(level=0).mean()


def compare(
    runs: Sequence[Run], baseline: Sequence[Run], class_name: str, metric: Column, protocol: Protocol
) -> PairedResult:
    """Row minus baseline over the cases, which are paired by their id."""
    ours, theirs = (case_means(some, class_name, metric.key, protocol.level) for some in (runs, baseline))
    differences = (ours - theirs.reindex(ours.index)).to_numpy()
    better = "greater" if metric.higher_is_better else "less"
    return PairedResult(
        row=runs[0].row,
        baseline=baseline[0].row,
        class_name=class_name,
        metric=metric,
        cases=len(differences),
        seeds=tuple(run.seed for run in runs),
        baseline_seeds=tuple(run.seed for run in baseline),
        difference=float(differences.mean()),
        interval=bootstrap_interval(differences),
        p=permutation_test(differences, permutations=protocol.permutations),
        p_better=permutation_test(differences, alternative=better, permutations=protocol.permutations),
    )


def compare_rows(
    found: Mapping[str, Sequence[Run]], metrics: Sequence[str], protocol: Protocol
) -> list[PairedResult]:
    """One result per class, metric and row; Holm's correction is over the rows of one class and metric."""
    baseline = found[protocol.baseline]
    results = []
    for class_name in baseline[0].class_names:
        for metric in metrics:
            family = [
                compare(runs, baseline, class_name, CATALOGUE[metric], protocol)
                for row, runs in found.items()
                if runs and row != protocol.baseline
            ]
            two_sided, better = holm([result.p for result in family]), holm([result.p_better for result in family])
            results += [
                replace(result, p_holm=p, p_better_holm=p_better)
                for result, p, p_better in zip(family, two_sided, better, strict=True)
            ]
    return results


def write_comparison(
    results: Path, rows: Sequence[str], name: str, *, protocol: Protocol, metrics: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
) -> str:
    """Write NAME.csv, .md and .tex into ``results``; returns the text of the .md.

    ``metrics`` are by default those of the table of this level that every run has. ``InputError`` where the baseline
    has no finished run, where no other row has one, or where a case is missing in one run.
    """
    baseline = protocol.baseline
    found = runs_of_rows(results, list(dict.fromkeys([baseline, *rows])), seeds)
    if not found[baseline]:
        raise InputError(f"{results}: expected an evaluated run of the baseline {baseline}, found none")
    if not any(runs for row, runs in found.items() if row != baseline):
        raise InputError(f"{results}: expected an evaluated run of a row beside {baseline}, found none")
    compared = compare_rows(found, metrics or metrics_of_all(found, protocol.level), protocol)
    header, body = printed_results(compared, first_run(found).length_unit)
    notes = [[Text(comparison_rule(found, compared, protocol))], [Text(EMPTY_RULE)], settings_note(found)]
    return PrintedTable(header, body, notes).write(results, name, [csv_line(result) for result in compared], COLUMNS)


def metrics_of_all(found: Mapping[str, Sequence[Run]], level: str) -> list[str]:
    """The metrics of a level's table that every run has of every case: HD as MIDL is of one class alone."""
    tables = [run.table(level) for runs in found.values() for run in runs]
    return [
        name for name in LEVELS[level].metrics if all(name in table and table[name].notna().all() for table in tables)
    ]


def csv_line(result: PairedResult) -> dict:
    low, high = result.interval
    return {
        "row": result.row, "baseline": result.baseline, "class": result.class_name, "metric": result.metric.key,
        "cases": result.cases, "seeds": " ".join(map(str, result.seeds)),
        "baseline_seeds": " ".join(map(str, result.baseline_seeds)), "difference": result.difference,
        "ci_low": low, "ci_high": high, "p": result.p, "p_holm": result.p_holm, "p_better": result.p_better,
        "p_better_holm": result.p_better_holm,
    }


def comparison_rule(
    found: Mapping[str, Sequence[Run]], compared: Sequence[PairedResult], protocol: Protocol
) -> str:
    """How the rows were compared, in print."""
    cases, permutations = compared[0].cases, protocol.permutations
    kind = f"all {2**cases}" if 2**cases <= permutations else f"{permutations} random"
    without = [row for row, runs in found.items() if not runs]
    left_out = f" No finished run of {', '.join(without)}." if without else ""
    return (
        f"Row minus {protocol.baseline}, paired over {cases} validation cases by their id ({protocol.level} metrics, "
        f"a case's mean over its row's seeds). Interval: 95 % percentile bootstrap over cases, {RESAMPLES} resamples. "
        f"p: paired permutation test of the absolute mean difference, {kind} permutations; p better: of the mean "
        f"difference with its sign. Holm: corrected over the {len({result.row for result in compared})} rows; bold "
        f"below {SIGNIFICANT}. The cases are those of one split and seeds are averaged: p says nothing of other "
        f"splits.{left_out}"
    )


def printed_results(compared: Sequence[PairedResult], length_unit: str) -> tuple[list[str], list[list[Text]]]:
    """Header and body of the printed table; corrected p below 0.05 in bold."""
    several = len({result.class_name for result in compared}) > 1
    header = ["row", *(["class"] if several else []), "metric", "difference", "95 % interval", "p", "p (Holm)",
              "p better", "p better (Holm)"]
    body = []
    for result in compared:
        texts = [result.row, *([result.class_name] if several else []), result.metric.heading(length_unit)]
        texts += [printed_difference(result), printed_interval(result)]
        cells = [Text(text) for text in texts]
        for p, corrected in ((result.p, result.p_holm), (result.p_better, result.p_better_holm)):
            cells += [Text(printed_p(p)), Text(printed_p(corrected), corrected < SIGNIFICANT)]
        body.append(cells)
    return header, body


def printed_difference(result: PairedResult) -> str:
    return format_number(result.difference, result.metric.digits, signed=True)


def printed_interval(result: PairedResult) -> str:
    if math.isnan(result.interval[0]):
        return "NA"
    return f"[{', '.join(format_number(end, result.metric.digits, signed=True) for end in result.interval)}]"


def printed_p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
