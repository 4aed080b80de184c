"""Masks of new scans, one file per scan on the scan's own grid."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from environment.atomic_outputs import MARK, check_own, written_together
from evaluation.outputs import output_paths, read_template, save_mask, save_probabilities
from evaluation.prediction import Model, segment
from evaluation.scans import find_scans
from raw_data.dataset import Case
from training.interrupts import memory_advice
from utils import InputError, progress


def segment_scans(model: Model, paths: Sequence[Path], out: Path, probabilities: Path | None) -> None:
    """Write the mask of each scan in ``paths`` to ``out``, and its foreground softmax to ``probabilities``.

    ``InputError`` where a scan is incomplete, or where an output is one of the files that are read.
    """
    scans = find_scans(model.raw, paths)
    template = read_template(model.raw, scans[0])
    case_ids, num_classes = [scan.case_id for scan in scans], len(model.class_names)
    masks = output_paths(out, case_ids, "--out", template.endings)
    endings = template.probability_endings(num_classes)
    soft = output_paths(probabilities, case_ids, "--probabilities", endings) if probabilities else {}
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
    template = read_template(model.raw, scan)
    with memory_advice("use --device cpu"):
        classes, probs = segment(model, scan)
    save_mask(mask, classes, template, len(model.class_names))
    if soft is not None:
        save_probabilities(soft, probs, template)
    return classes


def check_outputs(scans: Sequence[Case], outputs: Sequence[Path]) -> None:
    """``InputError`` where a file to write is one that is read, is written twice, or is there and no such mask."""
    taken = {file.path.resolve() for scan in scans for file in scan.images}
    for path in outputs:
        if path.resolve() in taken:
            raise InputError(f"{path}: expected a file of its own for each output, found the scan's or another's")
        taken.add(path.resolve())
        check_own(path, MARK)
