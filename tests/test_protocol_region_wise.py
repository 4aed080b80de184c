"""`--protocol authors` on hearts against the code of the region-wise paper, restated from docs/FIDELITY.md.

The slices on the disk, the first weights and the order of the slices are the project's; maps, losses and steps are not.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from raw_files import make_acdc, make_kits, save_nifti
from restated import Adam, Network
from scipy.ndimage import distance_transform_edt

import preprocess
import train
from boundary_loss import CrossEntropy, Dice, Focal
from sliced_data.meta import read_meta
from slicing.choices import LABEL_RESIZES
from slicing.grid import Grid
from slicing.resampling import to_sliced_label
from training.authors_maps import maps_of_batch
from training.checks import check_settings
from training.settings import AUTHORS, AUTHORS_BUSI, AUTHORS_REGION_WISE, under_protocol
from training.trainer import Trainer
from utils import InputError

K, EPOCHS, BATCH, LR = 4, 5, 5, 0.003
ROWS = {
    "rrw": ("--region", "none", "--contour", "region-wise"),
    "dice": ("--region", "dice"),
    "focal": ("--region", "focal"),
    "dice-boundary": ("--region", "dice", "--contour", "boundary", "--contour-classes", "all", "--alpha", "gradual"),
    "rw-boundary-ce-equal": ("--region", "ce", "--contour", "region-wise", "--region-wise-map", "boundary",
                             "--alpha", "equal"),
}


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    """Slices of four patients, 16 x 16; RV is absent from the first of each case, in patient 2 every class is."""
    root = tmp_path_factory.mktemp("hearts")
    make_acdc(root / "raw")
    label = np.zeros((20, 26, 3), np.uint8)
    label[5:9, 8:18, 1] = 3
    path = root / "raw" / "training" / "patient002" / "patient002_frame04_gt.nii.gz"
    save_nifti(path, label, (1.5625, 1.5625, 10.0))
    places = ("--source", root / "raw", "--dest", root / "data")
    preprocess.main(["acdc", *map(str, places), "--size", "16", "--jobs", "1", "--protocol", "authors"])
    return root / "data"


# Their code, restated --------------------------------------------------------------------------------------


def rectified(label):
    """Distances inside each class by the largest of them, negative; 1 where that is 0."""
    found = []
    for mask in (label == k for k in range(K)):
        depth = distance_transform_edt(mask).astype(np.float32)
        z = -(depth / np.float32(depth.max() + 1e-15))
        found.append(np.where(z == 0, np.float32(1), z))
    return np.stack(found)


def boundary_maps(labels):
    """Distances outside minus those inside; an absent class has the distances of the last one that was there."""
    found, outside, inside = [], None, None
    for label in labels:
        for mask in (label == k for k in range(K)):
            if mask.any():
                outside, inside = distance_transform_edt(~mask), distance_transform_edt(mask)
            found.append(outside * ~mask - inside * mask)
    return np.stack(found).reshape(len(labels), K, *labels.shape[1:]).astype(np.float32)


def dice(probs, target):
    overlap, volumes = (probs * target).sum(dim=(2, 3)), (probs + target).sum(dim=(2, 3))
    return 1 - (2 * overlap / (volumes + 1e-6)).mean()


def focal(probs, target):
    return -((1 - probs) ** 2 * target * (probs + 1e-15).log()).sum(dim=1).mean()


def cross_entropy(probs, target):
    return -(target * (probs + 1e-15).log()).sum(dim=1).mean()


def loss_of(row, probs, label, epoch):
    target = torch.stack([label == k for k in range(K)], dim=1).double()
    rrw = torch.from_numpy(np.stack([rectified(one) for one in label.numpy()]))
    boundary = torch.from_numpy(boundary_maps(label.numpy()))
    alpha = max(0.01, (100 - epoch) / 100)
    return {
        "rrw": lambda: (probs * rrw).mean(),
        "dice": lambda: dice(probs, target),
        "focal": lambda: focal(probs, target),
        "dice-boundary": lambda: alpha * dice(probs, target) + (1 - alpha) * (probs * boundary).mean(),
        "rw-boundary-ce-equal": lambda: cross_entropy(probs, target) + (probs * boundary).mean(),
    }[row]()


def train_as_the_authors(row, network, trainer):
    """Losses of the epochs of a run of theirs: Adam with weight decay, clipped gradients, the polynomial rule."""
    optimiser, losses = Adam(network.weights, lr=LR, weight_decay=3e-5, clip=12.0), []
    image, label = trainer.train.image.double(), trainer.train.label.long()
    for epoch in range(EPOCHS):
        optimiser.lr, total = LR * (1 - epoch / EPOCHS) ** 0.9, 0.0
        for batch in trainer.order(epoch).split(BATCH):
            loss = loss_of(row, network(image[batch]).softmax(dim=1), label[batch], epoch)
            optimiser.step(torch.autograd.grad(loss, network.weights))
            total += loss.item() * len(batch)
        losses.append(total / len(label))
    return losses


# The project's ---------------------------------------------------------------------------------------------


def trainer_of(hearts, row, *flags):
    settings, _ = train.parse([
        "--data", str(hearts), "--out", "run", "--width", "2", "--epochs", str(EPOCHS), "--batch-size", str(BATCH),
        "--lr", str(LR), "--weight-decay", "0.00003", "--gradient-clip", "12", "--lr-rule", "poly", "--device", "cpu",
        "--precision", "fp32", *ROWS[row], *flags,
    ])
    trainer = Trainer(settings, read_meta(hearts), torch.device("cpu"))
    trainer.network.double()
    return trainer


@pytest.mark.parametrize("row", ROWS)
def test_the_region_wise_papers_training_is_its_codes(row, hearts, float64, tmp_path):
    trainer = trainer_of(hearts, row, "--protocol", "authors")
    theirs = Network(trainer.network.parameters())
    losses = train_as_the_authors(row, theirs, trainer)
    trainer.fit(tmp_path)
    for one, other in zip(trainer.network.parameters(), theirs.weights, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)
    assert [epoch["train_loss"] for epoch in trainer.log] == pytest.approx(losses, rel=1e-8)
    assert len({round(loss, 6) for loss in losses}) == EPOCHS
    # The reported checkpoint is the last one, whatever the validation says.
    assert torch.load(tmp_path / "best.pt", weights_only=True)["epoch"] == EPOCHS - 1


@pytest.mark.parametrize(
    ("row", "flags"),
    [
        ("rrw", ("--distance-map", "paper")),
        ("dice", ("--dice", "paper")),
        ("dice-boundary", ("--distance-map", "paper")),
    ],
)
def test_each_switch_of_the_region_wise_protocol_acts(row, flags, hearts, float64, tmp_path):
    weights = []
    for name, further in (("all", ()), ("without", flags)):
        trainer = trainer_of(hearts, row, "--protocol", "authors", *further)
        trainer.fit(tmp_path / name)
        weights.append(torch.cat([weight.detach().flatten() for weight in trainer.network.parameters()]))
    assert (weights[0] - weights[1]).abs().max() > 1e-7     # Dice: 1e-5 above and below instead of 1e-6 below


def test_maps_are_made_of_the_augmented_batch(hearts, float64, tmp_path, monkeypatch):
    trainer, seen = trainer_of(hearts, "rrw", "--protocol", "authors", "--augment", "flips"), []
    terms = trainer.objective.terms
    monkeypatch.setattr(trainer.objective, "terms", lambda *given: seen.append(given[1:3]) or terms(*given))
    trainer.fit(tmp_path)
    originals = trainer.train.label.long()
    moved = 0
    for label, maps in seen:
        assert np.array_equal(maps.numpy(), np.stack([rectified(one) for one in label.numpy()]))
        moved += sum(not (originals == one).flatten(1).all(dim=1).any() for one in label)
    assert moved > 5


def labels_with_gaps():
    """A batch (4, 12, 9): three classes; the first alone, which fills the image; the second and third; all of them."""
    labels = np.zeros((4, 12, 9), np.int64)
    labels[0, 2:6, 1:5], labels[0, 7:9, 3:8] = 1, 3
    labels[2, 4:9, 2:7], labels[2, 5:7, 3:5] = 2, 3
    labels[3, :5], labels[3, 6:8, 2:7], labels[3, 9:, 5:] = 1, 2, 3
    return labels


def test_maps_of_a_batch_are_those_of_the_authors_code():
    labels = labels_with_gaps()
    batch = torch.from_numpy(labels)
    np.testing.assert_array_equal(maps_of_batch(batch, K, "rrw"), np.stack([rectified(one) for one in labels]))
    for name in ("phi2d", "boundary"):
        np.testing.assert_array_equal(maps_of_batch(batch, K, name), boundary_maps(labels))


def test_maps_of_a_batch_by_hand():
    labels = torch.tensor([[[0, 0, 1, 1, 1, 0]], [[0, 0, 0, 0, 0, 0]]])
    rrw = maps_of_batch(labels, 2, "rrw")
    assert rrw[0].squeeze().tolist() == [[-1, -0.5, 1, 1, 1, -0.5], [1, 1, -0.5, -1, -0.5, 1]]
    # An image of one row without foreground: the distance to the pixel above its first one, by the largest of them.
    ramp = -torch.hypot(torch.tensor(1.0), torch.arange(6.0))
    torch.testing.assert_close(rrw[1, 0, 0], ramp / -ramp.min())
    assert rrw[1, 1].eq(1).all()
    phi = maps_of_batch(labels, 2, "boundary")
    assert phi[0].squeeze().tolist() == [[-2, -1, 1, 2, 1, -1], [2, 1, -1, -2, -1, 1]]
    # The absent class has the distances to the class before it, the background, which are 0 all over.
    assert phi[1, 1].eq(0).all()
    # And where that is the foreground of the image before: none of the background is in the second one.
    labels[1] = 1
    assert maps_of_batch(labels, 2, "boundary")[1, 0].squeeze().tolist() == [2, 1, 0, 0, 0, 1]
    assert maps_of_batch(labels.flip(0), 2, "boundary")[0, 0].eq(0).all()     # their code stops where none is before


def test_ignored_pixels_are_background_to_the_maps_and_0_in_them():
    labels = labels_with_gaps()
    ignored = np.zeros(labels.shape, bool)
    ignored[:, :3, :3] = True
    known = np.where(ignored, 0, labels)
    given = torch.from_numpy(np.where(ignored, 255, labels))
    for name, expected in (("rrw", np.stack([rectified(one) for one in known])), ("boundary", boundary_maps(known))):
        np.testing.assert_array_equal(maps_of_batch(given, K, name), np.where(ignored[:, None], 0, expected))


def test_an_absent_class_costs_1_in_the_authors_dice_and_nothing_in_ours():
    logits = torch.tensor([30.0, -30.0, -30.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    label = torch.zeros(1, 4, 4, dtype=torch.long)
    assert Dice(convention="authors")(logits, label).item() == pytest.approx(2 / 3, abs=1e-6)
    assert Dice()(logits, label).item() == pytest.approx(0, abs=1e-6)


def test_logarithms_of_the_region_wise_code():
    logits = torch.from_numpy(20 * np.random.default_rng(0).standard_normal((2, K, 6, 5)))
    label = torch.from_numpy(np.random.default_rng(1).integers(0, K, (2, 6, 5)))
    target = torch.stack([label == k for k in range(K)], dim=1).double()
    for loss, expected in ((CrossEntropy, cross_entropy), (Focal, focal)):
        found = loss(convention="authors-region-wise")(logits, label).item()
        assert found == pytest.approx(expected(logits.softmax(dim=1), target).item(), rel=1e-12)
        assert found != pytest.approx(loss()(logits, label).item(), rel=1e-3)


def test_kits_labels_are_resized_with_pillows_default_filter(tmp_path):
    raw = make_kits(tmp_path / "raw", shape=(5, 37, 45))
    places = ("--source", raw, "--dest", tmp_path / "data", "--protocol", "authors")
    preprocess.main(["kits", *map(str, places), "--size", "16", "--jobs", "1"])
    meta, rim = read_meta(tmp_path / "data"), 0
    assert meta.facts["resize_labels"] == "bicubic"
    label = np.zeros((37, 45), np.uint8)
    label[4:12, 6:18] = 1
    label[6:10, 8:13] = 2
    expected = np.asarray(Image.fromarray(label).resize((16, 16))).T
    for case in meta.cases:
        found = np.load(tmp_path / "data" / case.split / "label" / f"{case.case_id}_0000.npy")
        assert np.array_equal(found, expected)
        rim += int((found == 1).sum())
    assert rim and set(np.unique(expected)) == {0, 1, 2}


def test_pillows_filter_makes_a_false_kidney_round_a_tumour():
    x, y = np.mgrid[:37, :45]
    tumour = 2 * (np.hypot(x - 18, y - 22) < 11).astype(np.uint8)[..., None]
    sliced = {rule: to_sliced_label(tumour, Grid(16, resize_labels=rule), (1, 1, 1)) for rule in LABEL_RESIZES}
    assert {rule: set(np.unique(label)) for rule, label in sliced.items()} == {
        "nearest": {0, 2}, "linear": {0, 2}, "bicubic": {0, 1, 2},
    }


def test_whose_authors_are_meant_follows_from_the_data_set(hearts):
    def parsed(*flags):
        settings, _ = train.parse(["--data", str(hearts), "--out", "run", *flags])
        return settings

    assert parsed("--protocol", "authors") == AUTHORS_REGION_WISE == parsed("--protocol", "authors-region-wise")
    assert parsed("--protocol", "authors-boundary") == AUTHORS
    assert parsed("--protocol", "authors-busi") == AUTHORS_BUSI
    assert parsed("--protocol", "authors", "--dice", "paper").dice == "paper"


def test_maps_of_batches_are_within_the_slice():
    settings = under_protocol("authors-region-wise", {"contour": "region-wise", "region": "none", "maps": "3d"})
    with pytest.raises(InputError, match="--maps 3d: expected --maps 2d beside --distance-map authors-region-wise"):
        check_settings(settings)
