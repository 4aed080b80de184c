"""ACDC 2017: cine MR of the heart, the frames of end-diastole and end-systole."""

import re
from collections.abc import Mapping

from raw_data.dataset import Case, RawDataset, Recipe
from raw_data.files import RawFile
from utils import InputError

FRAME = re.compile(
    r"(?:^|/)(?P<patient>patient\d+)/(?P=patient)_frame(?P<frame>\d+)(?P<label>_gt)?\.nii(?:\.gz)?$"
)
INFO = re.compile(r"(?:^|/)(?P<patient>patient\d+)/Info\.cfg$", re.IGNORECASE)
PHASES = ("ED", "ES")
PHASE = re.compile(r"^[ \t]*(ED|ES)[ \t]*:(.*)$", re.MULTILINE | re.IGNORECASE)
Frames = dict[tuple[int, bool], str]    # (number, whether it is a label) -> path


class AcdcDataset(RawDataset):
    """Two cases per patient: Info.cfg says which frame is end-diastole (ED) and which end-systole (ES)."""

    def cases_in(self, files: Mapping[str, RawFile]) -> list[Case]:
        files = {path: file for path, file in files.items() if not in_testing(path)}
        check_folders(files)
        frames, infos = match_frames(files), match_infos(files)
        return [
            patient_case(patient, phase, number, frames[patient], files)
            for patient in sorted(frames)
            for phase, number in read_phases(patient, infos.get(patient)).items()
        ]

    def scans_in(self, files: Mapping[str, RawFile], folder: str) -> list[Case]:
        """Every frame by its file's name; in a folder that has none, every NIfTI file in it."""
        paths = [path for frames in match_frames(files).values() for (_, label), path in frames.items() if not label]
        if not paths:
            paths = [path for path in files if path.count("/") == 2 and path.endswith(self.endings)]
        names = {path: path.rsplit("/", 1)[-1].split(".nii")[0] for path in sorted(paths)}
        return [Case(name, None, (files[path],), (), path) for path, name in names.items()]


def in_testing(path: str) -> bool:
    """The newer release has its 50 test patients beside the training patients; the paper did not use them."""
    return "testing" in path.lower().split("/")[:-1]


def check_folders(files: Mapping[str, RawFile]) -> None:
    """``InputError`` where what belongs to a patient lies in two folders: nobody knows which Info.cfg is right."""
    folders: dict[str, str] = {}
    for path in sorted(files):
        match = FRAME.search(path) or INFO.search(path)
        folder = path.rsplit("/", 1)[0]
        if match and folders.setdefault(match["patient"], folder) != folder:
            found = f"{folders[match['patient']]} and {folder}"
            raise InputError(f"{match['patient']}: expected one folder of this patient, found {found}")


def match_frames(files: Mapping[str, RawFile]) -> dict[str, Frames]:
    """patient -> its frames; ``InputError`` where a frame comes twice."""
    found: dict[str, Frames] = {}
    for path in sorted(files):
        match = FRAME.search(path)
        if match:
            frames = found.setdefault(match["patient"], {})
            key = int(match["frame"]), bool(match["label"])
            if key in frames:
                raise InputError(
                    f"{match['patient']}: expected one file of frame {key[0]}, found {frames[key]} and {path}"
                )
            frames[key] = path
    return found


def match_infos(files: Mapping[str, RawFile]) -> dict[str, RawFile]:
    """patient -> Info.cfg; ``InputError`` where it comes twice, in another spelling."""
    found: dict[str, RawFile] = {}
    for path in sorted(files):
        match = INFO.search(path)
        if match and found.setdefault(match["patient"], files[path]) != files[path]:
            two = f"{found[match['patient']]} and {files[path]}"
            raise InputError(f"{match['patient']}: expected one Info.cfg, found {two}")
    return found


def read_phases(patient: str, info: RawFile | None) -> dict[str, int]:
    """ED and ES -> number of the frame; ``InputError`` where Info.cfg says none, two, or the same for both."""
    if info is None:
        raise InputError(f"{patient}: expected Info.cfg beside its frames, found none")
    text = info.read().decode("utf-8", errors="replace")
    named: dict[str, int] = {}
    for phase in PHASES:
        numbers = [value.strip() for key, value in PHASE.findall(text) if key.upper() == phase]
        if len(numbers) != 1 or not re.fullmatch(r"\d{1,9}", numbers[0]):
            found = f"{numbers or text!r:.60}"
            raise InputError(f"{patient}: expected one line '{phase}: <frame>' in {info}, found {found}")
        named[phase] = int(numbers[0])
    if named["ED"] == named["ES"]:
        raise InputError(f"{patient}: expected two frames, ED and ES, found {named['ED']} for both in {info}")
    return named


def patient_case(patient: str, phase: str, number: int, frames: Frames, files: Mapping[str, RawFile]) -> Case:
    for label, kind in ((False, "image"), (True, "label")):
        if (number, label) not in frames:
            found = ", ".join(sorted(frames.values()))
            raise InputError(f"{patient}: expected the {kind} of frame {number} ({phase} in Info.cfg), found {found}")
    image, label = frames[number, False], frames[number, True]
    return Case(f"{patient}_{phase}", patient, (files[image],), (files[label],), image.rsplit("/", 1)[0])


ACDC = AcdcDataset(
    name="acdc",
    modalities=("MRI",),
    class_names=("background", "RV", "MYO", "LV"),
    class_of_label={0: 0, 1: 1, 2: 2, 3: 3},
    # The grid of nnU-Net's 2D plan, which the region-wise paper trains with.
    recipe=Recipe(
        normalise="zscore", fit="centre", spacing=1.5625, split="parity",
        class_shares={"RV": 0.0121, "MYO": 0.013, "LV": 0.0127},
    ),
    authors_recipe={},      # its authors make their maps in the loss
    authors="region-wise",
    layout="training/patientNNN/{Info.cfg,patientNNN_frameFF.nii.gz,patientNNN_frameFF_gt.nii.gz}, unpacked or zipped",
    download="the ACDC challenge's training data (humanheart-project.creatis.insa-lyon.fr/database)",
)
