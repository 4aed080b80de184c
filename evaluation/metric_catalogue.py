"""The columns of metrics.csv: each metric's title, digits, unit and better direction, for whatever prints it."""

from dataclasses import dataclass

import numpy as np

LARGEST = 1e15      # of what is measured and counted
LENGTH = "mm"  # the unit of lengths in the catalogue; a data set without a spacing has another one, "px"


@dataclass(frozen=True)
class Column:
    """A column of metrics.csv: a metric, a count, or how the metrics were measured."""

    key: str
    title: str
    digits: int | None = None               # None: printed as it is in the file
    unit: str = ""
    higher_is_better: bool | None = None    # None: not a measure of quality
    bounded: bool = False                   # from 0 to 1, the limits of its axis
    is_count: bool = False                  # a whole number
    lowest: float = 0.0
    is_text: bool = False
    flag: str = ""                          # of ``eval.py run``, which chooses it
    is_shown: bool = True                   # in the page's table of cases

    def says(self, values: np.ndarray) -> np.ndarray:
        """Which of the values can be the metric's or count's."""
        possible = (values >= self.lowest) & (values <= (1.0 if self.bounded else LARGEST))
        return possible & (values == np.rint(values)) if self.is_count else possible

    @property
    def expected(self) -> str:
        """Which values it can have, in words."""
        kind = "whole numbers" if self.is_count else "numbers"
        return f"finite {kind} in {self.key}, from {self.lowest:g} to {1 if self.bounded else LARGEST:g}"

    @property
    def is_length(self) -> bool:
        return self.unit == LENGTH

    def heading(self, length_unit: str = LENGTH, *, over: str = "") -> str:
        """The title with its unit and with what it is a mean over: ``HD (slices, mm)``."""
        remarks = [remark for remark in (over, self.unit.replace(LENGTH, length_unit)) if remark]
        return self.title + (f" ({', '.join(remarks)})" if remarks else "")


# In the order of the file.
COLUMNS = (
    Column("case_id", "case", is_text=True),
    Column("class", "class", is_text=True),
    Column("dsc", "DSC", 3, higher_is_better=True, bounded=True),
    Column("hd95_mm", "HD95", 2, LENGTH, higher_is_better=False),
    Column("hd_mm", "HD", 2, LENGTH, higher_is_better=False),
    Column("n_ref", "reference", 0, "voxels", is_count=True),
    Column("n_pred", "prediction", 0, "voxels", is_count=True),
    Column("outcome", "outcome", is_text=True),
    Column("hd95_max_mm", "HD95, directed maximum", 2, LENGTH, higher_is_better=False),
    Column("assd_mm", "ASSD", 2, LENGTH, higher_is_better=False),
    Column("surface_dice", "surface Dice", 3, higher_is_better=True, bounded=True),
    Column("volume_difference_mm3", "volume difference", 0, f"{LENGTH}³", lowest=-LARGEST),
    Column("avd_percent", "absolute volume difference", 1, "%", higher_is_better=False),
    Column("lesion_recall", "lesion recall", 3, higher_is_better=True, bounded=True),
    Column("lesion_precision", "lesion precision", 3, higher_is_better=True, bounded=True),
    Column("lesion_f1", "lesion F1", 3, higher_is_better=True, bounded=True),
    Column("lesion_count_difference", "lesion count difference", 0, is_count=True, lowest=-LARGEST),
    Column("class_index", "class index", is_count=True, is_shown=False),
    Column("n_voxels", "grid", 0, "voxels", is_count=True, lowest=1),
    Column("tolerance_mm", "tolerance of the surface Dice", 1, LENGTH, flag="--tolerance"),
    Column("checkpoint", "checkpoint", is_text=True, flag="--checkpoint", is_shown=False),
    Column("epoch", "epoch", is_count=True),
    Column("space", "space", is_text=True, flag="--space"),
    Column("ignore_label", "ignore label", is_text=True, flag="--ignore-label"),
)
# Of metrics_2d.csv alone: no Hausdorff distance, and the only figure to be compared with MIDL's table.
HD_MIDL = Column("hd_midl", "HD as MIDL 2019 computes it", 3, higher_is_better=False)
SLICE_COUNTS = (
    Column("n_slices", "slices", 0, is_count=True, lowest=1),
    Column("n_empty_slices", "slices without a lesion", 0, is_count=True),
)
CATALOGUE = {column.key: column for column in (*COLUMNS, HD_MIDL, *SLICE_COUNTS)}
# What rows can be compared in.
METRICS = {column.key: column for column in COLUMNS if column.higher_is_better is not None}
# How metrics were measured: by column, the flag that chooses it.
MEASURED_WITH = {column.key: column.flag for column in COLUMNS if column.flag}
