"""Optimisers, learning-rate rules and classes of the losses, each acting as its setting says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from training_runs import run

from sliced_data.meta import read_meta
from training.checks import check_settings
from training.lr_rules import LR_RULES
from training.objective import build_objective
from training.optimisers import build_optimiser
from training.settings import PAPER, Settings
from training.trainer import Trainer
from utils import InputError


def steps(settings: Settings, gradients: list[list[float]]) -> np.ndarray:
    """Two weights of 1 and 2 after steps with given gradients."""
    weights = nn.Linear(2, 1, bias=False)
    weights.weight.data = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    optimiser = build_optimiser(settings, weights)
    for gradient in gradients:
        weights.weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimiser.step()
    return weights.weight.data[0].numpy()


GRADIENTS = [[0.5, -1.0], [0.25, 3.0], [-1.0, 0.125]]


def adam_by_hand(lr: float, betas: tuple[float, float], decay: float) -> np.ndarray:
    """Kingma and Ba 2015, Algorithm 1, with decay added to the gradient."""
    w, m, v = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    for t, g in enumerate(GRADIENTS, start=1):
        g = np.array(g) + decay * w
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        w = w - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + 1e-8)
    return w


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.99), (0.5, 0.9)])
@pytest.mark.parametrize("decay", [0.0, 3e-5, 0.1])
def test_adam_is_its_algorithm(betas, decay):
    found = steps(replace(PAPER, lr=0.01, betas=betas, weight_decay=decay), GRADIENTS)
    assert found == pytest.approx(adam_by_hand(0.01, betas, decay), rel=1e-12)


def test_sgd_has_nesterov_momentum():
    w, v = np.array([1.0, 2.0]), np.zeros(2)
    for g in GRADIENTS:
        g = np.array(g) + 0.1 * w
        v = 0.99 * v + g
        w = w - 0.01 * (g + 0.99 * v)
    found = steps(replace(PAPER, optimiser="sgd", lr=0.01, weight_decay=0.1), GRADIENTS)
    assert found == pytest.approx(w, rel=1e-12)


def test_poly_falls_as_the_formula_says():
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    rule, rates = LR_RULES["poly"](optimiser, epochs=10), []
    for _ in range(10):
        rates.append(optimiser.param_groups[0]["lr"])
        rule.step(0.5)
    assert rates == pytest.approx([0.2 * (1 - epoch / 10) ** 0.9 for epoch in range(10)])
    assert optimiser.param_groups[0]["lr"] == 0.0


def test_a_rule_resumes_where_it_was():
    for name in ("poly", "constant", "authors"):
        one, two = (torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2) for _ in range(2))
        whole, first = LR_RULES[name](one, epochs=9), LR_RULES[name](two, epochs=9)
        for epoch in range(9):
            whole.step(-epoch)
        for epoch in range(4):
            first.step(-epoch)
        second = LR_RULES[name](two, epochs=9)
        second.load_state_dict(first.state_dict())
        for epoch in range(4, 9):
            second.step(-epoch)
        assert one.param_groups[0]["lr"] == two.param_groups[0]["lr"], name


def test_the_log_has_the_rate_of_each_epoch(sliced, tmp_path):
    log = run(sliced, tmp_path / "run", "--lr-rule", "poly", "--lr", "0.01")
    assert [float(row["lr"]) for row in log] == pytest.approx([0.01 * (1 - e / 3) ** 0.9 for e in range(3)])
    constant = run(sliced, tmp_path / "constant", "--lr-rule", "constant", "--lr", "0.01")
    assert [float(row["lr"]) for row in constant] == [0.01] * 3


def test_a_rate_spread_over_the_epochs_cannot_be_prolonged(sliced, tmp_path):
    run(sliced, tmp_path / "run", "--lr-rule", "poly", "--epochs", "1")
    with pytest.raises(InputError, match="epochs 2, found one with 1"):
        run(sliced, tmp_path / "run", "--lr-rule", "poly", "--epochs", "2", "--resume")


def test_a_clipped_gradient_has_the_norm_that_was_asked_for(sliced):
    def trained(clip):
        # One step of SGD moves the weights by 1.99 times rate times gradient: the first step of Nesterov's momentum.
        settings = replace(PAPER, width=2, optimiser="sgd", lr=1.0, gradient_clip=clip, precision="fp32")
        trainer = Trainer(settings, read_meta(sliced), torch.device("cpu"))
        before = [p.detach().clone() for p in trainer.network.parameters()]
        trainer.step(trainer.train.take(torch.arange(4)).prepared(), 0, (1.0, 0.0))
        moved = [(b - p.detach()) / 1.99 for b, p in zip(before, trainer.network.parameters(), strict=True)]
        return float(torch.cat([m.flatten() for m in moved]).norm()), float(trainer.totals.steps[0, 3])

    norm, logged = trained(None)
    assert norm == pytest.approx(logged, rel=1e-3) and norm > 0.02
    clipped, logged_still = trained(norm / 4)
    assert clipped == pytest.approx(norm / 4, rel=1e-3) and logged_still == pytest.approx(logged, rel=1e-5)
    assert trained(4 * norm)[0] == pytest.approx(norm, rel=1e-3)


def test_classes_of_the_losses():
    def found(**settings):
        objective = build_objective(replace(PAPER, region="dice", contour="boundary", **settings), num_classes=3)
        return objective.region.classes, objective.contour.classes

    assert found() == (None, None)
    assert found(region_classes="foreground") == ((1, 2), None)
    assert found(contour_classes="all") == (None, (0, 1, 2))
    logits, phi = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    over_all = build_objective(replace(PAPER, contour="boundary", contour_classes="all"), num_classes=3).contour
    assert float(over_all(logits, phi)) == pytest.approx(float((logits.softmax(1) * phi).mean()), rel=1e-5)


def test_a_schedule_has_epochs_of_its_own():
    spread = replace(PAPER, contour="boundary", alpha="busi-linear", epochs=20, alpha_epochs=11)
    assert [spread.schedule().weights(e)[1] for e in (0, 5, 10, 19)] == pytest.approx([0, 0.5, 1, 1])
    assert replace(spread, alpha_epochs=None).schedule().weights(19)[1] == 1.0
    assert not spread.is_spread and replace(spread, alpha_epochs=None).is_spread


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contour_alone_weight": 0.0}, "--contour-alone-weight: expected a positive number, found 0.0"),
        ({"contour_alone_weight": float("nan")}, "--contour-alone-weight: expected a positive number, found nan"),
        ({"width": 0}, "--width: expected at least 1, found 0"),
        ({"alpha": "steep"}, "--alpha: expected one of constant, .*, found steep"),
        ({"betas": (0.9, 1.0)}, "--betas: expected two numbers from 0 to below 1, found \\(0.9, 1.0\\)"),
        ({"weight_decay": -1.0}, "--weight-decay: expected a number of at least 0, found -1.0"),
        ({"gradient_clip": 0.0}, "--gradient-clip: expected a positive number, found 0.0"),
        ({"contour": "boundary", "alpha": "busi-linear", "alpha_epochs": 0}, "--alpha busi-linear: epochs"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        check_settings(replace(PAPER, **settings))
