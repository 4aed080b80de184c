"""nnU-Net's predictions of the validation cases, measured as those of every other run: on the scans' own grid."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from engines.nnunet_data import raw_cases
from environment.cores import core_count
from evaluation.measuring import MeasuringOptions
from evaluation.metric_catalogue import COLUMNS
from evaluation.outputs import read_template, save_mask
from evaluation.run_metrics import SLICE_COLUMNS, Masks, check_mask_folders, measure_class, save_prediction
from raw_data.dataset import Case, RawDataset
from raw_data.files import RawFile
from raw_data.volumes import IGNORED, read_nifti
from sliced_data.facts import check_size
from sliced_data.meta import Meta
from slicing.grid import Grid
from slicing.resampling import to_sliced_label
from slicing.selection import kept_slices
from utils import InputError, write_rows


def measure(
    place: Callable[[Path], Path], out: Path, meta: Meta, validation: Path, epochs: int, *, tolerance_mm: float
) -> None:
    """Write predictions/ (sliced grid), predictions_native/, metrics_2d.csv and metrics.csv of a run.

    ``place`` says where a file is written before it has its name. ``InputError`` where a validation case has no
    prediction in the folder ``validation``.
    """
    check_mask_folders(out)
    options = MeasuringOptions("last", "native", None, tolerance_mm, None)
    common = options.columns() | {"epoch": epochs - 1}
    raw, cases = raw_cases(meta)
    of_id = {case.case_id: case for case in cases}
    grid = Grid(check_size(meta.size), meta.facts["fit"], meta.facts["spacing"], meta.facts["resize_labels"])
    lines = []
    with ThreadPoolExecutor(core_count()) as pool:
        for sliced in (case for case in meta.cases if case.split == "val"):
            case = of_id[sliced.case_id]
            masks, whole = read_masks(case, raw, validation, all_slices=meta.facts["all_slices"])
            shown = to_sliced_label(masks.prediction, grid, masks.spacing)
            path = place(out / "predictions" / f"{case.case_id}.nii.gz")
            save_prediction(path, shown, sliced.spacing, unit=raw.unit)
            template = read_template(raw, case)
            native = out / "predictions_native" / f"{case.case_id}{template.endings[0]}"
            save_mask(place(native), whole, template, len(meta.class_names))
            for k, name in list(enumerate(meta.class_names))[1:]:
                only = len(meta.class_names) == 2
                lines.append(pool.submit(measure_class, masks, name, k, common, is_only_class=only))
        rows, slice_rows = zip(*(line.result() for line in lines), strict=True)
    write_rows(place(out / "metrics_2d.csv"), slice_rows, SLICE_COLUMNS)
    write_rows(place(out / "metrics.csv"), rows, [column.key for column in COLUMNS])


def read_masks(case: Case, raw: RawDataset, validation: Path, *, all_slices: bool) -> tuple[Masks, np.ndarray]:
    """Prediction and reference on the slices that were exported, and the prediction on all of them (X, Y, Z)."""
    voxels, spacing = raw.read_label(case)
    reference = raw.classes_of(case, voxels)
    kept = kept_slices(case, reference, all_slices=all_slices)
    prediction = read_prediction(case.case_id, validation, reference[..., kept].shape, len(raw.class_names))
    whole = np.zeros(reference.shape, np.uint8)
    whole[..., kept] = prediction
    reference = reference[..., kept]
    ignore = reference == IGNORED if raw.has_ignored else None
    return Masks(case.case_id, prediction, reference, spacing, ignore), whole


def read_prediction(case_id: str, validation: Path, shape: Sequence[int], num_classes: int) -> np.ndarray:
    """The classes (X, Y, Z) that nnU-Net predicted; ``InputError`` where they are missing or on another grid."""
    path = validation / f"{case_id}.nii.gz"
    if not path.exists():
        raise InputError(f"{case_id}: expected nnU-Net's prediction {path}, found none")
    classes, _ = read_nifti(case_id, RawFile(path))
    if classes.shape != tuple(shape) or classes.min() < 0 or classes.max() >= num_classes:
        found = f"{classes.shape} of {classes.min():g} to {classes.max():g} in {path}"
        raise InputError(f"{case_id}: expected classes 0 to {num_classes - 1} of shape {tuple(shape)}, found {found}")
    return classes.astype(np.uint8)
