"""Any data set in nnU-Net's raw layout: dataset.json says which channels and classes it has."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raw_data.dataset import Case, RawDataset, Recipe
from raw_data.files import RawFile, list_files
from raw_data.images import PIXEL, PIXEL_ENDINGS, read_colours, read_image
from raw_data.nifti import MIN_SPACING
from raw_data.nnunet_description import CHANNEL, read_description
from raw_data.recognise import looks_like
from raw_data.volumes import Spacing, check_contrast, check_grid
from utils import InputError, parse_json

NNUNET = "nnunet"
LAYOUT = "dataset.json, imagesTr/<case>_0000.nii.gz, ... and labelsTr/<case>.nii.gz (or .png, .tif)"
DOWNLOAD = "your data in nnU-Net's raw layout"


@dataclass(frozen=True, kw_only=True)
class NnunetDataset(RawDataset):
    """A folder in nnU-Net's raw layout, as its dataset.json describes it."""

    has_colours: bool = False       # the channels are red, green and blue of one file

    def cases_in(self, files: Mapping[str, RawFile]) -> list[Case]:
        root, description = read_description(files)
        if (description.channels, description.class_of_label) != (self.modalities, dict(self.class_of_label)):
            raise InputError(f"{root}dataset.json: expected the channels and labels that were sliced, found others")
        images = self.channels_in(files, f"{root}imagesTr/")
        labels = self.files_by_name(files, f"{root}labelsTr/")
        description.check_promises(set(images), set(labels), root)
        for case_id in images.keys() ^ labels.keys():
            expected, found = ("an image", labels) if case_id in labels else ("a label", images)
            raise InputError(f"{case_id}: expected {expected} ({LAYOUT}), found only {found[case_id]}")
        return [
            self.build(case_id, images[case_id], files, label=files[labels[case_id]]) for case_id in sorted(images)
        ]

    def scans_in(self, files: Mapping[str, RawFile], folder: str) -> list[Case]:
        """Files that end in a channel's number; of a single channel, any file outside the folders of labels."""
        known = {path: file for path, file in files.items() if not re.search(r"(?:^|/)labels(?:Tr|Ts)/", path)}
        found = self.channels_in(known, "")
        if not found and self.n_files == 1:
            found = {name: {0: path} for name, path in self.files_by_name(known, "").items()}
        return [self.build(case_id, found[case_id], known) for case_id in sorted(found)]

    def channels_in(self, files: Mapping[str, RawFile], folder: str) -> dict[str, dict[int, str]]:
        """case id -> {number of the channel: path}, of the files in ``folder``."""
        found: dict[str, dict[int, str]] = defaultdict(dict)
        for path in sorted(files):
            match = CHANNEL.search(self.without_ending(path)) if self.is_file_of(path, folder) else None
            if match:
                parts, channel = found[match["case"]], int(match["channel"])
                if channel in parts:
                    given = f"{parts[channel]} and {path}"
                    raise InputError(f"{match['case']}: expected one file of channel {channel}, found {given}")
                parts[channel] = path
        return found

    def files_by_name(self, files: Mapping[str, RawFile], folder: str) -> dict[str, str]:
        """Name without ending -> path, of the files in ``folder``; ``InputError`` where two have one name."""
        found: dict[str, str] = {}
        for path in sorted(path for path in files if self.is_file_of(path, folder)):
            name = self.without_ending(path)
            if found.setdefault(name, path) != path:
                raise InputError(f"{name}: expected one file of this name, found {found[name]} and {path}")
        return found

    def is_file_of(self, path: str, folder: str) -> bool:
        return path.startswith(folder) and path.endswith(self.endings)

    def without_ending(self, path: str) -> str:
        name = path.rsplit("/", 1)[-1]
        return RawDataset.case_id_of(self, name)

    def build(
        self, case_id: str, parts: Mapping[int, str], files: Mapping[str, RawFile], label: RawFile | None = None
    ) -> Case:
        wanted = range(self.n_files)
        if sorted(parts) != list(wanted):
            names = ", ".join(f"_{number:04d}" for number in wanted)
            found = ", ".join(f"_{number:04d}" for number in parts)
            raise InputError(f"{case_id}: expected files of the channels {names}, found {found}")
        spacing = self.read_spacing(case_id, files, parts[0].rsplit("/", 1)[0]) if self.unit == "mm" else None
        images = tuple(files[parts[number]] for number in wanted)
        return Case(case_id, None, images, (label,) if label else (), parts[0], spacing=spacing)

    def read_spacing(self, case_id: str, files: Mapping[str, RawFile], folder: str) -> Spacing | None:
        """What <case>.json beside a TIFF says of its spacing, which is in the order z, y, x there."""
        if not self.has_pixels:
            return None
        path = f"{folder}/{case_id}.json"
        try:
            z, y, x = map(float, parse_json(files[path].read().decode("utf-8"))["spacing"])
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{case_id}: expected its spacing in {path}, found none") from None
        if not MIN_SPACING <= min(x, y, z) <= max(x, y, z) < np.inf:
            expected = f"a positive spacing, at least {MIN_SPACING:g}"
            raise InputError(f"{case_id}: expected {expected}, found {(z, y, x)} in {path}")
        return x, y, z

    @property
    def n_files(self) -> int:
        return 1 if self.has_colours else len(self.modalities)

    @property
    def has_pixels(self) -> bool:
        return self.endings[0] in PIXEL_ENDINGS

    def read_scan(self, case: Case) -> tuple[np.ndarray, Spacing]:
        """image (C, X, Y, Z) float32; that of 8-bit images is in [0, 1]."""
        if not self.has_pixels:
            return super().read_scan(case)
        if self.has_colours:
            images = list(read_colours(case.case_id, case.images[0]))
        else:
            images = [read_image(case.case_id, file) for file in case.images]
        if case.spacing is None and self.unit == "mm":
            raise InputError(f"{case.case_id}: expected its folder with {case.case_id}.json, found only its files")
        spacing = case.spacing or PIXEL
        files = case.images * (len(images) // len(case.images))
        for file, image in zip(files, images, strict=True):
            grid = images[0].shape, spacing
            check_grid(case.case_id, file, shape=image.shape, spacing=spacing, expected=grid)
        check_contrast(case.case_id, files, images)
        return np.stack(images).astype(np.float32) / 255, spacing

    def read_label(self, case: Case) -> tuple[np.ndarray, Spacing]:
        if not self.has_pixels:
            return super().read_label(case)
        return read_image(case.case_id, case.labels[0]), case.spacing or PIXEL

    def case_id_of(self, name: str) -> str:
        bare = super().case_id_of(name)
        match = CHANNEL.search(bare)
        return match["case"] if match else bare

    def modalities_in(self, name: str) -> list[str]:
        """By the number of the channel at the end of a file's name."""
        match = CHANNEL.search(re.sub(r"\.(?:nii\.gz|[a-z]+)$", "", name))
        number = int(match["channel"]) if match else len(self.modalities)
        return [self.modalities[number]] if number < len(self.modalities) and not self.has_colours else []

    def facts(self) -> dict:
        return {
            "endings": list(self.endings), "has_colours": self.has_colours,
            "label_values": {str(value): k for value, k in self.class_of_label.items()},
        }


def describe(name: str, source: Path) -> NnunetDataset:
    """The data set in the folder or zip ``source``; ``InputError`` where dataset.json is missing or not understood."""
    if not source.exists():
        raise InputError(f"{source}: expected the raw data of {name}, found nothing; put {DOWNLOAD} there")
    files = list_files(source)
    if not any(path.rsplit("/", 1)[-1] == "dataset.json" for path in files):
        raise InputError(f"{source}: expected {LAYOUT}, found no dataset.json{looks_like(files)}")
    root, description = read_description(files)
    images = [path.removeprefix(f"{root}imagesTr/") for path in files if path.startswith(f"{root}imagesTr/")]
    endings = description.endings(images, f"{root}dataset.json")
    has_pixels = endings[0] in PIXEL_ENDINGS
    second = any(re.search(rf"_0001{re.escape(end)}$", path) for path in images for end in endings)
    in_mm = not has_pixels or any(path.endswith(".json") for path in images)
    return build_dataset(
        name, channels=description.channels, class_names=description.class_names, unit="mm" if in_mm else "px",
        class_of_label=description.class_of_label, endings=endings,
        has_colours=has_pixels and len(description.channels) == 3 and not second,
    )


def from_facts(facts: Mapping) -> NnunetDataset:
    """The data set that a sliced one was made of, from its meta.json."""
    return build_dataset(
        facts["dataset"], channels=tuple(facts["modalities"]), class_names=tuple(facts["class_names"]),
        unit=facts["unit"], class_of_label={int(value): int(k) for value, k in facts["label_values"].items()},
        endings=tuple(facts["endings"]), has_colours=bool(facts["has_colours"]),
    )


def build_dataset(
    name: str, *, channels: tuple[str, ...], class_names: tuple[str, ...], unit: str,
    class_of_label: Mapping[int, int], endings: tuple[str, ...], has_colours: bool,
) -> NnunetDataset:
    return NnunetDataset(
        name=name, modalities=channels, class_names=class_names, class_of_label=class_of_label, unit=unit,
        endings=endings, has_colours=has_colours, layout=LAYOUT, download=DOWNLOAD,
        # 8-bit images are in [0, 1] already.
        recipe=Recipe(normalise="none" if endings[0] in PIXEL_ENDINGS else "minmax"),
    )
