"""The sections of the report page as HTML: tables that sort, settings and provenance. Every value is escaped here."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from evaluation.metric_catalogue import CATALOGUE
from reporting import comparison, tables
from reporting.comparison import PairedResult
from reporting.levels import VOLUME
from reporting.run_settings import differing_settings, settings_by_row
from reporting.runs import Run, first_run
from reporting.table_formats import Note
from reporting.tables import Summary

SUMMARY_METRICS = (*VOLUME.metrics, "hd_mm")
LONG_TEXT_LINES = 200


@dataclass(frozen=True)
class SortedCell:
    """A cell of a table that sorts: by ``value`` where there is one, by its text where the column is not numeric."""

    text: str
    value: float | None = None
    is_best: bool = False
    case: int | None = None     # the case that the viewer opens from here


def escape_html(value: object) -> str:
    return html.escape(str(value), quote=True)


def script_json(value: object) -> str:
    """JSON that is safe inside a script: nothing in it ends the element or opens a comment, and no line ends in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def finite(value: float | None) -> float | None:
    """A number for JSON and for sorting; None for one that is missing or not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


def sortable_table(
    name: str, caption: str, header: Sequence[tuple[str, bool]], lines: Sequence[tuple[Mapping, Sequence[SortedCell]]]
) -> str:
    """A table of the page; header has (title, whether numeric), each line its data attributes and its cells."""
    heads = "".join(
        f'<th scope="col"{" data-type=number" if numeric else ""}>'
        f'<button type="button">{escape_html(title)}</button></th>'
        for title, numeric in header
    )
    body = []
    for attributes, cells in lines:
        opened = "".join(f' data-{key}="{escape_html(value)}"' for key, value in attributes.items())
        body.append(f"<tr{opened}>" + "".join(
            table_cell(cell, numeric=numeric, heads_line=place == 0)
            for place, (cell, (_, numeric)) in enumerate(zip(cells, header, strict=True))
        ) + "</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape_html(caption)}"><table class="sortable" '
        f'id="{escape_html(name)}"><caption>{escape_html(caption)}</caption><thead><tr>{heads}</tr></thead>\n<tbody>'
        + "\n".join(body) + "</tbody></table></div>"
    )


def table_cell(cell: SortedCell, *, numeric: bool, heads_line: bool) -> str:
    inner = escape_html(cell.text)
    if cell.is_best:
        inner = f"<strong>{inner}</strong>"
    if cell.case is not None:
        inner = f'<button type="button" class="link" data-case="{cell.case}">{inner}</button>'
    tag = 'th scope="row"' if heads_line else "td"
    value = f' data-value="{cell.value!r}"' if numeric and cell.value is not None else ""
    return f"<{tag}{value}>{inner}</{tag.split()[0]}>"


def marked_note(note: Note) -> str:
    """A note whose bold parts are marked."""
    return "".join(f"<mark>{escape_html(part.text)}</mark>" if part.bold else escape_html(part.text) for part in note)


def summary_table(summaries: Sequence[Summary], length_unit: str) -> str:
    """One line per row and class: mean (sd) over seeds, the published figure beside it."""
    published = tables.published_metrics(summaries)
    compared = [name for name in published if any(one.difference(name) is not None for one in summaries)]
    differing = any(one.differs for one in summaries)
    header = [("row", False), ("class", False)]
    for name in SUMMARY_METRICS:
        title = CATALOGUE[name].heading(length_unit)
        header += [(title, True), *([(f"published {title}", True)] if name in published else [])]
        header += [(f"difference {title}", True)] if name in compared else []
    header += [("differs from the paper in", False)] if differing else []
    header += [("missed", True), ("false alarms", True), ("seeds", True)]
    body = []
    for summary in summaries:
        cells = [SortedCell(summary.row), SortedCell(summary.class_name)]
        for name in SUMMARY_METRICS:
            ours = tables.printed_estimate(summary, name, VOLUME, tables.peers_of(summary, summaries))
            hidden = summary.hides(name)    # last when sorted
            cells.append(SortedCell(ours.text, None if hidden else finite(summary.metrics[name].mean), ours.bold))
            if name in published:
                theirs = summary.published_estimate(name)
                cells.append(SortedCell(tables.printed_published(summary, name), finite(theirs and theirs.mean)))
            if name in compared:
                printed = tables.printed_difference(summary, name, VOLUME)
                cells.append(SortedCell(printed, None if hidden else finite(summary.difference(name))))
        cells += [SortedCell(", ".join(summary.differs))] if differing else []
        volumes = summary.cases * len(summary.seeds)
        for count in (summary.missed, summary.false_alarms):
            cells.append(SortedCell(f"{count} of {volumes}", count))
        body.append(({}, [*cells, SortedCell(", ".join(map(str, summary.seeds)), len(summary.seeds))]))
    return sortable_table("summary-table", "Mean (sd) over seeds, one line per row and class", header, body)


def tests_table(compared: Sequence[PairedResult], length_unit: str) -> str:
    """One line per class, metric and row: the paired tests against the baseline."""
    header = [("row", False), ("class", False), ("metric", False), ("difference", True), ("95 % interval", True)]
    header += [("p", True), ("p (Holm)", True), ("p better", True), ("p better (Holm)", True)]
    body = []
    for result in compared:
        cells = [SortedCell(text) for text in (result.row, result.class_name, result.metric.heading(length_unit))]
        cells.append(SortedCell(comparison.printed_difference(result), finite(result.difference)))
        cells.append(SortedCell(comparison.printed_interval(result), finite(result.interval[0])))
        for p, corrected in ((result.p, result.p_holm), (result.p_better, result.p_better_holm)):
            cells.append(SortedCell(comparison.printed_p(p), p))
            is_significant = corrected < comparison.SIGNIFICANT
            cells.append(SortedCell(comparison.printed_p(corrected), corrected, is_significant))
        body.append(({}, cells))
    return sortable_table("tests-table", "Each row minus the baseline, paired over cases", header, body)


def case_table(found: Mapping[str, Sequence[Run]], case_ids: Sequence[str]) -> str:
    """Every line of every metrics.csv; ``case_ids`` in the viewer's order."""
    every = pd.concat([run.metrics for runs in found.values() for run in runs])
    names = [name for name in every.columns if name not in ("case_id", "class") and is_shown(name)]
    numeric = {name: all_numbers(every[name]) for name in names}
    header = [("row", False), ("seed", True), ("case", False), ("class", False)]
    header += [(column_heading(name, first_run(found).length_unit), numeric[name]) for name in names]
    body = []
    for row_index, (row, runs) in enumerate(found.items()):
        for run in runs:
            for line in run.metrics.to_dict("records"):
                case = case_ids.index(line["case_id"])
                cells = [SortedCell(row), SortedCell(str(run.seed), run.seed)]
                cells += [SortedCell(line["case_id"], case=case), SortedCell(line["class"])]
                cells += [metric_cell(name, line.get(name, ""), numeric=numeric[name]) for name in names]
                body.append(({"row": row_index, "of-case": case}, cells))
    return sortable_table("case-table", "Metrics of each case, volumes in 3D", header, body)


def is_shown(name: str) -> bool:
    return name not in CATALOGUE or CATALOGUE[name].is_shown


def column_heading(name: str, length_unit: str) -> str:
    """The title of a column of metrics.csv; one that the catalogue does not have keeps its name."""
    return CATALOGUE[name].heading(length_unit) if name in CATALOGUE else name.replace("_", " ")


def all_numbers(column: pd.Series) -> bool:
    """Whether a column of metrics.csv has a number, and nothing but numbers and empty cells."""
    values = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    values = values[values != ""]
    return len(values) > 0 and not pd.to_numeric(values, errors="coerce").isna().any()


def metric_cell(name: str, value: object, *, numeric: bool) -> SortedCell:
    """A cell of metrics.csv: rounded for reading, sorted by the number in the file."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip():
        return SortedCell("")
    if not numeric:
        return SortedCell(str(value))
    digits = CATALOGUE[name].digits if name in CATALOGUE else None
    return SortedCell(str(value) if digits is None else f"{float(value):.{digits}f}", finite(float(value)))


def settings_table(found: Mapping[str, Sequence[Run]]) -> str:
    """One line per row with the settings in which the rows differ."""
    names = differing_settings(found)
    if not names:
        return f"<p>{'All rows have' if len(found) > 1 else 'One row: it has'} the same settings in all their runs.</p>"
    values = {name: settings_by_row(found, name) for name in names}
    lines = [
        ({}, [SortedCell(row), *(SortedCell(printed_setting(values[name][row])) for name in names)]) for row in found
    ]
    header = [("row", False), *((name, False) for name in names)]
    return sortable_table("settings-table", "Settings in which the rows differ", header, lines)


def run_details(row: str, run: Run, environment: dict, differing: Sequence[str]) -> str:
    """Settings (config.json) and provenance (env.json) of one run, folded."""
    settings = {name: run.settings[name] for name in sorted(run.settings)}
    facts = {name: value for name, value in environment.items() if name != "git_diff"}
    return (
        f'<details class="run"><summary>{escape_html(row)}, seed {run.seed}</summary><div class="pairs">'
        f"{pairs('Settings (config.json)', settings, differing)}{pairs('Provenance (env.json)', facts, ())}</div>"
        f"{long_text('Uncommitted changes (git diff)', environment.get('git_diff'))}</details>"
    )


def pairs(title: str, values: Mapping, marked: Sequence[str]) -> str:
    """Names and values, nested ones with dots; those that differ between rows are marked."""
    lines = []
    for name, value in flatten(values):
        shown = escape_html(printed_setting(value))
        shown = f"<mark>{shown}</mark>" if name in marked else shown
        lines.append(f'<tr><th scope="row">{escape_html(name)}</th><td>{shown}</td></tr>')
    return f"<table><caption>{escape_html(title)}</caption><tbody>{''.join(lines)}</tbody></table>"


def flatten(values: Mapping, prefix: str = "") -> list[tuple[str, object]]:
    lines = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += flatten(value, f"{prefix}{name}.")
        else:
            lines.append((prefix + str(name), value))
    return lines


def printed_setting(value: object) -> str:
    """A setting as the file has it: text without quotes, a dash for what is not set, the rest as JSON."""
    if value is None:
        return "\N{EN DASH}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def long_text(title: str, text: str | None) -> str:
    lines = str(text or "").splitlines()
    if not lines:
        return ""
    rest = "" if len(lines) <= LONG_TEXT_LINES else f"\n... {len(lines) - LONG_TEXT_LINES} more lines in env.json"
    shown = escape_html("\n".join(lines[:LONG_TEXT_LINES]) + rest)
    return f"<details><summary>{escape_html(title)}: {len(lines)} lines</summary><pre>{shown}</pre></details>"
