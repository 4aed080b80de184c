"""Where raw data keep their files, and how one case is read; one module per data set.

A data set of one's own in a known layout has a name of its own, and ``layout`` names the data set it is kept like.
"""

from raw_data.acdc import ACDC
from raw_data.busi import BUSI
from raw_data.dataset import RawDataset
from raw_data.isles import ISLES
from raw_data.wmh import WMH
from utils import InputError

LAYOUTS = {dataset.name: dataset for dataset in (ISLES, WMH, ACDC, BUSI)}
# The demos are generated raw data in the same layouts.
DATASETS = LAYOUTS | {f"{name}-demo": dataset for name, dataset in LAYOUTS.items()}


def find_dataset(name: str, layout: str | None = None) -> RawDataset:
    """The data set ``name``, or the one whose ``layout`` it has; ``InputError`` where there is no such one."""
    if layout is None:
        if name not in DATASETS:
            raise InputError(f"{name}: expected a data set of {', '.join(sorted(DATASETS))}, or --layout beside it")
        return DATASETS[name]
    if layout not in LAYOUTS:
        raise InputError(f"--layout: expected one of {', '.join(sorted(LAYOUTS))}, found {layout}")
    return LAYOUTS[layout]
