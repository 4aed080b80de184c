"""Where raw data keep their files, and how one case is read; one module per data set.

A data set of one's own in a known layout has a name of its own, and ``layout`` names the data set it is kept like.
"""

from collections.abc import Mapping
from pathlib import Path

from raw_data import nnunet
from raw_data.acdc import ACDC
from raw_data.brats import BRATS
from raw_data.busi import BUSI
from raw_data.dataset import RawDataset
from raw_data.isles import ISLES
from raw_data.kits import KITS
from raw_data.wmh import WMH
from utils import InputError

LAYOUTS = {dataset.name: dataset for dataset in (ISLES, WMH, ACDC, BUSI, BRATS, KITS)}
# The demos are generated raw data in the same layouts.
DATASETS = LAYOUTS | {f"{name}-demo": dataset for name, dataset in LAYOUTS.items()}
LAYOUT_NAMES = (*sorted(LAYOUTS), nnunet.NNUNET)


def find_dataset(name: str, layout: str | None = None, source: Path | None = None) -> RawDataset:
    """The data set ``name``, or the one whose ``layout`` it has; ``InputError`` where there is no such one.

    nnU-Net's layout says in ``source`` what the data set consists of.
    """
    if layout == nnunet.NNUNET:
        if source is None:
            raise InputError(f"{name}: expected its raw data in nnU-Net's layout, found none")
        return nnunet.describe(name, source)
    if layout is None:
        if name not in DATASETS:
            raise InputError(f"{name}: expected a data set of {', '.join(sorted(DATASETS))}, or --layout beside it")
        return DATASETS[name]
    if layout not in LAYOUTS:
        raise InputError(f"--layout: expected one of {', '.join(LAYOUT_NAMES)}, found {layout}")
    return LAYOUTS[layout]


def dataset_of_facts(facts: Mapping) -> RawDataset:
    """The raw data set that a sliced one was made of, from its meta.json; ``InputError`` where it is not known."""
    if facts["layout"] == nnunet.NNUNET:
        try:
            return nnunet.from_facts(facts)
        except (KeyError, ValueError) as error:
            raise InputError(f"meta.json: expected endings and label_values of nnU-Net, found {error!r}") from None
    return find_dataset(facts["dataset"], facts["layout"])
