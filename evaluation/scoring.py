"""Metrics of any two masks or folders of masks, without a run (``eval.py score``)."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boundary_loss.lesions import lesion_scores
from boundary_loss.metrics import dsc, lesion_detection, surface_metrics, volume_difference
from boundary_loss.surface_distances import bounding_box
from environment.atomic_outputs import check_own, written_together
from evaluation.mask_files import MaskPair, find_pairs, read_pair
from evaluation.metric_catalogue import CATALOGUE
from raw_data.nifti import MAX_SPACING, MIN_SPACING
from slicing.workers import in_processes
from utils import InputError, write_rows

LESION_COUNTS = ("n_lesions_ref", "n_lesions_pred", "n_lesions_detected", "n_lesions_false")
COLUMNS = (
    "case_id", "label", "outcome", "dsc", "hd_mm", "hd95_mm", "hd95_max_mm", "assd_mm", "surface_dice", "n_ref",
    "n_pred", "volume_difference_mm3", "avd_percent", "lesion_recall", "lesion_precision", "lesion_f1",
    "lesion_count_difference", *LESION_COUNTS, "tolerance_mm", "unit",
)
LESION_COLUMNS = ("case_id", "label", "lesion", "outcome", "n_ref", "n_pred", "dsc", "hd95_mm", "unit")
# Of the printed summary; the rest is in the file.
SUMMARY = ("dsc", "hd95_mm", "hd95_max_mm", "hd_mm", "assd_mm", "surface_dice", "avd_percent", "lesion_f1")


@dataclass(frozen=True)
class ScoreOptions:
    """What is scored, and how: labels (None: all that occur), a label of the reference whose voxels count in neither
    mask, the surface Dice's tolerance, a spacing in place of the files', whether lesions are scored one by one."""

    labels: tuple[int, ...] | None = None
    ignore_label: int | None = None
    tolerance_mm: float = 2.0
    spacing: tuple[float, ...] | None = None
    per_lesion: bool = False

    def __post_init__(self) -> None:
        if self.labels is not None and (0 in self.labels or self.ignore_label in self.labels):
            raise InputError(f"--labels: expected labels other than 0 and the ignored one, found {self.labels}")
        if not 0 <= self.tolerance_mm < np.inf:
            raise InputError(f"--tolerance: expected at least 0, found {self.tolerance_mm}")
        sizes = self.spacing
        if sizes is not None and not (len(sizes) in (2, 3) and MIN_SPACING <= min(sizes) <= max(sizes) <= MAX_SPACING):
            expected = f"2 or 3 numbers from {MIN_SPACING:g} to {MAX_SPACING:g} (mm)"
            raise InputError(f"--spacing: expected {expected}, found {sizes}")


@dataclass(frozen=True)
class Scores:
    """Lines of metrics per case and label, lines per lesion, and predictions that had no reference."""

    rows: list[dict]
    lesions: list[dict]
    left_out: list[str]

    def summary(self) -> str:
        """Mean (sd) over the cases, per label."""
        lines = [f"{name}: a prediction without a reference, left out" for name in self.left_out]
        for label in sorted({row["label"] for row in self.rows}):
            rows = [row for row in self.rows if row["label"] == label]
            unit = " or ".join(sorted({row["unit"] for row in rows}))
            lines.append(f"label {label}, {len(rows)} case{'s' * (len(rows) > 1)}, {outcomes(rows)}")
            lines += [f"  {CATALOGUE[name].heading(unit):36s} {mean_and_sd(rows, name)}" for name in SUMMARY]
        return "\n".join(lines)


def score(prediction: Path, reference: Path, options: ScoreOptions, *, jobs: int) -> Scores:
    """Scores of two masks, or of two folders of masks; ``InputError`` where a case's two do not go together."""
    pairs, left_out = find_pairs(prediction, reference)
    cases = in_processes(functools.partial(score_case, options=options), pairs, workers=jobs, description="scoring")
    found = sorted({label for case in cases for label in case.rows})
    nowhere = set(options.labels or ()) - set(found)
    if nowhere:
        raise InputError(f"--labels: expected labels of {reference} or {prediction}, found {min(nowhere)} in no mask")
    if not found:
        raise InputError(f"{reference}: expected a label other than 0 in {reference} or {prediction}, found none")
    rows = [case.rows.get(label) or case.empty(label, options) for case in cases for label in found]
    return Scores(rows, [lesion for case in cases for lesion in case.lesions], left_out)


def write_scores(scores: Scores, out: Path | None, lesions_out: Path | None) -> None:
    """The lines as CSV files; only files that were made here before are replaced."""
    outputs = [(out, COLUMNS, scores.rows), (lesions_out, LESION_COLUMNS, scores.lesions)]
    with written_together() as place:
        for path, columns, rows in outputs:
            if path is not None:
                write_rows(place(path), rows, columns)


def check_outputs(out: Path | None, lesions_out: Path | None) -> None:
    """``InputError`` where a file to write is there and has other columns, or both are one."""
    for path, columns in ((out, COLUMNS), (lesions_out, LESION_COLUMNS)):
        if path is not None:
            check_own(path, ",".join(columns).encode())
    if out is not None and lesions_out is not None and out.resolve() == lesions_out.resolve():
        raise InputError(f"{out}: expected a file of its own for each output, found --out and --lesions alike")


@dataclass(frozen=True)
class CaseScores:
    """The lines of the labels that occur in a case, and its lesions."""

    case_id: str
    rows: dict[int, dict]
    lesions: list[dict]
    dimensions: int
    unit: str

    def empty(self, label: int, options: ScoreOptions) -> dict:
        """The line of a label that is in neither mask."""
        nothing, spacing = np.zeros((1,) * self.dimensions, dtype=bool), (1.0,) * self.dimensions
        key = {"case_id": self.case_id, "label": label, "unit": self.unit}
        return key | metrics_of(nothing, nothing, spacing, options.tolerance_mm)


def score_case(pair: MaskPair, *, options: ScoreOptions) -> CaseScores:
    """Read one pair of masks and measure each label in it."""
    found = read_pair(pair, options.spacing)
    keep = None if options.ignore_label is None else found.reference != options.ignore_label
    present = labels_in(found.prediction) | labels_in(found.reference)
    labels = sorted((present - {options.ignore_label}) & set(options.labels or present))
    rows, lesions = {}, []
    for label in labels:
        masks = found.prediction == label, found.reference == label
        if keep is not None:
            masks = masks[0] & keep, masks[1] & keep
        key = {"case_id": pair.case_id, "label": label, "unit": found.unit}
        rows[label] = key | metrics_of(*masks, found.spacing, options.tolerance_mm)
        if options.per_lesion:
            lesions += [key | lesion for lesion in lesion_scores(*masks, found.spacing)]
    return CaseScores(pair.case_id, rows, lesions, found.reference.ndim, found.unit)


def labels_in(mask: np.ndarray) -> set[int]:
    """The label values of a mask (X, Y, Z) but 0."""
    inside = mask > 0
    return set(np.unique(mask[bounding_box(inside)]).tolist()) - {0} if inside.any() else set()


def metrics_of(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], tolerance_mm: float
) -> dict[str, float | int | str]:
    """The metrics of COLUMNS for two masks (X, Y, Z)."""
    row = {"dsc": dsc(prediction, reference), "tolerance_mm": tolerance_mm}
    row |= {"n_ref": int(np.count_nonzero(reference)), "n_pred": int(np.count_nonzero(prediction))}
    row |= surface_metrics(prediction, reference, spacing, tolerance_mm=tolerance_mm)
    row |= volume_difference(prediction, reference, spacing) | lesion_detection(prediction, reference)
    return {name: value for name, value in row.items() if name in COLUMNS}


def outcomes(rows: Sequence[dict]) -> str:
    """How many cases have which outcome, in words."""
    words = {"scored": "measured", "both_empty": "empty in both", "missed": "missed", "false_alarm": "false alarms"}
    counts = {words[name]: sum(row["outcome"] == name for row in rows) for name in words}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def mean_and_sd(rows: Sequence[dict], name: str) -> str:
    """Mean (sd) over the cases that have a value: a relative difference has none where the reference is empty."""
    values = np.array([row[name] for row in rows if not np.isnan(row[name])])
    if not len(values):
        return "none"
    digits = CATALOGUE[name].digits
    spread = f" ({values.std(ddof=1):.{digits}f})" if len(values) > 1 else ""
    fewer = f" over {len(values)} cases" if len(values) < len(rows) else ""
    return f"{values.mean():.{digits}f}{spread}{fewer}"
