"""dataset.json of nnU-Net, version 1 (modality, number -> name) and 2 (channel_names, name -> number)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raw_data.files import RawFile
from raw_data.images import PIXEL_ENDINGS
from raw_data.volumes import IGNORED
from utils import InputError, parse_json

CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
MAX_NAME = 200          # bytes, of a class or channel
IGNORE = "ignore"       # nnU-Net's name for the label of voxels that nobody knows


@dataclass(frozen=True)
class Description:
    """What dataset.json says: channels, classes and how many cases there are, or which."""

    channels: tuple[str, ...]
    class_names: tuple[str, ...]
    class_of_label: dict[int, int]      # label value -> class, or IGNORED
    file_ending: str | None
    n_cases: int | None
    cases: tuple[str, ...]              # names of label files, of version 1

    def endings(self, images: Sequence[str], path: str) -> tuple[str, ...]:
        """Of the image files; version 1 does not say, and they are what is there."""
        known = (".nii.gz", ".nii", *PIXEL_ENDINGS)
        ending = self.file_ending
        if ending is None:
            ending = next((end for end in known if any(name.endswith(end) for name in images)), ".nii.gz")
        if ending not in known:
            raise InputError(f"{path}: expected a file_ending of {', '.join(known)}, found {ending}")
        return (".nii.gz", ".nii") if ending.startswith(".nii") else (ending,)

    def check_promises(self, images: set[str], labels: set[str], root: str) -> None:
        """``InputError`` where dataset.json promises cases that are not there."""
        missing = [case_id for case_id in self.cases if case_id not in images | labels]
        if missing:
            raise InputError(f"{missing[0]}: expected the files that {root}dataset.json lists, found none")
        if self.n_cases is not None and self.n_cases != len(images | labels):
            raise InputError(
                f"{root}dataset.json: expected {self.n_cases} cases (numTraining), found {len(images | labels)} in "
                f"{root}imagesTr and labelsTr"
            )


def read_description(files: Mapping[str, RawFile]) -> tuple[str, Description]:
    """The folder (with its slash) of the one dataset.json among ``files``, and what it says.

    ``InputError`` where there is none or more than one, or where it is damaged or asks for regions.
    """
    paths = [path for path in files if path.rsplit("/", 1)[-1] == "dataset.json"]
    if len(paths) != 1:
        raise InputError(f"expected one dataset.json, found {', '.join(paths) or 'none'}")
    file = files[paths[0]]
    try:
        content = parse_json(file.read().decode("utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: expected a readable JSON file, found {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected a JSON object, found {type(content).__name__}")
    if "dataset" in content:
        raise InputError(f"{file}: expected files in imagesTr and labelsTr, found a list of files elsewhere (dataset)")
    class_names, class_of_label = parse_labels(content.get("labels"), file)
    description = Description(
        parse_channels(content.get("channel_names", content.get("modality")), file), class_names, class_of_label,
        content.get("file_ending"), parse_count(content.get("numTraining"), file), parse_cases(content, file),
    )
    return paths[0].removesuffix("dataset.json"), description


def check_name(name: str, what: str, file: RawFile) -> None:
    """``InputError`` unless a class's or channel's name can be a column's, and stand in one line of a table."""
    if not name.strip() or not name.isprintable() or len(name.encode("utf-8")) > MAX_NAME:
        expected = f"{what} to have a name of one line, at most {MAX_NAME} bytes"
        raise InputError(f"{file}: expected {expected}, found {name!r:.80}")


def parse_channels(named: object, file: RawFile) -> tuple[str, ...]:
    if not isinstance(named, dict) or not named or sorted(named) != sorted(map(str, range(len(named)))):
        raise InputError(f"{file}: expected channel_names (or modality) numbered from 0, found {named}")
    channels = tuple(str(named[str(number)]) for number in range(len(named)))
    for name in channels:
        check_name(name, "each channel", file)
    return channels if len(set(channels)) == len(channels) else tuple(f"{c} {n}" for n, c in enumerate(channels))


def parse_labels(labels: object, file: RawFile) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names in the order of their values, and value -> class."""
    if not isinstance(labels, dict) or not labels:
        raise InputError(f"{file}: expected labels, found {labels}")
    values: dict[str, int] = {}
    for key, value in labels.items():
        if isinstance(value, list):
            raise InputError(
                f"{file}: expected one number per label, found the region {key} of {value}; region-based training is "
                "not supported: name each label"
            )
        name, number = (value, key) if isinstance(value, str) and key.isdigit() else (key, value)
        if not re.fullmatch(r"\d+", str(number)):
            raise InputError(f"{file}: expected labels with whole numbers, found {key}: {value}")
        if name in values or int(number) in values.values():
            raise InputError(f"{file}: expected each label and number once, found {key}: {value} again")
        check_name(name, "each label", file)
        values[name] = int(number)
    known = sorted((name for name in values if name != IGNORE), key=values.__getitem__)
    if len(known) < 2 or values[known[0]] != 0 or len(known) >= IGNORED:
        raise InputError(f"{file}: expected background 0 and 1 to {IGNORED - 2} classes more, found {labels}")
    class_of_label = {values[name]: k for k, name in enumerate(known)}
    return tuple(known), class_of_label | ({values[IGNORE]: IGNORED} if IGNORE in values else {})


def parse_count(count: object, file: RawFile) -> int | None:
    if count is not None and not isinstance(count, int):
        raise InputError(f"{file}: expected numTraining to be a number, found {count}")
    return count


def parse_cases(content: Mapping, file: RawFile) -> tuple[str, ...]:
    """Case ids of the list ``training``, whose entries name an image and a label in version 1."""
    listed = content.get("training") or []
    try:
        names = [entry["label"].rsplit("/", 1)[-1] for entry in listed]
    except (TypeError, KeyError, AttributeError):
        raise InputError(f"{file}: expected a list of images and labels (training), found {listed!r:.80}") from None
    return tuple(re.sub(r"\.(?:nii\.gz|[A-Za-z]+)$", "", name) for name in names)
