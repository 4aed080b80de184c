"""An epoch of training beside independent code: the order of the slices, their spacings in the losses, their DSC."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from medpy.metric import binary
from scipy.ndimage import distance_transform_edt
from tqdm import tqdm

import dataloader
from sliced_data.meta import read_meta
from training import trainer as training
from training.settings import PAPER
from training.trainer import Trainer


@pytest.fixture
def watched(varied, monkeypatch):
    """A trainer of some settings on ``varied``, the orders it was given, and the logits of each step."""

    def make(resident="host", **settings):
        found = SimpleNamespace(orders=[], logits=[])

        def batches(slices, order, batch_size, device):
            found.orders.append(order.tolist())
            return dataloader.batches(slices, order, batch_size, device)

        monkeypatch.setattr(training, "batches", batches)
        settings = {"width": 2, "epochs": 3, "batch_size": 4, "precision": "fp32", **settings}
        found.trainer = Trainer(replace(PAPER, **settings), read_meta(varied), torch.device("cpu"), resident=resident)
        found.trainer.network.register_forward_hook(lambda _, __, logits: found.logits.append(logits.detach().clone()))
        return found

    return make


def labels(data, part, names):
    return np.stack([np.load(data / part / "label" / f"{name}.npy") for name in names])


def slice_dsc(prediction, reference):
    return np.mean([
        binary.dc(one, other) if one.any() or other.any() else 1.0
        for one, other in zip(prediction, reference, strict=True)
    ])


def test_every_epoch_has_an_order_of_its_own_by_the_seed(watched, tmp_path):
    orders = {}
    for seed in (0, 1):
        found = watched(seed=seed)
        (tmp_path / str(seed)).mkdir()
        found.trainer.fit(tmp_path / str(seed))
        training_orders = [order for order in found.orders if len(order) == 10]
        assert all(sorted(order) == list(range(10)) for order in training_orders)
        assert found.orders[1::2] == [list(range(7))] * 3       # validation keeps the order of the cases
        orders |= {(seed, epoch): tuple(order) for epoch, order in enumerate(training_orders)}
    assert len(orders) == 6 == len(set(orders.values())) and tuple(range(10)) not in orders.values()


@pytest.mark.parametrize("settings", [{"lr": 0.003, "width": 4}, {"lr": 0.01, "seed": 1}])
def test_train_and_validation_dsc_are_medpys_over_every_slice(watched, varied, tmp_path, settings):
    found = watched(**settings)
    found.trainer.fit(tmp_path)
    distinct = set()
    for epoch, row in enumerate(found.trainer.log):
        for part, order, logits in (
            ("train", found.orders[2 * epoch], found.logits[5 * epoch : 5 * epoch + 3]),
            ("val", found.orders[2 * epoch + 1], found.logits[5 * epoch + 3 : 5 * epoch + 5]),
        ):
            prediction = torch.cat(logits).argmax(1).numpy() == 1
            names = [getattr(found.trainer, part).names[place] for place in order]
            reference = labels(varied, part, names) == 1
            expected = slice_dsc(prediction, reference)
            assert row[f"{part}_dsc"] == pytest.approx(expected, abs=1e-6)
            halves = slice_dsc(prediction[::2], reference[::2]), slice_dsc(prediction[1::2], reference[1::2])
            distinct |= {round(value, 6) for value in (*halves, expected)}
    assert len(distinct) > 6


def probabilities(logits):
    return torch.cat(logits).double().softmax(1).numpy()


def depth(mask, spacing):
    """Distance in mm to the other side of the mask's boundary; 0 for a mask without one."""
    if not mask.any() or mask.all():
        return np.zeros(mask.shape)
    return distance_transform_edt(mask, sampling=spacing) + distance_transform_edt(~mask, sampling=spacing)


def hausdorff(probs, label, spacing):
    """Kervadec et al. 2021, section 3.2, of one slice."""
    powers = depth(label == 1, spacing) ** 2 + depth(probs[1] >= 0.5, spacing) ** 2
    return np.mean((probs[1] - (label == 1)) ** 2 * powers)


def unet_ce(probs, label, spacing):
    """Numerator and denominator of Ronneberger et al. 2015 in one slice, w0 10 and sigma 5 mm."""
    share = np.array([(label == k).mean() for k in (0, 1)])[label]
    near = np.where((label == label.flat[0]).all(), 0.0, np.exp(-(depth(label == 1, spacing) ** 2) / (2 * 5**2)))
    weights = share + 10 * near
    return np.sum(weights * -np.log(np.take_along_axis(probs, label[None], axis=0)[0])), weights.sum()


@pytest.mark.parametrize("resident", ["host", "stream"])
@pytest.mark.parametrize(
    ("losses", "term"), [({"region": "none", "contour": "hausdorff"}, 2), ({"region": "unet-ce"}, 1)]
)
def test_losses_of_distances_take_the_spacing_of_each_slice(watched, varied, resident, losses, term):
    """The first step, and the validation, of slices of unlike spacing, beside SciPy's distances."""
    found = watched(resident, **losses)
    trainer = found.trainer
    spacing = {case.case_id: case.spacing[:2] for case in read_meta(varied).cases}
    assert len(set(spacing.values())) == 4

    def expected(part, order, logits):
        names = [getattr(trainer, part).names[place] for place in order]
        one = hausdorff if term == 2 else unet_ce
        slices = zip(probabilities(logits), labels(varied, part, names), names, strict=True)
        values = [one(probs, label, spacing[name[:6]]) for probs, label, name in slices]
        return np.mean(values) if term == 2 else np.sum(values, axis=0)[0] / np.sum(values, axis=0)[1]

    trainer.settings = replace(trainer.settings, batch_size=10)
    trainer.totals = trainer.empty_totals(10)
    order = torch.arange(10)
    (batch,) = dataloader.batches(trainer.train, order, 10, torch.device("cpu"))
    trainer.step(batch, 0, (1.0, 1.0))
    assert float(trainer.totals.steps[0, term]) == pytest.approx(expected("train", range(10), found.logits), rel=1e-4)
    found.logits.clear()
    loss = trainer.validate((1.0, 1.0))["val_loss"]
    assert loss == pytest.approx(expected("val", range(7), found.logits), rel=1e-4)


@pytest.mark.parametrize("resident", ["host", "stream"])
def test_each_slice_has_the_spacing_of_its_case(varied, resident):
    """Whatever the order, beside cases.csv."""
    meta = read_meta(varied)
    of_case = {case.case_id: case.spacing[:2] for case in meta.cases}
    for part, slices in zip(("train", "val"), dataloader.open_parts(
        meta, maps="phi2d", resident=resident, device=torch.device("cpu")
    ), strict=True):
        order = torch.randperm(len(slices), generator=torch.Generator().manual_seed(3))
        for places, batch in zip(
            order.split(3), dataloader.batches(slices, order, 3, torch.device("cpu")), strict=True
        ):
            names = [slices.names[place] for place in places]
            assert batch.spacing.numpy() == pytest.approx(np.array([of_case[name[:6]] for name in names]))
            assert np.array_equal(batch.label, labels(varied, part, names))


def authors_map(mask, spacing):
    """Their signed distance of a mask: the 1 subtracted inside, truncated in 2D."""
    outside = distance_transform_edt(~mask, sampling=spacing) if mask.any() else np.zeros(mask.shape)
    found = np.where(mask, 1 - distance_transform_edt(mask, sampling=spacing), outside)
    return np.trunc(found) if mask.ndim == 2 else found


def test_maps_that_are_not_stored_are_made_with_the_spacing_of_each_case(varied):
    """Signed distances of the authors' rule in 2D, resident and streamed, and in 3D, beside SciPy's."""
    meta, cpu = read_meta(varied), torch.device("cpu")
    resident, in_3d = (
        dataloader.load_slices(meta, "val", maps=maps, convention="authors").maps for maps in ("phi2d", "phi3d")
    )
    stream = dataloader.open_slices(meta, "val", maps="phi2d", convention="authors")
    streamed = torch.cat([batch.maps for batch in stream.read(torch.arange(7).split(2), cpu)])
    assert torch.equal(resident, streamed)
    start = 0
    for case in (case for case in meta.cases if case.split == "val"):
        names = [f"{case.case_id}_{z:04d}" for z in range(case.n_slices)]
        volume = np.moveaxis(labels(varied, "val", names) == 1, 0, -1)
        at = slice(start, start + case.n_slices)
        expected = np.stack([authors_map(volume[..., z], case.spacing[:2]) for z in range(case.n_slices)])
        # A last bit decides where a distance is truncated.
        assert (resident[at, 1].numpy() == expected).mean() > 0.99
        expected = np.moveaxis(authors_map(volume, case.spacing), -1, 0)
        assert in_3d[at, 1].numpy() == pytest.approx(expected, rel=1e-3, abs=1e-3)
        start = at.stop
    assert start == len(resident)


def test_the_seconds_of_an_epoch_are_of_training_and_validation(watched, monkeypatch):
    """Four looks at a clock: training from 10 to 14 s, validation from 20 to 21 s."""
    trainer = watched().trainer
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=iter((10.0, 14.0, 20.0, 21.0)).__next__))
    row = trainer.run_epoch(0, tqdm(disable=True))
    assert row["seconds"] == 5 and row["slices_per_second"] == len(trainer.train) / 4
