"""BUSI: breast ultrasound images with tumour masks (Al-Dhabyani et al. 2020)."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from raw_data.dataset import Case, RawDataset, Recipe
from raw_data.files import RawFile
from raw_data.images import PIXEL, read_image
from raw_data.volumes import Spacing, check_contrast
from utils import InputError

FILE = re.compile(
    r"(?:^|/)(?P<class>benign|malignant|normal)/(?P<case>(?P=class) \(\d+\))(?P<mask>_mask(?:_\d+)?)?\.png$"
)


class BusiDataset(RawDataset):
    """An image is a case of one slice; it has one mask or several, which are OR-ed."""

    def cases_in(self, files: Mapping[str, RawFile]) -> list[Case]:
        images: dict[str, str] = {}
        masks: dict[str, list[str]] = defaultdict(list)
        for path in sorted(files):
            match = FILE.search(path)
            if match and match["mask"]:
                masks[match["case"]].append(path)
            elif match and images.setdefault(match["case"], path) != path:
                found = f"{images[match['case']]} and {path}"
                raise InputError(f"{match['case']}: expected one image of this name, found {found}")
        for case_id in images.keys() ^ masks.keys():
            expected, there = ("an image", masks) if case_id in masks else ("a mask", images)
            raise InputError(f"{case_id}: expected {expected} ({self.layout}), found only {there[case_id]}")
        for case_id, image in images.items():
            check_beside(case_id, image, masks[case_id])
        return [
            Case(case_id, None, (files[path],), tuple(files[mask] for mask in masks[case_id]), path,
                 image_class=case_id.split()[0])
            for case_id, path in images.items()
        ]

    def scans_in(self, files: Mapping[str, RawFile], folder: str) -> list[Case]:
        paths = [path for path in sorted(files) if path.endswith(self.endings) and not re.search(r"_mask[^/]*$", path)]
        return [Case(path.rsplit("/", 1)[-1].removesuffix(".png"), None, (files[path],), (), path) for path in paths]

    def read_scan(self, case: Case) -> tuple[np.ndarray, Spacing]:
        """Grey values in [0, 1], (1, X, Y, 1)."""
        image = read_image(case.case_id, case.images[0]).astype(np.float32) / 255
        check_contrast(case.case_id, case.images, [image])
        return image[None], PIXEL

    def read_label(self, case: Case) -> tuple[np.ndarray, Spacing]:
        masks = [read_image(case.case_id, file) > 0 for file in case.labels]
        for file, mask in zip(case.labels, masks, strict=True):
            if mask.shape != masks[0].shape:
                expected = f"a mask of {masks[0].shape[:2]} pixels, as the first"
                raise InputError(f"{case.case_id}: expected {expected}, found {mask.shape[:2]} in {file}")
        return np.logical_or.reduce(masks).astype(np.uint8), PIXEL

    def same_images(self, cases: list[Case]) -> list[list[str]]:
        """The published set has an image both as benign and as malignant."""
        groups: dict[str, list[str]] = defaultdict(list)
        for case in cases:
            image = read_image(case.case_id, case.images[0])
            groups[f"{image.shape} {hashlib.sha256(image).hexdigest()}"].append(case.case_id)
        return [group for group in groups.values() if len(group) > 1]


def check_beside(case_id: str, image: str, masks: list[str]) -> None:
    """``InputError`` where a mask lies in another folder than its image: another copy's, or another annotator's."""
    folder = image.rpartition("/")[0]
    for mask in masks:
        if mask.rpartition("/")[0] != folder:
            raise InputError(f"{case_id}: expected its masks beside {image}, found {mask}")


BUSI = BusiDataset(
    name="busi",
    modalities=("US",),
    class_names=("background", "tumour"),
    class_of_label={0: 0, 1: 1},
    recipe=Recipe(normalise="none", max_share=0.05),
    authors_recipe={
        "max_share": 0.10, "classes": ("benign", "malignant"), "resize_labels": "linear", "distance_map": "authors",
    },
    authors="busi",
    unit="px",
    endings=(".png",),
    image_classes=("benign", "malignant", "normal"),
    layout="{benign,malignant,normal}/'<class> (N).png' with '<class> (N)_mask.png', unpacked or zipped",
    download="Dataset_BUSI_with_GT.zip (Al-Dhabyani et al. 2020, doi 10.1016/j.dib.2019.104863)",
)
