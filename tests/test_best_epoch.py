"""Which epoch is kept as the best, and which figures the learning rate follows: scores are given, not learnt."""

import csv
import shutil
from dataclasses import replace

import pytest
import torch
from commands import evaluate
from training_runs import read_log, run

from sliced_data.meta import read_meta
from training.lr_rules import LR_RULES
from training.settings import PAPER
from training.trainer import Trainer


def trained_with(scores, data, out, monkeypatch, **settings):
    """A run whose validation gives ``scores``, (volume, slice) DSC of each epoch; its weights after each epoch."""
    epochs, weights = iter(scores), []

    def validate(trainer, _):
        weights.append({name: value.clone() for name, value in trainer.network.state_dict().items()})
        volume, of_slices = next(epochs)
        return {"val_loss": 1.0, "val_dsc": of_slices, "val_dsc_3d": volume, "val_hd95_3d_mm": 9.0}

    monkeypatch.setattr(Trainer, "validate", validate)
    settings = replace(PAPER, width=1, epochs=len(scores), batch_size=4, precision="fp32", **settings)
    trainer = Trainer(settings, read_meta(data), torch.device("cpu"))
    out.mkdir(exist_ok=True)
    trainer.fit(out)
    return trainer, weights


# Volume and slice DSC of each epoch; the best epoch by either. An equal value later is no better.
SCORES = {
    "in the middle": ([(0.2, 0.3), (0.6, 0.1), (0.6, 0.9), (0.4, 0.9)], 1, 2),
    "falling": ([(0.5, 0.5), (0.4, 0.6), (0.3, 0.5)], 0, 1),
    "rising": ([(0.1, 0.6), (0.2, 0.5), (0.3, 0.4)], 2, 0),
    "never any": ([(0.0, 0.0), (0.0, 0.0)], 0, 0),
}


@pytest.mark.parametrize("selection", ["volume", "slice"])
@pytest.mark.parametrize("name", SCORES)
def test_the_best_epoch_is_the_first_of_the_highest_score(varied, tmp_path, monkeypatch, name, selection):
    scores, by_volume, by_slice = SCORES[name]
    best = by_volume if selection == "volume" else by_slice
    _, weights = trained_with(scores, varied, tmp_path, monkeypatch, selection=selection)
    state, last = (torch.load(tmp_path / f"{part}.pt", weights_only=True) for part in ("best", "last"))
    assert (state["epoch"], last["epoch"]) == (best, len(scores) - 1)
    assert (state["log"]["epoch"], state["log"]["val_dsc_3d"]) == (best, scores[best][0])
    for found, expected in ((state, weights[best]), (last, weights[-1])):
        assert found["model"].keys() == expected.keys()
        assert all(torch.equal(found["model"][name], value) for name, value in expected.items())


@pytest.mark.parametrize(("selection", "column"), [("volume", 0), ("slice", 1)])
def test_the_learning_rate_follows_the_score_that_selects(varied, tmp_path, monkeypatch, selection, column):
    """By the first score nothing is gained after epoch 0; by the second every epoch is better."""
    scores = [(0.5, 0.001 * epoch) for epoch in range(22)]
    trainer, _ = trained_with(scores, varied, tmp_path, monkeypatch, selection=selection)
    assert [row["lr"] for row in trainer.log] == [0.001] * (21 if column == 0 else 22) + [0.0005] * (column == 0)


def rates(rule, optimiser, scores):
    found = []
    for score in scores:
        rule.step(score)
        found.append(optimiser.param_groups[0]["lr"])
    return found


def make(name="plateau"):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return LR_RULES[name](optimiser, epochs=60), optimiser


def test_the_smallest_gain_is_one_and_an_equal_value_is_none():
    assert rates(*make(), [0.5 + 1e-9 * epoch for epoch in range(50)]) == [1.0] * 50
    assert rates(*make(), [0.5] * 21) == [1.0] * 20 + [0.5]


def test_a_plateau_that_resumes_counts_on():
    first, optimiser = make()
    before = rates(first, optimiser, [0.9, *[0.5] * 15])
    second = LR_RULES["plateau"](optimiser, epochs=60)
    second.load_state_dict(first.state_dict())
    after = rates(second, optimiser, [0.6] * 10)
    assert before == [1.0] * 16 and after == [1.0] * 4 + [0.5] * 6


def test_the_best_of_a_longer_run_is_held_against_all_its_epochs(varied, tmp_path, monkeypatch):
    trained_with([(0.5, 0), (0.8, 0)], varied, tmp_path, monkeypatch)
    longer = Trainer(
        replace(PAPER, width=1, epochs=3, batch_size=4, precision="fp32"), read_meta(varied), torch.device("cpu")
    )
    longer.restore(tmp_path / "last.pt")
    monkeypatch.setattr(Trainer, "validate", lambda *_: {
        "val_loss": 1.0, "val_dsc": 0.9, "val_dsc_3d": 0.7, "val_hd95_3d_mm": 9.0
    })
    longer.fit(tmp_path)
    assert len(longer.log) == 3 and torch.load(tmp_path / "best.pt", weights_only=True)["epoch"] == 1


def test_the_best_epoch_is_printed_with_its_own_figures(varied, tmp_path, capsys):
    """Of a run that really learns: its epochs differ, and the last is not the best."""
    run(varied, tmp_path / "run", "--width", "4", "--batch-size", "2", "--lr", "0.003", "--epochs", "4")
    scores = [(float(row["val_dsc_3d"]), float(row["val_hd95_3d_mm"])) for row in read_log(tmp_path / "run")]
    best = max(range(4), key=lambda epoch: scores[epoch][0])
    assert len(set(scores)) == 4 and best != 3
    dsc, hd95 = scores[best]
    assert f"best epoch {best} of 4: DSC {dsc:.3f}, HD95 {hd95:.2f} mm" in capsys.readouterr().out


def test_the_best_and_the_last_epoch_are_measured_as_they_are_asked_for(trained, tmp_path):
    log = read_log(trained)
    best = max(range(4), key=lambda epoch: float(log[epoch]["val_dsc_3d"]))
    out = shutil.copytree(trained, tmp_path / "run")
    for checkpoint, epoch in (("best", best), ("last", 3)):
        evaluate.main(["run", str(out), "--checkpoint", checkpoint, "--device", "cpu"])
        rows = list(csv.DictReader((out / "metrics.csv").open()))
        assert {(row["checkpoint"], row["epoch"]) for row in rows} == {(checkpoint, str(epoch))}
        mean = sum(float(row["dsc"]) for row in rows) / len(rows)
        assert mean == pytest.approx(float(log[epoch]["val_dsc_3d"]), abs=1e-6)
