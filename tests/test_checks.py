"""Settings up to the last value that a run may have, and from the first that none may."""

import math
from dataclasses import replace

import pytest

from training.checks import check_settings
from training.choices import CHOICES
from training.settings import PAPER
from utils import InputError

BELOW_ONE = math.nextafter(1, 0)
LEAST = 5e-324
LIMITS = {
    # name: (accepted, refused, what is expected)
    "epochs": ([1, 10**6], [0, -1, 10**6 + 1, 10**30], "at (least 1|most 1000000)"),
    "batch_size": ([1, 2**16], [0, 2**16 + 1], "at (least 1|most 65536)"),
    "width": ([1, 2**12], [0, -1, 2**12 + 1, None], "at (least 1|most 4096)"),
    "seed": ([0, 2**32 - 1], [-1, 2**32], r"(at least 0|less than 2\^32)"),
    "lr": ([LEAST, 1e30], [0.0, -1.0, 1.1e30, math.inf, math.nan], "(a positive number|at most 1e.30)"),
    "contour_alone_weight": ([LEAST, 1e30], [0.0, -0.1, 1.1e30, math.inf, math.nan],
                             "(a positive number|at most 1e.30)"),
    "cross_entropy_factor": ([LEAST, 50.5], [0.0, -1.0, math.inf, math.nan], "a positive number"),
    "betas": ([(0.0, 0.0), (0.9, BELOW_ONE)], [(1.0, 0.5), (0.5, 1.0), (-0.1, 0.5), (0.5, math.nan)],
              "two numbers from 0 to below 1"),
    "weight_decay": ([0.0, 1e30], [-0.1, 1.1e30, math.inf, math.nan], "(a number of at least 0|at most 1e.30)"),
    "gradient_clip": ([None, LEAST, 1e30], [0.0, -1.0, 1.1e30, math.inf, math.nan],
                      "(a positive number|at most 1e.30)"),
    "alpha_epochs": ([None, 1, 10**6], [0, -1, 10**6 + 1], "(at least 1|at most 1000000)"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_number(name):
    accepted, refused, expected = LIMITS[name]
    alpha = "busi-linear" if name == "alpha_epochs" else "constant"
    settings = replace(PAPER, region="ce", contour="boundary", alpha=alpha)
    for value in accepted:
        check_settings(replace(settings, **{name: value}))
    for value in refused:
        with pytest.raises(InputError, match=f"--(alpha busi-linear: )?.*expected {expected}"):
            check_settings(replace(settings, **{name: value}))


@pytest.mark.parametrize("name", CHOICES)
def test_a_word(name):
    with pytest.raises(InputError, match=f"^--{name.replace('_', '-')}: expected one of .*, found anything$"):
        check_settings(replace(PAPER, **{name: "anything"}))


@pytest.mark.parametrize(("settings", "said"), [
    ({"region": "none", "contour": "none"}, "--region none --contour none: expected at least one loss"),
    ({"maps": "3d", "contour": "hausdorff"}, "--maps 3d: expected a loss of signed distances"),
    ({"maps": "3d", "contour": "none"}, "--maps 3d: expected a loss of signed distances"),
    ({"maps": "3d", "contour": "boundary", "distance_map": "authors-region-wise"}, "--maps 3d: expected --maps 2d"),
    ({"maps": "3d", "contour": "boundary", "augment": "affine"}, "--augment affine: expected --maps 2d beside it"),
    ({"contour": "boundary", "region_wise_map": "rrw"}, "--region-wise-map: expected a region-wise loss"),
    ({"network": "resnet34-unet", "width": 8}, "--width: expected none, since the channels of resnet34-unet are fixed"),
])
def test_what_does_not_go_together(settings, said):
    with pytest.raises(InputError, match=f"^{said}"):
        check_settings(replace(PAPER, **settings))


@pytest.mark.parametrize("settings", [
    {"region": "none", "contour": "boundary"}, {"region": "gdl", "contour": "none"},
    {"maps": "3d", "contour": "boundary"}, {"maps": "3d", "contour": "region-wise", "augment": "flips"},
    {"maps": "3d", "region": "none", "contour": "rrw-ce"}, {"contour": "region-wise", "region_wise_map": "cao"},
    {"contour": "boundary", "distance_map": "authors-region-wise", "augment": "affine"},
    {"network": "resnet34-unet", "width": None},
])
def test_what_goes_together(settings):
    checked = replace(PAPER, **settings)
    assert check_settings(checked) is checked
