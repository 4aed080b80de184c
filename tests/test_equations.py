"""Equations of the papers that no other test has, in numbers computed by hand; docs/MATH.md names them all."""

import numpy as np
import pytest
import torch

from boundary_loss import Boundary, Dice, GeneralizedDice, Rebalance, RegionWise, distance_maps
from boundary_loss.metrics import dsc, hd95
from boundary_loss.schedules import build
from losses import Objective


def random_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (2, 2, 9, 11), label (2, 9, 11) and signed distances (2, 2, 9, 11)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 9, 11, dtype=torch.float64, generator=generator)
    label = torch.zeros(2, 9, 11, dtype=torch.long)
    label[0, 2:6, 3:9], label[1, 4:8, 1:5] = 1, 1
    return logits, label, distance_maps(label, 2, (1.0, 0.7)).double()


@pytest.mark.parametrize("epoch", [0, 10, 200])
def test_the_objective_is_the_weighted_sum_of_equation_6(epoch):
    """Value and gradient: those of the regional loss and alpha times those of the boundary loss, weighed by hand."""
    logits, label, phi = random_batch()
    objective, schedule = Objective("gdl", "boundary", {}), Rebalance(0.01, 0.01)
    alpha = min(0.99, 0.01 * (epoch + 1))
    leaf = logits.clone().requires_grad_()
    found = objective.weigh(objective.terms(leaf, label, phi, None), objective.weights(schedule, epoch))
    found.backward()
    gradients = []
    for loss, target in ((GeneralizedDice(), label), (Boundary(), phi)):
        alone = logits.clone().requires_grad_()
        value = loss(alone, target)
        value.backward()
        gradients.append((value.item(), alone.grad))
    (region, of_region), (boundary, of_boundary) = gradients
    assert found.item() == pytest.approx((1 - alpha) * region + alpha * boundary, rel=1e-12)
    torch.testing.assert_close(leaf.grad, (1 - alpha) * of_region + alpha * of_boundary)


def test_two_class_gradient_of_the_region_wise_papers_equation_5():
    """y (1 - y) (z1 - z2): equal at t and 1 - t, largest at one half, next to nothing at both ends."""
    t = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    logits = torch.stack([t.log(), (1 - t).log()])[None, :, None].requires_grad_()          # (1, 2, 1, N)
    z = torch.tensor([3.0, -1.5], dtype=torch.float64).view(1, 2, 1, 1).expand(logits.shape)
    (RegionWise()(logits, z) * z.numel()).backward()
    found = logits.grad[0, 0, 0]
    torch.testing.assert_close(found, t * (1 - t) * 4.5)
    torch.testing.assert_close(found, found.flip(0))
    assert found.argmax() == 499 and found[499] == pytest.approx(4.5 / 4) and found[0] < 0.005
    torch.testing.assert_close(logits.grad[0, 1, 0], -found)


def test_dice_and_hausdorff_of_the_region_wise_papers_equations_6_and_7():
    """Two bars of three voxels, one voxel apart in a row of 2 mm: Dice 2 * 2 / 6, every border voxel at 0 or 2 mm."""
    a, b = np.zeros((2, 1, 1, 8), bool)
    a[0, 0, 2:5], b[0, 0, 3:6] = True, True
    assert dsc(a, b) == pytest.approx(4 / 6)
    assert hd95(a, b, (1.0, 1.0, 2.0)) == pytest.approx(2.0)


def test_equation_4_is_twice_the_integral_between_the_contours():
    """Half the distance: phi summed over S less that over G, drawn by hand in one row of voxels of 1 mm."""
    phi = distance_maps(np.array([[0, 0, 1, 1, 1, 0, 0, 0]], np.uint8), 2, (1.0, 1.0))[1, 0]
    assert phi.tolist() == [2, 1, -1, -2, -1, 1, 2, 3]
    s = np.array([0, 0, 0, 1, 1, 1, 1, 0])      # lost 1 at distance 1, gained at distances 1 and 2
    g = np.array([0, 0, 1, 1, 1, 0, 0, 0])
    assert (phi * s).sum() - (phi * g).sum() == 1 + 1 + 2
    logits = 200.0 * (2 * torch.tensor(np.stack([1 - s, s]))[None, :, None] - 1).double()
    reference = 200.0 * (2 * torch.tensor(np.stack([1 - g, g]))[None, :, None] - 1).double()
    maps = torch.from_numpy(np.stack([-phi, phi]))[None, :, None]
    difference = Boundary()(logits, maps) - Boundary()(reference, maps)
    assert difference.item() * 8 == pytest.approx(4)


def test_gradual_contribution_of_section_4_4_is_the_weighted_sum():
    """alpha L_Dice + (1 - alpha) L_RW, of the objective with the gradual schedule."""
    logits, label, phi = random_batch()
    objective = Objective("dice", "region-wise", {})
    weights = objective.weights(build("gradual", start=0.01, step=0.01, epochs=100), 30)
    found = objective.weigh(objective.terms(logits, label, phi, None), weights).item()
    alpha = 0.7
    assert weights == pytest.approx((alpha, 1 - alpha))
    assert found == pytest.approx(alpha * Dice()(logits, label).item() + (1 - alpha) * RegionWise()(logits, phi).item())
