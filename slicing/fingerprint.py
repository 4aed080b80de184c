"""What a data set consists of, in lines that let a user see whether it is the paper's."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from raw_data.dataset import Case, RawDataset


def count_voxels(label: np.ndarray, num_classes: int) -> list[int]:
    """Voxels of each class; ignored ones are of none."""
    return np.bincount(label.ravel(), minlength=256)[:num_classes].tolist()


def describe_cases(raw: RawDataset, cases: Sequence[Case], rows: Sequence[Mapping]) -> list[str]:
    """Lines on the classes of whole images, where they have some, and on the voxels' classes, where there are several.

    ``rows``: lines of cases.csv, with each case's ``voxels`` per class.
    """
    lines = []
    classes = Counter(case.image_class for case in cases if case.image_class is not None)
    if classes:
        of_class = [f"{n} {name} ({n / len(cases):.2%})" for name, n in sorted(classes.items())]
        lines.append(f"{len(cases)} {'images' if raw.is_2d else 'cases'}: {', '.join(of_class)}")
    if len(raw.class_names) > 2:
        voxels = np.sum([row["voxels"] for row in rows], axis=0)
        shares = [
            f"{name} {share:.2%}{beside(raw, name)}"
            for name, share in list(zip(raw.class_names, voxels / max(voxels.sum(), 1), strict=True))[1:]
        ]
        lines.append(f"share of the voxels: {', '.join(shares)}")
    return lines


def beside(raw: RawDataset, name: str) -> str:
    """The share that the data set's paper prints."""
    published = raw.recipe.class_shares.get(name)
    return "" if published is None else f" (paper {published:.2%})"
