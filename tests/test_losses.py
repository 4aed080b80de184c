"""Losses against MONAI, PyTorch and float64 numpy written from the papers; laws that all of them obey."""

import contextlib
import itertools

import monai.losses
import numpy as np
import pytest
import torch
from loss_cases import ALL, VARIANTS, random_case, target_of
from scipy import ndimage
from torch.nn.functional import cross_entropy, one_hot

from boundary_loss import distance, losses
from losses import CONTOUR_LOSSES, REGION_LOSSES

SATURATED = 1e4


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def arrays(logits: torch.Tensor, label: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Softmax and one-hot label (B, K, *spatial), float64."""
    exponentials = np.exp(logits.numpy() - logits.numpy().max(axis=1, keepdims=True))
    classes = np.arange(logits.shape[1]).reshape(1, -1, *[1] * (logits.ndim - 2))
    onehot = (label.numpy()[:, None] == classes).astype(float)
    return exponentials / exponentials.sum(axis=1, keepdims=True), onehot


def pixels(array: np.ndarray) -> np.ndarray:
    """Sum over the spatial axes."""
    return array.sum(axis=tuple(range(2, array.ndim)))


def logits_of(mask, value: float = 50.0) -> torch.Tensor:
    """Two-class logits (1, 2, *spatial) whose softmax is a mask, to 1e-43."""
    foreground = torch.as_tensor(np.asarray(mask), dtype=torch.float64) * 2 - 1
    return value * torch.stack([-foreground, foreground])[None]


def scipy_boundary_distance(mask: np.ndarray, spacing) -> np.ndarray:
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    edt = ndimage.distance_transform_edt
    return edt(mask, sampling=spacing) + edt(~mask, sampling=spacing)


# Regional losses against independent implementations ----------------------------------------------------

SHAPES = [(3, 3, 10, 12), (2, 2, 5, 8, 6)]


@pytest.fixture(params=SHAPES, ids=["2d", "3d"])
def case(request):
    return random_case(request.param)


def test_cross_entropy_equals_pytorch(case):
    assert losses.CrossEntropy()(*case).item() == pytest.approx(cross_entropy(*case).item(), rel=1e-12)


def test_weighted_cross_entropy_equals_pytorch(case):
    weight = [0.2, 3.0, 1.5][: case[0].shape[1]]
    expected = cross_entropy(*case, weight=torch.tensor(weight, dtype=torch.float64))
    assert losses.WeightedCrossEntropy(weight)(*case).item() == pytest.approx(expected.item(), rel=1e-12)


def test_inverse_frequency_makes_the_classes_weigh_the_same(case):
    probs, onehot = arrays(*case)
    of_class = [-np.log(probs[:, k][onehot[:, k] > 0]).mean() for k in range(probs.shape[1])]
    assert losses.WeightedCrossEntropy()(*case).item() == pytest.approx(np.mean(of_class), rel=1e-12)


def test_cross_entropy_of_a_selection_is_the_mean_over_its_pixels():
    logits, label = random_case()
    probs, onehot = arrays(logits, label)
    inside = onehot[:, [0, 2]]
    nll, focal = -np.log(probs[:, [0, 2]]), (1 - probs[:, [0, 2]]) ** 2
    expected = (inside * nll).sum() / inside.sum()
    assert losses.CrossEntropy(classes=(0, 2))(logits, label).item() == pytest.approx(expected, rel=1e-12)
    expected = (inside * focal * nll).sum() / inside.sum()
    assert losses.Focal(classes=(0, 2))(logits, label).item() == pytest.approx(expected, rel=1e-12)
    weights = np.array([2.0, 5.0])[None, :, None, None] * inside
    found = losses.WeightedCrossEntropy([2.0, 7.0, 5.0], classes=(0, 2))(logits, label).item()
    assert found == pytest.approx((weights * nll).sum() / weights.sum(), rel=1e-12)


def test_an_ignored_label_is_left_out_of_cross_entropy():
    logits, label = random_case()
    label[:, ::3] = 255
    expected = cross_entropy(logits, label, ignore_index=255).item()
    assert losses.CrossEntropy(ignore_index=255)(logits, label).item() == pytest.approx(expected, rel=1e-12)


def test_saturated_logits_cost_less_by_the_authors_cross_entropy():
    """Their logarithm of softmax + 1e-10 ends at 23.03: for logits N(0, 10) the mean is 5.4, of the text's 5.7."""
    generator = torch.Generator().manual_seed(0)
    logits = 10 * torch.randn((4, 2, 128, 128), generator=generator, dtype=torch.float64)
    label = torch.randint(2, (4, 128, 128), generator=generator)
    right = np.where(label.numpy() == 1, arrays(logits, label)[0][:, 1], arrays(logits, label)[0][:, 0])
    text = losses.CrossEntropy()(logits, label).item()
    authors = losses.CrossEntropy(convention="authors")(logits, label).item()
    assert authors == pytest.approx(-np.log(right + 1e-10).mean(), rel=1e-12)
    assert (text, authors) == (pytest.approx(5.7, abs=0.05), pytest.approx(5.4, abs=0.05))
    focal = -((1 - right) ** 2 * np.log(right + 1e-10)).mean()
    assert losses.Focal(convention="authors")(logits, label).item() == pytest.approx(focal, rel=1e-12)
    assert losses.Focal()(logits, label).item() > focal + 0.2


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_unet_cross_entropy_of_the_authors_code(shape):
    """Weights from their signed maps, truncated in 2D; a last image of one class, where SciPy measures to nothing."""
    logits, label = random_case(shape)
    label[-1] = 1
    spacing = torch.tensor([[0.7, 1.3, 2.1], [3.0, 0.4, 1.2], [2.0, 1.7, 1.0]])[: shape[0], : len(shape) - 2]
    probs, onehot = arrays(logits, label)
    weights = np.zeros_like(onehot)
    for b, k in np.ndindex(*shape[:2]):
        depth = ndimage.distance_transform_edt(onehot[b, k], sampling=spacing[b].numpy()) - 1
        depth = np.trunc(depth) if len(shape) == 4 else depth
        weights[b, k] = onehot[b, k] * (onehot[b, k].mean() + 10 * np.exp(-(depth**2) / 50))
    expected = -(weights * np.log(probs + 1e-10)).sum() / weights.sum()
    loss = losses.DistanceWeightedCrossEntropy(convention="authors")
    assert loss(logits, label, spacing).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_focal_equals_monai(case, gamma):
    logits, label = case
    monai_loss = monai.losses.FocalLoss(gamma=gamma, use_softmax=True, to_onehot_y=True)
    expected = monai_loss(logits, label[:, None]).item() * logits.shape[1]  # MONAI's mean is over classes too
    assert losses.Focal(gamma)(logits, label).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("classes", [None, (1,)])
def test_dice_losses_equal_monai(classes):
    logits, label = random_case((3, 2, 10, 12))
    options = {"softmax": True, "to_onehot_y": True, "include_background": classes is None}
    smooth = {"smooth_nr": 1e-5, "smooth_dr": 1e-5}
    pairs = [
        (losses.Dice(classes=classes), monai.losses.DiceLoss(**options, **smooth)),
        (
            losses.Tversky(0.2, 0.9, classes=classes),
            monai.losses.TverskyLoss(**options, alpha=0.2, beta=0.9, smooth_nr=0.0, smooth_dr=1e-5),
        ),
        (
            losses.GeneralizedDice(classes=classes),
            monai.losses.GeneralizedDiceLoss(**options, smooth_nr=0.0, smooth_dr=0.0),
        ),
    ]
    label[-1, 0, 0] = 1  # MONAI's generalised Dice has no answer when no selected class is present
    for ours, theirs in pairs:
        expected = theirs(logits, label[:, None]).item()
        assert ours(logits, label).item() == pytest.approx(expected, rel=1e-5), ours


def test_generalised_dice_with_an_absent_class_equals_monai(case):
    options = {"softmax": True, "to_onehot_y": True, "smooth_nr": 0.0, "smooth_dr": 0.0}
    monai_loss = monai.losses.GeneralizedDiceLoss(**options)
    expected = monai_loss(case[0], case[1][:, None]).item()
    assert losses.GeneralizedDice()(*case).item() == pytest.approx(expected, rel=1e-6)


def test_sums_with_dice_equal_monai(case):
    logits, label = case
    options = {"softmax": True, "to_onehot_y": True, "smooth_nr": 1e-5, "smooth_dr": 1e-5}
    reference = label[:, None]
    expected = monai.losses.DiceCELoss(**options, lambda_ce=0.7)(logits, reference).item()
    assert losses.DiceCrossEntropy(0.7)(logits, label).item() == pytest.approx(expected, rel=1e-6)
    focal = monai.losses.FocalLoss(use_softmax=True, to_onehot_y=True)(logits, reference) * logits.shape[1]
    expected = (monai.losses.DiceLoss(**options)(logits, reference) + 0.7 * focal).item()
    assert losses.DiceFocal(0.7)(logits, label).item() == pytest.approx(expected, rel=1e-6)


def test_generalised_dice_is_equation_1():
    logits, label = random_case((1, 2, 9, 7))
    label[0, 4, 3] = 1
    s, g = arrays(logits, label)[0][0, 1], label[0].numpy()
    w_g, w_b = 1 / g.sum() ** 2, 1 / (1 - g).sum() ** 2
    overlap = w_g * (g * s).sum() + w_b * ((1 - g) * (1 - s)).sum()
    total = w_g * (s + g).sum() + w_b * (2 - s - g).sum()
    assert losses.GeneralizedDice()(logits, label).item() == pytest.approx(1 - 2 * overlap / total, rel=1e-8)


def test_generalised_dice_of_the_authors_code_to_the_last_digits():
    """Where all classes are large, 1e-10 in numerator and denominator are seen in float64."""
    logits, label = random_case((2, 2, 64, 64))
    label[:] = torch.arange(64) // 32
    probs, onehot = arrays(logits, label)
    weights = 1 / (pixels(onehot) + 1e-10) ** 2
    overlap = (weights * pixels(probs * onehot)).sum(axis=1)
    total = (weights * (pixels(probs) + pixels(onehot))).sum(axis=1)
    expected = (1 - 2 * (overlap + 1e-10) / (total + 1e-10)).mean()
    assert losses.GeneralizedDice("authors")(logits, label).item() == pytest.approx(expected, rel=1e-12)
    assert losses.GeneralizedDice("largest")(logits, label).item() != pytest.approx(expected, rel=1e-9)


def test_generalised_dice_of_an_image_without_the_class():
    logits, label = random_case((1, 2, 16, 16))
    label.zero_()
    values, gradients = [], []
    for absent in ("largest", "authors"):
        leaf = logits.clone().requires_grad_()
        value = losses.GeneralizedDice(absent)(leaf, label)
        value.backward()
        values.append(value.item())
        gradients.append(leaf.grad.abs().max().item())
    s = arrays(logits, label)[0][0, 1]
    expected = 1 - 2 * (1 - s).sum() / ((2 - s).sum() + s.sum())
    assert values == pytest.approx([expected, 1.0], rel=1e-8)
    assert gradients[0] > 1e-4
    assert gradients[1] < 1e-15


def test_generalised_dice_conventions_agree_where_all_classes_are_present():
    logits, label = random_case()
    logits, label = logits[:2], label[:2]
    values = [losses.GeneralizedDice(absent)(logits, label).item() for absent in ("largest", "authors")]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize("frequency", ["class", "inverse"])
@pytest.mark.parametrize("spacing", [None, (0.7, 1.9)])
def test_unet_cross_entropy_equals_the_formula(frequency, spacing):
    logits, label = random_case()
    label[0] = 0  # no boundary: only the frequency weighs
    probs, onehot = arrays(logits, label)
    total = used = 0.0
    for s, g in zip(probs, onehot, strict=True):
        for k in range(3):
            share = g[k].mean()
            weight = np.full(g[k].shape, share if frequency == "class" else 1 / max(share, 1e-9))
            if 0 < share < 1:
                to_boundary = ndimage.distance_transform_edt(g[k], sampling=spacing)
                weight = weight + 10 * np.exp(-(to_boundary**2) / (2 * 5**2))
            total += (weight * g[k] * -np.log(s[k])).sum()
            used += (weight * g[k]).sum()
    found = losses.DistanceWeightedCrossEntropy(frequency=frequency)(logits, label, spacing=spacing)
    assert found.item() == pytest.approx(total / used, rel=1e-5)


@pytest.mark.parametrize("single", [False, True])
def test_exponential_logarithmic_equals_the_formula(case, single):
    if single:      # a class of one pixel, the rarest that there is
        case[1][case[1] == 1] = 0
        case[1][(0,) * case[1].ndim] = 1
    probs, onehot = arrays(*case)
    dice = (2 * pixels(probs * onehot) + 1) / (pixels(probs) + pixels(onehot) + 1)
    frequency = pixels(onehot).sum(axis=0)
    weight = np.sqrt(frequency.sum() / frequency).reshape(1, -1, *[1] * (probs.ndim - 2))
    cross = (onehot * weight * (-np.log(probs)) ** 0.3).sum(axis=1).mean()
    expected = 0.8 * ((-np.log(dice)) ** 0.3).mean() + 0.2 * cross
    assert losses.ExponentialLogarithmic()(*case).item() == pytest.approx(expected, rel=1e-9)


def test_focal_tversky_equals_the_formula_and_tversky_generalises_dice(case):
    probs, onehot = arrays(*case)
    tp, fp, fn = pixels(probs * onehot), pixels(probs * (1 - onehot)), pixels((1 - probs) * onehot)
    index = tp / (tp + 0.3 * fp + 0.7 * fn + 1e-5)
    found = losses.FocalTversky(gamma=4 / 3)(*case).item()
    assert found == pytest.approx(((1 - index) ** 0.75).mean(), rel=1e-4)
    dice = losses.Dice(smooth=0.0)(*case).item()
    assert losses.Tversky(0.5, 0.5, smooth=0.0)(*case).item() == pytest.approx(dice, rel=1e-9)


# Contour losses against independent implementations -----------------------------------------------------


def test_boundary_is_the_mean_of_softmax_times_signed_distance(case):
    logits, label = case
    num_classes = logits.shape[1]
    phi = target_of(losses.Boundary(), label, num_classes)
    probs, _ = arrays(logits, label)
    expected = (probs[:, 1:] * phi.numpy()[:, 1:]).mean()
    assert losses.Boundary()(logits, phi).item() == pytest.approx(expected, rel=1e-9)
    expected = (probs[:, [1, 0]] * phi.numpy()[:, [1, 0]]).mean()
    assert losses.Boundary(classes=(1, 0))(logits, phi).item() == pytest.approx(expected, rel=1e-9)


def test_hausdorff_equals_monai():
    logits, label = random_case((3, 2, 10, 12))
    monai_loss = monai.losses.HausdorffDTLoss(softmax=True, to_onehot_y=True, include_background=False)
    expected = monai_loss(logits.float(), label[:, None]).item()
    assert losses.Hausdorff()(logits, label).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_hausdorff_equals_the_formula(shape, beta, one_sided):
    logits, label = random_case(shape)
    num_classes, ndim = shape[1], len(shape) - 2
    spacing = torch.rand(shape[0], ndim, generator=torch.Generator().manual_seed(1)) + 0.5  # one row an image
    probs, onehot = arrays(logits, label)
    values = []
    for b, k in itertools.product(range(shape[0]), range(1, num_classes)):
        powers = scipy_boundary_distance(onehot[b, k] > 0, spacing[b].numpy()) ** beta
        if not one_sided:
            powers = powers + scipy_boundary_distance(probs[b, k] >= 0.5, spacing[b].numpy()) ** beta
        values.append(((onehot[b, k] - probs[b, k]) ** 2 * powers).mean())
    loss = losses.Hausdorff(beta, one_sided=one_sided)
    assert loss(logits, label, spacing=spacing).item() == pytest.approx(np.mean(values), rel=1e-5)


def test_hausdorff_of_the_authors_code():
    logits, label = random_case((2, 2, 12, 12))
    logits[:, 1, 2:10, 3:11] += 20  # deep enough for distances such as 2.83
    probs, onehot = arrays(logits, label)
    edt = ndimage.distance_transform_edt
    expected = []
    for s, g in zip(probs[:, 1], onehot[:, 1], strict=True):
        inside, predicted = edt(g) if g.any() else 0 * g, np.trunc(edt(s > 0.5))
        expected.append(((g - s) ** 2 * (inside**2 + predicted**2)).mean())
    loss = losses.Hausdorff(convention="authors")
    assert loss(logits, label, spacing=(3.0, 3.0)).item() == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 9, 11), (2, 4, 6, 7, 5)])
def test_hausdorff_of_the_authors_code_takes_the_most_probable_of_four_classes(shape):
    logits, label = random_case(shape)
    probs, onehot = arrays(logits, label)
    assert (probs.max(axis=1) < 0.5).mean() > 0.1      # where no class would be predicted by its own softmax
    edt, values = ndimage.distance_transform_edt, []
    for b, k in itertools.product(range(2), range(1, 4)):
        reference, predicted = onehot[b, k] > 0, probs[b].argmax(axis=0) == k
        inside = edt(reference) if reference.any() else 0.0
        truncated = np.trunc(edt(predicted)) if predicted.any() else 0.0
        values.append(((onehot[b, k] - probs[b, k]) ** 2 * (inside**2 + truncated**2)).mean())
    loss = losses.Hausdorff(convention="authors")
    assert loss(logits, label).item() == pytest.approx(np.mean(values), rel=1e-5)
    one = losses.Hausdorff(convention="authors", classes=(2,))(logits, label).item()
    assert one == pytest.approx(np.mean([values[1], values[4]]), rel=1e-5)


@pytest.mark.parametrize("shape", [(7, 9), (4, 5, 6)])
def test_hausdorff_of_a_full_prediction_over_an_empty_image_pulls_in_the_authors_code_alone(shape):
    logits = logits_of(np.ones(shape), value=1.0).requires_grad_()
    label = torch.zeros((1, *shape), dtype=torch.long)
    assert losses.Hausdorff()(logits, label).item() == 0
    found = losses.Hausdorff(convention="authors")(logits, label)
    distances = ndimage.distance_transform_edt(np.ones(shape))
    prob = 1 / (1 + np.exp(-2.0))
    assert found.item() == pytest.approx(prob**2 * (np.trunc(distances) ** 2).mean(), rel=1e-6)
    found.backward()
    assert (logits.grad[:, 1] > 0).all()


@pytest.mark.parametrize("predicted", [False, True])
def test_hausdorff_of_an_empty_side_counts_the_other_one(predicted):
    mask = np.zeros((6, 6), bool)
    mask[2:4, 1:5] = True
    prediction, reference = (mask, ~mask & mask) if predicted else (~mask & mask, mask)
    found = losses.Hausdorff()(logits_of(prediction), torch.from_numpy(reference)[None].long()).item()
    assert found == pytest.approx((mask * scipy_boundary_distance(mask, (1, 1)) ** 2).mean(), rel=1e-6)


# Properties of the boundary loss ------------------------------------------------------------------------


@pytest.mark.parametrize("outer", [True, False], ids=["growing", "shrinking"])
def test_disc_in_a_disc_gives_the_integrals_of_equations_2_and_3(outer):
    r, d, h = 8.0, 3.0, 0.05  # radius, change of radius, pixel size, mm
    axis = np.arange(-11.5, 11.5, h)
    radii = np.hypot(axis[:, None], axis)
    reference, prediction = radii <= r, radii <= (r + d if outer else r - d)
    phi = torch.from_numpy(distance.distance_maps(reference.astype(np.uint8), 2, (h, h)))[None]
    loss = losses.Boundary()
    difference = (loss(logits_of(prediction), phi) - loss(logits_of(reference), phi)).item()
    dist = 2 * difference * reference.size * h**2  # Eq. 4, with the mean turned back into an integral
    sign = 1 if outer else -1
    equation_2 = 2 * np.pi * r * d**2
    equation_3 = equation_2 + sign * 4 / 3 * np.pi * d**3
    assert dist == pytest.approx(equation_3, rel=0.025)
    assert dist != pytest.approx(equation_2, rel=0.2)


@pytest.mark.parametrize("reference", ["000 010 000", "110 100 001", "111 101 111", "001 011 011"])
def test_boundary_is_smallest_at_the_reference_and_nowhere_else(reference):
    reference = np.array([list(row) for row in reference.split()]).astype(int)
    phi = torch.from_numpy(distance.distance_maps(reference, 2, (1.0, 1.3)))[None]
    loss, values = losses.Boundary(), {}
    for bits in itertools.product((0, 1), repeat=9):
        values[bits] = loss(logits_of(np.array(bits).reshape(3, 3)), phi).item()
    lowest, second = sorted(values, key=values.get)[:2]
    assert lowest == tuple(reference.ravel())
    assert values[second] > values[lowest] + 0.1
    assert values[lowest] == pytest.approx(phi[0, 1].clamp(max=0).mean().item(), rel=1e-6)
    assert values[(0,) * 9] == pytest.approx(0.0, abs=1e-9)


def test_boundary_differences_are_the_integral_of_equation_3():
    rng = np.random.default_rng(0)
    reference, prediction = rng.random((2, 12, 12)) < 0.4
    phi = torch.from_numpy(distance.distance_maps(reference.astype(int), 2, (2.0, 0.5)))[None]
    loss = losses.Boundary()
    difference = (loss(logits_of(prediction), phi) - loss(logits_of(reference), phi)).item()
    expected = scipy_boundary_distance(reference, (2.0, 0.5))[prediction != reference].sum() / reference.size
    assert difference == pytest.approx(expected, rel=1e-6)


def test_boundary_gradient_pulls_the_foreground_up_inside_and_down_outside():
    logits, label = random_case((1, 2, 10, 12))
    phi = target_of(losses.Boundary(), label, 2)
    losses.Boundary()(logits.requires_grad_(), phi).backward()
    assert torch.equal(logits.grad[:, 1].sign(), phi[:, 1].sign().double())
    assert torch.equal(logits.grad[:, 0], -logits.grad[:, 1])


def test_boundary_of_the_slices_of_a_volume_is_that_of_the_volume():
    logits, label = random_case((1, 3, 6, 10, 12))
    phi = target_of(losses.Boundary(), label, 3, spacing=(0.6, 0.9, 0.9))
    loss = losses.Boundary()
    volume = loss(logits, phi).item()
    slices = [loss(logits[:, :, z], phi[:, :, z]).item() for z in range(6)]
    assert np.mean(slices) == pytest.approx(volume, rel=1e-6)
    assert loss(logits[0].movedim(1, 0), phi[0].movedim(1, 0)).item() == pytest.approx(volume, rel=1e-6)
    flat = target_of(loss, label[0], 3, spacing=(0.9, 0.9))
    assert loss(logits[0].movedim(1, 0), flat).item() != pytest.approx(volume, rel=0.05)


@pytest.mark.parametrize("name", ["boundary", "hausdorff", "region-wise", "active-contour", "dice"])
def test_several_classes_are_the_mean_of_each_alone(name):
    logits, label = random_case()
    target = target_of(ALL[name](), label, 3)
    alone = [ALL[name](classes=(k,))(logits, target).item() for k in (1, 2)]
    assert ALL[name](classes=(1, 2))(logits, target).item() == pytest.approx(np.mean(alone), rel=1e-9)


@pytest.mark.parametrize("name", ["ce", "focal"])
def test_pixel_losses_are_the_sum_over_classes_of_the_text(name):
    logits, label = random_case()
    counts = [(label == k).sum().item() for k in range(3)]
    alone = [ALL[name](classes=(k,))(logits, label).item() * n for k, n in enumerate(counts)]
    assert ALL[name]()(logits, label).item() == pytest.approx(sum(alone) / label.numel(), rel=1e-9)


# Laws of all losses -------------------------------------------------------------------------------------


@pytest.fixture(params=sorted(VARIANTS))
def loss(request):
    return VARIANTS[request.param]()


def test_registries_hold_the_names_of_the_design():
    region = "gdl dice ce wce unet-ce focal dice-ce dice-focal exp-log tversky focal-tversky"
    assert set(REGION_LOSSES) == set(region.split())
    assert {"boundary", "hausdorff", "region-wise"} < set(CONTOUR_LOSSES)
    assert {name for name, of_name in ALL.items() if of_name.uses_spacing} == {"unet-ce", "hausdorff"}
    kinds = {name: of_name.target_kind for name, of_name in CONTOUR_LOSSES.items()}
    assert (kinds["boundary"], kinds["hausdorff"], kinds["region-wise"]) == ("phi", "label", "region-wise")
    assert {of_name.target_kind for of_name in REGION_LOSSES.values()} == {"label"}


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (2, 2, 2, 3, 2)])
def test_gradients_are_exact(loss, shape):
    logits, label = random_case(shape)
    target = target_of(loss, label, shape[1])
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_(), atol=1e-6)


def test_order_of_the_batch_does_not_matter(loss):
    logits, label = random_case()
    target = target_of(loss, label, 3)
    spacing = torch.tensor([[1.0, 2.0], [0.5, 0.6], [3.0, 1.0]])
    order = [2, 0, 1]
    found = loss(logits[order], target[order], spacing[order]).item()
    assert found == pytest.approx(loss(logits, target, spacing).item(), rel=1e-9)


def test_the_spacing_counts_for_the_losses_that_say_so_and_for_no_other():
    logits, label = random_case()
    for name, of_name in ALL.items():
        loss = of_name()
        target = target_of(loss, label, 3)
        values = {loss(logits, target, spacing).item() for spacing in (None, (1.0, 1.0), (0.5, 3.0))}
        assert len(values) == (2 if loss.uses_spacing else 1), name


def test_the_reference_costs_less_than_its_opposite(loss):
    _, label = random_case((2, 2, 10, 12))
    target = target_of(loss, label, 2)
    onehot = one_hot(label, 2).movedim(-1, 1).double()
    right, unsure, wrong = (loss(scale * onehot, target).item() for scale in (10.0, 0.0, -10.0))
    # A prediction that is unsure everywhere has no boundary for the Hausdorff loss, and no length.
    assert right < min(unsure, wrong)
    assert unsure < wrong or isinstance(loss, losses.Hausdorff | losses.ActiveContour)


@pytest.mark.parametrize("content", ["empty", "full", "one voxel"])
@pytest.mark.parametrize("certainty", ["right", "wrong", "unsure", "random"])
def test_extremes_give_finite_values_and_gradients(loss, content, certainty):
    label = torch.full((2, 8, 8), int(content == "full"))
    if content == "one voxel":
        label[:, 3, 4] = 1
    onehot = one_hot(label, 2).movedim(-1, 1).float()
    scales = {"right": 2 * SATURATED, "wrong": -2 * SATURATED, "unsure": 0.0, "random": 0.0}
    logits = scales[certainty] * (onehot - 0.5)
    if certainty == "random":
        logits = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    target = target_of(loss, label, 2)
    value = loss(logits.requires_grad_(), target)
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    if certainty == "right" and loss.target_kind == "label":
        # One voxel on 64 has the length 2 + sqrt(2) by forward differences.
        has_length = isinstance(loss, losses.ActiveContour) and content == "one voxel"
        assert value.item() == pytest.approx((2 + 2**0.5) / 64 if has_length else 0.0, abs=0.02)


@pytest.mark.parametrize("content", ["empty", "one voxel elsewhere"])
@pytest.mark.parametrize("certainty", [0.0, SATURATED])
@pytest.mark.parametrize("name", [name for name, of_name in ALL.items() if of_name.target_kind == "label"])
def test_a_selected_class_that_is_absent_gives_finite_values_and_gradients(name, certainty, content):
    label = torch.zeros(2, 8, 8, dtype=torch.long)
    if content != "empty":
        label[0, 3, 4] = 1
    logits = certainty * (2.0 * one_hot(torch.zeros_like(label), 2).movedim(-1, 1) - 1)
    value = ALL[name](classes=(1,))(logits.requires_grad_(), label)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    if certainty and content == "empty":
        assert value.item() == pytest.approx(0.0, abs=0.01)


def test_a_loss_of_ones_own_computes_in_float32_under_autocast():
    class Product(losses.Boundary):
        def compute(self, batch):
            return batch.log_probs.flatten(1) @ batch.target.flatten(1).T

    logits = torch.randn(2, 2, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Product()(logits, logits).dtype == torch.float32


def test_a_loss_of_ones_own_gets_what_its_attributes_ask_for():
    class Error(losses.Loss):
        skips_background = True

        def compute(self, batch):
            self.batch = batch
            return (batch.probs - batch.target).abs()

    logits, label = random_case()
    loss = Error()
    probs, onehot = arrays(logits, label)
    assert loss(logits, label).item() == pytest.approx(np.abs(probs - onehot)[:, 1:].mean(), rel=1e-12)
    assert loss.batch.spacing == (1.0, 1.0)
    loss = Error(classes=(2, 0))
    loss(logits, label, (3.0, 2.0))
    np.testing.assert_array_equal(loss.batch.target, onehot[:, [2, 0]])
    assert loss.batch.spacing == (3.0, 2.0)


def test_a_loss_without_compute_says_so():
    with pytest.raises(NotImplementedError, match=r"Loss has no compute\(batch\)"):
        losses.Loss()(LOGITS, LABEL)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_arithmetic_is_float32_under_autocast(loss, dtype):
    logits, label = random_case((2, 2, 40, 40))
    target = target_of(loss, label, 2)
    halves = (20 * logits).to(dtype)
    expected = loss(halves.float(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(halves.requires_grad_(), target.half() if target.is_floating_point() else target)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)
    if loss.target_kind == "label":
        assert found.item() == expected.item()
    found.backward()
    assert halves.grad.dtype == dtype


def test_no_loss_looks_at_a_value_on_the_device(loss, monkeypatch):
    """Tensors of the meta device have no values: reading one raises, as reading one on a GPU would wait."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # unknown to meta
    logits = torch.empty(2, 3, 8, 8, device="meta", requires_grad=True)
    if loss.target_kind == "label":
        target = torch.empty(2, 8, 8, dtype=torch.long, device="meta")
    else:
        target = torch.empty(2, 3, 8, 8, device="meta")
    loss(logits, target).backward()
    assert logits.grad.shape == logits.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_and_never_waits(loss):
    logits, label = random_case((2, 3, 40, 33))
    target = target_of(loss, label, 3)
    expected = loss(logits, target).item()
    logits, target = logits.cuda(), target.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = loss(logits, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.item() == pytest.approx(expected, rel=1e-5)


# Errors -------------------------------------------------------------------------------------------------

LOGITS, LABEL, MAP = torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5, dtype=torch.long), torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.Dice()(LOGITS, MAP[:, 0]), r"a label target of integers or bool \(2, 4, 5\) or .*, found"),
        (lambda: losses.Boundary()(LOGITS, LABEL), r"a phi target of floats \(2, 3, 4, 5\), found"),
        (lambda: losses.Boundary()(LOGITS, MAP[:, 1:]), r"found torch.float32 \(2, 2, 4, 5\)"),
        (lambda: losses.RegionWise()(LOGITS, LABEL), "expected a region-wise target of floats"),
        (lambda: losses.Dice()(LOGITS[:, :1], LABEL), r"logits: expected floats .* found .* \(2, 1, 4, 5\)"),
        (lambda: losses.Dice()(LOGITS[0], LABEL[0]), r"logits: expected .* found torch.float32 \(3, 4, 5\)"),
        (lambda: losses.Dice()(LOGITS.long(), LABEL), "logits: expected floats .* found torch.int64"),
        (lambda: losses.Dice(classes=(1, 3))(LOGITS, LABEL), r"classes: expected 0 to 2, found \(1, 3\)"),
        (lambda: losses.Dice(classes=(-1,))(LOGITS, LABEL), r"classes: expected 0 to 2, found \(-1,\)"),
        (lambda: losses.Dice(classes=()), "classes: expected at least one class"),
        (lambda: losses.Dice(classes=(1, 1)), "classes: .* none twice"),
        (lambda: losses.WeightedCrossEntropy([1.0, 2.0])(LOGITS, LABEL), "weight: expected 3 .* found 2"),
        (lambda: losses.WeightedCrossEntropy([1.0, -2.0]), "weight: expected finite numbers of at least 0"),
        (lambda: losses.Focal(-1.0), "gamma: expected a finite number of at least 0, found -1.0"),
        (lambda: losses.FocalTversky(gamma=0.0), "gamma: expected a finite number above 0"),
        (lambda: losses.Tversky(alpha=float("nan")), "alpha: expected a finite number"),
        (lambda: losses.GeneralizedDice("zero"), "absent: expected largest or authors, found 'zero'"),
        (lambda: losses.Hausdorff(convention="Authors"), "convention: expected paper or authors"),
        (lambda: losses.CrossEntropy(convention="text"), "paper or authors or authors-region-wise, found 'text'"),
        (lambda: losses.Focal(convention="text"), "paper or authors or authors-region-wise, found 'text'"),
        (lambda: losses.Dice(convention="text"), "convention: expected paper or authors, found 'text'"),
        (lambda: losses.DistanceWeightedCrossEntropy(convention="text"), "convention: expected paper or authors"),
        (lambda: losses.DistanceWeightedCrossEntropy(frequency="none"), "frequency: expected class or inv"),
        (lambda: losses.DistanceWeightedCrossEntropy(sigma=0.0), "sigma: expected a number above 0"),
        (lambda: losses.Hausdorff()(LOGITS, LABEL, spacing=(1.0,) * 4), "spacing: expected 2 positive values"),
    ],
)
def test_bad_input_raises_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
