"""Augmentation: every map after it is the map of the augmented label."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from training_runs import assert_same_run, run

from boundary_loss.distance import region_wise_map
from dataloader import Batch
from training.augmentation import augment, flip_and_turn, generator_of
from training.trainer import Trainer


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


def test_the_choices_depend_on_seed_epoch_and_step_alone(batch):
    places = itertools.product((0, 1), repeat=3)
    draws = {(s, e, t): augment(batch, "flips", seed=s, epoch=e, step=t) for s, e, t in places}
    again = augment(batch, "flips", seed=1, epoch=0, step=1)
    assert torch.equal(again.image, draws[1, 0, 1].image)
    assert len({found.label.numpy().tobytes() for found in draws.values()}) == 8


def test_none_changes_nothing(batch):
    assert augment(batch, "none", seed=0, epoch=0, step=0) is batch


def test_slices_that_are_not_square_are_refused():
    oblong = Batch(torch.zeros(1, 1, 8, 16), torch.zeros(1, 8, 16), None, torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"square slices to turn, found \(8, 16\)"):
        flip_and_turn(oblong, generator_of(0, 0, 0))


def test_an_augmented_run_resumes_bit_for_bit(sliced, tmp_path, monkeypatch):
    flags = ("--contour", "boundary", "--augment", "flips", "--batch-size", "2", "--epochs", "2")
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
    plain = run(sliced, tmp_path / "plain", *(f for f in flags if f not in ("--augment", "flips")))
    assert plain[0]["train_loss"] != (tmp_path / "whole" / "log.csv").read_text().splitlines()[1].split(",")[3]
