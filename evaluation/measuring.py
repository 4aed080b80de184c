"""How a run is measured: the options of ``eval.py run``, and whether a metrics.csv was made with them."""

import math
from dataclasses import dataclass
from pathlib import Path

from evaluation.metric_catalogue import MEASURED_WITH
from utils import InputError, read_rows

# On which a run can be measured: --space, in print.
GRIDS = {"sliced": "the sliced grid", "native": "the scans' own grid"}


@dataclass(frozen=True)
class MeasuringOptions:
    """Epoch, grid, raw data for the native grid, the surface Dice's tolerance, a raw label value to leave out.

    ``InputError`` where two of them do not go together.
    """

    checkpoint: str
    space: str
    source: Path | None
    tolerance_mm: float
    ignore_label: int | None

    def __post_init__(self) -> None:
        if self.space == "sliced" and (self.source or self.ignore_label is not None):
            raise InputError("--source, --ignore-label: expected --space native beside it, found --space sliced")
        if not 0 <= self.tolerance_mm < math.inf:
            raise InputError(f"--tolerance: expected at least 0 mm, found {self.tolerance_mm}")

    def columns(self) -> dict:
        """Them as each line of metrics.csv keeps them."""
        return {
            "tolerance_mm": self.tolerance_mm,
            "checkpoint": self.checkpoint,
            "space": self.space,
            "ignore_label": "" if self.ignore_label is None else self.ignore_label,
        }


def check_measured(run: Path, options: MeasuringOptions) -> None:
    """``InputError`` unless the run's metrics.csv was made with these options; nothing is measured."""
    path = run / "metrics.csv"
    if not path.exists():
        raise InputError(f"{path}: expected metrics of a finished run, found none; eval.py run measures them")
    wanted = options.columns()
    for line in read_rows(path, MEASURED_WITH):
        for name, flag in MEASURED_WITH.items():
            if not agree(line[name], wanted[name]):
                raise InputError(
                    f"{path}: expected metrics of {flag} {shown(wanted[name])}, found {flag} {shown(line[name])}; "
                    "RESULTS=<folder> keeps both, or remove metrics.csv to measure again"
                )


def agree(found: str, wanted: object) -> bool:
    """Whether a cell of metrics.csv holds a value; 2 and 2.0 are the same number."""
    try:
        return float(found) == float(wanted)
    except ValueError:
        return found == str(wanted)


def shown(value: object) -> str:
    return str(value) if value != "" else "none"
