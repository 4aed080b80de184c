"""`--protocol authors` against the authors' training step, written out here from its description in docs/FIDELITY.md.

Nothing of the project's losses, maps, schedules, networks, optimisers or rules is used in it: only the slices on the
disk, the first weights and the order of the slices are the project's. Both sides compute in float64.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from raw_files import make_isles
from restated import Adam, Network
from scipy.ndimage import distance_transform_edt

import preprocess
import train
from sliced_data.meta import read_meta
from training.trainer import Trainer

EPOCHS, BATCH = 24, 4       # 11 training slices: 3 steps per epoch, 72 in all, the last of an epoch with 3 slices
# Slices and in-plane spacing in mm of each case, as sliced; without rounding in binary.
TRAIN = {"case_1": (4, (0.75, 1.25)), "case_2": (4, (0.75, 1.25)), "case_3": (3, (0.5, 2.0))}
VAL = {"case_4": (3, (1.0, 1.5)), "case_5": (2, (0.5, 2.0))}
ROWS = {
    "gdl": ("--region", "gdl"),
    "gdl-boundary": ("--region", "gdl", "--contour", "boundary"),
    "boundary": ("--region", "none", "--contour", "boundary"),
    "hausdorff": ("--region", "none", "--contour", "hausdorff"),
    "focal": ("--region", "focal"),
    "unet-ce": ("--region", "unet-ce"),
}
# Bias of the last layer, by which everything is lesion at first; where the logarithm of 1e-10 matters, far more so.
BIAS = dict.fromkeys(ROWS, 2.0) | {"focal": 12.0, "unet-ce": 12.0}


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """A sliced data set of five cases, 16 x 16; the first slice of each has no lesion."""
    root = tmp_path_factory.mktemp("protocol")
    for cases, shape, spacing in (
        (("case_1", "case_2"), (16, 16, 4), (0.75, 1.25, 5.0)),
        (("case_3",), (16, 16, 3), (0.5, 2.0, 4.0)),
        (("case_4",), (32, 32, 3), (0.5, 0.75, 6.0)),
        (("case_5",), (16, 16, 2), (0.5, 2.0, 4.0)),
    ):
        make_isles(root / "raw", cases, shape, spacing)
    (root / "split.json").write_text(json.dumps({"train": list(TRAIN), "val": list(VAL)}))
    flags = ("--source", root / "raw", "--dest", root / "data", "--size", 16, "--split", root / "split.json")
    preprocess.main(["isles", *map(str, flags), "--jobs", "1"])
    return root / "data"


# The authors' training, restated ------------------------------------------------------------------------


def level_sets(mask, spacing):
    """Their 2D map of a class: mm, the 1 subtracted inside, truncated; SciPy decides what a full mask has."""
    if not mask.any():
        return np.zeros(mask.shape)
    outside, inside = distance_transform_edt(~mask, sampling=spacing), distance_transform_edt(mask, sampling=spacing)
    return np.trunc(np.where(mask, 1 - inside, outside))


def depths(masks, dtype):
    """Distances inside masks (B, H, W), in pixels, kept in a type of theirs."""
    found = [distance_transform_edt(mask) if mask.any() else np.zeros(mask.shape) for mask in masks.numpy()]
    return torch.from_numpy(np.stack(found).astype(dtype)).float()


def gdl(probs, target, phi):
    weights = 1 / (target.sum(dim=(2, 3)) + 1e-10) ** 2
    overlap = (weights * (probs * target).sum(dim=(2, 3))).sum(dim=1)
    total = (weights * (probs + target).sum(dim=(2, 3))).sum(dim=1)
    return (1 - 2 * (overlap + 1e-10) / (total + 1e-10)).mean()


def focal(probs, target, phi):
    return -((1 - probs) ** 2 * target * (probs + 1e-10).log()).sum() / target.sum()


def unet_ce(probs, target, phi):
    weights = target * (target.mean(dim=(2, 3), keepdim=True) + 10 * torch.exp(-(phi**2) / (2 * 5**2)))
    return -(weights * (probs + 1e-10).log()).sum() / weights.sum()


def boundary(probs, target, phi):
    return (probs[:, 1] * phi[:, 1]).mean()


def hausdorff(probs, target, phi):
    predicted = probs.argmax(dim=1) == 1
    powers = depths(target[:, 1] > 0, np.float32) ** 2 + depths(predicted, np.int32) ** 2
    return ((probs[:, 1] - target[:, 1]) ** 2 * powers).mean()


# Losses of a row with their weights in an epoch.
THEIR_ROWS = {
    "gdl": [(gdl, lambda epoch: 1.0)],
    "gdl-boundary": [(gdl, lambda epoch: max(0.1, 1 - 0.01 * epoch)), (boundary, lambda epoch: 0.01 + 0.01 * epoch)],
    "boundary": [(boundary, lambda epoch: 0.1)],
    "hausdorff": [(hausdorff, lambda epoch: 0.1)],
    "focal": [(focal, lambda epoch: 1.0)],
    "unet-ce": [(unet_ce, lambda epoch: 1.0)],
}


def read_part(folder, cases):
    """Images (N, C, H, W), one-hot labels and maps (N, 2, H, W), float64."""
    images, targets, maps = [], [], []
    for case, (count, spacing) in cases.items():
        for z in range(count):
            images.append(np.load(folder / "image" / f"{case}_{z:04d}.npy").astype(np.float64))
            label = np.load(folder / "label" / f"{case}_{z:04d}.npy")
            targets.append(np.stack([label == 0, label == 1]))
            maps.append(np.stack([level_sets(mask, spacing) for mask in targets[-1]]))
    return [torch.from_numpy(np.stack(arrays)).double() for arrays in (images, targets, maps)]


def slice_dscs(logits, target):
    """DSC of the lesion per slice (B,); 1 where it is in neither."""
    predicted, lesion = (logits.argmax(dim=1) == 1).double(), target[:, 1]
    both, sizes = (predicted * lesion).sum(dim=(1, 2)), (predicted + lesion).sum(dim=(1, 2))
    return torch.where(sizes > 0, 2 * both / sizes.clamp_min(1), 1.0)


def pass_over(data, batches, network, losses, epoch, optimiser=None):
    """Means over the slices of the weighted loss and of the DSC; how many empty slices were predicted to be full."""
    network.training, sums, full = optimiser is not None, np.zeros(3), 0
    for batch in batches:
        image, target, phi = (array[batch] for array in data)
        logits = network(image)
        loss = sum(weight(epoch) * term(logits.softmax(dim=1), target, phi) for term, weight in losses)
        if optimiser:
            optimiser.step(torch.autograd.grad(loss, network.weights))
        predicted = logits.argmax(dim=1) == 1
        full += int((predicted.all(dim=2).all(dim=1) & (target[:, 1].sum(dim=(1, 2)) == 0)).sum())
        sums += len(batch) * np.array([1, loss.item(), slice_dscs(logits.detach(), target).mean().item()])
    return {"loss": sums[1] / sums[0], "dsc": sums[2] / sums[0], "full": full}


def train_as_the_authors(row, network, folder, orders):
    """A run of theirs: for each epoch its training, its validation, and the learning rate."""
    training, validation = read_part(folder / "train", TRAIN), read_part(folder / "val", VAL)
    optimiser, best, best_epoch, log = Adam(network.weights, lr=0.001, betas=(0.9, 0.99)), 0.0, 0, []
    for epoch, order in enumerate(orders):
        lr = optimiser.lr
        trained = pass_over(training, order.split(BATCH), network, THEIR_ROWS[row], epoch, optimiser)
        with torch.no_grad():
            batches = torch.arange(len(validation[0])).split(BATCH)
            validated = pass_over(validation, batches, network, THEIR_ROWS[row], epoch)
        log.append({"train": trained, "val": validated, "lr": lr})
        if validated["dsc"] > best:
            best, best_epoch = validated["dsc"], epoch
        if epoch % (best_epoch + 20) == 0:
            optimiser.lr *= 0.5
    return log, best_epoch


# The project's, in float64 ------------------------------------------------------------------------------


def trainer_of(row, data, *flags):
    """A run as the command line makes it, in float64, whose network predicts lesion everywhere."""
    size = ("--width", "2", "--epochs", str(EPOCHS), "--batch-size", str(BATCH), "--device", "cpu")
    settings, _ = train.parse(["--data", str(data), "--out", "run", *size, *ROWS[row], *flags])
    trainer = Trainer(settings, read_meta(data), torch.device("cpu"))
    trainer.network.double()
    trainer.network.head.bias.data = torch.tensor([-BIAS[row], BIAS[row]], dtype=torch.float64)
    return trainer


@pytest.mark.parametrize("row", ROWS)
def test_72_steps_of_the_authors_protocol_are_theirs(row, slices, float64, tmp_path):
    trainer = trainer_of(row, slices, "--protocol", "authors")
    theirs = Network(trainer.network.parameters())
    orders = [trainer.order(epoch) for epoch in range(EPOCHS)]
    log, best_epoch = train_as_the_authors(row, theirs, slices, orders)
    trainer.fit(tmp_path)

    for one, other in zip(trainer.network.parameters(), theirs.weights, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)
    norms = [module for module in trainer.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm, (mean, variance) in zip(norms, theirs.statistics, strict=True):
        torch.testing.assert_close(norm.running_mean, mean, rtol=0, atol=1e-8)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-8, atol=1e-8)
    for found, expected in zip(trainer.log, log, strict=True):
        for part in ("train", "val"):
            assert found[f"{part}_loss"] == pytest.approx(expected[part]["loss"], rel=1e-8, abs=1e-8)
            assert found[f"{part}_dsc"] == pytest.approx(expected[part]["dsc"], abs=1e-6)     # float32
        assert found["lr"] == expected["lr"]
    assert torch.load(tmp_path / "best.pt", weights_only=True)["epoch"] == best_epoch
    # What would make the agreement an easy one: no learning, no full prediction over an empty slice.
    assert log[0]["train"]["full"] > 0
    assert len({round(epoch["val"]["loss"], 6) for epoch in log}) > EPOCHS // 2


def weights_after_two_epochs(trainer, folder):
    trainer.settings = replace(trainer.settings, epochs=2)
    trainer.fit(folder)
    return torch.cat([weight.detach().flatten() for weight in trainer.network.parameters()])


@pytest.mark.parametrize(
    ("row", "flags"),
    [
        ("gdl", ("--betas", "0.9", "0.999")),
        ("gdl", ("--lr-rule", "plateau")),
        ("gdl", ("--gdl-absent", "largest")),
        ("gdl-boundary", ("--alpha", "rebalance")),
        ("boundary", ("--contour-alone-weight", "1")),
        ("boundary", ("--distance-map", "paper")),
        ("hausdorff", ("--contour-alone-weight", "1")),
        ("hausdorff", ("--hausdorff", "paper")),
        ("focal", ("--cross-entropy", "paper")),
        ("unet-ce", ("--cross-entropy", "paper")),
    ],
)
def test_each_switch_of_the_protocol_acts(row, flags, slices, float64, tmp_path):
    """So that the agreement above is one of all of them."""
    with_all = weights_after_two_epochs(trainer_of(row, slices, "--protocol", "authors"), tmp_path / "all")
    without = weights_after_two_epochs(trainer_of(row, slices, "--protocol", "authors", *flags), tmp_path / "without")
    assert (with_all - without).abs().max() > 1e-6
