"""Every form of target, activation and reduction: against PyTorch, MONAI, and each other where they must agree."""

import monai.losses
import numpy as np
import pytest
import torch
from loss_cases import ALL, VARIANTS, random_case, target_of
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from boundary_loss import Boundary, distance_maps, losses

SHAPES = [(3, 3, 10, 12), (2, 3, 5, 8, 6)]
OF_LABELS = sorted(name for name in VARIANTS if VARIANTS[name]().target_kind == "label")
OF_MAPS = sorted(set(VARIANTS) - set(OF_LABELS))


def channels_of(label: torch.Tensor, num_classes: int) -> torch.Tensor:
    return one_hot(label, num_classes).movedim(-1, 1)


def overlapping(shape=(3, 3, 10, 12), seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """Float64 logits and masks (B, K, *spatial) of boxes that overlap; the last class is absent from the last image."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    masks = torch.zeros(shape, dtype=torch.long)
    for b, k in np.ndindex(*shape[:2]):
        box = [slice((b + k) % 3, n // 2 + 1 + (b + 2 * k) % 3) for n in shape[2:]]
        masks[(b, k, *box)] = 1
    masks[-1, -1] = 0
    return logits, masks


def maps_of(loss: torch.nn.Module, masks: torch.Tensor) -> torch.Tensor:
    """The target of a loss of overlapping classes (B, K, *spatial): masks, or the map of each for itself."""
    if loss.target_kind == "label":
        return masks
    maps = [target_of(loss, masks[:, k], 2)[:, 1] for k in range(masks.shape[1])]
    return torch.stack(maps, dim=1)


# Forms of a label -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
@pytest.mark.parametrize("name", OF_LABELS)
def test_every_form_of_a_label_is_the_same_target(name, shape):
    logits, label = random_case(shape)
    loss = VARIANTS[name]()
    expected = loss(logits, label)
    onehot = channels_of(label, shape[1])
    forms = [label[:, None], label.to(torch.uint8), label[:, None].int(), onehot, onehot.to(torch.uint8), onehot.bool(),
             onehot.float(), onehot.double()]
    for form in forms:
        assert torch.equal(loss(logits, form), expected), form.dtype


@pytest.mark.parametrize("name", OF_LABELS)
def test_bool_is_the_second_of_two_classes(name):
    logits, label = random_case((3, 2, 10, 12))
    loss = VARIANTS[name]()
    for form in (label.bool(), label.bool()[:, None]):
        assert torch.equal(loss(logits, form), loss(logits, label))


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
@pytest.mark.parametrize("name", OF_LABELS)
def test_the_label_of_a_single_class_is_its_mask(name, activation):
    logits, masks = overlapping((3, 1, 10, 12))
    logits = logits.sigmoid() if activation == "none" else logits
    loss = VARIANTS[name](activation=activation)
    expected = loss(logits, masks.double())
    for form in (masks, masks[:, 0], masks.bool(), masks[:, 0].bool(), masks[:, 0].to(torch.uint8)):
        assert torch.equal(loss(logits, form), expected)
    assert expected != loss(logits, 1 - masks)


def test_soft_labels_are_between_the_hard_ones():
    logits, label = random_case((2, 2, 8, 8))
    onehot = channels_of(label, 2).double()
    values = [losses.CrossEntropy()(logits, target) for target in (onehot, 1 - onehot, torch.full_like(onehot, 0.5))]
    assert values[2].item() == pytest.approx((values[0] + values[1]).item() / 2)


def test_a_class_beyond_the_numbers_of_a_byte_is_not_taken_for_another():
    label = torch.zeros(1, 2, 3, dtype=torch.uint8)
    logits = torch.randn((1, 257, 2, 3), generator=torch.Generator().manual_seed(0))
    assert torch.equal(losses.Dice(classes=(256,))(logits, label), losses.Dice(classes=(256,))(logits, label.long()))


# Sigmoid, overlapping classes -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 3, 10, 12), (3, 1, 10, 12), (2, 2, 5, 8, 6)])
def test_regional_losses_of_overlapping_classes_equal_monai(shape):
    logits, masks = overlapping(shape)
    masks[-1, -1, ..., :2] = 1      # MONAI's generalised Dice does without classes that are absent
    smooth = {"smooth_nr": 1e-5, "smooth_dr": 1e-5}
    for classes in (None, (1, 2)[: shape[1] - 1]):
        if classes == ():
            continue
        options = {"sigmoid": True, "include_background": classes is None}
        ours = {"activation": "sigmoid", "classes": classes}
        pairs = [
            (losses.Dice(**ours), monai.losses.DiceLoss(**options, **smooth)),
            (losses.Tversky(0.2, 0.9, **ours), monai.losses.TverskyLoss(
                **options, alpha=0.2, beta=0.9, smooth_nr=0.0, smooth_dr=1e-5)),
            (losses.GeneralizedDice(**ours), monai.losses.GeneralizedDiceLoss(
                **options, smooth_nr=0.0, smooth_dr=0.0)),
        ]
        for loss, theirs in pairs:
            assert loss(logits, masks).item() == pytest.approx(theirs(logits, masks).item(), rel=1e-5), loss


@pytest.mark.parametrize("shape", [(3, 3, 10, 12), (3, 1, 10, 12), (2, 2, 5, 8, 6)])
def test_cross_entropies_of_overlapping_classes_equal_pytorch_and_monai(shape):
    logits, masks = overlapping(shape)
    expected = binary_cross_entropy_with_logits(logits, masks.double())
    assert losses.CrossEntropy(activation="sigmoid")(logits, masks).item() == pytest.approx(expected.item(), rel=1e-12)
    weight = torch.tensor([3.0, 0.5, 2.0], dtype=torch.float64)[: shape[1]]
    pos_weight = weight.view(-1, *[1] * (len(shape) - 2))
    terms = binary_cross_entropy_with_logits(logits, masks.double(), pos_weight=pos_weight, reduction="sum")
    total = (masks * pos_weight + 1 - masks).sum()
    found = losses.WeightedCrossEntropy(weight.tolist(), activation="sigmoid")(logits, masks).item()
    assert found == pytest.approx((terms / total).item(), rel=1e-12)
    for gamma in (0.5, 2.0):
        focal = monai.losses.FocalLoss(gamma=gamma)(logits, masks).item()
        assert losses.Focal(gamma, activation="sigmoid")(logits, masks).item() == pytest.approx(focal, rel=1e-6)


@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_boundary_equals_monai_but_for_its_voxel_inside(activation, include_background):
    """MONAI's map is -(D - 1) inside, in voxels: one more than the level set at every voxel of the class."""
    logits, masks = overlapping()
    if activation != "sigmoid":
        logits, label = random_case()
        masks = channels_of(label, 3)
        masks[:, :, 0, 0] = one_hot(torch.tensor(2), 3)     # MONAI keeps the -1 out of a full mask
    probs = {"softmax": logits.softmax(1), "sigmoid": logits.sigmoid(), "none": logits.softmax(1)}[activation]
    inputs = probs if activation == "none" else logits
    first = int(not include_background)
    ours = Boundary(classes=range(first, 3), activation=activation).from_labels(inputs, masks)
    options = {} if activation == "none" else {activation: True}
    theirs = monai.losses.BoundaryLoss(include_background=include_background, **options)(inputs, masks)
    has_boundary = masks.flatten(2).double().mean(dim=2) % 1 > 0
    one_more = (probs * masks * has_boundary[:, :, None, None])[:, first:].mean()
    assert ours.item() + one_more.item() == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.parametrize("shape", [(3, 3, 10, 12), (2, 1, 5, 8, 6)])
def test_hausdorff_of_overlapping_classes_equals_monai(shape):
    logits, masks = overlapping(shape)
    theirs = monai.losses.HausdorffDTLoss(sigmoid=True, include_background=True)
    expected = theirs(logits.float(), masks.float()).item()     # of an integer target it truncates the distances
    assert losses.Hausdorff(activation="sigmoid")(logits, masks).item() == pytest.approx(expected, rel=1e-5)


# The losses of one foreground class by softmax over two channels, and by a sigmoid of their difference. Not among
# them: the losses of both classes by softmax, of one by sigmoid (Dice and its relatives without `classes=(1,)`), and
# those whose weights differ (generalised Dice, exponential logarithmic, RRW cross-entropy).
ALIKE = {
    "ce": {}, "focal": {}, "focal-root": {}, "wce": {}, "unet-ce": {}, "unet-ce-inverse": {}, "boundary": {},
    "hausdorff": {}, "hausdorff-one-sided": {}, "hausdorff-authors": {}, "active-contour": {}, "ce-authors": {},
    **{name: {"classes": (1,)} for name in ("dice", "tversky", "focal-tversky", "region-wise", "region-wise-squared")},
}


@pytest.mark.parametrize("shape", [(3, 2, 10, 12), (2, 2, 5, 8, 6)], ids=["2d", "3d"])
@pytest.mark.parametrize("name", sorted(ALIKE))
def test_softmax_of_two_classes_is_the_sigmoid_of_their_difference(name, shape):
    logits, label = random_case(shape)
    label[-1, ..., 0] = 1
    loss = VARIANTS[name](**ALIKE[name])
    target = target_of(loss, label, 2)
    difference = logits[:, 1:] - logits[:, :1]
    single = label if loss.target_kind == "label" else target[:, 1:]
    found = VARIANTS[name](activation="sigmoid")(difference, single).item()
    assert found == pytest.approx(loss(logits, target).item(), rel=1e-6)


def test_under_a_sigmoid_no_class_is_background():
    logits, masks = overlapping()
    for name in ("boundary", "hausdorff", "active-contour"):
        loss, target = ALL[name](activation="sigmoid"), maps_of(ALL[name](), masks)
        alone = [ALL[name](activation="sigmoid", classes=(k,))(logits, target).item() for k in range(3)]
        assert loss(logits, target).item() == pytest.approx(np.mean(alone), rel=1e-9)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_reference_costs_less_than_its_opposite_where_classes_overlap(name):
    _, masks = overlapping()
    loss = VARIANTS[name](activation="sigmoid")
    target = maps_of(loss, masks)
    right, wrong, all_of_it = (loss(x, target).item() for x in (20.0 * masks - 10, 10 - 20.0 * masks, 10.0 + 0 * masks))
    assert right < wrong and right < all_of_it


# Probabilities --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_given_probabilities_are_not_softmaxed_again(name):
    logits, label = random_case()
    target = target_of(VARIANTS[name](), label, 3)
    expected = VARIANTS[name]()(logits, target).item()
    assert VARIANTS[name](activation="none")(logits.softmax(1), target).item() == pytest.approx(expected, rel=1e-9)
    single, masks = overlapping((2, 1, 8, 8))
    target = maps_of(VARIANTS[name](), masks)
    expected = VARIANTS[name](activation="sigmoid")(single, target).item()
    found = VARIANTS[name](activation="none")(single.sigmoid(), target).item()
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_probabilities_of_0_and_1_give_finite_values_and_gradients(name, num_classes):
    _, label = random_case((2, 3, 8, 8))
    masks = channels_of(label, 3)[:, :num_classes]
    target = maps_of(VARIANTS[name](), masks)
    for probs in (masks.float(), masks.float().roll(1, dims=1) if num_classes > 1 else 1.0 - masks):
        probs = probs.clone().requires_grad_()
        value = VARIANTS[name](activation="none")(probs, target)
        value.backward()
        assert value.isfinite() and probs.grad.isfinite().all()


# Laws of all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 2, 3, 3), (1, 1, 3, 4), (1, 2, 2, 3, 2)])
@pytest.mark.parametrize("activation", ["sigmoid", "none"])
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_gradients_are_exact(name, activation, shape):
    logits, masks = overlapping(shape)
    loss = VARIANTS[name](activation=activation)
    target = maps_of(loss, masks)
    inputs = logits.sigmoid() if activation == "none" else logits
    assert torch.autograd.gradcheck(lambda x: loss(x, target), inputs.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_nan_logits_give_nan(name, activation):
    logits, label = random_case()
    loss = VARIANTS[name](activation=activation)
    target = target_of(loss, label, 3)
    logits[1, 2, 4, 5] = torch.nan
    assert loss(logits, target).isnan()


@pytest.mark.parametrize("name", ["boundary", "dice-ce", "focal"])
def test_a_compiled_loss_is_the_same(name):
    logits, label = random_case()
    loss = VARIANTS[name]()
    target = target_of(loss, label, 3)
    compiled = torch.compile(loss, backend="eager")
    assert compiled(logits, target).item() == pytest.approx(loss(logits, target).item(), rel=1e-12)


# Reduction ------------------------------------------------------------------------------------------------

VALUES = {  # the shape of what "none" gives: "voxels" (B, C, *spatial), "classes" (B, C), "images" (B,)
    **dict.fromkeys(VARIANTS, "voxels"), **dict.fromkeys(("gdl", "gdl-authors"), "images"),
    **dict.fromkeys(("dice", "dice-ce", "dice-focal", "exp-log", "tversky", "focal-tversky"), "classes"),
}
WEIGHTED = {"ce", "focal", "focal-root", "ce-authors", "focal-authors"}


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_values_of_reduction_none(name, activation):
    logits, masks = overlapping()
    if activation == "softmax":
        masks = channels_of(random_case()[1], 3)
    options = {"activation": activation, "classes": (0, 2)}
    mean, loss = VARIANTS[name](**options), VARIANTS[name](**options, reduction="none")
    target = maps_of(loss, masks)
    value, values = mean(logits, target), loss(logits, target)
    assert values.shape == {"voxels": (3, 2, 10, 12), "classes": (3, 2), "images": (3,)}[VALUES[name]]
    if not name.startswith(("ce", "focal", "wce", "unet-ce", "rrw-ce")) or name == "focal-tversky":
        assert values.mean().item() == pytest.approx(value.item(), rel=1e-9)
    elif name in WEIGHTED:
        count = masks[:, [0, 2]].sum() if activation == "softmax" else values.numel()
        assert (values.sum() / count).item() == pytest.approx(value.item(), rel=1e-9)
    else:       # weights times cross-entropies
        weights = values / losses.CrossEntropy(**options, reduction="none")(logits, masks).clamp_min(1e-300)
        assert (values.sum() / weights.sum()).item() == pytest.approx(value.item(), rel=1e-7)


def test_values_equal_those_of_pytorch_and_monai():
    logits, label = random_case()
    found = losses.CrossEntropy(reduction="none")(logits, label)
    torch.testing.assert_close(found.sum(dim=1), torch.nn.functional.cross_entropy(logits, label, reduction="none"))
    options = {"softmax": True, "to_onehot_y": True, "smooth_nr": 1e-5, "smooth_dr": 1e-5, "reduction": "none"}
    expected = monai.losses.DiceLoss(**options)(logits, label[:, None]).flatten(1)
    torch.testing.assert_close(losses.Dice(reduction="none")(logits, label), expected)
    logits, masks = overlapping()
    found = losses.CrossEntropy(activation="sigmoid", reduction="none")(logits, masks)
    torch.testing.assert_close(found, binary_cross_entropy_with_logits(logits, masks.double(), reduction="none"))
    expected = monai.losses.FocalLoss(reduction="none")(logits, masks).double()
    torch.testing.assert_close(losses.Focal(activation="sigmoid", reduction="none")(logits, masks), expected)


# Errors ---------------------------------------------------------------------------------------------------

LOGITS, LABEL, ONEHOT = torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5, dtype=torch.long), torch.zeros(2, 3, 4, 5)
SPACINGS = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.Dice(activation="relu"), "activation: expected softmax or sigmoid or none, found 'relu'"),
        (lambda: losses.Boundary(activation=None), "activation: expected .* found None"),
        (lambda: losses.Dice(reduction="sum"), "reduction: expected mean or none, found 'sum'"),
        (lambda: losses.Dice(ignore_index=2.0), "ignore_index: expected an integer or None, found 2.0"),
        (lambda: losses.Dice(ignore_index=True), "ignore_index: expected an integer or None, found True"),
        (lambda: losses.Dice()(LOGITS.numpy(), LABEL), "logits: expected floats .* found ndarray"),
        (lambda: losses.Dice()(LOGITS, LABEL.numpy()), "target: expected a label target .* found ndarray"),
        (lambda: losses.Dice(activation="sigmoid")(LOGITS[:, :0], LABEL), r"K >= 1, found .* \(2, 0, 4, 5\)"),
        (lambda: losses.Dice()(LOGITS, LABEL.float()), r"one-hot \(2, 3, 4, 5\), found torch.float32 \(2, 4, 5\)"),
        (lambda: losses.Dice()(LOGITS, LABEL[:, None].float()), r"found torch.float32 \(2, 1, 4, 5\)"),
        (lambda: losses.Dice()(LOGITS, LABEL.cfloat()), "found torch.complex64"),
        (lambda: losses.Dice()(LOGITS, ONEHOT[:, :2].long()), r"found torch.int64 \(2, 2, 4, 5\)"),
        (lambda: losses.Dice()(LOGITS, LABEL.to("meta")), "target: expected a tensor on cpu, found one on meta"),
        (lambda: losses.Dice()(LOGITS, LABEL + 3), "target: expected classes 0 to 2, found 3 to 3"),
        (lambda: losses.Dice()(LOGITS, LABEL - 1), "target: expected classes 0 to 2, found -1 to -1"),
        (lambda: losses.Dice(ignore_index=255)(LOGITS, LABEL + 254), "0 to 2 or 255, which is ignored, found 254"),
        (lambda: losses.Dice()(LOGITS, ONEHOT - 0.1), "target: expected classes 0 to 1, found -0.1"),
        (lambda: losses.Dice()(LOGITS, ONEHOT * torch.nan), "target: expected classes 0 to 1, found nan"),
        (lambda: losses.Dice(activation="sigmoid")(LOGITS[:, :1], LABEL + 2), "expected classes 0 to 1, found 2 to 2"),
        (lambda: losses.Boundary()(LOGITS, ONEHOT, (1.0, 2.0, 3.0)), "spacing: expected 2 positive values in mm"),
        (lambda: losses.Boundary()(LOGITS, ONEHOT, 1.0), "spacing: expected 2 positive values .* found 1.0"),
        (lambda: losses.Boundary()(LOGITS, ONEHOT, SPACINGS[:1]), r"a tensor \(2, 2\), found a tensor \(1, 2\)"),
        (lambda: losses.Dice()(LOGITS, LABEL, -SPACINGS), "spacing: expected 2 positive values"),
        (lambda: losses.Boundary().from_labels(LOGITS, LABEL.float()), "expected a label target of integers"),
        (lambda: losses.Boundary().from_labels(LOGITS, LABEL + 3), "target: expected classes 0 to 2, found 3"),
        (lambda: losses.Boundary().from_labels(LOGITS, LABEL, (1.0, 0.0)), "spacing: expected 2 positive values"),
    ],
)
def test_bad_input_raises_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_maps_of_the_docstring_fit_the_loss():
    logits, label = random_case()
    phi = distance_maps(label, 3)
    assert Boundary()(logits, phi).item() == pytest.approx(Boundary().from_labels(logits, label).item(), rel=1e-6)
