"""Where each raw data set keeps its files and how one case is read; nothing about slicing.

Archives are read in place: nothing is unpacked, so a damaged or hostile zip leaves nothing on the disk.
"""

import gzip
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import nibabel as nib
import numpy as np

from utils import InputError

# The headers of one real case differ by up to 2e-5 mm between its files.
SPACING_TOLERANCE_MM = 1e-4
UNREADABLE = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError,
              nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError)


@dataclass(frozen=True)
class RawFile:
    """A file in a folder, or a member of a zip."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return f"{self.path}!{self.member}" if self.member else str(self.path)

    def read(self) -> bytes:
        """The content, unzipped where it is gzipped; ``InputError`` where it is damaged."""
        try:
            if self.member is None:
                content = self.path.read_bytes()
            else:
                with zipfile.ZipFile(self.path) as archive:
                    content = archive.read(self.member)
            return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        except UNREADABLE as error:
            raise InputError(f"{self}: expected a readable file, found {error}") from None


@dataclass(frozen=True)
class Case:
    """One scan: a file for each modality (in the order of the network's channels), its label, its patient."""

    case_id: str
    patient_id: str | None
    images: tuple[RawFile, ...]
    label: RawFile
    source: str


@dataclass(frozen=True)
class Volume:
    """image (C, X, Y, Z) float32 as stored, label (X, Y, Z) uint8 of classes, spacing (x, y, z) in mm."""

    image: np.ndarray
    label: np.ndarray
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Dataset:
    """A raw data set: what a case consists of, how its files are named and where to get them."""

    modalities: tuple[str, ...]
    class_names: tuple[str, ...]
    class_of_label: Mapping[int, int]
    validation_cases: int
    pattern: re.Pattern
    ignored_folders: frozenset[str]
    layout: str
    download: str
    patient_of: Callable[[Mapping[str, RawFile], str], str | None]


def isles_patient(files: Mapping[str, RawFile], label_path: str) -> str | None:
    """The patient that a scan's JSON sidecar names (two slabs, A and B, may be one patient)."""
    folder = str(PurePosixPath(label_path).parent)
    for path, file in files.items():
        if path.startswith(folder + "/") and path.endswith(".json"):
            named = re.search(r"Train_\d+", file.read().decode("utf-8", errors="replace"))
            if named:
                return named.group()
    return None


def wmh_patient(files: Mapping[str, RawFile], label_path: str) -> str:
    """Each patient was scanned once: the folder of the scan."""
    return PurePosixPath(label_path).parent.name


ISLES = Dataset(
    modalities=("CT", "CT_CBF", "CT_CBV", "CT_MTT", "CT_Tmax"),
    class_names=("background", "lesion"),
    class_of_label={0: 0, 1: 1},
    validation_cases=20,
    # An older release says MR_ for CT_; CT is a prefix of every modality, so the dots matter.
    pattern=re.compile(
        r"(?:^|/)(?P<case>case_\d+)/SMIR\.Brain\.XX\.O\.(?:(?P<label>OT)|(?P<plain>CT)|(?:CT|MR)_(?P<map>CBF|CBV|MTT|Tmax))"
        r"\.\d+/[^/]+\.nii(?:\.gz)?$"
    ),
    ignored_folders=frozenset({"testing"}),
    layout="TRAINING/case_N/SMIR.Brain.XX.O.<modality>.<id>/*.nii, unpacked or in ISLES2018_Training.zip",
    download="ISLES2018_Training.zip of Zenodo record 17736412",
    patient_of=isles_patient,
)

WMH = Dataset(
    modalities=("FLAIR", "T1"),
    class_names=("background", "wmh"),
    # Label 2 is other pathology, background to the paper.
    class_of_label={0: 0, 1: 1, 2: 0},
    validation_cases=10,
    pattern=re.compile(r"(?:^|/)(?P<case>[^/]+)/(?:pre/(?P<map>FLAIR|T1)|(?P<label>wmh))\.nii(?:\.gz)?$"),
    ignored_folders=frozenset({"test", "additional_annotations"}),
    layout="<site>/<id>/pre/{FLAIR,T1}.nii.gz and <site>/<id>/wmh.nii.gz, unpacked or zipped",
    download="the training data of the WMH challenge, DataverseNL doi 10.34894/AECRSD",
    patient_of=wmh_patient,
)

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


def match_files(
    dataset: Dataset, files: Iterable[str], ignored_folders: frozenset[str] = frozenset()
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """case id -> {modality or "label": path}, and case id -> folder, of the paths that the layout knows."""
    found: dict[str, dict[str, str]] = {}
    folders: dict[str, str] = {}
    for path in sorted(files):
        match = dataset.pattern.search(path)
        if not match or ignored_folders & {part.lower() for part in path.split("/")[:-1]}:
            continue
        case_id, folder = match["case"], path[: match.end("case")]
        if folders.setdefault(case_id, folder) != folder:
            raise InputError(f"{case_id}: expected one folder of this case, found {folders[case_id]} and {folder}")
        kind = "label" if match["label"] else modality_of(dataset, match.groupdict())
        case = found.setdefault(case_id, {})
        if kind in case:
            raise InputError(f"{case_id}: expected one file of {kind}, found {case[kind]} and {path}")
        case[kind] = path
    return found, folders


def modality_of(dataset: Dataset, groups: Mapping[str, str | None]) -> str:
    tail = groups.get("plain") or groups["map"]
    return next(modality for modality in dataset.modalities if modality.removeprefix("CT_") == tail)


def build_case(
    dataset: Dataset, case_id: str, folder: str, paths: Mapping[str, str], files: Mapping[str, RawFile]
) -> Case:
    for kind in (*dataset.modalities, "label"):
        if kind not in paths:
            found = ", ".join(sorted(paths.values()))
            raise InputError(f"{case_id}: expected a file of {kind} ({dataset.layout}), found only {found}")
    label_path = paths["label"]
    return Case(
        case_id=case_id,
        patient_id=dataset.patient_of(files, label_path),
        images=tuple(files[paths[modality]] for modality in dataset.modalities),
        label=files[label_path],
        source=folder,
    )


def list_files(source: Path) -> dict[str, RawFile]:
    """Relative path -> file, of a folder (with the zips at its top) or a zip; an unpacked file wins."""
    if source.is_file():
        return zip_members(source)
    files: dict[str, RawFile] = {}
    for archive in sorted(source.glob("*.zip")):
        # The test scans have no labels: a broken download of them must not stand in the way.
        if "testing" not in archive.name.lower():
            files.update(zip_members(archive))
    # os.walk follows links: large data often lies on another disk.
    for folder, _, names in os.walk(source, followlinks=True):
        for name in names:
            if not is_junk(name):
                path = Path(folder, name)
                files[path.relative_to(source).as_posix()] = RawFile(path)
    return files


def zip_members(archive: Path) -> dict[str, RawFile]:
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [info.filename for info in opened.infolist() if not info.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{archive}: expected a whole zip archive, found {error}; download it again") from None
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{archive}: expected members inside the archive's own folder, found {name}")
    return {
        name: RawFile(archive, name)
        for name in names
        if not name.startswith("__MACOSX/") and not is_junk(PurePosixPath(name).name)
    }


def is_junk(name: str) -> bool:
    return name.startswith("._") or name in (".DS_Store", "Thumbs.db")


def read_case(name: str, case: Case) -> Volume:
    """Read and check one case of data set ``name``.

    ``InputError`` names the case and the file where a volume is damaged, not 3-D, of another shape or spacing than
    the case's first, has NaN, infinite or only equal voxels, or a label value that the data set does not have.
    """
    volumes, spacing = read_volumes(case.case_id, (*case.images, case.label))
    *images, label = volumes
    check_contrast(case.case_id, case.images, images)
    return Volume(np.stack(images), classes_of(DATASETS[name], case, label), spacing)


def read_volumes(
    case_id: str, files: Sequence[RawFile]
) -> tuple[list[np.ndarray], tuple[float, float, float]]:
    """The voxels (X, Y, Z) float32 of files on one grid, and its spacing in mm."""
    first_shape, spacing = None, None
    volumes = []
    for file in files:
        voxels, zooms = read_nifti(case_id, file)
        if first_shape is None:
            first_shape, spacing = voxels.shape, zooms
        if voxels.shape != first_shape:
            raise InputError(f"{case_id}: expected shape {first_shape}, found {voxels.shape} in {file}")
        if max(abs(a - b) for a, b in zip(zooms, spacing, strict=True)) > SPACING_TOLERANCE_MM:
            raise InputError(f"{case_id}: expected spacing {spacing} mm, found {zooms} mm in {file}")
        volumes.append(voxels)
    return volumes, spacing


def check_contrast(case_id: str, files: Sequence[RawFile], images: Sequence[np.ndarray]) -> None:
    for file, image in zip(files, images, strict=True):
        if image.min() == image.max():
            raise InputError(f"{case_id}: expected an image with contrast, found only {image.min():g} in {file}")


def read_nifti(case_id: str, file: RawFile) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Voxels (X, Y, Z) float32 and pixdim in mm; not the affine, which is the identity in ISLES 2018."""
    content = file.read()
    if len(content) < 348:
        raise InputError(f"{case_id}: expected a whole NIfTI file, found {len(content)} bytes in {file}")
    try:
        # Unchecked, because nibabel's check makes 1 mm of a spacing of 0.
        zooms = tuple(round(float(zoom), 6) for zoom in nib.Nifti1Header(content[:348], check=False)["pixdim"][1:4])
        image = nib.Nifti1Image.from_bytes(content)
        voxels = image.get_fdata(dtype=np.float32, caching="unchanged")
    except UNREADABLE as error:
        raise InputError(f"{case_id}: expected a whole NIfTI file, found {error} in {file}") from None
    if voxels.ndim != 3 or not voxels.size:
        raise InputError(f"{case_id}: expected a 3-D volume, found shape {voxels.shape} in {file}")
    if not np.isfinite(voxels).all():
        raise InputError(f"{case_id}: expected finite voxels, found NaN or infinity in {file}")
    if not all(np.isfinite(zoom) and zoom > 0 for zoom in zooms):
        raise InputError(f"{case_id}: expected a positive spacing, found {zooms} in {file}")
    return voxels, zooms


def classes_of(dataset: Dataset, case: Case, label: np.ndarray) -> np.ndarray:
    """Map raw label values (X, Y, Z) to classes (X, Y, Z) uint8."""
    classes = np.zeros(label.shape, dtype=np.uint8)
    for value in np.unique(label):
        if value not in dataset.class_of_label:
            expected = ", ".join(map(str, dataset.class_of_label))
            raise InputError(f"{case.case_id}: expected label values {expected}, found {value:g} in {case.label}")
        classes[label == value] = dataset.class_of_label[value]
    return classes
