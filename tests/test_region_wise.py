"""The region-wise paper's numbers and Propositions 1 to 5, in float64 numpy written from its equations."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from boundary_loss import distance, losses

SHAPE = (9, 11)


def two_class_case(seed=0) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Logits (1, 2, H, W), softmax of the foreground and foreground mask (H, W)."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(2 * rng.standard_normal((1, 2, *SHAPE)))
    mask = ndimage.uniform_filter(rng.random(SHAPE), 3) < 0.5
    difference = (logits[0, 1] - logits[0, 0]).numpy()
    return logits, 1 / (1 + np.exp(-difference)), mask


def map_of(mask: np.ndarray, kind: str, **settings) -> torch.Tensor:
    return torch.from_numpy(distance.region_wise_map(mask.astype(np.uint8), 2, kind, **settings))[None]


def sum_over_pixels_and_classes(loss: torch.nn.Module, logits: torch.Tensor, z: torch.Tensor) -> float:
    """A region-wise loss without its normalisation by 1 / (N K), as the paper's equations print it."""
    return loss(logits, z).item() * z.numel()


# Definition, Eq. 1 and 2 --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("z", "value", "gradient"),
    [
        ((0, 0, 0, -0.6), -0.36, (0.04, 0.04, 0.07, -0.14)),
        ((2, 2, 2, -0.6), 0.44, (0.16, 0.16, 0.31, -0.62)),
    ],
)
def test_numeric_example_of_section_3_3(z, value, gradient):
    logits = torch.tensor([0.1, 0.1, 0.2, 0.6], dtype=torch.float64).log().view(1, 4, 1, 1).requires_grad_()
    found = 4 * losses.RegionWise()(logits, torch.tensor(z, dtype=torch.float64).view(1, 4, 1, 1))
    found.backward()
    assert found.item() == pytest.approx(value, abs=1e-12)
    np.testing.assert_allclose(logits.grad.flatten(), gradient, atol=0.0051)  # printed with two digits


def test_value_and_gradient_are_equations_1_and_2():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.standard_normal((2, 3, *SHAPE))).requires_grad_()
    z = rng.standard_normal((2, 3, *SHAPE))
    found = losses.RegionWise()(logits, torch.from_numpy(z))
    found.backward()
    y = np.exp(logits.detach().numpy())
    y /= y.sum(axis=1, keepdims=True)
    assert found.item() == pytest.approx((y * z).sum(axis=1).mean() / 3, rel=1e-12)
    expected = [sum(y[:, k] * y[:, m] * (z[:, k] - z[:, m]) for m in range(3) if m != k) for k in range(3)]
    np.testing.assert_allclose(logits.grad, np.stack(expected, axis=1) / z.size, atol=1e-12)


def negative_components(z: tuple[float, ...]) -> np.ndarray:
    """How many gradient components are negative, over a fine grid inside the simplex of softmax vectors."""
    n = 120
    simplex = [(i, j, n - i - j) for i in range(1, n) for j in range(1, n - i)]
    probs = torch.tensor(simplex, dtype=torch.float64).T / n
    logits = probs.log().view(1, 3, 1, -1).requires_grad_()
    target = torch.tensor(z, dtype=torch.float64).view(1, 3, 1, 1).expand(logits.shape)
    losses.RegionWise()(logits, target).backward()
    return (logits.grad[0, :, 0] < -1e-12 / logits.numel()).sum(dim=0).numpy()


def test_boundary_maps_raise_two_classes_on_more_than_half_of_the_simplex_and_rectified_ones_never():
    unrectified = negative_components((12.0, 4.0, -3.0))
    assert set(unrectified) == {1, 2}
    assert (unrectified == 2).mean() > 0.5
    assert set(negative_components((10.0, 10.0, -3.0))) == {1}


def test_rrw_maps_of_an_image_never_raise_a_wrong_class_and_boundary_maps_do():
    label = np.zeros((12, 16), np.uint8)
    label[2:9, 2:7], label[4:11, 7:13], label[0, 15] = 1, 2, 3
    logits = torch.from_numpy(2 * np.random.default_rng(0).standard_normal((1, 4, 12, 16)))
    wrong = label != np.arange(4)[:, None, None]
    lowest = {}
    for kind in ("rrw", "boundary"):
        leaf = logits.clone().requires_grad_()
        losses.RegionWise()(leaf, torch.from_numpy(distance.region_wise_map(label, 4, kind))[None]).backward()
        lowest[kind] = leaf.grad[0].numpy()[wrong].min()
    assert lowest["rrw"] > 0 > lowest["boundary"]


def test_equal_components_give_no_gradient():
    logits = torch.randn(1, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    losses.RegionWise()(logits, torch.full((1, 4, 5, 5), 3.0)).backward()
    assert logits.grad.abs().max() < 1e-15


# Propositions -------------------------------------------------------------------------------------------


def test_proposition_1_active_contour_without_length():
    logits, y_hat, y = two_class_case()
    c1, c2 = 1, 0
    region = (y_hat * (c1 - y) ** 2).sum() + ((1 - y_hat) * (c2 - y) ** 2).sum()  # Eq. 18
    found = sum_over_pixels_and_classes(losses.RegionWise(), logits, map_of(y, "ac"))
    assert found == pytest.approx(region, rel=1e-9)
    ours = losses.ActiveContour(length_weight=0.0)(logits, torch.from_numpy(y)[None].long())
    assert ours.item() * y.size == pytest.approx(region, rel=1e-9)


def test_proposition_2_boundary_loss():
    logits, y_hat, mask = two_class_case()
    edt = ndimage.distance_transform_edt
    phi = np.where(mask, -edt(mask, sampling=(2.0, 0.7)), edt(~mask, sampling=(2.0, 0.7)))
    z = map_of(mask, "boundary", spacing=(2.0, 0.7))
    found = sum_over_pixels_and_classes(losses.RegionWise(), logits, z)
    both_classes = (phi * y_hat - phi * (1 - y_hat)).sum()  # Eq. 24: the background's map is -phi
    assert found == pytest.approx(both_classes, rel=1e-6)
    assert found == pytest.approx(losses.Boundary(classes=(0, 1))(logits, z).item() * z.numel(), rel=1e-9)
    foreground = losses.Boundary()(logits, z).item() * mask.size  # Kervadec's Eq. 5 sums the foreground only
    assert found == pytest.approx(2 * foreground - phi.sum(), rel=1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 0.7)])
def test_proposition_3_one_sided_hausdorff(spacing):
    logits, y_hat, mask = two_class_case()
    edt = ndimage.distance_transform_edt
    squared = edt(mask, sampling=spacing) ** 2 + edt(~mask, sampling=spacing) ** 2
    one_sided = ((mask - y_hat) ** 2 * squared).mean()  # Eq. 26
    z = map_of(mask, "hausdorff", spacing=spacing)
    found = sum_over_pixels_and_classes(losses.RegionWiseSquared(), logits, z) / mask.size
    assert found == pytest.approx(one_sided, rel=1e-6)
    hausdorff = losses.Hausdorff(one_sided=True)(logits, torch.from_numpy(mask)[None].long(), spacing=spacing)
    assert hausdorff.item() == pytest.approx(one_sided, rel=1e-6)


def test_proposition_4_cao():
    logits, y_hat, mask = two_class_case()
    alpha, beta = np.random.default_rng(1).random((2, *SHAPE))
    inside = -beta * (1 - y_hat) + alpha * y_hat
    outside = alpha * (1 - y_hat) - beta * y_hat
    expected = inside[mask].sum() + outside[~mask].sum()  # Eq. 31
    z = map_of(mask, "cao", alpha=alpha, beta=beta)
    assert sum_over_pixels_and_classes(losses.RegionWise(), logits, z) == pytest.approx(expected, rel=1e-6)


def test_proposition_5_region_based_loss():
    logits, y_hat, y = two_class_case()
    expected = (y * (y - y_hat) + (1 - y) * y_hat).sum()  # Eq. 32
    found = sum_over_pixels_and_classes(losses.RegionWise(), logits, map_of(y, "ac"))
    assert found == pytest.approx(expected, rel=1e-9)


def test_active_contour_map_is_cao_s_between_zero_and_one():
    _, _, mask = two_class_case()
    assert torch.equal(map_of(mask, "ac"), map_of(mask, "cao", alpha=0.0, beta=-1.0))


# Losses around the map ----------------------------------------------------------------------------------


def test_weighted_cross_entropy_uses_the_magnitude_of_the_own_class():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (6, 7)).repeat(2, axis=0)
    logits = torch.from_numpy(rng.standard_normal((1, 3, 12, 7)))
    z = distance.region_wise_map(label, 3, "rrw")
    own = np.take_along_axis(z, label[None], axis=0)[0]
    log_y = torch.log_softmax(logits, dim=1)[0].numpy()
    nll = -np.take_along_axis(log_y, label[None], axis=0)[0]
    found = losses.RegionWiseCrossEntropy()(logits, torch.from_numpy(z)[None]).item()
    assert found == pytest.approx((-own * nll).sum() / -own.sum(), rel=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_length_of_a_plane_is_its_area(axis):
    label = torch.zeros(6, 7, 8, dtype=torch.long)
    label.narrow(axis, 0, 3).fill_(1)
    logits = 50 * (2.0 * torch.stack([1 - label, label])[None] - 1)
    found = losses.ActiveContour(region_weight=0.0)(logits, label[None]).item() * label.numel()
    assert found == pytest.approx(label.numel() / label.shape[axis], rel=1e-4)


def test_length_and_region_add_up():
    logits, y_hat, mask = two_class_case()
    target = torch.from_numpy(mask)[None].long()
    down = np.diff(y_hat, axis=0, append=y_hat[-1:])
    across = np.diff(y_hat, axis=1, append=y_hat[:, -1:])
    region = np.abs(y_hat - mask).mean()
    expected = np.hypot(down, across).mean() + 0.3 * region
    assert losses.ActiveContour(region_weight=0.3)(logits, target).item() == pytest.approx(expected, rel=1e-5)
