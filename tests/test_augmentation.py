"""Augmentation: every map after it is the map of the augmented label."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from training_runs import assert_same_run, run

from boundary_loss.distance import distance_maps, region_wise_map
from dataloader import Batch
from training import augmentation
from training.augmentation import augment, flip_and_turn, generator_of, rotate_and_zoom, source_places
from training.objective import BatchMaps, build_objective
from training.settings import Settings
from training.trainer import Trainer
from utils import InputError


def signed_maps(label, spacing):
    """Eq. 4 through SciPy."""
    maps = []
    for k in range(3):
        inside, outside = (ndimage.distance_transform_edt(m, sampling=spacing) for m in (label == k, label != k))
        maps.append(np.where(label == k, -inside, outside))
    return np.stack(maps).astype(np.float32)


@pytest.fixture
def batch():
    """Eight slices of three classes with pixels that are not square; the image's first channel is the label."""
    rng = np.random.default_rng(0)
    label = np.zeros((8, 16, 16), dtype=np.int64)
    for one in label:
        x, y = rng.integers(0, 8, 2)
        one[x : x + 6, y : y + 4], one[x + 2 : x + 5, y + 1 : y + 8] = 1, 2
    spacing = rng.uniform(0.5, 3, (8, 2)).astype(np.float32)
    maps = np.stack([signed_maps(one, mm) for one, mm in zip(label, spacing, strict=True)])
    image = np.stack([label, rng.random((8, 16, 16))], axis=1).astype(np.float32)
    return Batch(*map(torch.from_numpy, (image, label, maps, spacing)))


def test_maps_after_flips_and_turns_are_those_of_the_augmented_label(batch):
    positions = set()
    for step in range(12):
        found = augment(batch, "flips", seed=3, epoch=1, step=step)
        assert torch.equal(found.image[:, 0].long(), found.label)
        for i in range(8):
            expected = signed_maps(found.label[i].numpy(), found.spacing[i].tolist())
            assert np.allclose(found.maps[i], expected, atol=1e-5)
            positions.add((i, found.label[i].numpy().tobytes()))
    # All eight positions of a square come up for every slice in 12 draws of 8: more than half of 64 at least.
    assert len(positions) > 40


def test_region_wise_maps_move_too(batch):
    label = batch.label.numpy()
    pairs = zip(label, batch.spacing.tolist(), strict=True)
    maps = np.stack([region_wise_map(one, 3, "rrw", tuple(mm)) for one, mm in pairs])
    found = flip_and_turn(Batch(batch.image, batch.label, torch.from_numpy(maps), batch.spacing), generator_of(0, 0, 0))
    for i in range(8):
        expected = region_wise_map(found.label[i].numpy(), 3, "rrw", tuple(found.spacing[i].tolist()))
        assert np.allclose(found.maps[i], expected, atol=1e-6)


def batch_maps(*, ignore_index=None, **settings):
    settings = Settings(**{"region": "gdl", "augment": "affine", **settings})
    return BatchMaps(settings, build_objective(settings, 3, ignore_index=ignore_index), 3)


def test_maps_after_rotation_and_zoom_are_those_of_the_augmented_label(batch):
    for step in range(4):
        found = batch_maps(contour="boundary").add_to(augment(batch, "affine", seed=3, epoch=1, step=step))
        assert found.label.dtype == torch.int64 and not torch.equal(found.label, batch.label)
        for i in range(8):
            expected = signed_maps(found.label[i].numpy(), found.spacing[i].tolist())
            assert np.allclose(found.maps[i], expected, atol=1e-5)


def test_maps_made_anew_are_by_the_runs_convention(batch):
    """The authors' code: 1 less inside, and truncated."""
    found = batch_maps(contour="boundary", distance_map="authors").add_to(
        augment(batch, "affine", seed=3, epoch=1, step=0)
    )
    for label, spacing, maps in zip(found.label.numpy(), found.spacing.tolist(), found.maps.numpy(), strict=True):
        for k in set(np.unique(label)):
            inside, outside = (ndimage.distance_transform_edt(m, sampling=spacing) for m in (label == k, label != k))
            expected = np.trunc(np.where(label == k, 1 - inside, outside))
            assert np.array_equal(maps[k], expected)


@pytest.mark.parametrize("kind", ["rrw", "ac", "boundary"])
def test_region_wise_maps_are_made_anew_too(batch, kind):
    maps = batch_maps(contour="region-wise", region_wise_map=None if kind == "rrw" else kind)
    found = maps.add_to(augment(batch, "affine", seed=0, epoch=0, step=0))
    for i in range(8):
        expected = region_wise_map(found.label[i].numpy(), 3, kind, tuple(found.spacing[i].tolist()))
        assert np.allclose(found.maps[i], expected, atol=1e-6)


def test_slices_that_bring_their_maps_keep_them(batch):
    assert batch_maps(contour="boundary").add_to(batch) is batch
    assert batch_maps(contour="none").add_to(batch) is batch


def test_rotation_and_zoom_are_scipys_in_mm():
    """Of pixels of 2 x 1 mm: the source of each pixel in mm, looked up by SciPy."""
    angle, zoom, spacing = np.radians(12.0), 1.2, np.array([2.0, 1.0])
    label = np.zeros((16, 24))
    label[4:11, 6:15], label[9:13, 3:8] = 1, 2
    places = source_places(
        torch.tensor([angle]), torch.tensor([zoom]), torch.from_numpy(spacing)[None].float(), (1, 1, 16, 24)
    )
    found = torch.nn.functional.grid_sample(
        torch.from_numpy(label)[None, None].float(), places, mode="nearest", align_corners=False
    )
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    in_mm = np.array([[cos, sin], [-sin, cos]])                         # of (H, W)
    matrix = np.diag(1 / spacing) @ in_mm @ np.diag(spacing)
    centre = (np.array(label.shape) - 1) / 2
    expected = ndimage.affine_transform(label, matrix, centre - matrix @ centre, order=0)
    assert np.count_nonzero(found[0, 0].numpy() != expected) <= 3       # ties of the nearest pixel
    assert abs(np.count_nonzero(expected == 1) / 63 - zoom**2) < 0.15


def test_a_crop_keeps_the_distances_of_the_whole_image():
    """A map is a value per pixel: cut out with the image, it knows an object that the crop has lost."""
    label = torch.zeros(1, 10, 8, dtype=torch.long)
    label[0, 6:9, 2:5] = 1
    cropped = distance_maps(label, 2, (0.5, 2.0))[0, 1, :4]                                     # rows 0 to 3
    places, inside = np.argwhere(np.ones((4, 8))) * (0.5, 2.0), np.argwhere(label[0].numpy()) * (0.5, 2.0)
    expected = np.linalg.norm(places[:, None] - inside[None], axis=2).min(axis=1)
    assert np.allclose(cropped.numpy().ravel(), expected)
    assert not distance_maps(label[:, :4], 2, (0.5, 2.0)).any()


def test_zoom_multiplies_distances_up_to_the_border_pixel():
    """A disc's map after a zoom is the zoomed map times the zoom, within the two pixels by which borders can be off."""
    y, x = np.mgrid[:96, :96]
    label = torch.from_numpy((np.hypot(y - 47.5, x - 47.5) <= 20).astype(np.int64))[None]
    phi = torch.from_numpy(signed_maps(label[0].numpy(), (1, 1)))[None]
    places = source_places(torch.zeros(1), torch.tensor([1.25]), torch.ones(1, 2), (1, 1, 96, 96))
    zoomed = torch.nn.functional.grid_sample(label[None].float(), places, mode="nearest", align_corners=False)[0, 0]
    moved = 1.25 * torch.nn.functional.grid_sample(phi, places, align_corners=False, padding_mode="border")
    anew = signed_maps(zoomed.numpy(), (1, 1))
    assert np.abs(moved[0, 1].numpy() - anew[1])[8:-8, 8:-8].max() < 2


def test_images_move_with_their_labels_over_their_own_minimum():
    label = torch.zeros(4, 32, 32, dtype=torch.long)
    label[:, 8:24, 10:26] = 1
    image = (label[:, None] * 4.0) - 3.0
    found = rotate_and_zoom(Batch(image, label, None, torch.ones(4, 2)), generator_of(1, 0, 0))
    assert found.image.min() == -3 and found.image.max() == 1
    inside = found.image[:, 0] > -1
    assert (inside == (found.label == 1)).float().mean() > 0.97 and not torch.equal(found.label, label)


def test_an_ignored_pixel_moves_with_the_label_and_is_in_no_map(batch):
    label = batch.label.clone()
    label[:, 5:9, 5:9] = 255
    maps = batch_maps(contour="boundary", ignore_index=255)
    found = maps.add_to(augment(replace(batch, label=label), "affine", seed=0, epoch=0, step=0))
    ignored = found.label == 255
    assert ignored.any() and torch.equal(found.maps.isnan(), ignored[:, None].expand_as(found.maps))
    maps = batch_maps(contour="region-wise", ignore_index=255)
    found = maps.add_to(replace(found, maps=None))
    assert torch.equal(found.maps.isnan(), ignored[:, None].expand_as(found.maps))


@pytest.mark.parametrize("kind", ["flips", "affine"])
def test_the_choices_depend_on_seed_epoch_and_step_alone(batch, kind):
    places = itertools.product((0, 1), repeat=3)
    draws = {(s, e, t): augment(batch, kind, seed=s, epoch=e, step=t) for s, e, t in places}
    again = augment(batch, kind, seed=1, epoch=0, step=1)
    assert torch.equal(again.image, draws[1, 0, 1].image)
    assert len({found.label.numpy().tobytes() for found in draws.values()}) == 8


def test_none_changes_nothing(batch):
    assert augment(batch, "none", seed=0, epoch=0, step=0) is batch


def test_slices_that_are_not_square_are_refused():
    oblong = Batch(torch.zeros(1, 1, 8, 16), torch.zeros(1, 8, 16), None, torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"square slices to turn, found \(8, 16\)"):
        flip_and_turn(oblong, generator_of(0, 0, 0))


@pytest.mark.parametrize("kind", ["flips", "affine"])
def test_an_augmented_run_resumes_bit_for_bit(sliced, tmp_path, monkeypatch, kind):
    flags = ("--contour", "boundary", "--augment", kind, "--batch-size", "2", "--epochs", "2")
    run(sliced, tmp_path / "whole", *flags)
    original = Trainer.step

    def step(trainer, *arguments):
        original(trainer, *arguments)
        if trainer.totals.n_steps == 2 and len(trainer.log) == 1:
            trainer.stop.received = True

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(KeyboardInterrupt, match="epoch 1, step 2"):
        run(sliced, tmp_path / "stopped", *flags)
    monkeypatch.undo()
    run(sliced, tmp_path / "stopped", *flags, "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    plain = run(sliced, tmp_path / "plain", *(f for f in flags if f not in ("--augment", kind)))
    assert plain[0]["train_loss"] != (tmp_path / "whole" / "log.csv").read_text().splitlines()[1].split(",")[3]


def test_maps_of_volumes_cannot_be_made_of_slices(sliced, tmp_path):
    with pytest.raises(InputError, match="--augment affine: expected --maps 2d"):
        run(sliced, tmp_path, "--contour", "boundary", "--augment", "affine", "--maps", "3d")


def test_neither_turned_nor_zoomed_is_where_it_was(batch, monkeypatch):
    """Of draws in the middle of their ranges: no angle, and no zoom since 0.8 and 1.25 are each other's inverse."""
    monkeypatch.setattr(torch, "rand", lambda shape, dtype, **_: torch.full(shape, 0.5, dtype=dtype))
    found = rotate_and_zoom(batch, generator_of(0, 0, 0))
    torch.testing.assert_close(found.image, batch.image)
    assert torch.equal(found.label, batch.label) and torch.equal(found.spacing, batch.spacing) and found.maps is None


def test_angles_and_zooms_are_drawn_alike_to_either_side(monkeypatch):
    """4,000 slices: both over their whole ranges, the logarithm of the zooms evenly, one whatever the other is."""
    drawn = []
    monkeypatch.setattr(augmentation, "source_places", lambda *given: drawn.append(given) or source_places(*given))
    many = Batch(torch.zeros(4000, 1, 8, 8), torch.zeros(4000, 8, 8, dtype=torch.long), None, torch.ones(4000, 2))
    rotate_and_zoom(many, generator_of(0, 0, 0))
    angles, logs = np.degrees(drawn[0][0].numpy()), np.log(drawn[0][1].numpy())
    for values, (low, high) in ((angles, (-15, 15)), (logs, np.log((0.8, 1.25)))):
        assert values.min() == pytest.approx(low, abs=0.01 * (high - low)) and values.min() >= low
        assert values.max() == pytest.approx(high, abs=0.01 * (high - low)) and values.max() <= high
        assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 0.01
    assert abs(np.corrcoef(angles, logs)[0, 1]) < 0.05


def test_a_label_is_that_of_the_pixel_in_which_its_place_lies(monkeypatch):
    """Every pixel a class of its own, looked up by hand; what lies beyond the border is background."""
    drawn = []
    monkeypatch.setattr(augmentation, "source_places", lambda *given: drawn.append(source_places(*given)) or drawn[-1])
    label = torch.arange(1, 257).view(1, 16, 16).repeat(6, 1, 1)
    found = rotate_and_zoom(Batch(label[:, None].float(), label, None, torch.ones(6, 2)), generator_of(2, 0, 0)).label
    x, y = (((drawn[0] + 1) * 16 - 1) / 2).numpy().transpose(3, 0, 1, 2)                       # (B, H, W) in pixels
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (column >= 0) & (column < 16) & (row >= 0) & (row < 16)
    expected = np.where(inside, 16 * np.clip(row, 0, 15) + np.clip(column, 0, 15) + 1, 0)
    is_tie = np.minimum(np.abs(x % 1 - 0.5), np.abs(y % 1 - 0.5)) < 1e-4
    assert np.array_equal(found.numpy()[~is_tie], expected[~is_tie]) and is_tie.mean() < 0.01 and not inside.all()
