"""The old result goes only when the new one is whole, and nothing goes that the project did not make."""

import errno
import os
import shutil

import pytest
from commands import evaluate
from raw_files import call, isles_path, make_isles
from training_runs import SMALL

import train
from environment.outputs import written_together
from utils import write_text


def contents(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def run(results, tmp_path):
    return shutil.copytree(results / "gdl" / "seed0", tmp_path / "run")


def refused(module, *arguments, monkeypatch, capsys) -> str:
    """The one line of a command that must refuse."""
    code = call(module, *arguments, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1, error
    return error


def fill_disk(monkeypatch, at: int) -> None:
    """Let the ``at``-th file from here on meet a full disk when it is to be whole."""
    calls, fsync = [], os.fsync

    def full(handle):
        calls.append(handle)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return fsync(handle)

    monkeypatch.setattr(os, "fsync", full)


def test_files_written_together_appear_together(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ValueError), written_together() as place:
        write_text(place(tmp_path / "a.txt"), "new")
        write_text(place(tmp_path / "deep" / "er" / "b.txt"), "new")
        raise ValueError
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"
    with written_together() as place:
        write_text(place(tmp_path / "a.txt"), "new")
        write_text(place(tmp_path / "deep" / "b.txt"), "new")
        assert (tmp_path / "a.txt").read_text() == "old" and not (tmp_path / "deep" / "b.txt").exists()
    assert contents(tmp_path) == {tmp_path / "a.txt": b"new", tmp_path / "deep" / "b.txt": b"new"}


@pytest.mark.parametrize("text", ["[1]", '{"earlier_sessions": 1}', "{"])
def test_more_epochs_beside_a_damaged_env_json_change_nothing(run, sliced, monkeypatch, capsys, text):
    (run / "env.json").write_text(text)
    before = contents(run)
    more = ("--data", sliced, "--out", run, *SMALL, "--epochs", "2", "--resume")
    assert "env.json: expected" in refused(train, *more, monkeypatch=monkeypatch, capsys=capsys)
    assert contents(run) == before


@pytest.mark.parametrize("at", [1, 2])
def test_more_epochs_on_a_full_disk_keep_the_metrics(run, sliced, monkeypatch, capsys, at):
    before = contents(run)
    more = ("--data", sliced, "--out", run, *SMALL, "--epochs", "2", "--resume")
    with monkeypatch.context() as patch:
        fill_disk(patch, at)
        assert ".json: could not be written" in refused(train, *more, monkeypatch=patch, capsys=capsys)
    assert contents(run) == before


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_full_disk_keeps_the_metrics_and_predictions_of_a_run(run, monkeypatch, capsys, at):
    before = contents(run)
    with monkeypatch.context() as patch:
        fill_disk(patch, at)
        error = refused(evaluate, "run", run, "--tolerance", "3", "--device", "cpu", monkeypatch=patch, capsys=capsys)
    assert f".{os.getpid()}." not in error and "could not be written" in error
    assert contents(run) == before


@pytest.mark.parametrize("command", ["table", "compare", "curves"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_full_disk_keeps_the_table_as_it_was(results, tmp_path, monkeypatch, capsys, command, at):
    folder = shutil.copytree(results, tmp_path / "results")
    arguments = (command, folder, "--rows", "gdl", "gdl-boundary", "--name", "made")
    assert call(evaluate, *arguments, "--seeds", "0", monkeypatch=monkeypatch) == 0
    before = contents(folder)
    with monkeypatch.context() as patch:
        fill_disk(patch, at)
        refused(evaluate, *arguments, monkeypatch=patch, capsys=capsys)
    assert contents(folder) == before
    assert call(evaluate, *arguments, monkeypatch=monkeypatch) == 0 and contents(folder) != before


def test_predict_writes_all_masks_or_none(run, tmp_path, monkeypatch, capsys):
    raw = make_isles(tmp_path / "raw", cases=[f"case_{n}" for n in range(1, 5)])
    last = isles_path(raw, "case_4", "CT_Tmax")
    whole = last.read_bytes()
    last.write_bytes(whole[:-100])
    arguments = ("predict", run, "--case", raw, "--out", tmp_path / "masks" / "new", "--device", "cpu")
    assert "case_4" in refused(evaluate, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert not (tmp_path / "masks").exists()
    last.write_bytes(whole)
    assert call(evaluate, *arguments, monkeypatch=monkeypatch) == 0
    assert len(os.listdir(tmp_path / "masks" / "new")) == 4
