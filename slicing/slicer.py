"""Raw volumes -> 2D slices with 2D and 3D signed distance maps (Kervadec et al. 2021, 3.3 and 3.5)."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from boundary_loss.distance import distance_maps
from raw_data.dataset import Case
from raw_data.files import list_files
from raw_data.skipped import describe_skipped, skipped_folders
from raw_data.volumes import Volume
from sliced_data.writing import new_folder, write_case, write_description
from slicing.grid import resize_volume
from slicing.normalisation import NORMALISATIONS
from slicing.options import Options
from slicing.selection import select
from slicing.splits import choose_split
from utils import InputError, StoppedError, progress

LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class SliceJob:
    """What one worker needs to slice one case."""

    options: Options
    case: Case
    split: str
    folder: Path


def slice_case(job: SliceJob) -> dict:
    """Write every slice of one case; returns its line of cases.csv, and a digest of what was written."""
    torch.set_num_threads(1)
    options = job.options
    raw = options.raw.read_case(job.case)
    volume = slice_volume(job.case, raw, options)
    classes, convention = len(options.raw.class_names), options.distance_map
    phi3d = distance_maps(volume.label, classes, volume.spacing, convention=convention)    # (K, X, Y, Z)
    slices = []
    for z in range(volume.label.shape[2]):
        label = np.ascontiguousarray(volume.label[:, :, z])
        slices.append({
            "image": volume.image[..., z].astype(np.float16),                              # (C, X, Y)
            "label": label,                                                                # (X, Y)
            "phi2d": distance_maps(label, classes, volume.spacing[:2], convention=convention).astype(np.float16),
            "phi3d": phi3d[..., z].astype(np.float16),                                     # (K, X, Y)
        })
    return {
        "digest": write_case(job.folder / job.split, job.case.case_id, slices),
        "case_id": job.case.case_id,
        "patient_id": job.case.patient_id or job.case.case_id,
        "split": job.split,
        "n_slices": len(slices),
        "n_lesion_slices": int((volume.label > 0).any(axis=(0, 1)).sum()),
        **{f"spacing_{axis}": value for axis, value in zip("xyz", volume.spacing, strict=True)},
        "size_x": raw.label.shape[0],
        "size_y": raw.label.shape[1],
        "source": job.case.source,
    }


def slice_volume(case: Case, raw: Volume, options: Options) -> Volume:
    """The volume as it is sliced: normalised, on the sliced grid."""
    image = NORMALISATIONS[options.normalise](raw.image)
    if max(-image.min(), image.max()) > LARGEST:
        found = f"{image.min():g} to {image.max():g}; use another --normalise"
        raise InputError(f"{case.case_id}: expected intensities that float16 can hold, found {found}")
    volume = resize_volume(Volume(image, raw.label, raw.spacing), options.grid)
    if options.raw.unit == "px":
        # A pixel of the sliced grid is the unit, whatever the size of the image was.
        return Volume(volume.image, volume.label, (1.0, 1.0, 1.0))
    return volume


def watch_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and do not outlive it if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def slice_cases(jobs: Sequence[SliceJob], workers: int) -> list[dict]:
    """The lines of cases.csv, in the order of ``jobs``."""
    rows: dict[str, dict] = {}
    # No thread of the parent is left, so forking is safe; elsewhere it is not the default.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with progress(total=len(jobs), desc="slicing", unit="case") as bar:
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=watch_parent) as pool:
            futures = [pool.submit(slice_case, job) for job in jobs]
            try:
                for future in as_completed(futures):
                    row = future.result()
                    rows[row["case_id"]] = row
                    bar.update()
            except BrokenProcessPool:
                raise StoppedError("a worker was killed, perhaps for want of memory; try --jobs 1") from None
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    return [rows[job.case.case_id] for job in jobs]


def slice_dataset(options: Options, dest: Path, *, jobs: int) -> str:
    """Make the sliced data set ``dest``; returns a line that says what it holds.

    ``InputError`` where ``dest`` exists, and leaves nothing behind where it fails.
    """
    if os.path.lexists(dest):
        raise InputError(f"{dest}: expected a new folder, found it there already; remove it to slice again")
    found = options.raw.find_cases(options.source)
    skipped = skipped_folders(list_files(options.source), found, options.raw.endings)
    cases = select(found, options)
    split, rule = choose_split(cases, options)
    used = [case for case in cases if case.case_id in split]
    with new_folder(dest) as folder:
        rows = slice_cases([SliceJob(options, case, split[case.case_id], folder) for case in used], jobs)
        write_description(folder, rows, {
            **options.facts(), "class_names": list(options.raw.class_names),
            "modalities": list(options.raw.modalities), "unit": options.raw.unit, "split": rule,
            "source": str(options.source),
        })
    left_out = [(len(found) - len(cases), "left out"), (len(cases) - len(used), "in neither list")]
    counts = [(part, sum(row["split"] == part for row in rows)) for part in ("train", "val")]
    return ", ".join((
        f"{sum(row['n_slices'] for row in rows)} slices", *(f"{n} cases for {part}" for part, n in counts),
        *(f"{n} cases {why}" for n, why in left_out if n),
        *filter(None, [describe_skipped(skipped, options.raw.layout)]),
    ))
