"""A run's folder, seed and checkpoints belong together, and no run counts twice."""

import hashlib
import shutil
from dataclasses import replace

import pytest
import torch
from commands import evaluate
from raw_files import call
from result_folders import case, write_run
from training_runs import SMALL

import train
from reporting.runs import find_runs
from training.checkpoints import load_checkpoint, save_checkpoint
from training.settings import PAPER
from utils import InputError, write_rows

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "seed", "code"), [("seed0", 5, 2), ("seed00", 0, 2), ("seed5", 5, 0), ("other", 5, 0)]
)
def test_the_folder_of_a_run_has_its_seed(sliced, tmp_path, monkeypatch, capsys, name, seed, code):
    flags = (*SMALL, "--epochs", "1", "--seed", seed)
    assert call(train, "--data", sliced, "--out", tmp_path / name, *flags, monkeypatch=monkeypatch) == code
    assert (tmp_path / name).exists() == (code == 0)
    if code:
        assert f"expected a folder named seed{seed} for --seed {seed}, found {name}" in capsys.readouterr().err


def test_a_run_under_another_seeds_name_is_in_no_table(tmp_path):
    for folder, seed in (("seed0", 0), ("seed1", 0)):
        write_run(tmp_path / "gdl" / folder, [case("1", 0.5, 3)], {"seed": seed})
    with pytest.raises(InputError, match="seed1/config.json: expected the run of seed 1, .* found seed 0"):
        find_runs(tmp_path, "gdl")
    assert len(find_runs(tmp_path, "gdl", [0])) == 1


def test_a_seed_has_one_spelling(tmp_path):
    for folder in ("seed0", "seed00"):
        write_run(tmp_path / "gdl" / folder, [case("1", 0.5, 3)], {"seed": 0})
    with pytest.raises(InputError, match="seed00: expected the run of seed 0 in seed0"):
        find_runs(tmp_path, "gdl")


def test_one_run_under_two_names_is_in_no_table(tmp_path):
    for seed, loss in ((0, 0.5), (1, 0.5), (2, 0.25)):
        write_run(tmp_path / "gdl" / f"seed{seed}", [case("1", 0.5, 3)], {"seed": seed})
        log = tmp_path / "gdl" / f"seed{seed}" / "log.csv"
        write_rows(log, [{"epoch": 0, "train_loss": loss}], ["epoch", "train_loss"])
    with pytest.raises(InputError, match="seed1: expected a run of its own, found that of .*seed0 once more"):
        find_runs(tmp_path, "gdl")
    # Equal metrics are no proof: two seeds may both predict nothing.
    assert len(find_runs(tmp_path, "gdl", [0, 2])) == 2
    (tmp_path / "gdl" / "seed1" / "log.csv").unlink()
    with pytest.raises(InputError, match="seed1/log.csv: expected a readable CSV file, found .*No such file"):
        find_runs(tmp_path, "gdl")
    assert len(find_runs(tmp_path, "gdl", [1])) == 1


def test_one_folder_is_not_two_rows(handmade, monkeypatch, capsys):
    for row in ("./gdl", "../isles/gdl", "gdl/", str(handmade / "gdl"), "..", ""):
        for said, flags in (("--rows", (row,)), ("--baseline", ("--baseline", row))):
            command = ("compare", handmade, "--name", "t", "--rows", "focal", *flags)
            assert call(evaluate, *command, monkeypatch=monkeypatch) == 2
            error = capsys.readouterr().err
            assert error.count("\n") == 1 and f"{said}: expected a plain file name" in error
        assert call(evaluate, "curves", handmade, "--table", "t", row, monkeypatch=monkeypatch) == 2
        assert "--table: expected a plain file name" in capsys.readouterr().err
    (handmade / "linked").symlink_to(handmade / "gdl")
    assert call(evaluate, "table", handmade, "--name", "t", "--rows", "gdl", "linked", monkeypatch=monkeypatch) == 2
    assert "linked/seed0: expected a run of its own, found that of" in capsys.readouterr().err
    assert not list(handmade.glob("t.*"))


@pytest.mark.parametrize("of", ["gdl/seed1", "gdl-boundary/seed0"])
def test_the_checkpoint_of_another_run_is_refused(results, sliced, tmp_path, monkeypatch, capsys, of):
    run = shutil.copytree(results / "gdl" / "seed0", tmp_path / "run")
    for name in ("best.pt", "last.pt"):
        shutil.copyfile(results / of / name, run / name)
    assert call(evaluate, "run", run, "--device", "cpu", monkeypatch=monkeypatch) == 2
    assert "best.pt: expected a checkpoint of this run" in capsys.readouterr().err
    more = ("--data", sliced, "--out", run, *SMALL, "--epochs", "2", "--resume")
    assert call(train, *more, monkeypatch=monkeypatch) == 2
    assert "last.pt: expected a checkpoint of this run" in capsys.readouterr().err


def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path):
    save_checkpoint(tmp_path / "best.pt", {"epoch": 1})
    assert load_checkpoint(tmp_path / "best.pt", CPU, "a fingerprint") == {"epoch": 1}


def test_one_flipped_bit_in_a_checkpoint_is_noticed(tmp_path):
    path = tmp_path / "best.pt"
    save_checkpoint(path, {"model": {"weight": torch.arange(4000.0)}})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="best.pt: expected a whole checkpoint, found .* damaged"):
        load_checkpoint(path, CPU)


@pytest.mark.parametrize("state", [[1, 2], 3, None])
def test_a_checkpoint_holds_a_run(tmp_path, state):
    torch.save(state, tmp_path / "best.pt")
    with pytest.raises(InputError, match="best.pt: expected a whole checkpoint, found"):
        load_checkpoint(tmp_path / "best.pt", CPU)


def test_the_fingerprint_of_settings_changes_with_each_of_them_but_the_epochs():
    assert replace(PAPER, epochs=3).fingerprint == PAPER.fingerprint
    others = {"seed": 1, "lr": 0.1, "contour": "boundary", "data_fingerprint": "x", "betas": (0.9, 0.99)}
    for name, value in others.items():
        assert replace(PAPER, **{name: value}).fingerprint != PAPER.fingerprint


def test_the_fingerprint_of_settings_is_that_of_the_checkpoints_there_are():
    """Of what is not the default, by name: another order would part runs from the checkpoints that they have."""
    written = b'{"contour": "boundary", "seed": 2, "width": 16}'
    assert replace(PAPER, width=16, seed=2, contour="boundary").fingerprint == hashlib.sha256(written).hexdigest()
