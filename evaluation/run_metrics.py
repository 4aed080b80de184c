"""metrics.csv of a run: its predictions on the validation cases, measured on the sliced or on the scans' own grid."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from torch import Tensor

from boundary_loss.metrics import dsc, lesion_detection, surface_metrics, volume_difference
from dataloader import Slices, StreamedSlices, open_parts
from environment.cores import core_count
from evaluation.prediction import Model, predict_cases
from evaluation.scans import save_on_grid
from raw_data.files import RawFile
from sliced_data.meta import Meta
from sliced_data.slices import SlicedCase
from utils import InputError, atomic_path, progress, write_rows

METRIC_COLUMNS = (
    "case_id", "class", "dsc", "hd95_mm", "hd_mm", "n_ref", "n_pred", "outcome", "hd95_max_mm", "assd_mm",
    "surface_dice", "volume_difference_mm3", "avd_percent", "lesion_recall", "lesion_precision", "lesion_f1",
    "lesion_count_difference", "class_index", "n_voxels", "tolerance_mm", "checkpoint", "epoch", "space",
    "ignore_label",
)
SLICE_COLUMNS = ("case_id", "class", "n_slices", "n_empty_slices", "dsc", "hd95_mm", "hd_mm", "class_index")


@dataclass(frozen=True)
class Options:
    """How to measure: epoch, grid, the surface Dice's tolerance, a raw label value that is taken out of both masks."""

    checkpoint: str
    space: str
    source: Path | None
    tolerance_mm: float
    ignore_label: int | None


@dataclass(frozen=True)
class Masks:
    """Prediction and reference classes (X, Y, Z) of a case on one grid, its spacing in mm, voxels to leave out."""

    case_id: str
    prediction: np.ndarray
    reference: np.ndarray
    spacing: tuple[float, float, float]
    ignore: np.ndarray | None = None


def measure_run(folder: Path, model: Model, meta: Meta, options: Options) -> tuple[list[dict], float]:
    """Write predictions/, metrics_2d.csv and metrics.csv of a run.

    Returns the lines of metrics.csv and the share of empty validation slices, by which MIDL's split can be known.
    """
    (val,) = open_parts(meta, ("val",), device=model.device)
    natives = read_native(meta, model, val, options) if options.space == "native" else None
    # Only now that all input is known to be there: its presence says that the run is evaluated.
    (folder / "metrics.csv").unlink(missing_ok=True)
    common = {"tolerance_mm": options.tolerance_mm, "checkpoint": options.checkpoint, "epoch": model.epoch,
              "space": options.space, "ignore_label": "" if options.ignore_label is None else options.ignore_label}
    lines: list[Future] = []
    # Distances are computed in compiled code that lets other threads run, while the network goes on.
    with ThreadPoolExecutor(core_count()) as pool:
        for masks in predicted_masks(folder, model, val, natives):
            for k, name in list(enumerate(meta.class_names))[1:]:
                lines.append(pool.submit(measure_class, masks, name, k, common))
        rows, slice_rows = zip(*(line.result() for line in progress(lines, desc="measuring", unit="case")), strict=True)
    write_rows(folder / "metrics_2d.csv", slice_rows, SLICE_COLUMNS)
    write_rows(folder / "metrics.csv", rows, METRIC_COLUMNS)
    return list(rows), float((val.label == 0).flatten(1).all(dim=1).float().mean())


def predicted_masks(
    folder: Path, model: Model, val: Slices | StreamedSlices, natives: dict[str, "Native"] | None
) -> Iterator[Masks]:
    """The masks of each validation case, written to predictions/ on the way, and to predictions_native/."""
    cases = progress(list(val.case_ranges()), desc="predicting", unit="case", leave=False)
    for (case, at), logits in zip(cases, predict_cases(model, val), strict=True):
        prediction = to_volume(logits.argmax(1))
        reference = to_volume(val.label[at])
        save_prediction(folder / "predictions" / f"{case.case_id}.nii.gz", prediction, case)
        if natives is None:
            yield Masks(case.case_id, prediction, reference, case.spacing)
            continue
        native = natives[case.case_id]
        probs = model.grid.to_native(logits.softmax(dim=1), native.reference.shape, native.spacing)
        prediction = to_volume(probs.argmax(1))
        save_on_grid(folder / "predictions_native" / f"{case.case_id}.nii.gz", prediction, native.image)
        yield Masks(case.case_id, prediction, native.reference, native.spacing, native.ignore)


def to_volume(slices: Tensor) -> np.ndarray:
    """Classes (Z, X, Y) as (X, Y, Z) uint8."""
    return np.moveaxis(slices.byte().cpu().numpy(), 0, -1)


def save_prediction(path: Path, prediction: np.ndarray, case: SlicedCase) -> None:
    """NIfTI of one case on its sliced grid; prediction (X, Y, Z) uint8."""
    image = nib.Nifti1Image(prediction, np.diag([*case.spacing, 1.0]))
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


@dataclass(frozen=True)
class Native:
    """A validation case as its raw files have it: classes (X, Y, Z), spacing in mm, voxels to leave out."""

    image: RawFile
    reference: np.ndarray
    spacing: tuple[float, float, float]
    ignore: np.ndarray | None


def read_native(meta: Meta, model: Model, val: Slices | StreamedSlices, options: Options) -> dict[str, Native]:
    """The raw label of each validation case; ``InputError`` where it is not there, or not what was sliced."""
    source = options.source or meta.source
    if source is None:
        raise InputError(f"{meta.root}: expected to know its raw data, found no source in meta.json; --source names it")
    raw, found = {case.case_id: case for case in model.raw.find_cases(Path(source))}, {}
    for case, at in val.case_ranges():
        if case.case_id not in raw:
            raise InputError(f"{source}: expected the raw scan of {case.case_id}, found none")
        files = raw[case.case_id]
        voxels, spacing = model.raw.read_label(files)
        reference = model.raw.classes_of(files, voxels)
        if not np.array_equal(model.grid.to_sliced_label(reference, spacing), to_volume(val.label[at])):
            raise InputError(f"{files.labels[0]}: expected the label that {meta.root} was sliced from")
        ignore = None if options.ignore_label is None else voxels == options.ignore_label
        found[case.case_id] = Native(files.images[0], reference, spacing, ignore)
    return found


def measure_class(masks: Masks, name: str, k: int, common: dict) -> tuple[dict, dict]:
    """The line of one class in metrics.csv and in metrics_2d.csv."""
    prediction, reference = masks.prediction == k, masks.reference == k
    if masks.ignore is not None:
        prediction, reference = prediction & ~masks.ignore, reference & ~masks.ignore
    key = {"case_id": masks.case_id, "class": name, "class_index": k}
    row = volume_row(prediction, reference, masks.spacing, common["tolerance_mm"])
    return {**key, **row, **common}, {**key, **slice_row(prediction, reference, masks.spacing)}


def volume_row(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], tolerance_mm: float) -> dict:
    """3D metrics of one class, with the WMH challenge's volume and lesion metrics; masks (X, Y, Z), spacing in mm."""
    row = {"dsc": dsc(prediction, reference), "n_voxels": reference.size}
    row |= {"n_ref": int(reference.sum()), "n_pred": int(prediction.sum())}
    row |= surface_metrics(prediction, reference, spacing, tolerance_mm=tolerance_mm)
    row |= volume_difference(prediction, reference, spacing) | lesion_detection(prediction, reference)
    return {name: value for name, value in row.items() if name in METRIC_COLUMNS}


def slice_row(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> dict:
    """Means of the 2D metrics over the slices of one volume; a slice empty in both counts as DSC 1 and 0 mm."""
    rows = []
    for z in range(reference.shape[2]):
        pair = prediction[..., z], reference[..., z]
        rows.append({"dsc": dsc(*pair), **surface_metrics(*pair, spacing[:2])})
    empty = int((~reference.any(axis=(0, 1))).sum())
    means = {name: float(np.mean([row[name] for row in rows])) for name in ("dsc", "hd95_mm", "hd_mm")}
    return {"n_slices": len(rows), "n_empty_slices": empty, **means}
