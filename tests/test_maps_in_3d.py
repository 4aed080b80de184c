"""Region-wise maps over the whole volume (--maps 3d) against SciPy, and where they cannot be had."""

import numpy as np
import pytest
from raw_files import call, make_acdc
from scipy import ndimage
from training_runs import run

import dataloader
import preprocess
import train
from sliced_data.meta import read_meta


@pytest.fixture(scope="module")
def acdc(tmp_path_factory):
    root = tmp_path_factory.mktemp("acdc")
    make_acdc(root / "raw", patients=(1, 2), spacing=(1.5625, 1.5625, 1.0))
    preprocess.main(["acdc", "--source", str(root / "raw"), "--dest", str(root / "data"), "--size", "24",
                     "--jobs", "1"])
    return root / "data"


def test_maps_of_the_volume_are_scipys(acdc):
    meta = read_meta(acdc)
    part = dataloader.load_slices(meta, "train", maps="rrw-3d")
    flat = dataloader.load_slices(meta, "train", maps="rrw")
    for case, at in part.case_ranges():
        label, found = part.label[at].numpy(), part.maps[at].numpy()
        for k in range(4):
            mask = label == k
            depth = ndimage.distance_transform_edt(mask, sampling=(case.spacing[2], *case.spacing[:2]))
            assert np.allclose(found[:, k], np.where(mask, -depth / depth.max(), 1), atol=1e-5)
    # The right ventricle ends between two slices that are 1 mm apart.
    assert (part.maps != flat.maps).any()


@pytest.mark.parametrize("contour", ["region-wise", "rrw-ce"])
def test_runs_differ_by_their_maps(acdc, tmp_path, contour):
    flags = ("--region", "none", "--contour", contour, "--epochs", "1", "--width", "4")
    flat, deep = (run(acdc, tmp_path / maps, *flags, "--maps", maps) for maps in ("2d", "3d"))
    assert flat[0]["train_contour"] != deep[0]["train_contour"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--contour", "region-wise", "--resident", "stream"), "--resident stream: expected --maps 2d"),
        (("--contour", "none"), "--maps 3d: expected a loss of signed distances (--contour boundary), found none"),
    ],
)
def test_what_cannot_be_had(acdc, tmp_path, monkeypatch, capsys, flags, named):
    command = ("--data", acdc, "--out", tmp_path / "run", "--device", "cpu", "--maps", "3d", *flags)
    assert call(train, *command, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and named in error and not (tmp_path / "run").exists()
