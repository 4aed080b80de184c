"""Which rows go into which figure, and all figures of a folder of results at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from environment.atomic_outputs import written_together
from reporting.figures import most_rows, write_boxes, write_curves, write_shares
from reporting.runs import finished_rows
from utils import InputError

Tables = Mapping[str, Sequence[str]]


def choose_figures(
    results: Path, name: str, tables: Tables, seeds: Sequence[int] | None = None
) -> dict[str, list[str]]:
    """Name of a figure -> its rows: all that have an evaluated run (of one of ``seeds``), in the order of the tables.

    Where the style cannot tell so many rows apart there is one figure per table, NAME-TABLE, and NAME-others for rows
    that are in none. ``InputError`` where no row has a run.
    """
    finished = finished_rows(results, tables, seeds)
    if len(finished) <= most_rows() or not tables:
        return {name: finished}
    in_tables = {row for rows in tables.values() for row in rows}
    parts = {f"{name}-{table}": [row for row in rows if row in finished] for table, rows in tables.items()}
    parts[f"{name}-others"] = [row for row in finished if row not in in_tables]
    return {figure: list(dict.fromkeys(rows)) for figure, rows in parts.items() if rows}


def write_figures(
    results: Path, tables: Tables, *, seeds: Sequence[int] | None, seed: int, baseline: str, smooth: int
) -> list[Path]:
    """Draw curves, pictures (of the runs of ``seed``), boxes, maps and shares of all rows with an evaluated run.

    Each is there when the last of them is whole. ``InputError`` where one cannot be drawn.
    """
    # Loads torch, which curves and boxes alone, drawn through choose_figures, do without.
    from reporting.pictures import write_maps, write_pictures

    if seeds and seed not in seeds:
        raise InputError(f"--seed: expected one of --seeds {' '.join(map(str, seeds))}, found {seed}")
    # What cannot be drawn is found before anything is.
    curves, pictures, boxes = (
        choose_figures(results, name, tables, chosen)
        for name, chosen in (("curves", seeds), ("pictures", [seed]), ("boxes", seeds))
    )
    first = next(iter(curves.values()))[:1]
    paths = []
    with written_together():
        for name, rows in curves.items():
            paths += write_curves(results, rows, name, smooth=smooth, seeds=seeds)
        for name, rows in pictures.items():
            paths += write_pictures(results, rows, name, seed=seed, baseline=baseline)
        for name, rows in boxes.items():
            paths += write_boxes(results, rows, name, seeds=seeds)
        return [*paths, *write_maps(results, first, "maps"), *write_shares(results, first, "shares")]
