"""Where each raw data set keeps its files, and how one case is read; one module per data set."""

from pathlib import Path

import numpy as np

from raw_data.dataset import Case, build_case, classes_of, match_files
from raw_data.files import list_files
from raw_data.isles import ISLES
from raw_data.volumes import Volume, check_contrast, read_volumes
from raw_data.wmh import WMH
from utils import InputError

# The demos are generated raw data in the same layouts.
DATASETS = {"isles": ISLES, "isles-demo": ISLES, "wmh": WMH, "wmh-demo": WMH}


def find_cases(name: str, source: Path) -> list[Case]:
    """The cases of data set ``name`` below ``source`` (a folder or a zip), sorted by case id as plain strings.

    ``InputError`` where nothing is found (with the place to get the data), where a zip is damaged or has members
    that climb out of it, or where a case lacks a file or has one twice.
    """
    dataset = DATASETS[name]
    if not source.exists():
        raise InputError(
            f"{source}: expected the raw data of {name}, found nothing; get {dataset.download} and put it there"
        )
    files = list_files(source)
    found, folders = match_files(dataset, files, dataset.ignored_folders)
    if not found:
        raise InputError(f"{source}: expected {dataset.layout}, found no case; get {dataset.download}")
    return [build_case(dataset, case_id, folders[case_id], found[case_id], files) for case_id in sorted(found)]


def read_case(name: str, case: Case) -> Volume:
    """Read and check one case of data set ``name``.

    ``InputError`` names the case and the file where a volume is damaged, not 3-D, of another shape or spacing than
    the case's first, has NaN, infinite or only equal voxels, or a label value that the data set does not have.
    """
    volumes, spacing = read_volumes(case.case_id, (*case.images, case.label))
    *images, label = volumes
    check_contrast(case.case_id, case.images, images)
    return Volume(np.stack(images), classes_of(DATASETS[name], case, label), spacing)
