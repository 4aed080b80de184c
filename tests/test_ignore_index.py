"""A voxel that is ignored has no part in a value, a gradient or a map: laws of every loss, activation and dimension."""

import contextlib

import numpy as np
import pytest
import torch
from loss_cases import VARIANTS, random_case, target_of
from scipy.spatial.distance import cdist
from test_targets import overlapping
from torch.nn.functional import one_hot

from boundary_loss import Boundary, distance_maps, losses, region_wise_map
from boundary_loss.distance import REGION_WISE_KINDS

IGNORED = 255
SHAPES = {"2d": (3, 3, 10, 12), "3d": (2, 3, 5, 8, 6)}
ACTIVATIONS = ("softmax", "sigmoid", "none")


def ignored_voxels(shape) -> torch.Tensor:
    """A block and scattered voxels (B, *spatial)."""
    generator = torch.Generator().manual_seed(1)
    where = torch.rand((shape[0], *shape[2:]), generator=generator) < 0.15
    where[0, :3, :4] = True
    return where


def case(name: str, activation: str, shape) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits or probabilities, target, and the ignored voxels that are marked in it (B, 1, *spatial)."""
    where = ignored_voxels(shape)[:, None]
    loss = VARIANTS[name]()
    if activation == "sigmoid":
        logits, masks = overlapping(shape)
        target = masks.masked_fill(where, IGNORED)
        if loss.target_kind != "label":
            target = torch.stack([map_of(loss, target[:, k], 2)[:, 1] for k in range(shape[1])], dim=1)
        return logits, target, where
    logits, label = random_case(shape)
    label = label.masked_fill(where[:, 0], IGNORED)
    target = label if loss.target_kind == "label" else map_of(loss, label, shape[1])
    return logits.softmax(1) if activation == "none" else logits, target, where


def map_of(loss: torch.nn.Module, label: torch.Tensor, num_classes: int) -> torch.Tensor:
    if loss.target_kind == "phi":
        return distance_maps(label, num_classes, ignore_index=IGNORED)
    return region_wise_map(label, num_classes, loss.map_kind, ignore_index=IGNORED)


def value_and_gradient(loss, logits, target, spacing=None) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, target, spacing)
    value.sum().backward()
    return value.detach(), leaf.grad


# The law --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimension", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_nothing_inside_ignored_voxels_changes_value_or_gradient(name, activation, dimension):
    logits, target, where = case(name, activation, SHAPES[dimension])
    loss = VARIANTS[name](activation=activation, ignore_index=IGNORED)
    value, gradient = value_and_gradient(loss, logits, target)
    assert value.isfinite() and gradient.isfinite().all()
    everywhere = where.expand_as(logits)
    assert not gradient[everywhere].any() and gradient[~everywhere].any()
    generator = torch.Generator().manual_seed(2)
    for fill in (torch.rand(logits.shape, generator=generator, dtype=torch.float64), torch.nan, torch.inf):
        other = torch.where(everywhere, torch.as_tensor(fill, dtype=torch.float64), logits)
        other_target = target
        if loss.target_kind != "label":     # marked in the first channel
            other_target = torch.cat([target[:, :1], target[:, 1:].masked_fill(where, 7.0)], dim=1)
        found = value_and_gradient(loss, other, other_target)
        assert torch.equal(found[0], value) and torch.equal(found[1], gradient)


@pytest.mark.parametrize("dimension", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_to_ignore_a_border_is_to_crop_it(name, activation, dimension):
    shape = SHAPES[dimension]
    spacing = torch.tensor([[2.0, 0.7, 1.1], [0.9, 1.3, 3.0], [1.0, 1.0, 0.5]])[: shape[0], : len(shape) - 2]
    if activation == "sigmoid":
        logits, whole = overlapping(shape)
    else:
        logits, label = random_case(shape)
        whole = one_hot(label, 3).movedim(-1, 1)
        logits = logits.softmax(1) if activation == "none" else logits
    ignored, cropped = whole.clone(), whole[..., :-2]
    ignored[..., -2:] = IGNORED
    plain = VARIANTS[name](activation=activation)
    loss = VARIANTS[name](activation=activation, ignore_index=IGNORED)
    targets = [ignored, cropped]
    if loss.target_kind != "label":
        targets = [torch.stack([map_of(loss, t[:, k], 2)[:, 1] for k in range(3)], dim=1) for t in targets]
    expected, gradient = value_and_gradient(plain, logits[..., :-2], targets[1], spacing)
    found, with_ignored = value_and_gradient(loss, logits, targets[0], spacing)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(with_ignored[..., :-2], gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_an_image_that_is_ignored_whole_is_as_one_that_is_not_there(name, activation):
    logits, target, _ = case(name, activation, SHAPES["2d"])
    loss = VARIANTS[name](activation=activation, ignore_index=IGNORED)
    expected, gradient = value_and_gradient(loss, logits[:2], target[:2])
    target = target.clone()
    target[2] = IGNORED if loss.target_kind == "label" else torch.nan
    found, with_ignored = value_and_gradient(loss, logits, target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(with_ignored[:2], gradient, rtol=1e-9, atol=1e-12)
    assert not with_ignored[2].any()
    alone, gradient = value_and_gradient(loss, logits[2:], target[2:])
    assert alone.item() == 0 and not gradient.any()
    values = VARIANTS[name](activation=activation, ignore_index=IGNORED, reduction="none")(logits, target)
    assert not values[2].any() and values[:2].isfinite().all() and not values[2:].isnan().any()


@pytest.mark.parametrize("images", [1, 2, 5])
def test_a_class_of_a_one_hot_label_may_be_the_ignored_one(images):
    """However many images there are: voxels of class 2 are as if marked with a number that is none."""
    generator = torch.Generator().manual_seed(images)
    logits = torch.randn(images, 3, 6, 7, generator=generator, dtype=torch.float64)
    label = torch.randint(0, 3, (images, 6, 7), generator=generator)
    expected = losses.CrossEntropy(ignore_index=255)(logits, label.masked_fill(label == 2, 255))
    target = one_hot(label, 3).movedim(-1, 1)
    assert losses.CrossEntropy(ignore_index=2)(logits, target).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("name", ["dice", "tversky", "focal-tversky", "exp-log"])
def test_an_image_ignored_whole_is_0_without_smoothing_too(name):
    logits, target, _ = case(name, "softmax", SHAPES["2d"])
    target[0] = IGNORED
    loss = VARIANTS[name](smooth=0.0, ignore_index=IGNORED)
    value, gradient = value_and_gradient(loss, logits[:1], target[:1])
    assert value.item() == 0 and not gradient.any()
    value, gradient = value_and_gradient(loss, logits[:2], target[:2])
    assert value > 0 and gradient.isfinite().all()


def test_dice_of_nothing_predicted_where_nothing_is_has_no_loss_without_smoothing():
    certain = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    for loss in (losses.Dice, losses.Tversky):
        assert loss(smooth=0.0, classes=(1,))(certain, torch.zeros(1, 3, 3, dtype=torch.long)) == 0


NOT_SPATIAL = sorted(set(VARIANTS) - {name for name in VARIANTS if name.startswith(("unet-ce", "hausdorff", "active"))})


@pytest.mark.parametrize("dimension", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", NOT_SPATIAL)
def test_the_value_is_that_of_a_list_of_the_voxels_that_count(name, activation, dimension):
    logits, target, where = case(name, activation, SHAPES[dimension])
    logits, target, counted = logits[:1], target[:1], ~where[0, 0]
    one_image = [t[(slice(None),) * (t.ndim - counted.ndim) + (counted,)].unsqueeze(-2) for t in (logits, target)]
    expected = VARIANTS[name](activation=activation)(*one_image).item()
    found = VARIANTS[name](activation=activation, ignore_index=IGNORED)(logits, target).item()
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_where_nothing_is_marked_nothing_changes(name):
    logits, label = random_case()
    target = target_of(VARIANTS[name](), label, 3)
    expected, gradient = value_and_gradient(VARIANTS[name](), logits, target)
    found, same = value_and_gradient(VARIANTS[name](ignore_index=IGNORED), logits, target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(same, gradient, rtol=1e-6, atol=1e-12)


# The mark -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32])
@pytest.mark.parametrize("name", ["ce", "dice", "hausdorff", "unet-ce"])
def test_a_one_hot_label_has_the_mark_in_its_channels(name, dtype):
    logits, label, where = case(name, "softmax", SHAPES["2d"])
    loss = VARIANTS[name](ignore_index=IGNORED)
    onehot = one_hot(label.masked_fill(where[:, 0], 0), 3).movedim(-1, 1).masked_fill(where, IGNORED).to(dtype)
    assert torch.equal(loss(logits, onehot), loss(logits, label))


@pytest.mark.parametrize("ignore_index", [-1, -100, IGNORED, 1, 0])
@pytest.mark.parametrize("name", ["ce", "dice", "gdl", "hausdorff"])
def test_any_number_can_be_the_mark_also_that_of_a_class(name, ignore_index):
    logits, label, _ = case(name, "softmax", SHAPES["2d"])
    expected = VARIANTS[name](ignore_index=IGNORED)(logits, label)
    if 0 <= ignore_index < 3:
        label = torch.where(label == ignore_index, IGNORED, label)
        expected = VARIANTS[name](ignore_index=IGNORED)(logits, label)
    label = torch.where(label == IGNORED, ignore_index, label)
    loss = VARIANTS[name](ignore_index=ignore_index)
    assert torch.equal(loss(logits, label), expected)
    if 0 <= ignore_index < 3:
        assert torch.equal(loss(logits, one_hot(label, 3).movedim(-1, 1)), expected)


def test_a_byte_of_255_is_not_minus_one():
    label = torch.tensor([[[0, 1], [255, 1]]], dtype=torch.uint8)
    with pytest.raises(ValueError, match="target: expected classes 0 to 1 or -1, which is ignored, found 0 to 255"):
        losses.Dice(ignore_index=-1)(torch.zeros(1, 2, 2, 2), label)


def test_a_map_with_ignored_voxels_is_not_taken_for_a_whole_one():
    """NaN, without `ignore_index`: rather than a mean over voxels that do not count."""
    logits, phi, _ = case("boundary", "softmax", SHAPES["2d"])
    assert Boundary()(logits, phi).isnan()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dimension", SHAPES)
def test_boundary_of_labels_ignores_what_its_maps_do(activation, dimension):
    logits, phi, _ = case("boundary", activation, SHAPES[dimension])
    _, label, _ = case("dice", activation, SHAPES[dimension])
    loss = Boundary(activation=activation, ignore_index=IGNORED)
    assert loss.from_labels(logits, label).item() == pytest.approx(loss(logits, phi).item(), rel=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_no_loss_looks_at_a_value_on_the_device(name, activation, monkeypatch):
    """Tensors of the meta device have no values: reading one raises, as reading one on a GPU would wait."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # unknown to meta
    logits = torch.empty(2, 3, 8, 8, device="meta", requires_grad=True)
    loss = VARIANTS[name](activation=activation, ignore_index=IGNORED)
    for target in (torch.empty(2, 8, 8, dtype=torch.long, device="meta"), torch.empty(2, 3, 8, 8, device="meta")):
        if loss.target_kind == "label" or target.ndim == 4:
            loss(logits, target).backward()
            assert logits.grad.shape == logits.shape


# Maps -----------------------------------------------------------------------------------------------------


def nearest_known(label: np.ndarray, spacing) -> np.ndarray:
    """Signed distances (2, *spatial) of every voxel to every known one of the other side, by brute force."""
    index = np.argwhere(np.ones(label.shape)) * spacing
    flat, maps = label.ravel(), []
    for k in (0, 1):
        inside, outside = flat == k, (flat != k) & (flat != IGNORED)
        phi = np.zeros(flat.shape)
        if inside.any() and outside.any():
            phi[inside] = -cdist(index[inside], index[outside]).min(axis=1)
            phi[outside] = cdist(index[outside], index[inside]).min(axis=1)
        phi[flat == IGNORED] = np.nan
        maps.append(phi.reshape(label.shape))
    return np.stack(maps)


@pytest.mark.parametrize("as_batch", [False, True])
@pytest.mark.parametrize("shape", [(9, 13), (5, 7, 6)])
def test_distances_are_to_the_nearest_voxel_that_is_known(shape, as_batch):
    rng, spacing = np.random.default_rng(0), (0.7, 1.3, 2.0)[: len(shape)]
    labels = (rng.random((3, *shape)) < 0.3).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.4] = IGNORED
    labels[1][labels[1] == 1] = IGNORED         # one class known
    labels[2] = IGNORED
    if as_batch:
        found = distance_maps(torch.from_numpy(labels), 2, spacing, ignore_index=IGNORED).numpy()
    else:
        found = np.stack([distance_maps(label, 2, spacing, ignore_index=IGNORED) for label in labels])
    np.testing.assert_allclose(found, np.stack([nearest_known(label, spacing) for label in labels]), rtol=1e-5)


def test_maps_drawn_by_hand():
    label = np.array([[0, 0, 9, 1, 1, 9, 9]], np.uint8)
    nan = np.nan
    expected = [[-3, -2, nan, 2, 3, nan, nan], [3, 2, nan, -2, -3, nan, nan]]
    np.testing.assert_array_equal(distance_maps(label, 2, ignore_index=9)[:, 0], expected)
    expected = [[-1, -2 / 3, nan, 1, 1, nan, nan], [1, 1, nan, -2 / 3, -1, nan, nan]]
    np.testing.assert_allclose(region_wise_map(label, 2, "rrw", ignore_index=9)[:, 0], expected, rtol=1e-6)
    authors = [[-2, -1, nan, 2, 3, nan, nan], [3, 2, nan, -1, -2, nan, nan]]
    np.testing.assert_array_equal(distance_maps(label, 2, None, "authors", ignore_index=9)[:, 0], authors)
    same = distance_maps(torch.from_numpy(label)[None], 2, None, "authors", ignore_index=9)[0, :, 0]
    np.testing.assert_array_equal(same, authors)


@pytest.mark.parametrize("kind", REGION_WISE_KINDS)
def test_a_map_beside_an_ignored_border_is_that_of_the_cropped_label(kind):
    label = np.random.default_rng(0).integers(0, 3, (12, 6)).repeat(2, axis=1)
    cropped = region_wise_map(label[:9], 4, kind, (0.5, 1.5))
    label[9:] = -1
    found = region_wise_map(label, 4, kind, (0.5, 1.5), ignore_index=-1)
    np.testing.assert_allclose(found[:, :9], cropped, rtol=1e-6)
    assert np.isnan(found[:, 9:]).all() and found.dtype == np.float32
    same = region_wise_map(torch.from_numpy(label)[None], 4, kind, (0.5, 1.5), ignore_index=-1)
    np.testing.assert_allclose(same[0], found, rtol=1e-6)


@pytest.mark.parametrize("of_label", [np.asarray, lambda label: torch.from_numpy(label)[None]])
def test_a_value_that_is_neither_class_nor_mark_is_named(of_label):
    label = of_label(np.array([[0, 1, 7, IGNORED]]))
    message = "label: expected classes 0 to 1 or 255, which is ignored, found 0 to 7"
    for make in (distance_maps, lambda *args, **options: region_wise_map(*args, "rrw", **options)):
        with pytest.raises(ValueError, match=message):
            make(label, 2, ignore_index=IGNORED)
