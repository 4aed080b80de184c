import os

import pytest
import torch
from raw_files import make_isles

import preprocess

# Small tensors: a second thread costs more than it brings, and far more where the cores are shared.
torch.set_num_threads(1)
# The same for the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def sliced(tmp_path_factory):
    """A sliced ISLES data set of three cases, nine slices, 32 x 32: two cases train, one validates."""
    root = tmp_path_factory.mktemp("sliced")
    make_isles(root / "raw")
    dest = root / "data" / "isles"
    preprocess.main(
        ["isles", "--source", str(root / "raw"), "--dest", str(dest), "--size", "32", "--val", "1", "--jobs", "1"]
    )
    return dest
