"""Which data set a folder looks like, so that a wrong folder is named."""

import re
from collections.abc import Iterable

SIGNS = {
    "isles": r"SMIR\.Brain\.XX\.O\.",
    "wmh": r"(?:^|/)pre/(?:FLAIR|T1)\.nii",
    "acdc": r"(?:^|/)patient\d+_frame\d+",
    "busi": r"(?:^|/)(?:benign|malignant|normal) \(\d+\)",
    "brats": r"(?:^|/)([^/]+)/\1_(?:t1|t1ce|t2|flair)\.nii",
    "kits": r"(?:^|/)case_\d{5}/(?:imaging|segmentation)\.nii",
    "nnunet": r"(?:^|/)(?:imagesTr|labelsTr)/",
}


def looks_like(paths: Iterable[str]) -> str:
    """``"; it looks like <name>"``, or nothing where no data set is known by these paths."""
    paths = list(paths)
    found = [name for name, sign in SIGNS.items() if any(re.search(sign, path) for path in paths)]
    return f"; it looks like {found[0]}" if found else ""
