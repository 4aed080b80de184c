"""The catalogue of metrics against the files it describes and against the metrics themselves."""

import csv

import numpy as np
import pytest

from evaluation.metric_catalogue import CATALOGUE, COLUMNS, METRICS
from evaluation.run_metrics import Masks, measure_class

# As docs/DESIGN.md and runs of earlier versions have it.
FILE_COLUMNS = (
    "case_id", "class", "dsc", "hd95_mm", "hd_mm", "n_ref", "n_pred", "outcome", "hd95_max_mm", "assd_mm",
    "surface_dice", "volume_difference_mm3", "avd_percent", "lesion_recall", "lesion_precision", "lesion_f1",
    "lesion_count_difference", "class_index", "n_voxels", "tolerance_mm", "checkpoint", "epoch", "space",
    "ignore_label",
)


def test_the_columns_of_metrics_csv_are_those_of_earlier_versions():
    assert tuple(column.key for column in COLUMNS) == FILE_COLUMNS


def test_titles_are_unique_and_name_the_unit():
    assert len({column.title for column in COLUMNS}) == len(COLUMNS)
    assert CATALOGUE["hd95_mm"].heading() == "HD95 (mm)" and CATALOGUE["hd95_mm"].heading("px") == "HD95 (px)"
    assert CATALOGUE["hd_mm"].heading("px", over="slices") == "HD (slices, px)"
    assert CATALOGUE["dsc"].heading("px") == "DSC" and CATALOGUE["dsc"].heading(over="slices") == "DSC (slices)"
    assert CATALOGUE["avd_percent"].heading("px") == "absolute volume difference (%)"
    for column in COLUMNS:
        assert "mm" not in column.heading("px") and ("_mm" in column.key) == ("mm" in column.heading())


@pytest.mark.parametrize("metric", METRICS)
def test_the_better_direction_and_the_bounds(metric):
    """A prediction that is the reference is at least as good as one moved by a pixel, and that one as an empty one."""
    reference = np.zeros((8, 8, 3), dtype=np.uint8)
    reference[2:6, 2:5, 1:] = 1
    moved, empty = np.roll(reference, 1, axis=0), np.zeros_like(reference)
    common = {"tolerance_mm": 0.5, "checkpoint": "best", "epoch": 0, "space": "sliced", "ignore_label": ""}
    sign = 1 if METRICS[metric].higher_is_better else -1
    same, near, none = (
        measure_class(Masks("1", mask, reference, (1.0, 1.0, 2.0)), "lesion", 1, common, is_only_class=True)[0][metric]
        for mask in (reference, moved, empty)
    )
    values = [value for value in (same, near, none) if value == value]      # no precision of an empty prediction
    assert values == sorted(values, reverse=sign > 0) and len(values) > 1
    assert values[0] != values[-1] or metric in ("lesion_precision",)
    if METRICS[metric].bounded:
        assert min(values) >= 0 and values[0] == 1 >= max(values)


def test_a_run_writes_the_catalogues_columns(sliced, tmp_path):
    from commands import evaluate

    import train

    run = tmp_path / "run"
    train.main(["--data", str(sliced), "--out", str(run), "--width", "4", "--epochs", "1", "--device", "cpu"])
    evaluate.main(["run", str(run), "--device", "cpu"])
    with (run / "metrics.csv").open() as file:
        assert next(csv.reader(file)) == list(FILE_COLUMNS)
