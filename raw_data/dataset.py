"""What a raw data set is: its modalities and classes, how its files are found and read, how its paper slices it."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raw_data.files import RawFile, list_files
from raw_data.orientation import check_orientation
from raw_data.recognise import looks_like
from raw_data.volumes import IGNORED, XYZ, Spacing, Volume, check_contrast, check_grid, read_nifti, read_volumes
from utils import InputError, check_file_name, check_text


@dataclass(frozen=True)
class Case:
    """One scan: a file for each modality (in the order of the network's channels), its labels, its patient."""

    case_id: str
    patient_id: str | None
    images: tuple[RawFile, ...]
    labels: tuple[RawFile, ...]     # of which a voxel needs one; none of a scan that is to be segmented
    source: str
    image_class: str | None = None  # the class of the whole image or scan, where it is known
    spacing: Spacing | None = None  # where it is not in the images

    def __post_init__(self) -> None:
        """Its id becomes part of file names, its source of cases.csv."""
        check_text(self.source, "path of a case")
        check_file_name(self.case_id, f"{self.source}: case id")


@dataclass(frozen=True)
class Recipe:
    """How the paper of a data set slices it: what preprocess.py does unless it is told otherwise."""

    size: int = 256
    normalise: str = "minmax"
    fit: str = "resize"
    spacing: float | None = None    # in mm, that slices are resampled to before --fit centre
    max_share: float | None = None
    classes: tuple[str, ...] | None = None      # of whole images or scans; None: all
    all_slices: bool = True         # or only those with a label
    split: str = "random"           # or "parity": even numbers train; or "alternate": the first, third, ... case does
    val: int | None = None          # cases for validation; None: a fifth of them
    class_shares: Mapping[str, float] = field(default_factory=dict)     # of the voxels, as the paper prints them
    resize_labels: str = "nearest"
    distance_map: str = "paper"


@dataclass(frozen=True, kw_only=True)
class RawDataset(ABC):
    """A raw data set. A subclass says where its files are; one that is no NIfTI also says how they are read.

    ``layout`` (what a folder should hold), ``download`` (where to get it) and ``patients`` (what names a patient)
    are parts of messages.
    """

    name: str
    modalities: tuple[str, ...]
    class_names: tuple[str, ...]
    class_of_label: Mapping[int, int]
    layout: str
    download: str
    patients: str = "a data set that names its patients"
    recipe: Recipe = Recipe()
    # In what the code of the paper's authors departs from the recipe, and whose code that is.
    authors_recipe: Mapping[str, Any] = field(default_factory=lambda: {"distance_map": "authors"})
    authors: str = "boundary"               # or "busi", or "region-wise"
    unit: str = "mm"                        # or "px", where files have no spacing
    endings: tuple[str, ...] = (".nii", ".nii.gz")
    axes: tuple[int, int, int] = XYZ        # of a file, that are x, y and z
    image_classes: tuple[str, ...] = ()     # that --classes chooses from

    @abstractmethod
    def cases_in(self, files: Mapping[str, RawFile]) -> list[Case]:
        """The cases among ``files`` (by relative path); ``InputError`` where one lacks a file or has one twice."""

    @abstractmethod
    def scans_in(self, files: Mapping[str, RawFile], folder: str) -> list[Case]:
        """The scans to segment among ``files``, whose paths may begin above the folder; none has labels."""

    def find_cases(self, source: Path) -> list[Case]:
        """The cases below ``source`` (a folder or a zip), sorted by case id as plain strings.

        ``InputError`` where nothing is found (with the place to get the data), where a zip is damaged or has
        members that climb out of it, or where a case lacks a file or has one twice.
        """
        if not source.exists():
            raise InputError(
                f"{source}: expected the raw data of {self.name}, found nothing; get {self.download} and put it there"
            )
        files = list_files(source)
        cases = self.cases_in(files)
        if not cases:
            found = f"found no case{looks_like(files)}"
            raise InputError(f"{source}: expected {self.layout}, {found}; get {self.download}")
        return sorted(cases, key=lambda case: case.case_id)

    def read_case(self, case: Case) -> Volume:
        """Read and check one case.

        ``InputError`` names the case and the file where a file is damaged, of another shape or spacing than the
        case's first, has NaN, infinite or only equal voxels, or a label value that the data set does not have.
        """
        image, spacing = self.read_scan(case)
        check_orientation(case.case_id, (case.images[0], *case.labels))
        label, label_spacing = self.read_label(case)
        grid = image.shape[1:], spacing
        check_grid(case.case_id, case.labels[0], shape=label.shape, spacing=label_spacing, expected=grid)
        return Volume(image, self.classes_of(case, label), spacing)

    def read_scan(self, case: Case) -> tuple[np.ndarray, Spacing]:
        """image (C, X, Y, Z) float32 as stored and its spacing; ``InputError`` names a damaged file."""
        images, spacing = read_volumes(case.case_id, case.images, self.axes)
        check_contrast(case.case_id, case.images, images)
        return np.stack(images), spacing

    def read_label(self, case: Case) -> tuple[np.ndarray, Spacing]:
        """Raw label values (X, Y, Z) and their spacing."""
        return read_nifti(case.case_id, case.labels[0], self.axes)

    def classes_of(self, case: Case, label: np.ndarray) -> np.ndarray:
        """Map raw label values (X, Y, Z) to classes (X, Y, Z) uint8, IGNORED where nobody knows."""
        classes = np.zeros(label.shape, dtype=np.uint8)
        for value in np.unique(label):
            if value not in self.class_of_label:
                expected = ", ".join(map(str, self.class_of_label))
                raise InputError(
                    f"{case.case_id}: expected label values {expected}, found {value:g} in {case.labels[0]}"
                )
            classes[label == value] = self.class_of_label[value]
        return classes

    def facts(self) -> dict:
        """What meta.json keeps beside names and unit, for scans to be read when the raw data are gone."""
        return {}

    @property
    def has_ignored(self) -> bool:
        """Whether a label value says that nobody knows the class."""
        return IGNORED in self.class_of_label.values()

    @property
    def n_files(self) -> int:
        """Of images, for each case."""
        return len(self.modalities)

    @property
    def is_2d(self) -> bool:
        """Whether cases are single images with a class of their own."""
        return self.unit == "px" and bool(self.image_classes)

    def case_id_of(self, name: str) -> str:
        """The case id that a scan's file name gives."""
        longest = max((end for end in self.endings if name.endswith(end)), key=len)
        return name.removesuffix(longest)

    def same_images(self, cases: list[Case]) -> list[list[str]]:
        """Groups of case ids whose images are the same; only data sets that are known to have some look for them."""
        return []

    def modalities_in(self, name: str) -> list[str]:
        """The modalities that a file's name says."""
        return [modality for modality in self.modalities if says(name, re.escape(modality))]


def says(name: str, word: str) -> bool:
    """Whether a file's name has ``word`` (a pattern) between other characters than letters and digits."""
    return re.search(rf"(?<![a-z0-9])(?:{word})(?![a-z0-9])", name, re.IGNORECASE) is not None
