"""metrics.csv of a run: its predictions on the validation cases, measured on the sliced or on the scans' own grid."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from boundary_loss.metrics import dsc, lesion_detection, surface_metrics, volume_difference
from boundary_loss.midl import hd_midl
from dataloader import Slices, StreamedSlices, open_parts
from environment.atomic_outputs import written_together
from environment.cores import core_count
from environment.locks import exclusive
from evaluation.measuring import MeasuringOptions
from evaluation.metric_catalogue import CATALOGUE, COLUMNS
from evaluation.outputs import Template, read_template, save_mask
from evaluation.prediction import Model, load_model, predict_cases
from raw_data.dataset import Case
from raw_data.volumes import IGNORED, Spacing, check_grid
from sliced_data.meta import Meta, read_meta
from sliced_data.slices import SlicedCase
from slicing.grid import Grid
from slicing.resampling import to_native, to_sliced_label
from slicing.selection import kept_slices
from training.interrupts import memory_advice
from utils import InputError, atomic_path, leftovers, progress, write_rows

SLICE_COLUMNS = ("case_id", "class", "n_slices", "n_empty_slices", "dsc", "hd95_mm", "hd_mm", "class_index", "hd_midl")


@dataclass(frozen=True)
class Evaluation:
    """What a run was measured to be."""

    epoch: int
    data: Path
    dataset: str
    length_unit: str
    rows: list[dict]                # of metrics.csv
    empty_slices: float             # share of the validation slices without a lesion, by which MIDL's split is known

    def __str__(self) -> str:
        means = {name: float(np.mean([row[name] for row in self.rows])) for name in ("dsc", "hd95_mm")}
        measured = f"DSC {means['dsc']:.3f}, HD95 {means['hd95_mm']:.2f} {self.length_unit}"
        return f"epoch {self.epoch}: {measured} over {len({row['case_id'] for row in self.rows})} volumes"


@dataclass(frozen=True)
class Masks:
    """Prediction and reference classes (X, Y, Z) of a case on one grid, its spacing in mm, voxels to leave out."""

    case_id: str
    prediction: np.ndarray
    reference: np.ndarray
    spacing: tuple[float, float, float]
    ignore: np.ndarray | None = None


def evaluate_run(folder: Path, options: MeasuringOptions, data: Path | None, device: torch.device) -> Evaluation:
    """Measure a finished run on its validation cases, which are in ``data``, by default where the run found them.

    ``InputError`` where the run is not finished, or ``data`` is not the data set that it was trained on.
    """
    model = load_model(folder, options.checkpoint, device)
    meta = read_meta(data or model.data)
    if meta.fingerprint != model.fingerprint:
        raise InputError(
            f"{meta.root}: expected the data set that {folder} was trained on, found another (--data names it)"
        )
    with exclusive(folder), memory_advice("use --device cpu"):
        check_mask_folders(folder)
        for part in (folder, *mask_folders(folder)):
            for leftover in leftovers(part):
                leftover.unlink()
        rows, empty_slices = measure_run(folder, model, meta, options)
    return Evaluation(model.epoch, meta.root, meta.dataset, meta.unit, rows, empty_slices)


def mask_folders(folder: Path) -> list[Path]:
    """Those of the predictions of a run."""
    return [folder / "predictions", folder / "predictions_native"]


def check_mask_folders(folder: Path) -> None:
    """``InputError`` where a link stands for a folder of predictions: masks there may be labels of somebody's."""
    for part in mask_folders(folder):
        if part.is_symlink():
            raise InputError(f"{part}: expected a folder of this run's own, found a link to {part.readlink()}")


def measure_run(folder: Path, model: Model, meta: Meta, options: MeasuringOptions) -> tuple[list[dict], float]:
    """Write predictions/, metrics_2d.csv and metrics.csv of a run.

    Returns the lines of metrics.csv and the share of empty validation slices.
    """
    (val,) = open_parts(meta, ("val",), device=model.device)
    natives = read_native(meta, model, val, options) if options.space == "native" else None
    common = {**options.columns(), "epoch": model.epoch}
    is_only_class = len(meta.class_names) == 2
    lines: list[Future] = []
    # Distances are computed in compiled code that lets other threads run, while the network predicts.
    # The presence of metrics.csv says that what is beside it is its own: it goes before the first changes, comes last.
    with written_together(removing=[folder / "metrics.csv"]) as place, ThreadPoolExecutor(core_count()) as pool:
        for masks in predicted_masks(folder, model, val, natives, place):
            for k, name in list(enumerate(meta.class_names))[1:]:
                lines.append(pool.submit(measure_class, masks, name, k, common, is_only_class=is_only_class))
        rows, slice_rows = zip(*(line.result() for line in progress(lines, desc="measuring", unit="case")), strict=True)
        write_rows(place(folder / "metrics_2d.csv"), slice_rows, SLICE_COLUMNS)
        write_rows(place(folder / "metrics.csv"), rows, [column.key for column in COLUMNS])
    return list(rows), share_of_empty(val.label)


def share_of_empty(label: Tensor) -> float:
    """Share of the slices of a label (N, H, W) that have no foreground."""
    return float(((label == 0) | (label == IGNORED)).flatten(1).all(dim=1).float().mean())


def predicted_masks(
    folder: Path, model: Model, val: Slices | StreamedSlices, natives: dict[str, "Native"] | None,
    place: Callable[[Path], Path],
) -> Iterator[Masks]:
    """The masks of each validation case; ``place`` says where its files in predictions/ are written meanwhile."""
    cases = progress(list(val.case_ranges()), desc="predicting", unit="case", leave=False)
    for (case, at), logits in zip(cases, predict_cases(model, val), strict=True):
        prediction = to_volume(logits.argmax(1))
        reference = to_volume(val.label[at])
        path = place(folder / "predictions" / f"{case.case_id}.nii.gz")
        save_prediction(path, prediction, case.spacing, unit=model.raw.unit)
        if natives is None:
            yield Masks(case.case_id, prediction, reference, case.spacing, ignored_in(model, reference))
            continue
        native = natives[case.case_id]
        probs = to_native(logits.softmax(dim=1), model.grid, native.template.shape, native.spacing)
        prediction = to_volume(probs.argmax(1))
        path = folder / "predictions_native" / f"{case.case_id}{native.template.endings[0]}"
        whole = np.zeros(native.template.shape, np.uint8)
        whole[..., native.slices] = prediction
        save_mask(place(path), whole, native.template, len(model.class_names))
        yield Masks(case.case_id, prediction, native.reference, native.spacing, native.ignore)


def to_volume(slices: Tensor) -> np.ndarray:
    """Classes (Z, X, Y) as (X, Y, Z) uint8."""
    return np.moveaxis(slices.byte().cpu().numpy(), 0, -1)


def save_prediction(path: Path, prediction: np.ndarray, spacing: Spacing, *, unit: str) -> None:
    """NIfTI of one case on its sliced grid; prediction (X, Y, Z) uint8. NIfTI has no unit for pixels: none is said."""
    image = nib.Nifti1Image(prediction, np.diag([*spacing, 1.0]))
    image.header.set_xyzt_units("mm" if unit == "mm" else "unknown")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


@dataclass(frozen=True)
class Native:
    """A validation case as its raw files have it: classes (X, Y, Z), spacing in mm or px, voxels to leave out."""

    template: Template
    slices: np.ndarray              # that were sliced
    reference: np.ndarray           # on them
    spacing: tuple[float, float, float]
    ignore: np.ndarray | None


def read_native(
    meta: Meta, model: Model, val: Slices | StreamedSlices, options: MeasuringOptions
) -> dict[str, Native]:
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
        slices = kept_slices(files, reference, all_slices=model.all_slices)
        sliced = to_sliced_label(reference[..., slices], model.grid, spacing)
        if not np.array_equal(sliced, to_volume(val.label[at])):
            raise InputError(f"{files.labels[0]}: expected the label that {meta.root} was sliced from")
        if model.raw.unit == "mm":
            check_spacing(files, case, model.grid, reference.shape, spacing)
        template = read_template(model.raw, files)
        if template.shape != reference.shape:
            expected = f"an image of {reference.shape}, as its label"
            raise InputError(f"{case.case_id}: expected {expected}, found {template.shape} in {files.images[0]}")
        reference, voxels = reference[..., slices], voxels[..., slices]
        ignore = ignored_in(model, reference)
        if options.ignore_label is not None:
            ignore = (voxels == options.ignore_label) | (False if ignore is None else ignore)
        found[case.case_id] = Native(template, slices, reference, spacing, ignore)
    return found


def check_spacing(files: Case, case: SlicedCase, grid: Grid, shape: tuple[int, ...], spacing: Spacing) -> None:
    """``InputError`` where a label has another spacing (mm) than it had when it was sliced, by that of the slices."""
    x, y, z = (
        mm * then / now for mm, then, now in zip(spacing, case.spacing, grid.spacing_of(shape, spacing), strict=True)
    )
    check_grid(case.case_id, files.labels[0], shape=shape, spacing=spacing, expected=(shape, (x, y, z)))


def ignored_in(model: Model, reference: np.ndarray) -> np.ndarray | None:
    """Where nobody knows the class; None in a data set that knows it everywhere."""
    return reference == IGNORED if model.raw.has_ignored else None


def measure_class(masks: Masks, name: str, k: int, common: dict, *, is_only_class: bool) -> tuple[dict, dict]:
    """The line of one class in metrics.csv and in metrics_2d.csv.

    What MIDL 2019 prints as HD is slow, and computed where there is one class, as in its data sets.
    """
    prediction, reference = masks.prediction == k, masks.reference == k
    if masks.ignore is not None:
        prediction, reference = prediction & ~masks.ignore, reference & ~masks.ignore
    key = {"case_id": masks.case_id, "class": name, "class_index": k}
    row = volume_row(prediction, reference, masks.spacing, common["tolerance_mm"])
    slices = slice_row(prediction, reference, masks.spacing)
    if is_only_class:
        slices["hd_midl"] = hd_midl(prediction, reference)
    return {**key, **row, **common}, {**key, **slices}


def volume_row(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], tolerance_mm: float) -> dict:
    """3D metrics of one class, with the WMH challenge's volume and lesion metrics; masks (X, Y, Z), spacing in mm."""
    row = {"dsc": dsc(prediction, reference), "n_voxels": reference.size}
    row |= {"n_ref": int(reference.sum()), "n_pred": int(prediction.sum())}
    row |= surface_metrics(prediction, reference, spacing, tolerance_mm=tolerance_mm)
    row |= volume_difference(prediction, reference, spacing) | lesion_detection(prediction, reference)
    return {name: value for name, value in row.items() if name in CATALOGUE}


def slice_row(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> dict:
    """Means of the 2D metrics over the slices of one volume; a slice empty in both counts as DSC 1 and 0 mm."""
    rows = []
    for z in range(reference.shape[2]):
        pair = prediction[..., z], reference[..., z]
        rows.append({"dsc": dsc(*pair), **surface_metrics(*pair, spacing[:2])})
    empty = int((~reference.any(axis=(0, 1))).sum())
    means = {name: float(np.mean([row[name] for row in rows])) for name in ("dsc", "hd95_mm", "hd_mm")}
    return {"n_slices": len(rows), "n_empty_slices": empty, **means}
