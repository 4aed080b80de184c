"""Snapshots: the weights after chosen epochs, which change nothing else of a run."""

import pytest
import torch
from training_runs import assert_same_run, read_log, run

from training.snapshots import snapshot_epochs
from training.trainer import Trainer
from utils import InputError


@pytest.fixture(scope="module")
def kept(sliced, tmp_path_factory):
    """A run of three epochs with snapshots after the first and the last."""
    out = tmp_path_factory.mktemp("kept") / "run"
    run(sliced, out, "--width", "2", "--snapshot-epochs", "3", "1", "1")
    return out


def test_a_snapshot_is_the_weights_after_that_many_epochs(kept, sliced, tmp_path):
    """Its oracle is a run that ends there; the rest of the run is that of one without snapshots."""
    assert snapshot_epochs(kept) == [1, 3] and sorted(path.name for path in kept.glob("epoch*")) == [
        "epoch0001.pt", "epoch0003.pt"]
    run(sliced, tmp_path / "one", "--width", "2", "--epochs", "1")
    for name, other in (("epoch0001", tmp_path / "one" / "last.pt"), ("epoch0003", kept / "last.pt")):
        found, expected = (torch.load(path, weights_only=True) for path in (kept / f"{name}.pt", other))
        assert found["epoch"] == expected["epoch"] and found["fingerprint"] == expected["fingerprint"]
        assert all(torch.equal(value, expected["model"][key]) for key, value in found["model"].items())
    run(sliced, tmp_path / "without", "--width", "2")
    assert_same_run(kept, tmp_path / "without")


def test_a_run_that_stopped_keeps_its_snapshots_and_makes_the_rest(kept, sliced, tmp_path, monkeypatch):
    flags = ("--width", "2", "--snapshot-epochs", "1", "3")
    original = Trainer.save_weights

    def stop_before_them(trainer, out, snapshots):
        """The kill comes between last.pt and the first snapshot."""
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "save_weights", stop_before_them)
    with pytest.raises(KeyboardInterrupt):
        run(sliced, tmp_path / "run", *flags)
    assert snapshot_epochs(tmp_path / "run") == [] and len(read_log(tmp_path / "run")) == 1
    monkeypatch.setattr(Trainer, "save_weights", original)
    run(sliced, tmp_path / "run", *flags, "--resume")
    for name in ("epoch0001.pt", "epoch0003.pt"):
        found, expected = (torch.load(path / name, weights_only=True)["model"] for path in (tmp_path / "run", kept))
        assert all(torch.equal(value, expected[key]) for key, value in found.items())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--snapshot-epochs", "0"), "--snapshot-epochs: expected 1 to 3, the epochs of the run, found 0"),
        (("--snapshot-epochs", "2", "4"), "--snapshot-epochs: expected 1 to 3, the epochs of the run, found 4"),
        (("--snapshot-epochs", "1", "2", "--resume"), "found none after 2, which is trained already"),
        (("--snapshot-epochs", "1", "2", "--check"), "found none after 2, which is trained already"),
    ],
)
def test_a_snapshot_that_cannot_be_is_refused(kept, sliced, flags, words):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in kept.iterdir())
    with pytest.raises(InputError, match=words):
        run(sliced, kept, "--width", "2", *flags)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in kept.iterdir()) == before


def test_a_check_passes_a_run_that_has_the_snapshots(kept, sliced):
    for wanted in ((), ("--snapshot-epochs", "1", "3")):
        run(sliced, kept, "--width", "2", "--check", *wanted)
