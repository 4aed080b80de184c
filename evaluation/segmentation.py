"""Masks of new scans, one NIfTI file per scan on the scan's own grid."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from environment.outputs import MARK, check_own, written_together
from evaluation.prediction import Model, segment
from evaluation.scans import NIFTI, find_scans, save_on_grid
from raw_data.dataset import Case
from training.interrupts import memory_advice
from utils import InputError, progress


def segment_scans(model: Model, paths: Sequence[Path], out: Path, probabilities: Path | None) -> None:
    """Write the mask of each scan in ``paths`` to ``out``, and its foreground softmax to ``probabilities``.

    ``InputError`` where a scan is incomplete, or where an output is one of the files that are read.
    """
    scans = find_scans(model.raw, paths)
    masks = output_paths(out, scans, "--out")
    soft = output_paths(probabilities, scans, "--probabilities") if probabilities else {}
    check_outputs(scans, [*masks.values(), *soft.values()])
    found = []
    with written_together() as place:
        for scan in progress(scans, desc="segmenting", unit="scan"):
            soft_file = place(soft[scan.case_id]) if soft else None
            classes = segment_scan(model, scan, place(masks[scan.case_id]), soft_file)
            voxels = ", ".join(f"{name} {(classes == k).sum()}" for k, name in list(enumerate(model.class_names))[1:])
            found.append(f"{masks[scan.case_id]}: {scan.case_id}, voxels of {voxels}")
    print(*found, sep="\n")


def segment_scan(model: Model, scan: Case, mask: Path, soft: Path | None) -> np.ndarray:
    """Write the mask of one scan, and its softmax where ``soft`` is a file to be; returns the classes (X, Y, Z)."""
    with memory_advice("use --device cpu"):
        classes, probs = segment(model, scan)
    save_on_grid(mask, classes, scan.images[0])
    if soft is not None:
        foreground = probs[..., 1] if probs.shape[-1] == 2 else probs[..., 1:]
        save_on_grid(soft, np.ascontiguousarray(foreground), scan.images[0])
    return classes


def output_paths(out: Path, scans: Sequence[Case], flag: str) -> dict[str, Path]:
    """case id -> file: ``out`` itself where its name is a file's, else one file per scan in the folder ``out``."""
    if not out.name.endswith(NIFTI):
        if out.exists() and not out.is_dir():
            raise InputError(f"{flag}: expected a folder or a file named .nii or .nii.gz, found {out}")
        return {scan.case_id: out / f"{scan.case_id}.nii.gz" for scan in scans}
    if len(scans) > 1:
        raise InputError(f"{flag}: expected a folder for {len(scans)} scans, found {out}")
    if out.is_dir():
        raise InputError(f"{flag}: expected a file, found the folder {out}")
    return {scans[0].case_id: out}


def check_outputs(scans: Sequence[Case], outputs: Sequence[Path]) -> None:
    """``InputError`` where a file to write is one that is read, is written twice, or is there and no such mask."""
    taken = {file.path.resolve() for scan in scans for file in scan.images}
    for path in outputs:
        if path.resolve() in taken:
            raise InputError(f"{path}: expected a file of its own for each output, found the scan's or another's")
        taken.add(path.resolve())
        check_own(path, MARK)
