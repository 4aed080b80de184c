"""Tables from the metrics of finished runs: mean (sd) over seeds, the published figure beside it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation.metric_catalogue import CATALOGUE, HD_MIDL
from published import PublishedResult, published_result
from reporting.levels import LEVELS, POOLED, POOLED_CASES, SLICE, Level
from reporting.run_settings import settings_note
from reporting.runs import METRICS, Run, first_run, runs_of_rows
from reporting.table_formats import Note, PrintedTable, Text, format_number

TABLE_METRICS = (*METRICS, HD_MIDL.key)
TABLE_COLUMNS = (
    "row",
    "class",
    "seeds",
    "cases",
    *(f"{name}{sd}" for name in TABLE_METRICS for sd in ("", "_sd")),
    "missed",
    "false_alarms",
    "collapsed",
    "voxel_share",
    *(f"published_{name}{sd}" for name in TABLE_METRICS for sd in ("", "_sd")),
    *(f"difference_{name}" for name in TABLE_METRICS),
    "published_source",
    "differs_from_published",
)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and their sample sd, which is nan for one seed."""

    mean: float
    sd: float

    def printed(self, digits: int) -> str:
        """``mean (sd)``, or the one that there is."""
        mean = format_number(self.mean, digits)
        return mean if math.isnan(self.mean) or math.isnan(self.sd) else f"{mean} ({format_number(self.sd, digits)})"


@dataclass(frozen=True)
class Summary:
    """What a row's runs reached in one class; a row without an evaluated run has no seeds, class and metrics."""

    row: str
    class_name: str = ""
    seeds: tuple[int, ...] = ()
    cases: int = 0
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    missed: int = 0                                 # volumes, of all seeds
    false_alarms: int = 0
    collapsed: bool = False                         # every prediction of every seed is empty
    voxel_share: float | None = None
    published: PublishedResult | None = None
    differs: tuple[str, ...] = ()                   # in what the runs are not the paper's

    def published_estimate(self, metric: str) -> Estimate | None:
        found = self.published.values.get(metric) if self.published else None
        return Estimate(*found) if found else None

    def difference(self, metric: str) -> float | None:
        """Ours minus the published mean; None where the runs are not the paper's."""
        published = self.published_estimate(metric)
        if published is None or metric not in self.metrics or self.differs:
            return None
        return self.metrics[metric].mean - published.mean

    def hides(self, metric: str) -> bool:
        """Whether the metric says nothing: a collapsed row's distances are diagonals of the grid."""
        return self.collapsed and CATALOGUE[metric].is_length


def seed_mean(run: Run, class_name: str, metric: str, level: Level) -> float:
    """The mean of a metric over one run's volumes, over all their slices, or over batches of cases."""
    table = run.of_class(class_name, level.name)
    if level is POOLED:
        return pooled_dsc(table) if metric == "dsc" else math.nan
    return float(np.average(table[metric], weights=table["n_slices"] if level is SLICE else None))


def pooled_dsc(table: pd.DataFrame) -> float:
    """DSC of the voxels of POOLED_CASES consecutive cases at once, mean over these batches; 1 for an empty one.

    ``table`` has one line per case, in the order of the evaluation. The voxels that prediction and reference share
    follow from a case's DSC and its two sizes.
    """
    sizes = (table["n_ref"] + table["n_pred"]).to_numpy()                               # (N,)
    shared = np.rint(np.where(sizes > 0, table["dsc"].to_numpy(), 0.0) * sizes / 2)     # (N,)
    batches = [slice(start, start + POOLED_CASES) for start in range(0, len(table), POOLED_CASES)]
    dscs = [2 * shared[b].sum() / sizes[b].sum() if sizes[b].sum() else 1.0 for b in batches]
    return float(np.mean(dscs))


def summarise(runs: Sequence[Run], class_name: str, level: Level) -> Summary:
    """Mean and sd over seeds of the mean over volumes or slices, for one class."""
    every = pd.concat([run.of_class(class_name) for run in runs])
    cases = len(every) // len(runs)
    metrics = {}
    for name in TABLE_METRICS:
        if any(name not in run.table(level.name) for run in runs):
            continue        # of slices alone, and of runs that were evaluated since
        means = [seed_mean(run, class_name, name, level) for run in runs]
        metrics[name] = Estimate(float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else math.nan)
    published = published_result(runs[0].dataset, runs[0].row, class_name, level.name)
    return Summary(
        row=runs[0].row,
        class_name=class_name,
        seeds=tuple(run.seed for run in runs),
        cases=cases,
        metrics=metrics,
        missed=int(((every.n_ref > 0) & (every.n_pred == 0)).sum()),
        false_alarms=int(((every.n_ref == 0) & (every.n_pred > 0)).sum()),
        collapsed=bool((every.n_pred == 0).all()),
        voxel_share=float(every.n_ref.sum() / every.n_voxels.sum()) if "n_voxels" in every else None,
        published=published,
        differs=published.differs(runs[0].meta | runs[0].settings, cases) if published else (),
    )


def summarise_rows(found: Mapping[str, Sequence[Run]], level: Level) -> list[Summary]:
    """One summary per row and class; a row without an evaluated run has one without metrics."""
    some = first_run(found)
    summaries = []
    for row, runs in found.items():
        if runs:
            summaries += [summarise(runs, class_name, level) for class_name in runs[0].class_names]
        else:
            names = some.class_names
            published = published_result(some.dataset, row, names[0], level.name) if len(names) == 1 else None
            summaries.append(Summary(row, published=published))
    return summaries


def write_table(
    results: Path, rows: Sequence[str], name: str, *, level: str = "volume", seeds: Sequence[int] | None = None
) -> str:
    """Write NAME.csv, .md and .tex into ``results``; returns the text of the .md."""
    found = runs_of_rows(results, rows, seeds)
    summaries = summarise_rows(found, LEVELS[level])
    without = [row for row, runs in found.items() if not runs]
    notes: list[Note] = [[Text(f"No finished run of {', '.join(without)}.")]] if without else []
    notes += [settings_note(found), [Text(LEVELS[level].footnote)]]
    notes += [[Text(remark)] for remark in published_remarks(summaries)]
    table = printed_summaries(summaries, LEVELS[level], first_run(found).length_unit, notes)
    return table.write(results, name, [csv_line(summary) for summary in summaries], TABLE_COLUMNS)


def csv_line(summary: Summary) -> dict:
    """A summary as the .csv has it: an empty cell for what is not there; zero never says that."""
    line = {"row": summary.row, "class": summary.class_name, "seeds": " ".join(map(str, summary.seeds))}
    for name, estimate in summary.metrics.items():
        line |= {name: estimate.mean, f"{name}_sd": estimate.sd}
    if summary.seeds:
        counted = ("cases", "voxel_share", "missed", "false_alarms", "collapsed")
        line |= {name: getattr(summary, name) for name in counted}
    for name in TABLE_METRICS:
        published = summary.published_estimate(name)
        if published:
            line |= {f"published_{name}": published.mean, f"published_{name}_sd": published.sd}
        line[f"difference_{name}"] = summary.difference(name)
    if summary.published:
        line |= {"published_source": summary.published.source, "differs_from_published": ", ".join(summary.differs)}
    return {name: or_empty(line.get(name)) for name in TABLE_COLUMNS}


def or_empty(value: object) -> object:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def published_metrics(summaries: Sequence[Summary]) -> list[str]:
    """The metrics that the papers have a figure of, for one of the rows."""
    return [name for name in TABLE_METRICS if any(summary.published_estimate(name) for summary in summaries)]


def published_remarks(summaries: Sequence[Summary]) -> list[str]:
    """What must be said beside the published figures of a table."""
    remarks = {}
    for published in (summary.published for summary in summaries if summary.published):
        if published.sd_over != "runs":
            remarks[f"The published sd ({published.source}) is over {published.sd_over}, ours over seeds."] = None
        if published.remark:
            remarks[published.remark] = None
    return list(remarks)


def printed_summaries(
    summaries: Sequence[Summary], level: Level, length_unit: str, notes: Sequence[Note]
) -> PrintedTable:
    """The printed table, the best of each column in bold."""
    several = len({summary.class_name for summary in summaries if summary.class_name}) > 1
    published = published_metrics(summaries)
    printed = list(dict.fromkeys([*level.metrics, *published]))
    compared = [name for name in published if any(summary.difference(name) is not None for summary in summaries)]
    differing = any(summary.differs for summary in summaries)
    titles = {name: level.heading(name, length_unit) for name in printed}
    header = ["row", *(["class", "share of voxels"] if several else []), *titles.values()]
    header += [f"published {titles[name]}" for name in published]
    header += [f"difference {titles[name]}" for name in compared]
    header += [*(["differs from the paper in"] if differing else []), "seeds", "missed", "false alarms"]
    body = []
    for summary in summaries:
        cells = [Text(summary.row)]
        cells += [Text(summary.class_name), Text(printed_share(summary))] if several else []
        cells += [printed_estimate(summary, name, level, peers_of(summary, summaries)) for name in printed]
        cells += [Text(printed_published(summary, name)) for name in published]
        cells += [Text(printed_difference(summary, name, level)) for name in compared]
        cells += [Text(", ".join(summary.differs))] if differing else []
        body.append([*cells, *printed_counts(summary)])
    return PrintedTable(header, body, notes)


def printed_counts(summary: Summary) -> list[Text]:
    """How many seeds, missed lesions and false alarms."""
    if not summary.seeds:
        return [Text("no run"), Text(""), Text("")]
    volumes = summary.cases * len(summary.seeds)
    counts = [f"{count} of {volumes}" for count in (summary.missed, summary.false_alarms)]
    return [Text(str(len(summary.seeds))), *map(Text, counts)]


def printed_share(summary: Summary) -> str:
    return "" if summary.voxel_share is None else f"{100 * summary.voxel_share:.3g} %"


def peers_of(summary: Summary, summaries: Sequence[Summary]) -> list[Summary]:
    """The summaries among which a row can be the best: those of its class that have not collapsed."""
    return [
        other for other in summaries
        if other.class_name == summary.class_name and other.metrics and not other.collapsed
    ]


def printed_estimate(summary: Summary, metric: str, level: Level, peers: Sequence[Summary]) -> Text:
    """A cell of ours, in bold where none of the peers is better."""
    if metric not in summary.metrics:
        return Text("")
    if summary.hides(metric):
        return Text(f"collapsed ({summary.missed} missed)")
    best = max if CATALOGUE[metric].higher_is_better else min
    ours = summary.metrics[metric]
    is_best = len(peers) > 1 and not summary.collapsed and ours.mean == best(
        peer.metrics[metric].mean for peer in peers if metric in peer.metrics
    )
    return Text(ours.printed(level.digits_of(metric)), is_best)


def printed_published(summary: Summary, metric: str) -> str:
    published = summary.published_estimate(metric)
    return published.printed(3) if published else ""


def printed_difference(summary: Summary, metric: str, level: Level) -> str:
    difference = summary.difference(metric)
    if difference is None or summary.hides(metric):
        return ""
    return format_number(difference, level.digits_of(metric), signed=True)
