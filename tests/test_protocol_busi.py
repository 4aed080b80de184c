"""`--protocol authors` on breast-ultrasound images against the study's notebook, restated from docs/FIDELITY.md.

The images, their split, the first weights and the order are the project's; masks, maps, losses and steps are not.
"""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from raw_files import save_png
from restated import Adam, Network
from scipy.ndimage import distance_transform_edt, map_coordinates
from torch.nn.functional import binary_cross_entropy

import preprocess
import train
from sliced_data.meta import read_meta
from training.epoch_totals import EpochTotals
from training.settings import AUTHORS_BUSI
from training.trainer import Trainer

EPOCHS, BATCH, SIZE = 6, 4, 32
ROWS = {
    "ce": ("--region", "ce"),
    "ce-boundary-combination": ("--region", "ce", "--contour", "boundary", "--alpha", "equal"),
    "ce-boundary-scheduling": ("--region", "ce", "--contour", "boundary", "--alpha", "busi-linear"),
    "ce-boundary-rebalance": ("--region", "ce", "--contour", "boundary", "--alpha", "busi-rebalance"),
}


def make_images(root):
    """Twelve images with a tumour below 10 %, one with a larger one, one without."""
    for number in range(14):
        rng = np.random.default_rng(number)
        name = ("benign", "malignant")[number % 2] if number < 13 else "normal"
        mask = np.zeros((45, 52 + number), bool)
        side = (13, 26, 0)[max(0, number - 11)]
        row, column = rng.integers(2, 16), rng.integers(2, 24)
        # A ragged rim around a whole middle, so that resizing makes shares of every size.
        mask[row : row + side, column : column + side] = rng.random((side, side)) < 0.6
        mask[row + 2 : row + side - 2, column + 2 : column + side - 2] = True
        image = rng.integers(0, 120, mask.shape) + 90 * mask
        save_png(root, f"{name} ({number})", Image.fromarray(image.astype(np.uint8)))
        save_png(root, f"{name} ({number})_mask", Image.fromarray(mask))
    return root


@pytest.fixture(scope="module")
def busi(tmp_path_factory):
    """Raw images, and their slices by the authors' protocol."""
    root = tmp_path_factory.mktemp("busi")
    places = ("--source", make_images(root / "raw"), "--dest", root / "data")
    preprocess.main(["busi", *map(str, places), "--size", str(SIZE), "--jobs", "1", "--protocol", "authors"])
    return root


# The notebook, restated ------------------------------------------------------------------------------------


def resized_mask(root, case_id):
    """A mask on SIZE x SIZE pixels, linearly between the centres of its own; x to the right and y up."""
    path = root / "raw" / "Dataset_BUSI_with_GT" / case_id.split()[0] / f"{case_id}_mask.png"
    mask = np.rot90(np.asarray(Image.open(path)), -1).astype(float)
    places = [(np.arange(SIZE) + 0.5) * n / SIZE - 0.5 for n in mask.shape]
    return map_coordinates(mask, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")


def level_set(whole):
    """Of the pixels that the mask covers wholly, in pixels: D outside, 1 - D inside, truncated to integers."""
    if not whole.any():
        return np.zeros(whole.shape)
    return np.trunc(np.where(whole, 1 - distance_transform_edt(whole), distance_transform_edt(~whole)))


def read_part(root, part):
    """Images (N, 1, H, W), one-hot masks (N, 2, H, W) and maps of the tumour (N, H, W), float64."""
    images, targets, maps = [], [], []
    with (root / "data" / "cases.csv").open() as file:
        for row in csv.DictReader(file):
            if row["split"] == part:
                images.append(np.load(root / "data" / part / "image" / f"{row['case_id']}_0000.npy"))
                share = resized_mask(root, row["case_id"])
                targets.append([share <= 0.5, share > 0.5])
                maps.append(level_set(share > 1 - 1e-9))
    return [torch.from_numpy(np.array(arrays)).double() for arrays in (images, targets, maps)]


def loss_of(row, probs, target, phi, epoch):
    """Binary cross-entropy over both channels, 100-fold where the one-hot mask is 1, and the boundary loss."""
    weight = torch.where(target == 1, 100.0, 1.0)
    cross_entropy, boundary = binary_cross_entropy(probs, target, weight), (probs[:, 1] * phi).mean()
    alpha = max(0.0, (epoch + 1) / EPOCHS - 0.05)
    region, contour = {"ce": (1, 0), "combination": (1, 1), "scheduling": (1, alpha), "rebalance": (1 - alpha, alpha)}[
        row.split("-")[-1]
    ]
    return region * cross_entropy + contour * boundary


def batch_dscs(network, data):
    """DSC over all pixels of 16 images at once, mean over these batches."""
    network.training = False
    predicted = network(data[0]).argmax(dim=1) == 1
    found = []
    for start in range(0, len(predicted), 16):
        p, t = predicted[start : start + 16], data[1][start : start + 16, 1] == 1
        found.append(2 * (p & t).sum().item() / max(1, p.sum().item() + t.sum().item()))
    return np.mean(found)


def train_as_the_authors(row, network, root, order):
    """A run of theirs: losses of its epochs, and the validation DSC that chooses among them."""
    training, validation = read_part(root, "train"), read_part(root, "val")
    optimiser, losses, dscs = Adam(network.weights, lr=0.001), [], []
    for epoch in range(EPOCHS):
        network.training, total = True, 0.0
        for batch in order.split(BATCH):
            image, target, phi = (array[batch] for array in training)
            loss = loss_of(row, network(image).softmax(dim=1), target, phi, epoch)
            optimiser.step(torch.autograd.grad(loss, network.weights))
            total += loss.item() * len(batch)
        losses.append(total / len(order))
        with torch.no_grad():
            dscs.append(batch_dscs(network, validation))
    return losses, dscs


# The project's ---------------------------------------------------------------------------------------------


def trainer_of(root, *flags):
    size = ("--width", "2", "--epochs", EPOCHS, "--batch-size", BATCH, "--lr-rule", "constant", "--device", "cpu")
    settings, _ = train.parse(["--data", str(root / "data"), "--out", "run", *map(str, size), *flags])
    trainer = Trainer(settings, read_meta(root / "data"), torch.device("cpu"))
    trainer.network.double()
    return trainer


def test_the_authors_data_are_small_tumours_and_masks_resized_linearly(busi):
    meta = read_meta(busi / "data")
    assert {case.case_id.split()[0] for case in meta.cases} == {"benign", "malignant"} and len(meta.cases) == 12
    assert (meta.facts["max_share"], meta.facts["resize_labels"], meta.convention) == (0.10, "linear", "authors")
    rims = 0
    for case in meta.cases:
        folder, share = busi / "data" / case.split, resized_mask(busi, case.case_id)
        label, phi = (np.load(folder / kind / f"{case.case_id}_0000.npy") for kind in ("label", "phi2d"))
        assert np.array_equal(label, share > 0.5)
        assert np.array_equal(phi[1], level_set(share > 1 - 1e-9))
        rims += int(((share > 0.5) & (share < 1 - 1e-9)).sum())
    assert rims > 20        # where the two differ


@pytest.mark.parametrize("row", ROWS)
def test_the_busi_studys_training_is_its_notebooks(row, busi, float64, tmp_path):
    trainer = trainer_of(busi, "--protocol", "authors", *ROWS[row])
    assert trainer.settings.selection == "pooled"
    order = trainer.order(0)
    theirs = Network(trainer.network.parameters())
    losses, dscs = train_as_the_authors(row, theirs, busi, order)
    trainer.fit(tmp_path)
    for one, other in zip(trainer.network.parameters(), theirs.weights, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)
    assert [epoch["train_loss"] for epoch in trainer.log] == pytest.approx(losses, rel=1e-8)
    assert [epoch["val_dsc_pooled"] for epoch in trainer.log] == pytest.approx(dscs, abs=1e-6)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["epoch"] == int(np.argmax(dscs))
    assert len({round(loss, 6) for loss in losses}) == EPOCHS


@pytest.mark.parametrize(
    "flags",
    [("--cross-entropy-factor", "1"), ("--order", "shuffled"), ("--alpha", "equal"), ("--distance-map", "paper")],
)
def test_each_switch_of_the_busi_protocol_acts(flags, busi, float64, tmp_path):
    weights = []
    for name, further in (("all", ()), ("without", flags)):
        trainer = trainer_of(busi, "--protocol", "authors", *ROWS["ce-boundary-scheduling"], *further)
        trainer.fit(tmp_path / name)
        weights.append(torch.cat([weight.detach().flatten() for weight in trainer.network.parameters()]))
    assert (weights[0] - weights[1]).abs().max() > 1e-6


def test_a_fixed_order_is_the_same_in_every_epoch_and_mixed(busi):
    fixed, shuffled = (trainer_of(busi, "--order", order) for order in ("fixed", "shuffled"))
    assert torch.equal(fixed.order(0), fixed.order(5)) and torch.equal(fixed.order(0), shuffled.order(0))
    assert not torch.equal(shuffled.order(0), shuffled.order(5))
    assert not torch.equal(fixed.order(0), fixed.order(0).sort().values)


def test_pooled_dsc_is_over_the_pixels_of_sixteen_slices():
    totals = EpochTotals.empty(18, 4, 2, torch.device("cpu"))
    totals.counts[:, :16, 1] = torch.tensor([1, 2, 4])[:, None]     # 2 x 16 / (32 + 64) over the first sixteen
    totals.counts[:, 16, 1] = torch.tensor([6, 9, 6])               # 12 / (15 + 5) with the last, which is missed
    totals.counts[:, 17, 1] = torch.tensor([0, 0, 5])
    assert totals.pooled_dsc() == pytest.approx((1 / 3 + 12 / 20) / 2)


def test_the_factor_is_that_of_the_cross_entropy_alone(busi):
    for region, weight in (("ce", 50.5), ("dice", 1.0)):
        trainer = trainer_of(busi, "--protocol", "authors", "--region", region)
        assert trainer.objective.weights(trainer.schedule, 3) == (weight, 0.0)
    assert AUTHORS_BUSI.cross_entropy_factor == np.mean([100, 1])
