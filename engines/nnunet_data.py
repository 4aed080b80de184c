"""A sliced data set's raw cases in nnU-Net's layout, with the data set's own split, planned and preprocessed.

    NAME-nnunet/raw/Dataset001_NAME/{imagesTr,labelsTr,dataset.json}
    NAME-nnunet/preprocessed/Dataset001_NAME/...
    NAME-nnunet/made.json       what it was made of; written last
"""

import functools
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from environment.cores import core_count
from environment.locks import exclusive
from environment.provenance import package_version
from raw_data import dataset_of_facts
from raw_data.dataset import Case, RawDataset
from raw_data.volumes import IGNORED
from sliced_data.meta import Meta
from slicing.selection import kept_slices
from slicing.workers import in_processes
from utils import InputError, read_json, write_json, write_text

DATASET_ID = 1
PLANS = "nnUNetPlans"
CONFIGURATIONS = ("2d", "3d_fullres")
MADE = "made.json"


@dataclass(frozen=True)
class Workplace:
    """nnU-Net's folders for a sliced data set."""

    root: Path
    dataset: str

    @property
    def dataset_name(self) -> str:
        return f"Dataset{DATASET_ID:03d}_{self.dataset}"

    @property
    def raw(self) -> Path:
        return self.root / "raw" / self.dataset_name

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / self.dataset_name

    def set_variables(self, results: Path | None = None) -> None:
        """Tell nnU-Net its folders, through the variables that it reads; before it is imported."""
        folders = {
            "nnUNet_raw": self.raw.parent, "nnUNet_preprocessed": self.preprocessed.parent,
            "nnUNet_results": results or self.root / "results",
        }
        os.environ.update({name: str(folder.resolve()) for name, folder in folders.items()})
        os.environ.setdefault("nnUNet_def_n_proc", str(core_count()))


def workplace_of(data: Path, dataset: str) -> Workplace:
    """The one of a sliced data set: ``data/acdc-nnunet`` beside ``data/acdc``."""
    return Workplace(data.with_name(f"{data.name}-nnunet"), dataset)


def prepare(meta: Meta, place: Workplace, configuration: str) -> None:
    """Export, plan and preprocess what is missing; ``InputError`` where the folder was made of other slices."""
    found = check_made(meta, place)
    if configuration in found.get("configurations", ()):
        return
    place.root.mkdir(parents=True, exist_ok=True)
    with exclusive(place.root):
        if not found:
            for part in (place.raw, place.preprocessed):    # what a kill has left
                shutil.rmtree(part, ignore_errors=True)
            export_cases(meta, place)
        place.set_variables()
        plan_and_preprocess(configuration, planned=bool(found))
        write_split(meta, place)
        known = [*found.get("configurations", ()), configuration]
        made = {"data_fingerprint": meta.fingerprint, "configurations": known}
        write_json(place.root / MADE, made | {"nnunetv2": package_version("nnunetv2")})


def check_made(meta: Meta, place: Workplace) -> dict:
    """What made.json says, nothing where it is not there; ``InputError`` where it is of other slices or versions."""
    path = place.root / MADE
    if not path.exists():
        if place.root.exists() and set(os.listdir(place.root)) - {"raw", "preprocessed"}:
            raise InputError(f"{place.root}: expected a new folder or nnU-Net's data made here, found neither")
        return {}
    found = read_json(path)
    if found.get("data_fingerprint") != meta.fingerprint:
        found_instead = "found those of other slices; remove it"
        raise InputError(f"{place.root}: expected nnU-Net's data of {meta.root}, {found_instead}")
    version = package_version("nnunetv2")
    if found.get("nnunetv2") != version:
        made_by = f"those of {found.get('nnunetv2')}; remove it"
        raise InputError(f"{place.root}: expected data of nnunetv2 {version}, found {made_by}")
    return found


def export_cases(meta: Meta, place: Workplace) -> None:
    """Write images, labels and dataset.json of every case of the data set, each on its own grid."""
    raw, cases = raw_cases(meta)
    write = functools.partial(export_case, raw=raw, place=place, all_slices=meta.facts["all_slices"])
    in_processes(write, cases, workers=core_count(), description="exporting")
    labels = {name: k for k, name in enumerate(meta.class_names)}
    if meta.has_ignored:
        labels["ignore"] = len(meta.class_names)
    write_json(place.raw / "dataset.json", {
        "channel_names": {str(i): name for i, name in enumerate(channel_names(meta))},
        "labels": labels, "numTraining": len(cases), "file_ending": ".nii.gz",
    })


def channel_names(meta: Meta) -> list[str]:
    """The modalities; nnU-Net normalises one named CT by the clip-zscore that KiTS' slices have, and no other."""
    if meta.facts["normalise"] == "clip-zscore":
        return ["CT"] * len(meta.modalities)
    return [f"{name} image" if name.lower() in ("ct", "nonorm", "rgb_to_0_1") else name for name in meta.modalities]


def raw_cases(meta: Meta) -> tuple[RawDataset, list[Case]]:
    """The raw cases of a sliced data set; ``InputError`` where one is not there any more."""
    raw = dataset_of_facts(meta.facts)
    if meta.source is None:
        raise InputError(f"{meta.root}: expected to know its raw data, found no source in meta.json")
    known = {case.case_id: case for case in raw.find_cases(Path(meta.source))}
    for case in meta.cases:
        if case.case_id not in known:
            raise InputError(f"{meta.source}: expected the raw scan of {case.case_id}, found none")
    return raw, [known[case.case_id] for case in meta.cases]


def export_case(case: Case, *, raw: RawDataset, place: Workplace, all_slices: bool) -> None:
    """One NIfTI file per channel and one of the classes, ignored voxels as the class after the last."""
    volume = raw.read_case(case)
    kept = kept_slices(case, volume.label, all_slices=all_slices)
    affine = np.diag([*volume.spacing, 1.0])
    label = np.where(volume.label == IGNORED, len(raw.class_names), volume.label).astype(np.uint8)
    files = {place.raw / "labelsTr" / f"{case.case_id}.nii.gz": label}
    for channel, image in enumerate(volume.image):
        files[place.raw / "imagesTr" / f"{case.case_id}_{channel:04d}.nii.gz"] = image
    for path, voxels in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels[..., kept], affine), path)


def write_split(meta: Meta, place: Workplace) -> None:
    """The data set's own split as nnU-Net's fold 0."""
    folds = [{part: [c.case_id for c in meta.cases if c.split == part] for part in ("train", "val")}]
    write_text(place.preprocessed / "splits_final.json", json.dumps(folds, indent=2) + "\n")


def plan_and_preprocess(configuration: str, *, planned: bool) -> None:
    """nnU-Net's fingerprint, plans and preprocessing of the data set that its variables name."""
    os.environ.update(nnUNet_n_proc_DA="1")     # its planning crashes on 0, and uses no other number
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    if not planned:
        api.extract_fingerprints([DATASET_ID], num_processes=core_count(), check_dataset_integrity=True)
        api.plan_experiments([DATASET_ID])
    api.preprocess([DATASET_ID], PLANS, configurations=(configuration,), num_processes=[core_count()])

