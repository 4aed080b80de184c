"""Slices on the sliced grid and back: against NumPy's and SciPy's, and by the law that a blob stays where it is."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from raw_data.volumes import Volume
from slicing.grid import Grid
from slicing.normalisation import standardise
from slicing.resampling import overlap, resize_volume, to_native, to_sliced_label
from utils import InputError

GRIDS = [Grid(48), Grid(32, "centre"), Grid(64, "centre"), Grid(32, "centre", 1.5), Grid(64, "centre", 0.6)]


def disc(shape, centre, radius, spacing):
    x, y = np.mgrid[: shape[0], : shape[1]]
    return np.hypot((x - centre[0]) * spacing[0], (y - centre[1]) * spacing[1]) < radius


@pytest.mark.parametrize("size", [8, 9, 12, 13, 20])
@pytest.mark.parametrize("n", [8, 11, 12, 16])
def test_overlaps_share_a_centre(n, size):
    inside, outside = overlap(n, size)
    assert inside.stop - inside.start == outside.stop - outside.start == min(n, size)
    # Centres in pixels of their own grid lie at most half a pixel apart.
    assert abs((inside.start - outside.start) - (n - size) / 2) <= 0.5


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_disc_comes_back_to_within_half_a_voxel(grid):
    shape, spacing = (44, 36), (0.9, 1.2, 5.0)
    mask = disc(shape, (22, 19), 8, spacing)
    sliced = to_sliced_label(mask[..., None].astype(np.uint8), grid, spacing)
    assert sliced.shape == (grid.size, grid.size, 1)
    probs = torch.from_numpy(np.stack([sliced == 0, sliced == 1])[..., 0][None].astype(np.float32))
    back = to_native(probs, grid, (*shape, 1), spacing)[0]
    assert back.shape == (2, *shape) and torch.allclose(back.sum(0), torch.ones(shape))
    found = back.argmax(0).numpy() == 1
    assert np.allclose(ndimage.center_of_mass(found), ndimage.center_of_mass(mask), atol=0.5)
    boundary = mask ^ ndimage.binary_erosion(mask) | ndimage.binary_dilation(mask) ^ mask
    assert not (found ^ mask)[~boundary].any()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_spacing_keeps_the_area_of_a_disc(grid):
    shape, spacing = (44, 36), (0.9, 1.2, 5.0)
    mask = disc(shape, (22, 18), 9, spacing)[..., None].astype(np.uint8)
    volume = resize_volume(Volume(np.random.default_rng(0).random((1, *shape, 1), np.float32), mask, spacing), grid)
    if grid.spacing:
        assert volume.spacing[:2] == pytest.approx((grid.spacing, grid.spacing), rel=0.02)
    assert np.prod(volume.spacing) * volume.label.sum() == pytest.approx(np.prod(spacing) * mask.sum(), rel=0.05)
    assert volume.image.shape == (1, grid.size, grid.size, 1)


def test_a_crop_is_numpys_and_its_padding_the_minimum():
    image = np.random.default_rng(0).random((2, 30, 12, 3), dtype=np.float32) - 0.5
    label = np.ones((30, 12, 3), np.uint8)
    volume = resize_volume(Volume(image, label, (1.0, 1.0, 2.0)), Grid(16, "centre"))
    assert np.array_equal(volume.image[:, :, 2:14], image[:, 7:23]) and volume.spacing == (1.0, 1.0, 2.0)
    for channel, low in zip(volume.image, image.min(axis=(1, 2, 3)), strict=True):
        assert (channel[:, :2] == low).all() and (channel[:, 14:] == low).all()
    assert volume.label[:, 2:14].all() and not volume.label[:, :2].any() and not volume.label[:, 14:].any()


def test_a_spacing_that_makes_slices_too_large_is_refused():
    assert Grid(16, "centre", 1.0).resampled((2**14, 20), (1.0, 1.0, 1.0)) == (2**14, 20)
    with pytest.raises(InputError, match="at most 16384 pixels a side, found 20 x 16385 pixels of 1 mm"):
        Grid(16, "centre", 1.0).resampled((20, 2**14 + 1), (1.0, 1.0, 1.0))


def test_outside_a_crop_is_background():
    lesion = torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1).expand(1, 2, 16, 16)
    back = to_native(lesion, Grid(16, "centre"), (30, 20, 1), (1, 1, 1))
    assert back[0, 1].sum() == 256 and back[0, 1, 7:23, 2:18].all() and back[0, 0].sum() == 30 * 20 - 256


def test_standardised_volumes_have_mean_0_and_sd_1():
    image = (np.random.default_rng(0).random((2, 20, 20, 4)) * 900 + 3000).astype(np.float32)
    found = standardise(image).astype(np.float64)
    assert np.allclose(found.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    assert np.allclose(found.std(axis=(1, 2, 3)), 1, atol=1e-5)
    assert np.allclose(found[1], (image[1] - image[1].mean(dtype=float)) / image[1].std(dtype=float), atol=1e-5)
