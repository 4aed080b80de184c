"""The old result goes only when the new one is whole, and nothing goes that the project did not make."""

import errno
import gzip
import os
import re
import shutil
import signal
import struct

import matplotlib.pyplot as plt
import pytest
import torch
from commands import evaluate
from raw_files import call, isles_path, make_isles
from training_runs import SMALL, identical

import preprocess
import train
from environment.atomic_outputs import written_together
from evaluation.outputs import output_paths, read_template
from raw_data import DATASETS
from raw_data.dataset import Case
from raw_data.files import RawFile
from reporting import figure_set
from training.run_folder import read_settings
from training.trainer import Trainer
from utils import InputError, write_text


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

    def fail_half_way():
        with written_together() as place:
            write_text(place(tmp_path / "a.txt"), "new")
            write_text(place(tmp_path / "deep" / "er" / "b.txt"), "new")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail_half_way()
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"
    with written_together() as place:
        write_text(place(tmp_path / "a.txt"), "new")
        write_text(place(tmp_path / "deep" / "b.txt"), "new")
        assert (tmp_path / "a.txt").read_text() == "old" and not (tmp_path / "deep" / "b.txt").exists()
    assert contents(tmp_path) == {tmp_path / "a.txt": b"new", tmp_path / "deep" / "b.txt": b"new"}


def test_a_block_within_another_is_part_of_it(tmp_path):
    def write_both(*, fails: bool):
        with written_together() as place:
            write_text(place(tmp_path / "a.txt"), "new")
            with written_together() as within:
                write_text(within(tmp_path / "b.txt"), "new")
            assert not (tmp_path / "b.txt").exists()
            if fails:
                raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write_both(fails=True)
    assert not os.listdir(tmp_path)
    write_both(fails=False)
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("text", ["[1]", '{"earlier_sessions": 1}', "{"])
def test_more_epochs_beside_a_damaged_env_json_change_nothing(run, sliced, monkeypatch, capsys, text):
    (run / "env.json").write_text(text)
    before = contents(run)
    more = ("--data", sliced, "--out", run, *SMALL, "--epochs", "2", "--resume")
    assert "env.json: expected" in refused(train, *more, monkeypatch=monkeypatch, capsys=capsys)
    assert contents(run) == before


@pytest.mark.parametrize("at", range(1, 9))
def test_more_epochs_on_a_full_disk_keep_the_finished_run(run, sliced, monkeypatch, capsys, at):
    """log.csv and best.pt as they were, env.json, config.json, last.pt and log.csv, and these four made durable."""
    before, best = contents(run), torch.load(run / "best.pt", weights_only=True)
    more = ("--data", sliced, "--out", run, *SMALL, "--resume")
    with monkeypatch.context() as patch:
        fill_disk(patch, at)
        assert "could not be written" in refused(train, *more, "--epochs", "2", monkeypatch=patch, capsys=capsys)
    # The best weights may have been written again.
    assert identical(torch.load(run / "best.pt", weights_only=True), best)
    assert contents(run) == before | {run / "best.pt": (run / "best.pt").read_bytes()}
    assert call(train, *more, "--epochs", "1", monkeypatch=monkeypatch) == 0
    assert call(evaluate, "run", run, "--device", "cpu", monkeypatch=monkeypatch) == 0
    assert call(train, *more, "--epochs", "2", monkeypatch=monkeypatch) == 0 and not (run / "metrics.csv").exists()


def test_a_stop_within_the_first_further_epoch_is_saved_with_its_settings(run, sliced, monkeypatch):
    """What was trained is kept, so the run is one of two epochs under way; no metrics of one epoch are beside it."""
    more = ("--data", sliced, "--out", run, *SMALL, "--epochs", "2", "--resume")
    step = Trainer.step

    def stop(trainer, *arguments):
        step(trainer, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stop)
        assert call(train, *more, monkeypatch=patch) == 130
    assert read_settings(run).epochs == 2 and not (run / "metrics.csv").exists()
    assert call(train, *more, monkeypatch=monkeypatch) == 0


@pytest.mark.parametrize("at", range(1, 7))
def test_a_full_disk_keeps_the_metrics_and_predictions_of_a_run(run, monkeypatch, capsys, at):
    before = contents(run)
    with monkeypatch.context() as patch:
        fill_disk(patch, at)
        error = refused(evaluate, "run", run, "--tolerance", "3", "--device", "cpu", monkeypatch=patch, capsys=capsys)
    assert ".unfinished" not in error and "could not be written" in error
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


@pytest.mark.parametrize(
    ("command", "rows"),
    [("convergence", ("--rows", "gdl", "gdl-boundary")), ("figures", ()), ("curves", ()), ("boxes", ())],
)
def test_a_full_disk_under_the_last_file_of_a_command_leaves_none(
    results, tmp_path, monkeypatch, capsys, command, rows
):
    folder = shutil.copytree(results, tmp_path / "results")
    before = contents(folder)
    # More rows than the style can tell apart: a figure per table.
    monkeypatch.setattr(figure_set, "most_rows", lambda: 1)
    tables = () if rows else ("--table", "t1", "gdl", "--table", "t2", "gdl-boundary")
    with monkeypatch.context() as patch:
        fill_disk(patch, {"convergence": 10, "figures": 16}.get(command, 4))
        refused(evaluate, command, folder, *rows, *tables, monkeypatch=patch, capsys=capsys)
        assert contents(folder) == before


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


def test_predict_replaces_only_masks_of_its_own(run, tmp_path, monkeypatch, capsys):
    raw = make_isles(tmp_path / "raw", cases=["case_1"])
    label = isles_path(raw, "case_1", "OT")
    mine, link = tmp_path / "mine.nii.gz", tmp_path / "link.nii.gz"
    mine.write_bytes(gzip.compress(label.read_bytes()))
    link.symlink_to(tmp_path / "elsewhere.nii.gz")
    before = contents(tmp_path)
    predict = ("predict", run, "--case", raw, "--device", "cpu", "--out")
    for out in (label, mine, link):
        error = refused(evaluate, *predict, out, monkeypatch=monkeypatch, capsys=capsys)
        assert f"{out}: expected nothing or a file that was made here before" in error
    assert contents(tmp_path) == before and link.is_symlink()
    for _ in range(2):
        assert call(evaluate, *predict, tmp_path / "mask.nii.gz", monkeypatch=monkeypatch) == 0


@pytest.mark.parametrize("name", ["gdl/seed0/metrics", "../table", "..", "", "/tmp/table", "a\nb", "a" * 300])
def test_names_of_outputs_are_plain_file_names(results, tmp_path, monkeypatch, capsys, name):
    folder = shutil.copytree(results, tmp_path / "results")
    before = contents(tmp_path)
    for command in ("table", "compare", "curves", "boxes", "maps", "shares", "pictures"):
        arguments = (command, folder, "--rows", "gdl", "gdl-boundary", "--name", name)
        assert "--name: expected a plain file name" in refused(
            evaluate, *arguments, monkeypatch=monkeypatch, capsys=capsys
        )
    table = ("curves", folder, "--table", name, "gdl")
    assert "--table: expected a plain file name" in refused(evaluate, *table, monkeypatch=monkeypatch, capsys=capsys)
    assert contents(tmp_path) == before


def draw_own(path):
    figure, axis = plt.subplots()
    axis.plot([1, 2])
    figure.savefig(path)
    plt.close(figure)


# What looks most like the project's: a table with its header, a figure of the same library.
OWN = {
    ".csv": "row,class,seeds,cases,dsc\nmine,1,2,3,4\n", ".md": "| row | DSC |\n| --- | --- |\n| mine | 1 |\n",
    ".tex": "\\documentclass{article}\n", ".png": draw_own, ".pdf": draw_own,
}


@pytest.mark.parametrize(
    ("command", "end"), [("table", ".csv"), ("table", ".md"), ("table", ".tex"), ("curves", ".png"), ("curves", ".pdf")]
)
def test_a_table_or_figure_replaces_only_what_was_made_as_one(results, tmp_path, monkeypatch, capsys, command, end):
    folder = shutil.copytree(results, tmp_path / "results")
    arguments = (command, folder, "--rows", "gdl", "--name", "notes")
    for own in ("my own notes", OWN[end]):
        (folder / f"notes{end}").unlink(missing_ok=True)
        own(folder / f"notes{end}") if callable(own) else (folder / f"notes{end}").write_text(own)
        before = contents(folder)
        error = refused(evaluate, *arguments, monkeypatch=monkeypatch, capsys=capsys)
        assert re.search(rf"notes{end}: expected nothing or a (file|table) that was made here before", error)
        assert contents(folder) == before
    (folder / f"notes{end}").unlink()
    for _ in range(2):
        assert call(evaluate, *arguments, monkeypatch=monkeypatch) == 0


@pytest.mark.parametrize("content", [
    "%PDF-1.4 by the code of boundary-loss\n/Creator (TeX)\n",
    "%PDF-1.4\n/Creator (boundary-loss, Matplotlib 3.10)\nof a figure within it\n/Creator (TeX)\n",
    "%PDF-1.4 of boundary-loss, by nobody\n",
])
def test_a_paper_on_the_boundary_loss_is_no_figure(results, tmp_path, monkeypatch, capsys, content):
    folder = shutil.copytree(results, tmp_path / "results")
    (folder / "paper.pdf").write_text(content)
    arguments = ("curves", folder, "--rows", "gdl", "--name", "paper")
    error = refused(evaluate, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert "paper.pdf: expected nothing or a file that was made here before" in error
    assert (folder / "paper.pdf").read_text() == content and not (folder / "paper.png").exists()


def test_a_report_replaces_only_a_report(results, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(results, tmp_path / "results")
    arguments = ("report", folder, "--rows", "gdl")
    assert call(evaluate, *arguments, monkeypatch=monkeypatch) == 0
    assert call(evaluate, *arguments, monkeypatch=monkeypatch) == 0
    for foreign in ("report/notes.txt", "report/slices/mine.png"):
        (folder / foreign).write_text("mine")
        assert foreign.partition("/")[2] in refused(evaluate, *arguments, monkeypatch=monkeypatch, capsys=capsys)
        assert (folder / foreign).read_text() == "mine"
        (folder / foreign).unlink()
    index = folder / "report" / "index.html"
    made = index.read_text()
    index.write_text("<html>my own page</html>")
    assert "index.html" in refused(evaluate, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert index.read_text() == "<html>my own page</html>"
    index.write_text(made)
    (folder / "report").rename(tmp_path / "elsewhere")
    (folder / "report").symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path)
    for _ in range(2):
        assert "found a link" in refused(evaluate, *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert contents(tmp_path) == before


def test_a_link_to_nothing_is_refused_before_the_work(sliced, tmp_path, monkeypatch, capsys):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    raw = make_isles(tmp_path / "raw")
    slicing = ("isles", "--source", raw, "--dest", link, "--val", "1", "--size", "16")
    assert f"{link}: expected a new folder" in refused(preprocess, *slicing, monkeypatch=monkeypatch, capsys=capsys)
    training = ("--data", sliced, "--out", link, *SMALL)
    said = refused(train, *training, monkeypatch=monkeypatch, capsys=capsys)
    assert f"{link}: expected a new folder or a run, found a link to nothing" in said
    (tmp_path / "raw" / "file").write_text("")
    training = ("--data", sliced, "--out", tmp_path / "raw" / "file", *SMALL)
    assert "found a file" in refused(train, *training, monkeypatch=monkeypatch, capsys=capsys)
    assert link.is_symlink() and sorted(os.listdir(tmp_path)) == ["link", "raw"]


def test_a_scan_without_a_place_in_space_has_no_mask(tmp_path):
    path = isles_path(make_isles(tmp_path / "raw", cases=["case_1"]), "case_1", "CT")
    content = bytearray(path.read_bytes())
    content[280:284] = struct.pack("<f", float("nan"))      # the first number of its affine
    path.write_bytes(content)
    scan = Case("case_1", None, (RawFile(path),), (), "case_1")
    with pytest.raises(InputError, match="case_1: expected a finite affine, found NaN or infinity in .*CT.1001.nii"):
        read_template(DATASETS["isles"], scan)


def test_one_mask_is_a_file_unless_its_name_is_a_folders(tmp_path):
    out, endings = tmp_path / "mask.nii.gz", (".nii.gz", ".nii")
    assert output_paths(out, ["a"], "--out", endings) == {"a": out}
    out.mkdir()
    with pytest.raises(InputError, match="--out: expected a file, found the folder .*mask.nii.gz"):
        output_paths(out, ["a"], "--out", endings)
    for name, is_there in (("mask.png", False), ("notes.txt", True)):
        if is_there:
            (tmp_path / name).touch()
        said = f"--out: expected a folder or a file named .nii or .nii.gz, found .*{name}"
        with pytest.raises(InputError, match=said):
            output_paths(tmp_path / name, ["a"], "--out", endings)
    assert output_paths(tmp_path / "masks", ["a"], "--out", endings) == {"a": tmp_path / "masks" / "a.nii.gz"}
