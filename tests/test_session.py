"""Stops in the middle of a run, and what is left of it for the next session."""

import os
import signal
import warnings
from dataclasses import replace

import pytest
import torch
from raw_files import call
from training_runs import SMALL, assert_same_run, read_log, run

import train
from training import session, trainer
from training.run_state import check_like
from training.settings import PAPER, Execution
from training.trainer import Trainer
from utils import InputError

FLAGS = ("--contour", "boundary", "--batch-size", "1", "--epochs", "2")


def signal_at(monkeypatch, owner, name, number, sent=signal.SIGTERM):
    """Send this process a signal when ``owner.name`` is called for the ``number``-th time (from 0)."""
    original, calls = getattr(owner, name), []

    def called(*args, **options):
        calls.append(name)
        if len(calls) == number + 1:
            os.kill(os.getpid(), sent)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, called)


@pytest.fixture(scope="module")
def whole(sliced, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    run(sliced, out, *FLAGS)
    return out


# Two epochs of six steps: the first step, the last of an epoch, the first of the next; in and after validation.
STOPS = {
    "first step": (Trainer, "step", 0, "epoch 0, step 1"),
    "middle of an epoch": (Trainer, "step", 3, "epoch 0, step 4"),
    "last step of an epoch": (Trainer, "step", 5, "epoch 0, step 6"),
    "second epoch": (Trainer, "step", 7, "epoch 1, step 2"),
    "validation": (Trainer, "validate", 0, "epoch 0, step 6"),
    "metrics": (trainer, "volume_metrics", 1, "after the last epoch, 1; the run is whole"),
    "saving an epoch": (Trainer, "save_epoch", 0, "epoch 1, step 0"),
    "saving the best": (Trainer, "save_weights", 0, "epoch 1, step 0"),
}


@pytest.mark.parametrize("name", STOPS)
def test_a_run_stopped_anywhere_goes_on_bit_for_bit(sliced, whole, tmp_path, monkeypatch, capsys, name):
    owner, function, number, where = STOPS[name]
    sent = signal.SIGINT if number % 2 else signal.SIGTERM
    signal_at(monkeypatch, owner, function, number, sent)
    arguments = ("--data", sliced, "--out", tmp_path / "run", *SMALL, *FLAGS)
    code = call(train, *arguments, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    suffix = "" if "whole" in where else "; --resume goes on from there"
    assert code == 130 and error == f"train.py: stopped {'at ' * bool(suffix)}{where}{suffix}\n"
    monkeypatch.undo()
    assert len(read_log(tmp_path / "run")) == (2 if "whole" in where else int(where[6]))
    run(sliced, tmp_path / "run", *FLAGS, "--resume")
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.parametrize("losses", [("--contour", "none"), ("--region", "none", "--contour", "boundary")])
def test_a_run_of_one_loss_stopped_within_an_epoch_resumes(sliced, tmp_path, monkeypatch, losses):
    """The loss that it does not have is NaN in each step, and no damage."""
    flags = ("--batch-size", "1", "--epochs", "2", *losses)
    run(sliced, tmp_path / "whole", *flags)
    signal_at(monkeypatch, Trainer, "step", 7)
    assert call(train, "--data", sliced, "--out", tmp_path / "run", *SMALL, *flags, monkeypatch=monkeypatch) == 130
    monkeypatch.undo()
    run(sliced, tmp_path / "run", *flags, "--resume")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_run_stopped_again_and_again_goes_on_bit_for_bit(sliced, whole, tmp_path, monkeypatch):
    for stops in range(20):
        with monkeypatch.context() as patch:
            signal_at(patch, Trainer, "step", 0)
            try:
                run(sliced, tmp_path / "run", *FLAGS, "--resume")
            except KeyboardInterrupt as stopped:
                assert f"epoch {stops // 6}, step {stops % 6 + 1};" in str(stopped)
                continue
        break
    assert stops == 12
    assert_same_run(whole, tmp_path / "run")


def test_a_second_ctrl_c_stops_at_once(sliced, tmp_path, monkeypatch, capsys):
    signal_at(monkeypatch, Trainer, "step", 0, signal.SIGINT)
    signal_at(monkeypatch, torch.optim.Adam, "step", 0, signal.SIGINT)
    code = call(train, "--data", sliced, "--out", tmp_path / "run", *SMALL, *FLAGS, monkeypatch=monkeypatch)
    assert code == 130 and capsys.readouterr().err == "train.py: interrupted\n"
    assert not (tmp_path / "run" / "last.pt").exists() and not list((tmp_path / "run").glob(".*"))


def test_signals_are_as_before_after_a_run(sliced, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run(sliced, tmp_path / "run", "--epochs", "1")
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_a_stop_saves_no_state_that_is_not_finite(sliced, tmp_path, monkeypatch, capsys):
    """The step before the stop made the loss NaN: that is said, and last.pt stays the one before."""
    step, done = Trainer.step, []

    def broken(trainer, batch, epoch, weights):
        step(trainer, batch, epoch, weights)
        done.append(epoch)
        if len(done) == 8:
            trainer.totals.steps[trainer.totals.n_steps - 1, 0] = float("nan")
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "step", broken)
    code = call(train, "--data", sliced, "--out", tmp_path / "run", *SMALL, *FLAGS, monkeypatch=monkeypatch)
    assert code == 1 and "epoch 1, step 1, slices case_" in capsys.readouterr().err
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert (state["epoch"], state["so_far"], len(state["log"])) == (0, None, 1)


@pytest.mark.parametrize(("found", "expected", "said"), [
    ([1], {"weight": 1}, "a list as its model"), (3.0, {"weight": 1}, "a float as its model"),
    ({"weight": 1}, [1], "a dict as its model"), ([1, 2], [1], "a list as its model"),
])
def test_a_part_of_another_kind_is_named(found, expected, said):
    with pytest.raises(ValueError, match=said):
        check_like(found, expected, "model")


@pytest.mark.parametrize(("device", "places"), [("cpu", "--resident stream"), ("cuda", "--resident host or stream")])
def test_the_advice_names_what_makes_a_run_smaller(device, places):
    settings = replace(PAPER, batch_size=8, width=64)
    words = session.memory_words(settings, torch.device(device))
    assert words == f"take less than --batch-size 8 or --width 64, or {places}"


def test_to_detect_anomalies_shows_no_other_warnings(tmp_path):
    """Of the filters that a session adds: torch's warning of where the operation was called, and that alone."""
    execution = Execution(tmp_path, tmp_path / "run", "cpu", "auto", detect_anomaly=True, snapshot_epochs=(),
                          resume=False, check=False, encoder_file=None)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("ignore")
        with pytest.raises(InputError):
            session.run_session(PAPER, execution)
        for words in ("Error detected in ConvolutionBackward0. Traceback of forward call", "another"):
            warnings.warn(words, UserWarning, stacklevel=1)
    assert [str(warning.message)[:17] for warning in shown] == ["Error detected in"]
