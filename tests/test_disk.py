"""Disks that are full, folders that may not be written, names with spaces and letters beyond ASCII."""

import errno
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import phantom
import pytest
import torch
from commands import evaluate
from raw_files import call, make_isles, tree
from training_runs import SMALL, assert_same_run, run

import preprocess
import train
import utils
from training import checkpoints


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of so many MB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(megabytes: int, *options: str):
        flags = ["-o", ",".join((*options, f"size={megabytes}m"))]
        command = ["mount", "-t", "tmpfs", *flags, "tmpfs", folder]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs to mount a file system")
        return folder

    yield mount
    subprocess.run(["umount", folder], capture_output=True)


def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_room(sliced, tmp_path, small_disk, monkeypatch, capsys):
    wide = ("--width", "16")
    run(sliced, tmp_path / "whole", *wide)
    # A checkpoint of 15 MB and one of 5: the second last.pt has no room beside the first.
    out = small_disk(30) / "run"
    code = call(train, "--data", sliced, "--out", out, *SMALL, *wide, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and f"{out / 'last.pt'}: could not be written" in error
    assert not list(out.glob(".*"))
    assert torch.load(out / "last.pt", weights_only=True)["epoch"] == 0
    small_disk(100, "remount")
    run(sliced, out, *wide, "--resume")
    assert_same_run(tmp_path / "whole", out)


def test_a_full_disk_stops_slicing_and_leaves_nothing(tmp_path, small_disk, monkeypatch, capsys):
    make_isles(tmp_path / "raw")
    disk = small_disk(1)
    arguments = ("isles", "--source", tmp_path / "raw", "--dest", disk / "isles", "--val", "1")
    code = call(preprocess, *arguments, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and ".npy: could not be written" in error
    assert not os.listdir(disk)


@pytest.mark.parametrize(("layout", "named"), [("isles", "ISLES2018_Training.zip"), ("acdc", "training/patient")])
def test_a_full_disk_stops_a_phantom_and_leaves_nothing(small_disk, layout, named):
    disk = small_disk(1)
    out = disk / "raw" / "new"
    command = [sys.executable, phantom.__file__, layout, "--out", str(out), "--cases", "30"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"{out}/{named}" in done.stderr and "could not be written" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "fitting", "named"),
    [("curves", None, "made.png"), ("curves", "made.png", "made.pdf"), ("report", None, "report/index.html"),
     ("report", "report/index.html", "report/slices/")],
)
def test_a_full_disk_under_a_figure_or_a_report_names_the_file(
    results, tmp_path, small_disk, monkeypatch, capsys, command, fitting, named
):
    """There is room for 4 KiB, or for them and the first file, whose size the same command has shown elsewhere."""
    arguments = ("--rows", "gdl", *(("--name", "made") if command == "curves" else ()))
    room = 4096
    if fitting:
        roomy = shutil.copytree(results, tmp_path / "roomy")
        assert call(evaluate, command, roomy, *arguments, monkeypatch=monkeypatch) == 0
        room += (roomy / fitting).stat().st_size + 4095 & ~4095
    capsys.readouterr()
    disk = small_disk(20)
    folder = shutil.copytree(results, disk / "results")
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
    (disk / "fill").write_bytes(bytes(free - room))
    before = tree(folder)
    code = call(evaluate, command, folder, *arguments, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and tree(folder) == before
    assert f"{folder}/{named}" in error and ": could not be written: No space left on device" in error


def test_a_write_that_fails_anywhere_keeps_the_previous_file(sliced, tmp_path, monkeypatch, capsys):
    """Whichever of the files of a run meets the full disk: a line that names it, and the run goes on later."""
    run(sliced, tmp_path / "whole")
    moments = random.Random(0)
    for attempt in range(6):
        fails_at, calls, replace = moments.randrange(3, 10), [], os.fsync

        def fsync(handle, fails_at=fails_at, calls=calls, replace=replace):
            calls.append(handle)
            if len(calls) == fails_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return replace(handle)

        with monkeypatch.context() as patch:
            patch.setattr(utils.os, "fsync", fsync)
            out = tmp_path / f"run{attempt}"
            code = call(train, "--data", sliced, "--out", out, *SMALL, monkeypatch=patch)
        error = capsys.readouterr().err
        assert code == 2 and error.count("\n") == 1 and "could not be written: No space left on device" in error
        for path in out.glob("*.pt"):
            torch.load(path, weights_only=True)
        assert not list(out.glob(".*"))
        run(sliced, out, "--resume")
        assert_same_run(tmp_path / "whole", out)


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    checkpoints.save_checkpoint(tmp_path / "last.pt", {"epoch": 1})

    def save(state, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598\nframe #0")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match=r"last.pt: could not be written: is the disk full\? \(.*704 vs 598\)$"):
        checkpoints.save_checkpoint(tmp_path / "last.pt", {"epoch": 2})
    assert checkpoints.load_checkpoint(tmp_path / "last.pt", torch.device("cpu")) == {"epoch": 1}
    assert tree(tmp_path) == {"last.pt"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(sliced, tmp_path, monkeypatch, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    code = call(train, "--data", sliced, "--out", tmp_path / "locked" / "run", *SMALL, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and "locked" in error


def test_a_read_only_file_system_is_named(sliced, tmp_path, small_disk, monkeypatch, capsys):
    disk = small_disk(1, "ro")
    make_isles(tmp_path / "raw")
    commands = (
        (train, "--data", sliced, "--out", disk / "run", *SMALL),
        (preprocess, "isles", "--source", tmp_path / "raw", "--dest", disk / "isles", "--val", "1"),
    )
    for module, *arguments in commands:
        code = call(module, *arguments, monkeypatch=monkeypatch)
        error = capsys.readouterr().err
        assert code == 2 and error.count("\n") == 1 and "Read-only" in error and str(disk) in error


def test_names_with_spaces_and_letters_beyond_ascii(tmp_path, monkeypatch, capsys):
    root = tmp_path / "Ergebnisse für Jürgen"
    make_isles(root / "röhe Daten")
    data, out = root / "data" / "îsles 1", root / "Läufe" / "gdl α" / "seed0"
    flags = ("--size", "32", "--val", "1")
    source = ("--source", root / "röhe Daten", "--dest", data)
    assert call(preprocess, "isles", *source, *flags, monkeypatch=monkeypatch) == 0
    for resident in ("host", "stream"):
        arguments = ("--data", data, "--out", out, *SMALL, "--epochs", "1", "--resident", resident, "--resume")
        assert call(train, *arguments, monkeypatch=monkeypatch) == 0
    assert call(evaluate, "run", out, "--device", "cpu", monkeypatch=monkeypatch) == 0
    table = ("table", root / "Läufe", "--rows", "gdl α", "--name", "Tafel für Jürgen", "--seeds", "0")
    assert call(evaluate, *table, monkeypatch=monkeypatch) == 0
    assert (out / "metrics.csv").exists() and (root / "Läufe" / "Tafel für Jürgen.md").exists()
    assert np.isfinite(torch.load(out / "best.pt", weights_only=True)["log"]["val_loss"])
