"""Which cases and slices are sliced, and which 2D images are the same."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from environment.cores import core_count
from raw_data.dataset import Case, RawDataset
from raw_data.volumes import IGNORED
from slicing.options import Options
from utils import InputError, progress


def select(cases: Sequence[Case], options: Options) -> Sequence[Case]:
    """The cases of the wanted classes whose foreground takes less than ``max_share`` of the image."""
    if options.classes is not None:
        unknown = [case.case_id for case in cases if case.image_class is None]
        if 0 < len(unknown) < len(cases):
            classes = ", ".join(options.raw.image_classes)
            found = f"found none; --classes {' '.join(options.raw.image_classes)} keeps all cases"
            raise InputError(f"{unknown[0]}: expected its class ({classes}), which is known of other cases, {found}")
        # Where no case has a known class, all stay: BraTS 2021 does not say which tumours are of high grade.
        cases = [case for case in cases if case.image_class in (*options.classes, None)]
    if options.max_share is not None:
        # Decoding an image lets other threads run.
        with ThreadPoolExecutor(core_count()) as pool:
            shares = pool.map(lambda case: foreground_share(options.raw, case), cases)
            bar = progress(shares, total=len(cases), desc="reading masks", unit="image", leave=False)
            cases = [case for case, share in zip(cases, bar, strict=True) if share < options.max_share]
    if not cases and options.max_share is None:
        raise InputError(f"{options.source}: expected cases of --classes {' '.join(options.classes or ())}, found none")
    if not cases:
        raise InputError(f"{options.source}: expected images below --max-share {options.max_share}, found none")
    return cases


def foreground_share(raw: RawDataset, case: Case) -> float:
    label, _ = raw.read_label(case)
    classes = raw.classes_of(case, label)
    return float(((classes > 0) & (classes != IGNORED)).mean())


def kept_slices(case: Case, label: np.ndarray, *, all_slices: bool) -> np.ndarray:
    """Indices of the slices of a label (X, Y, Z) that are sliced: all, or those with foreground."""
    if all_slices:
        return np.arange(label.shape[2])
    kept = np.flatnonzero(((label > 0) & (label != IGNORED)).any(axis=(0, 1)))
    if not len(kept):
        raise InputError(f"{case.case_id}: expected a slice with a label, found none; --all-slices keeps them all")
    return kept


def group_images(cases: Sequence[Case], raw: RawDataset) -> dict[str, str]:
    """case id -> the first case that shows the same image."""
    group_of = {case.case_id: case.case_id for case in cases}
    for same in raw.same_images(list(cases)):
        group_of |= dict.fromkeys(same, same[0])
    return group_of


def warn_of_same_images(group_of: dict[str, str], split: dict[str, str]) -> None:
    """Say which cases show the same image; a split that parts them lets the network see a validation image."""
    for group in sorted(set(group_of.values())):
        same = sorted(case_id for case_id in group_of if group_of[case_id] == group)
        if len(same) > 1:
            where = ", ".join(f"{case_id} ({split.get(case_id, 'left out')})" for case_id in same)
            advice = "--group image keeps them on one side of the split"
            print(f"warning: {where} are the same image, pixel for pixel; {advice}", file=sys.stderr)
