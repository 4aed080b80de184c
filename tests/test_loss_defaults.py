"""What a loss without arguments computes: its paper's numbers, by formulas of its own in NumPy."""

import numpy as np
import pytest
import torch

from boundary_loss import losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (2, 3, 6, 7))
LABEL = RNG.integers(0, 3, (2, 6, 7))
TARGET = np.stack([k == LABEL for k in range(3)], axis=1).astype(float)
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
TRUE_P, TRUE_N = (PROBS * TARGET).sum((2, 3)), ((1 - PROBS) * (1 - TARGET)).sum((2, 3))
FALSE_P, FALSE_N = (PROBS * (1 - TARGET)).sum((2, 3)), ((1 - PROBS) * TARGET).sum((2, 3))
DICE = 1 - np.mean((2 * TRUE_P + 1e-5) / (2 * TRUE_P + FALSE_P + FALSE_N + 1e-5))
OWN = (PROBS * TARGET).sum(axis=1)


def tversky(fp, fn):
    return 1 - TRUE_P / (TRUE_P + fp * FALSE_P + fn * FALSE_N)


def focal(gamma):
    return np.mean(-((1 - OWN) ** gamma) * np.log(OWN))


EXPECTED = {
    # Salehi et al. 2017: 0.3 for false positives, 0.7 for false negatives.
    "Tversky": ({}, np.mean(tversky(0.3, 0.7))),
    "Tversky of other weights": ({"alpha": 0.9, "beta": 0.2}, np.mean(tversky(0.9, 0.2))),
    # Abraham and Khan 2018: to the power 3/4.
    "FocalTversky": ({}, np.mean(tversky(0.3, 0.7) ** 0.75)),
    "Tversky smoothed": (
        {"smooth": 9.0}, np.mean((0.3 * FALSE_P + 0.7 * FALSE_N) / (TRUE_P + 0.3 * FALSE_P + 0.7 * FALSE_N + 9)),
    ),
    "Dice smoothed": ({"smooth": 9.0}, 1 - np.mean((2 * TRUE_P + 9) / (2 * TRUE_P + FALSE_P + FALSE_N + 9))),
    "Focal": ({}, focal(2)),
    "Focal of another gamma": ({"gamma": 0.5}, focal(0.5)),
    "Dice": ({}, DICE),
    "DiceCrossEntropy": ({}, DICE + np.mean(-np.log(OWN))),
    "DiceCrossEntropy of another weight": ({"weight": 0.3}, DICE + 0.3 * np.mean(-np.log(OWN))),
    "DiceFocal": ({}, DICE + focal(2)),
    "DiceFocal of another gamma": ({"gamma": 3.5}, DICE + focal(3.5)),
    "DiceFocal of another weight": ({"weight": 0.3}, DICE + 0.3 * focal(2)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_loss_is_its_formula(name):
    options, expected = EXPECTED[name]
    loss = getattr(losses, name.split()[0])(**options)
    found = float(loss(torch.from_numpy(LOGITS), torch.from_numpy(LABEL)))
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_formulas_are_told_apart():
    assert len({round(float(expected), 3) for _, expected in EXPECTED.values()}) == len(EXPECTED)
    assert FALSE_P.sum() == pytest.approx(FALSE_N.sum()) and TRUE_N.all()
