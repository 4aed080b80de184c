"""The sections of the report page as HTML: tables that sort, settings and provenance. Every value is escaped here."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from reporting import comparison, table_formats, tables
from reporting.runs import Run
from reporting.tables import LEVELS

SUMMARY_METRICS = (*LEVELS["volume"].printed, ("hd_mm", "HD (mm)", 2))
# Of metrics.csv: title and digits. A column that is not named here keeps its name and its numbers as they are.
CASE_COLUMNS = {
    "dsc": ("DSC", 3),
    "hd95_mm": ("HD95 (mm)", 2),
    "hd_mm": ("HD (mm)", 2),
    "n_ref": ("reference (voxels)", 0),
    "n_pred": ("prediction (voxels)", 0),
    "hd95_max_mm": ("HD95, larger direction (mm)", 2),
    "assd_mm": ("ASSD (mm)", 2),
    "surface_dice": ("surface Dice", 3),
    "volume_difference_mm3": ("volume difference (mm³)", 0),
    "avd_percent": ("absolute volume difference (%)", 1),
    "lesion_recall": ("lesion recall", 3),
    "lesion_precision": ("lesion precision", 3),
    "lesion_f1": ("lesion F1", 3),
    "lesion_count_difference": ("lesion count difference", 0),
    "n_voxels": ("grid (voxels)", 0),
    "tolerance_mm": ("surface Dice's tolerance (mm)", 1),
}
KEYS = ("case_id", "class")
NOT_SHOWN = ("class_index", "checkpoint")
LONG_TEXT_LINES = 200


@dataclass(frozen=True)
class Cell:
    """A cell of a table that sorts: by ``value`` where there is one, by its text where the column is not numeric."""

    text: str
    value: float | None = None
    is_best: bool = False
    case: int | None = None     # the case that the viewer opens from here


def escape(value: object) -> str:
    return html.escape(str(value), quote=True)


def script_json(value: object) -> str:
    """JSON that is safe inside a script: nothing in it ends the element or opens a comment, and no line ends in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def number(value: float) -> float | None:
    """A number for JSON; None stands for what is not finite."""
    return float(value) if math.isfinite(value) else None


def sortable_table(
    name: str, caption: str, header: Sequence[tuple[str, bool]], lines: Sequence[tuple[Mapping, Sequence[Cell]]]
) -> str:
    """A table of the page; header has (title, whether numeric), each line its data attributes and its cells."""
    heads = "".join(
        f'<th scope="col"{" data-type=number" if numeric else ""}><button type="button">{escape(title)}</button></th>'
        for title, numeric in header
    )
    body = []
    for attributes, cells in lines:
        opened = "".join(f' data-{key}="{escape(value)}"' for key, value in attributes.items())
        body.append(f"<tr{opened}>" + "".join(
            table_cell(cell, numeric=numeric, heads_line=place == 0)
            for place, (cell, (_, numeric)) in enumerate(zip(cells, header, strict=True))
        ) + "</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="sortable" '
        f'id="{escape(name)}"><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead>\n<tbody>'
        + "\n".join(body) + "</tbody></table></div>"
    )


def table_cell(cell: Cell, *, numeric: bool, heads_line: bool) -> str:
    inner = escape(cell.text)
    if cell.is_best:
        inner = f"<strong>{inner}</strong>"
    if cell.case is not None:
        inner = f'<button type="button" class="link" data-case="{cell.case}">{inner}</button>'
    tag = 'th scope="row"' if heads_line else "td"
    value = f' data-value="{cell.value!r}"' if numeric and cell.value is not None else ""
    return f"<{tag}{value}>{inner}</{tag.split()[0]}>"


def summary_table(lines: Sequence[dict]) -> str:
    """A line a row and class from ``tables.collect``: mean (sd) over seeds, the published figure beside it."""
    has_published = [name for name, *_ in SUMMARY_METRICS if any(f"published_{name}" in line for line in lines)]
    header = [("row", False), ("class", False)]
    for name, title, _ in SUMMARY_METRICS:
        header += [(title, True)]
        header += [(f"published {title}", True), (f"difference {title}", True)] if name in has_published else []
    header += [("missed", True), ("false alarms", True), ("seeds", True)]
    body = []
    for line in lines:
        peers = [other for other in lines if other["class"] == line["class"] and not other["collapsed"]]
        cells = [Cell(line["row"]), Cell(line["class"])]
        for name, _, digits in SUMMARY_METRICS:
            text, is_best = tables.measured(line, name, digits, peers)
            hidden = line["collapsed"] and name != "dsc"    # as in the printed table, and last when sorted
            cells.append(Cell(text, None if hidden else number(line[name]), is_best))
            if name in has_published:
                cells.append(Cell(tables.published(line, name), number(line.get(f"published_{name}", math.nan))))
                differs = math.nan if hidden else line.get(f"difference_{name}", math.nan)
                cells.append(Cell(tables.difference(line, name, digits), number(differs)))
        seeds = line["seeds"].split()
        for key in ("missed", "false_alarms"):
            cells.append(Cell(f"{line[key]} of {line['cases'] * len(seeds)}", line[key]))
        body.append(({}, [*cells, Cell(", ".join(seeds), len(seeds))]))
    return sortable_table("summary-table", "Mean (sd) over seeds, a line a row and class", header, body)


def tests_table(lines: Sequence[dict]) -> str:
    """A line a class, metric and row from ``comparison.collect``: the paired tests against the baseline."""
    header = [("row", False), ("class", False), ("metric", False), ("difference", True), ("95 % interval", True)]
    header += [("p", True), ("p (Holm)", True), ("p better", True), ("p better (Holm)", True)]
    body = []
    for line in lines:
        title, digits, _ = comparison.COMPARED[line["metric"]]
        cells = [Cell(line["row"]), Cell(line["class"]), Cell(title)]
        cells.append(Cell(table_formats.number(line["difference"], digits, signed=True), number(line["difference"])))
        cells.append(Cell(comparison.interval(line, digits), number(line["ci_low"])))
        for kind in ("p", "p_better"):
            cells.append(Cell(comparison.p_value(line[kind]), line[kind]))
            holm = line[f"{kind}_holm"]
            cells.append(Cell(comparison.p_value(holm), holm, holm < 0.05))
        body.append(({}, cells))
    return sortable_table("tests-table", "Each row less the baseline, paired over cases", header, body)


def case_table(found: dict[str, list[Run]], case_ids: Sequence[str]) -> str:
    """Every line of every metrics.csv; ``case_ids`` in the viewer's order."""
    every = pd.concat([run.metrics for runs in found.values() for run in runs])
    names = [name for name in every.columns if name not in (*KEYS, *NOT_SHOWN)]
    numeric = {name: all_numbers(every[name]) for name in names}
    header = [("row", False), ("seed", True), ("case", False), ("class", False)]
    header += [(CASE_COLUMNS.get(name, (name.replace("_", " "),))[0], numeric[name]) for name in names]
    body = []
    for row_index, (row, runs) in enumerate(found.items()):
        for run in runs:
            for line in run.metrics.to_dict("records"):
                case = case_ids.index(line["case_id"])
                cells = [Cell(row), Cell(str(run.seed), run.seed)]
                cells += [Cell(line["case_id"], case=case), Cell(line["class"])]
                cells += [metric_cell(name, line.get(name, ""), numeric=numeric[name]) for name in names]
                body.append(({"row": row_index, "of-case": case}, cells))
    return sortable_table("case-table", "Metrics of each case, volumes in 3D", header, body)


def all_numbers(column: pd.Series) -> bool:
    """Whether a column of metrics.csv has a number, and nothing but numbers and empty cells."""
    values = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    values = values[values != ""]
    return len(values) > 0 and not pd.to_numeric(values, errors="coerce").isna().any()


def metric_cell(name: str, value: object, *, numeric: bool) -> Cell:
    """A cell of metrics.csv: rounded for reading, sorted by the number in the file."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip():
        return Cell("")
    if not numeric:
        return Cell(str(value))
    digits = CASE_COLUMNS[name][1] if name in CASE_COLUMNS else None
    return Cell(str(value) if digits is None else f"{float(value):.{digits}f}", number(float(value)))


def differing_settings(found: dict[str, list[Run]]) -> list[str]:
    """The settings in which the rows differ; the seeds of one row agree in all of theirs."""
    rows = [runs[0].settings for runs in found.values()]
    names = dict.fromkeys(name for settings in rows for name in settings if name != "seed")
    return [name for name in names if any(other.get(name) != rows[0].get(name) for other in rows)]


def settings_table(found: dict[str, list[Run]]) -> str:
    """A line a row with the settings in which the rows differ."""
    names = differing_settings(found)
    if not names:
        return f"<p>{'All rows have' if len(found) > 1 else 'One row: it has'} the same settings in all their runs.</p>"
    lines = []
    for row, runs in found.items():
        lines.append(({}, [Cell(row), *(Cell(show(runs[0].settings.get(name))) for name in names)]))
    header = [("row", False), *((name, False) for name in names)]
    return sortable_table("settings-table", "Settings in which the rows differ", header, lines)


def run_details(row: str, run: Run, environment: dict, differing: Sequence[str]) -> str:
    """Settings (config.json) and provenance (env.json) of one run, folded."""
    settings = {name: run.settings[name] for name in sorted(run.settings)}
    facts = {name: value for name, value in environment.items() if name != "git_diff"}
    return (
        f'<details class="run"><summary>{escape(row)}, seed {run.seed}</summary><div class="pairs">'
        f"{pairs('Settings (config.json)', settings, differing)}{pairs('Provenance (env.json)', facts, ())}</div>"
        f"{long_text('Uncommitted changes (git diff)', environment.get('git_diff'))}</details>"
    )


def pairs(title: str, values: Mapping, marked: Sequence[str]) -> str:
    """Names and values, nested ones with dots; those that differ between rows are marked."""
    lines = []
    for name, value in flat(values):
        shown = f"<mark>{escape(show(value))}</mark>" if name in marked else escape(show(value))
        lines.append(f'<tr><th scope="row">{escape(name)}</th><td>{shown}</td></tr>')
    return f"<table><caption>{escape(title)}</caption><tbody>{''.join(lines)}</tbody></table>"


def flat(values: Mapping, prefix: str = "") -> list[tuple[str, object]]:
    lines = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += flat(value, f"{prefix}{name}.")
        else:
            lines.append((prefix + str(name), value))
    return lines


def show(value: object) -> str:
    """A setting as the file has it: text without quotes, a dash for what is not set, the rest as JSON."""
    if value is None:
        return "\N{EN DASH}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def long_text(title: str, text: str | None) -> str:
    lines = str(text or "").splitlines()
    if not lines:
        return ""
    rest = "" if len(lines) <= LONG_TEXT_LINES else f"\n... {len(lines) - LONG_TEXT_LINES} more lines in env.json"
    shown = escape("\n".join(lines[:LONG_TEXT_LINES]) + rest)
    return f"<details><summary>{escape(title)}: {len(lines)} lines</summary><pre>{shown}</pre></details>"
