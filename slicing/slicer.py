"""Raw volumes -> 2D slices with 2D and 3D signed distance maps (Kervadec et al. 2021, 3.3 and 3.5)."""

import argparse
import hashlib
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
from environment.provenance import PACKAGES, package_version
from raw_data import DATASETS, read_case
from raw_data.dataset import Case
from raw_data.volumes import Volume
from sliced_data.meta import FORMAT
from slicing.resampling import resize, scale
from slicing.splits import choose_split
from utils import (
    StoppedError,
    naming,
    progress,
    write_json,
    write_rows,
)

KINDS = ("image", "label", "phi2d", "phi3d")
CASE_COLUMNS = (
    "case_id", "patient_id", "split", "n_slices", "n_lesion_slices",
    "spacing_x_mm", "spacing_y_mm", "spacing_z_mm", "size_x", "size_y", "source",
)


@dataclass(frozen=True)
class SliceJob:
    """What one worker needs to slice one case."""

    dataset: str
    case: Case
    split: str
    folder: Path
    size: int
    convention: str


def slice_case(job: SliceJob) -> dict:
    """Write every slice of one case; returns its line of cases.csv, and a digest of what was written."""
    torch.set_num_threads(1)
    raw = read_case(job.dataset, job.case)
    volume = resize(Volume(scale(raw.image), raw.label, raw.spacing), job.size)
    classes = len(DATASETS[job.dataset].class_names)
    phi3d = distance_maps(volume.label, classes, volume.spacing, convention=job.convention)    # (K, X, Y, Z)
    digest = hashlib.sha256()
    for z in range(volume.label.shape[2]):
        label = np.ascontiguousarray(volume.label[:, :, z])
        phi2d = distance_maps(label, classes, volume.spacing[:2], convention=job.convention)   # (K, X, Y)
        arrays = {
            "image": volume.image[..., z].astype(np.float16),
            "label": label,
            "phi2d": phi2d.astype(np.float16),
            "phi3d": phi3d[..., z].astype(np.float16),
        }
        for kind in KINDS:
            array = np.ascontiguousarray(arrays[kind])
            path = job.folder / job.split / kind / f"{job.case.case_id}_{z:04d}.npy"
            with naming(path):
                np.save(path, array)
            digest.update(array)
    return {
        "digest": digest.hexdigest(),
        "case_id": job.case.case_id,
        "patient_id": job.case.patient_id or job.case.case_id,
        "split": job.split,
        "n_slices": volume.label.shape[2],
        "n_lesion_slices": int((volume.label > 0).any(axis=(0, 1)).sum()),
        **{f"spacing_{axis}_mm": round(mm, 6) for axis, mm in zip("xyz", volume.spacing, strict=True)},
        "size_x": raw.label.shape[0],
        "size_y": raw.label.shape[1],
        "source": job.case.source,
    }


def watch_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and do not outlive it if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def slice_cases(jobs: Sequence[SliceJob], workers: int) -> list[dict]:
    """The lines of cases.csv, in the order of ``jobs``."""
    rows: dict[str, dict] = {}
    # Nothing in the parent has started threads yet, so forking is safe; elsewhere it is not the default.
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


def build(args: argparse.Namespace, cases: Sequence[Case], folder: Path) -> str:
    """Fill ``folder`` with the sliced data set; returns a line that says what it holds."""
    split, rule = choose_split(cases, args)
    for part in ("train", "val"):
        for kind in KINDS:
            (folder / part / kind).mkdir(parents=True)
    used = [case for case in cases if case.case_id in split]
    jobs = [
        SliceJob(args.dataset, case, split[case.case_id], folder, args.size, args.distance_map) for case in used
    ]
    rows = slice_cases(jobs, args.jobs)
    dataset = DATASETS[args.dataset]
    content = hashlib.sha256("".join(row.pop("digest") for row in rows).encode()).hexdigest()
    write_rows(folder / "cases.csv", rows, CASE_COLUMNS)
    write_json(folder / "meta.json", {
        "format": FORMAT,
        "dataset": args.dataset,
        "size": args.size,
        "class_names": list(dataset.class_names),
        "modalities": list(dataset.modalities),
        "distance_map": args.distance_map,
        "split": rule,
        "slices": {part: sum(row["n_slices"] for row in rows if row["split"] == part) for part in ("train", "val")},
        "content": content,
        "source": str(args.source),
        "versions": {name: package_version(name) for name in PACKAGES},
    })
    left_out = f", {len(cases) - len(used)} cases in neither list" if len(used) < len(cases) else ""
    counts = [(part, sum(row["split"] == part for row in rows)) for part in ("train", "val")]
    slices = sum(row["n_slices"] for row in rows)
    return f"{slices} slices, " + ", ".join(f"{n} cases for {part}" for part, n in counts) + left_out
