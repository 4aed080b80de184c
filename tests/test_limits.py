"""Numbers beyond what anything can hold, and files of the wrong kind: one line, exit code 2."""

import io
import json
import math
import os
import platform
import shutil
import subprocess

import nibabel as nib
import pytest
from commands import evaluate
from PIL import Image
from raw_files import call
from result_folders import case, write_run
from training_runs import SMALL

import preprocess
import train
import utils
from environment import provenance
from raw_data import limits
from reporting.runs import runs_of_rows
from utils import InputError, read_json


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--batch-size", "100000000000000000000"), ("--lr", "1e38"), ("--width", "1000000"), ("--epochs", "10000000"),
     ("--weight-decay", "1e38"), ("--gradient-clip", "1e38")],
)
def test_numbers_beyond_any_run(sliced, tmp_path, monkeypatch, capsys, flag, value):
    arguments = ("--data", sliced, "--out", tmp_path / "run", *SMALL, flag, value)
    assert call(train, *arguments, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert f"{flag}: expected at most" in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_slices_beyond_any_memory(tmp_path, monkeypatch, capsys):
    arguments = ("isles", "--source", tmp_path, "--dest", tmp_path / "d", "--size", "100000")
    assert call(preprocess, *arguments, monkeypatch=monkeypatch) == 2
    assert "--size: expected at most 4096, found 100000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "flag", "value"),
    [(("curves", "--rows", "gdl"), "--smooth", 10**30), (("figures",), "--smooth", 10**30),
     (("compare", "--rows", "gdl", "gdl-boundary", "--name", "t"), "--permutations", 10**8 + 1),
     (("compare", "--rows", "gdl", "gdl-boundary", "--name", "t"), "--permutations", 10**30)],
)
def test_numbers_beyond_any_table(results, monkeypatch, capsys, command, flag, value):
    name, *rest = command
    assert call(evaluate, name, results, *rest, flag, str(value), monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert f"{flag}: expected" in error and error.count("\n") == 1


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, '{"a": ' + "1" * 5000 + "}", "[1]", "\ufeff{}"])
def test_json_of_any_kind_is_read_or_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="a.json: expected"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("metrics.csv", ",0.5,", ",inf,"), ("metrics.csv", ",0.5,", ",nan,"), ("metrics_2d.csv", ",3,", ",0,")],
)
def test_metrics_are_finite_numbers_of_slices(results, tmp_path, monkeypatch, capsys, file, old, new):
    folder = shutil.copytree(results, tmp_path / "results")
    path = folder / "gdl" / "seed0" / file
    header, line = path.read_text().splitlines()
    columns, cells = header.split(","), line.split(",")
    cells[columns.index("n_slices" if "2d" in file else "dsc")] = new.strip(",")
    path.write_text(f"{header}\n{','.join(cells)}\n")
    table = ("table", folder, "--rows", "gdl", "--name", "t", "--level", "slice")
    assert call(evaluate, *table, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert f"{file}: expected finite numbers in " in error or f"{file}: expected finite whole numbers in " in error


def test_runs_that_are_compared_have_the_same_classes(tmp_path):
    write_run(tmp_path / "gdl" / "seed0", [case("1", 0.5, 3)], {"seed": 0})
    write_run(tmp_path / "focal" / "seed0", [case("1", 0.5, 3), ("1", "core", *case("1", 0.5, 3)[2:])], {"seed": 0})
    with pytest.raises(InputError, match="focal/seed0: expected the classes of .*gdl/seed0, found core in only one"):
        runs_of_rows(tmp_path, ["gdl", "focal"])


def test_meta_of_another_kind_is_named(tmp_path):
    write_run(tmp_path / "gdl" / "seed0", [case("1", 0.5, 3)], {"seed": 0})
    path = tmp_path / "gdl" / "seed0" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"meta": [1]}))
    with pytest.raises(InputError, match="config.json: expected the data set's meta.json in meta, found list"):
        runs_of_rows(tmp_path, ["gdl"])


def test_a_split_is_no_pipe(tmp_path, monkeypatch, capsys):
    from raw_files import make_isles

    os.mkfifo(tmp_path / "split.txt")
    raw = make_isles(tmp_path / "raw")
    arguments = ("isles", "--source", raw, "--dest", tmp_path / "d", "--split", tmp_path / "split.txt")
    assert call(preprocess, *arguments, monkeypatch=monkeypatch) == 2
    assert "split.txt: expected a readable split file" in capsys.readouterr().err


def test_a_diff_that_is_not_utf8_is_kept(tmp_path, monkeypatch):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file.txt").write_bytes(b"one\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    (tmp_path / "file.txt").write_bytes(b"\xe9t\xe9\n")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert "+\ufffdt\ufffd" in provenance.provenance()["git_diff"]


def test_a_description_is_small(tmp_path, monkeypatch):
    monkeypatch.setattr(utils, "MAX_BYTES", 8)
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_json(path) == {"a": 1}
    path.write_text('{"a": 12}')
    with pytest.raises(InputError, match="a.json: expected a readable JSON file, found more than 8 bytes in .*a.json"):
        read_json(path)


@pytest.mark.parametrize(
    "error", [InputError("my own"), MemoryError("many bytes"), RuntimeError("CUDA: Out of Memory")],
)
def test_what_is_no_damage_of_a_file_stays_what_it_is(error):
    with pytest.raises(type(error)) as raised, utils.refuse_damage("expected a whole file"):
        raise error
    assert raised.value is error
    with pytest.raises(InputError, match="^expected a whole file, found no header here$"):
        with utils.refuse_damage("expected a whole file", " here"):
            raise RuntimeError("no header")


def test_an_error_that_names_its_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, utils.naming(tmp_path / "mine"):
        (tmp_path / "theirs").read_bytes()
    assert raised.value.filename == str(tmp_path / "theirs")
    with pytest.raises(OSError, match="mine: could not be written: no room"), utils.naming(tmp_path / "mine"):
        raise OSError("no room")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("processor : 0\nmodel name : A: fast one \nmodel name : B\n", "A: fast one"),
        ("Features : fp asimd\n", None), (None, None),
    ],
)
def test_the_processor_is_what_the_system_calls_it(monkeypatch, said, found):
    """Where /proc/cpuinfo says nothing of it, by its kind."""
    kind = platform.processor() or platform.machine()

    def read_text(path):
        assert str(path) == "/proc/cpuinfo"
        if said is None:
            raise FileNotFoundError
        return said

    monkeypatch.setattr(provenance.Path, "read_text", read_text)
    assert provenance.processor() == (found or kind) != ""


def test_the_limits_are_beyond_real_data_and_within_a_machines_memory():
    """CT of 512 x 512 x 2048 as float32 is 2 GiB; a page of 11,585 x 11,585; sidecars and images of 256 MiB."""
    assert limits.MAX_VOXELS == 512 * 512 * 2048 and limits.MAX_OTHER_BYTES == 256 * 2**20
    assert limits.SLACK == 2**20
    assert math.isqrt(limits.MAX_PIXELS) == 11_585 and math.isqrt(limits.FEW_PIXELS) == 4096
    blank = io.BytesIO()
    Image.new("1", (2**14, 2**12)).save(blank, format="PNG", optimize=True)
    assert 2**26 / len(blank.getvalue()) < limits.PIXELS_PER_BYTE
    for code, size in limits.NUMBERS.items():
        assert nib.nifti1.data_type_codes.dtype[code].itemsize == size
