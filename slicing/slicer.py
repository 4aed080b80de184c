"""Raw volumes -> 2D slices with 2D and 3D signed distance maps (Kervadec et al. 2021, 3.3 and 3.5)."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from raw_data.dataset import Case
from raw_data.files import list_files
from raw_data.skipped import describe_skipped, skipped_folders
from raw_data.volumes import IGNORED, Volume
from sliced_data.maps import signed_maps
from sliced_data.writing import new_folder, write_case, write_description
from slicing.fingerprint import count_voxels, describe_cases
from slicing.normalisation import CLIP, foreground_intensities, normalise, sample_foreground
from slicing.options import Options
from slicing.resampling import resize_volume, to_whole_label
from slicing.selection import kept_slices, select
from slicing.splits import choose_split
from slicing.workers import in_processes
from utils import InputError

LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class SliceJob:
    """What one worker needs to slice one case."""

    options: Options
    case: Case
    split: str
    folder: Path
    intensities: list[list[float]] | None   # of the foreground of the training data, for --normalise clip-zscore


def slice_case(job: SliceJob) -> dict:
    """Write every slice of one case; returns its line of cases.csv, and a digest of what was written."""
    torch.set_num_threads(1)
    options, num_classes = job.options, len(job.options.raw.class_names)
    raw = options.raw.read_case(job.case)
    volume = slice_volume(job.case, raw, options, job.intensities)
    mapped = label_of_maps(raw, volume, options)
    phi3d = signed_maps(mapped, num_classes, volume.spacing, convention=options.distance_map)      # (K, X, Y, Z)
    kept, slices = kept_slices(job.case, raw.label, all_slices=options.all_slices), []
    for z in kept:
        label = np.ascontiguousarray(volume.label[:, :, z])
        phi2d = signed_maps(
            np.ascontiguousarray(mapped[:, :, z]), num_classes, volume.spacing[:2], convention=options.distance_map
        )
        slices.append({
            "image": volume.image[..., z].astype(np.float16),                              # (C, X, Y)
            "label": label,                                                                # (X, Y)
            "phi2d": phi2d.astype(np.float16),
            "phi3d": phi3d[..., z].astype(np.float16),                                     # (K, X, Y)
        })
    foreground = (volume.label[..., kept] > 0) & (volume.label[..., kept] != IGNORED)
    return {
        "digest": write_case(job.folder / job.split, job.case.case_id, slices),
        "case_id": job.case.case_id,
        "patient_id": job.case.patient_id or job.case.case_id,
        "split": job.split,
        "n_slices": len(slices),
        "n_lesion_slices": int(foreground.any(axis=(0, 1)).sum()),
        **{f"spacing_{axis}": value for axis, value in zip("xyz", volume.spacing, strict=True)},
        "size_x": raw.label.shape[0],
        "size_y": raw.label.shape[1],
        "source": job.case.source,
        "voxels": count_voxels(raw.label[..., kept], num_classes),
    }


def slice_volume(case: Case, raw: Volume, options: Options, intensities: list[list[float]] | None) -> Volume:
    """The volume as it is sliced: normalised, on the sliced grid."""
    image = normalise(raw.image, options.normalise, intensities)
    if max(-image.min(), image.max()) > LARGEST:
        found = f"{image.min():g} to {image.max():g}; use another --normalise"
        raise InputError(f"{case.case_id}: expected intensities that float16 can hold, found {found}")
    volume = resize_volume(Volume(image, raw.label, raw.spacing), options.grid)
    if options.raw.unit == "px":
        # A pixel of the sliced grid is the unit, whatever the size of the image was.
        return Volume(volume.image, volume.label, (1.0, 1.0, 1.0))
    diagonal = math.hypot(*(n * mm for n, mm in zip(volume.label.shape, volume.spacing, strict=True)))
    if diagonal > LARGEST:
        found = f"a diagonal of {diagonal:g} mm"
        raise InputError(f"{case.case_id}: expected distances that float16 can hold, found {found}")
    return volume


def label_of_maps(raw: Volume, volume: Volume, options: Options) -> np.ndarray:
    """The label that signed distances are made of, (size, size, Z).

    The code of the breast-ultrasound study makes its map of pixels that the mask covers wholly (docs/FIDELITY.md).
    """
    if options.distance_map == "authors" and options.grid.resize_labels == "linear":
        return to_whole_label(raw.label, options.grid, raw.spacing)
    return volume.label


def slice_dataset(options: Options, dest: Path, *, jobs: int) -> str:
    """Make the sliced data set ``dest``; returns lines that say what it holds.

    ``InputError`` where ``dest`` exists, and leaves nothing behind where it fails.
    """
    if os.path.lexists(dest):
        raise InputError(f"{dest}: expected a new folder, found it there already; remove it to slice again")
    found = options.raw.find_cases(options.source)
    skipped = skipped_folders(list_files(options.source), found, options.raw.endings)
    cases = select(found, options)
    split, rule = choose_split(cases, options)
    used = [case for case in cases if case.case_id in split]
    intensities = measure_intensities(options, used, split, jobs) if options.normalise == CLIP else None
    with new_folder(dest) as folder:
        work = [SliceJob(options, case, split[case.case_id], folder, intensities) for case in used]
        rows = in_processes(slice_case, work, workers=jobs, description="slicing")
        write_description(folder, rows, {
            **options.facts(), "class_names": list(options.raw.class_names),
            "modalities": list(options.raw.modalities), "unit": options.raw.unit, "split": rule,
            "source": str(options.source), "has_ignored": options.raw.has_ignored, "intensities": intensities,
            **options.raw.facts(),
        })
    left_out = [(len(found) - len(cases), "left out"), (len(cases) - len(used), "in neither list")]
    counts = [(part, sum(row["split"] == part for row in rows)) for part in ("train", "val")]
    counted = ", ".join((
        f"{sum(row['n_slices'] for row in rows)} slices", *(f"{n} cases for {part}" for part, n in counts),
        *(f"{n} cases {why}" for n, why in left_out if n),
        *filter(None, [describe_skipped(skipped, options.raw.layout)]),
    ))
    return "\n".join((counted, *describe_cases(options.raw, used, rows)))


@dataclass(frozen=True)
class SampleJob:
    """What one worker needs to read the foreground of one case."""

    options: Options
    case: Case


def sample_case(job: SampleJob) -> np.ndarray:
    raw = job.options.raw.read_case(job.case)
    return sample_foreground(raw.image, (raw.label > 0) & (raw.label != IGNORED))


def measure_intensities(
    options: Options, cases: Sequence[Case], split: Mapping[str, str], workers: int
) -> list[list[float]]:
    """Of the foreground of the training cases: ``foreground_intensities``."""
    work = [SampleJob(options, case) for case in cases if split[case.case_id] == "train"]
    samples = in_processes(sample_case, work, workers=workers, description="measuring intensities")
    if not sum(sample.shape[1] for sample in samples):
        raise InputError(f"{options.source}: expected foreground to train on (--normalise {CLIP}), found none")
    found = foreground_intensities(samples)
    flat = [name for name, row in zip(options.raw.modalities, found, strict=True) if row[3] == 0]
    if flat:
        raise InputError(f"{options.source}: expected contrast in the foreground of {flat[0]}, found one value")
    return found
