"""What a command cannot do is one line on stderr and exit code 2 (130 for a stop): never a traceback."""

import contextlib
import gzip
import json
import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import evaluate
from raw_files import call, isles_path, make_isles, make_nnunet
from result_folders import case, write_run

import preprocess
import train
from environment import provenance, startup, stops
from environment.streams import drop
from raw_data.files import RawFile, list_files
from raw_data.nifti import open_nifti
from training.checkpoints import read_checkpoint
from utils import InputError, StoppedError

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--width", "4", "--epochs", "1", "--batch-size", "4", "--device", "cpu", "--precision", "fp32")


def start(*arguments, **options) -> subprocess.Popen:
    """A command of its own process, as a terminal starts it."""
    options = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT} | options
    return subprocess.Popen([sys.executable, *map(str, arguments)], **options)


def one_line(text: str, *words: str) -> bool:
    """One line that holds the words, and nothing of Python's."""
    return text.count("\n") == 1 and "Traceback" not in text and all(word in text for word in words)


# 14: stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "stop", "module"), [
    *((command, stop, module) for module in ("argparse", "numpy", "torch") for command, stop in (
        ("train.py", signal.SIGINT), ("train.py", signal.SIGTERM), ("eval.py", signal.SIGINT),
        ("preprocess.py", signal.SIGTERM),
    )),
    *((f"scripts/{name}.py", signal.SIGINT, "argparse") for name in ("phantom", "slurm", "papers", "train_nnunet")),
])
def test_a_stop_while_modules_are_imported(sliced, results, tmp_path, command, stop, module):
    """The process stops itself at the moment when it begins to import a module."""
    arguments = {
        "train.py": ["--data", sliced, "--out", tmp_path / "run", *SMALL],
        "eval.py": ["run", results / "gdl" / "seed0", "--data", sliced],
        "preprocess.py": ["isles", "--source", make_isles(tmp_path / "raw"), "--dest", tmp_path / "data"],
    }.get(command, [])
    program = (
        "import os, runpy, sys\n"
        f"sys.path.insert(0, {str((ROOT / command).parent)!r})\n"
        f"sys.modules.pop({module!r}, None)\n"
        "stopped = []\n"
        "def watch(event, args):\n"
        f"    if event == 'import' and args[0] == {module!r} and not stopped:\n"
        f"        stopped.append(1); os.kill(os.getpid(), {int(stop)})\n"
        "sys.addaudithook(watch)\n"
        f"sys.argv = {[command, *map(str, arguments)]!r}\n"
        f"runpy.run_path({command!r}, run_name='__main__')\n"
    )
    process = start("-c", program)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert err == f"{Path(command).name}: interrupted\n"


@pytest.mark.parametrize("name", ["preprocess", "__main__"])
def test_only_a_command_of_its_own_takes_over_streams_and_stops(monkeypatch, name):
    taken = []
    monkeypatch.setattr(startup, "repair_streams", lambda: taken.append("streams"))
    monkeypatch.setattr(startup, "leave_at_once", lambda: taken.append("stops"))
    startup.begin(name)
    assert taken == (["streams", "stops"] if name == "__main__" else [])


def test_help_shows_the_defaults_that_say_something(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["run", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "(default: best)" in words and "(default: 2.0)" in words
    assert "(default: None)" not in words and "(default: False)" not in words


def test_a_child_that_a_library_forks_ends_at_a_sigterm_and_leaves_ctrl_c_to_its_parent(monkeypatch):
    forks, answers = [], {}
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: forks.append(hooks))
    stops.leave_children_alone()
    monkeypatch.setattr(signal, "signal", answers.__setitem__)
    assert [list(hooks) for hooks in forks] == [["after_in_child"]]
    forks[0]["after_in_child"]()
    assert answers == {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.SIG_IGN}


def test_many_stops_are_one(sliced, tmp_path):
    """A terminal, make and a cluster each send their own; those that come while a run is being left change nothing."""
    out = tmp_path / "run"
    process = start("train.py", "--data", sliced, "--out", out, "--width", "4", "--epochs", "5000", "--batch-size",
                    "4", "--device", "cpu", stdout=subprocess.DEVNULL)
    for _ in range(1200):
        if (out / "last.pt").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    while process.poll() is None:
        for stop in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(stop)
        time.sleep(0.01)
    said = process.stderr.read()
    assert process.returncode == 130 and "Traceback" not in said and "Error" not in said
    assert said.splitlines()[-1].startswith("train.py: ")
    assert torch.load(out / "last.pt", weights_only=True)["epoch"] >= 0


# 16: names that are not UTF-8 -----------------------------------------------------------------------------------------

LATIN = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize("command", ["train", "eval", "preprocess"])
def test_arguments_that_are_no_utf8(sliced, results, tmp_path, monkeypatch, capsys, command):
    """Before anything is made: config.json could not hold such a path."""
    module, arguments = {
        "train": (train, ["--data", sliced, "--out", tmp_path / LATIN, *SMALL]),
        "eval": (evaluate, ["table", results, "--name", LATIN]),
        "preprocess": (preprocess, ["isles", "--source", make_isles(tmp_path / "raw"), "--dest", tmp_path / LATIN]),
    }[command]
    assert call(module, *arguments, monkeypatch=monkeypatch) == 2
    assert one_line(capsys.readouterr().err, "expected a name in UTF-8", "caf")
    assert not (tmp_path / LATIN).exists()


def change_header(change):
    def make(content):
        header = nib.Nifti1Header(content[:348], check=False)
        change(header)
        return header.binaryblock + content[348:]

    return make


def test_a_checkpoint_that_is_larger_than_its_file_is_not_read(tmp_path):
    """torch compresses none; others may make gigabytes of a few bytes."""
    torch.save({"a": torch.zeros(10_000)}, tmp_path / "a.pt")
    read_checkpoint(tmp_path / "a.pt", torch.device("cpu"))
    with zipfile.ZipFile(tmp_path / "a.pt") as whole, zipfile.ZipFile(tmp_path / "b.pt", "w") as made:
        for name in whole.namelist():
            made.writestr(name, whole.read(name), zipfile.ZIP_DEFLATED)
    size = (tmp_path / "b.pt").stat().st_size
    with pytest.raises(InputError, match=f"b.pt: expected a whole checkpoint, found more than its {size} bytes"):
        read_checkpoint(tmp_path / "b.pt", torch.device("cpu"))


@pytest.mark.parametrize(("change", "said"), [
    (lambda content: content[:300], "a: expected a whole NIfTI file, found 300 bytes in .*a.nii$"),
    (lambda content: content[:360], "a: expected a whole NIfTI file of 412 bytes, found 360 in .*a.nii$"),
    (lambda content: b"XXXX" + content[4:],
     "a: expected a whole NIfTI file, found another header in .*a.nii$"),
    (change_header(lambda header: header.__setitem__("datatype", 32)),
     "a: expected a whole NIfTI file, found voxels of the data type 32, which are no real numbers in .*a.nii$"),
    (change_header(lambda header: header.__setitem__("vox_offset", -1)),
     "a: expected a whole NIfTI file, found voxels that begin at byte -1 in .*a.nii$"),
    (change_header(lambda header: header["pixdim"].__setitem__(slice(1, 4), (1, 0, 1))),
     r"a: expected a positive spacing, from 1e-06 to 1000 mm, found \(1.0, 0.0, 1.0\) in .*a.nii$"),
    (change_header(lambda header: header["pixdim"].__setitem__(slice(1, 4), (1, 1, 9e-7))),
     r"a: expected a positive spacing, from 1e-06 to 1000 mm, found \(1.0, 1.0, 8.99.*e-07\) in .*a.nii$"),
    (change_header(lambda header: header["pixdim"].__setitem__(slice(1, 4), (1, 1, 1001))),
     r"a: expected a positive spacing, from 1e-06 to 1000 mm, found \(1.0, 1.0, 1001.0\) in .*a.nii$"),
    (change_header(lambda header: header["dim"].__setitem__(slice(0, 3), (2, 3, 20))),
     r"a: expected a 3-D volume, found shape \(3, 20\) in .*a.nii$"),
])
def test_a_nifti_file_is_refused_in_words(tmp_path, change, said):
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), path)
    open_nifti("a", RawFile(path))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=said):
        open_nifti("a", RawFile(path))


def test_a_row_that_is_no_utf8(results, tmp_path, monkeypatch, capsys):
    shutil.copytree(results / "gdl", tmp_path / "isles" / LATIN)
    assert call(evaluate, "curves", tmp_path / "isles", monkeypatch=monkeypatch) == 2
    assert one_line(capsys.readouterr().err, f"{tmp_path / 'isles'}: row: expected a name in UTF-8, found 'caf")


def test_a_case_that_is_no_utf8(tmp_path, monkeypatch, capsys):
    raw = make_nnunet(tmp_path / "raw", cases=("a_1", LATIN))
    assert call(preprocess, "mine", "--layout", "nnunet", "--source", raw, "--dest", tmp_path / "data", "--val", "1",
                monkeypatch=monkeypatch) == 2
    assert one_line(capsys.readouterr().err, "expected a name in UTF-8", "caf")
    assert not (tmp_path / "data").exists()


def test_a_changed_file_that_is_no_utf8(tmp_path, monkeypatch):
    """The diff of the project's own code, which a run keeps, may hold any bytes."""
    repository = tmp_path / "code"
    repository.mkdir()
    git = ["git", "-C", repository, "-c", "user.name=a", "-c", "user.email=a@b"]
    (repository / "a.txt").write_bytes(b"caf\xe9\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "a"]):
        subprocess.run([*git, *words], check=True)
    (repository / "a.txt").write_bytes(b"th\xe9\n")
    monkeypatch.setattr(provenance, "__file__", str(repository / "provenance.py"))
    found = provenance.provenance()["git_diff"]
    assert "-caf" in found and "+th" in found
    found.encode("utf-8")   # config.json can hold it


# 17: damaged archives and headers -------------------------------------------------------------------------------------


def patched(path: Path, *patches: tuple[bytes, int, bytes]) -> Path:
    """Overwrite bytes of a file at an offset from each place where a signature stands."""
    content = bytearray(path.read_bytes())
    for signature, offset, value in patches:
        place = content.find(signature)
        while place >= 0:
            content[place + offset : place + offset + len(value)] = value
            place = content.find(signature, place + 4)
    path.write_bytes(content)
    return path


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
ZIPS = {
    "version 9.9": (zipfile.ZIP_DEFLATED, [(LOCAL, 4, b"\x63\x00"), (CENTRAL, 6, b"\x63\x00")]),
    "another method": (zipfile.ZIP_DEFLATED, [(LOCAL, 8, b"\x61\x00"), (CENTRAL, 10, b"\x61\x00")]),
    "encrypted": (zipfile.ZIP_DEFLATED, [(LOCAL, 6, b"\x01\x00"), (CENTRAL, 8, b"\x01\x00")]),
    "a name of no UTF-8": (zipfile.ZIP_STORED, [(LOCAL, 6, b"\x00\x08"), (CENTRAL, 8, b"\x00\x08"),
                                                (LOCAL, 30, b"\xff\xfe"), (CENTRAL, 46, b"\xff\xfe")]),
    "corrupt LZMA": (zipfile.ZIP_LZMA, [(LOCAL, 47, b"\xff\xff\xff\xff\xff\xff")]),
    "corrupt bzip2": (zipfile.ZIP_BZIP2, [(LOCAL, 50, b"\xff\xff\xff\xff")]),
    "an extra field": (zipfile.ZIP_STORED, [(CENTRAL, 51, b"\x01\x00\xff\x00")]),
}


def read_all(path: Path) -> list[bytes]:
    return [file.read() for file in list_files(path).values()]


@pytest.mark.parametrize("kind", ZIPS)
def test_zips_that_python_cannot_read(tmp_path, kind):
    method, patches = ZIPS[kind]
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        member = zipfile.ZipInfo("a.nii")
        member.extra = struct.pack("<HH4s", 0x7777, 4, b"abcd")     # a field that no reader knows, and skips
        archive.writestr(member, np.random.default_rng(0).integers(0, 9, 500, np.uint8).tobytes(), method)
    assert len(read_all(tmp_path / "a.zip")) == 1
    patched(tmp_path / "a.zip", *patches)
    with pytest.raises(InputError, match=r"a\.zip"):
        read_all(tmp_path / "a.zip")


def colours(image: nib.Nifti1Image) -> bytes:
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    return nib.Nifti1Image(np.zeros(image.shape, rgb), image.affine).to_bytes()


def header_field(name: str, *values: float):
    """The bytes of an image whose header says other values, which nibabel itself would not write."""
    def change(image: nib.Nifti1Image) -> bytes:
        content = bytearray(image.to_bytes())
        field, place = nib.Nifti1Header.template_dtype.fields[name]
        packed = np.array(values, field.base).tobytes()
        content[place : place + len(packed)] = packed
        return bytes(content)
    return change


SLOPE = header_field("scl_slope", math.nan, math.nan)


@pytest.mark.parametrize("change", [
    SLOPE, colours, header_field("vox_offset", math.inf), header_field("vox_offset", math.nan),
    header_field("vox_offset", -1e30),
    header_field("dim", 3, 0, 0, 0), header_field("dim", 3, -5, 4, 4), header_field("dim", 9, 4, 4, 4),
    header_field("datatype", 1234), header_field("pixdim", 1, 0, 0, 0), header_field("pixdim", 1, math.nan, 1, 1),
    header_field("pixdim", 1, math.inf, 1, 1),
])
@pytest.mark.parametrize("packed", [False, True])
def test_headers_that_nibabel_cannot_read(tmp_path, monkeypatch, capsys, change, packed):
    raw = make_isles(tmp_path / "raw")
    path = isles_path(raw, "case_2", "CT_CBF")
    content = change(nib.load(path))
    path.unlink()
    path = path.with_name(f"{path.name}{'.gz' if packed else ''}")
    path.write_bytes(gzip.compress(content) if packed else content)
    code = call(preprocess, "isles", "--source", raw, "--dest", tmp_path / "data", "--val", "1", "--size", "16",
                "--jobs", "1", monkeypatch=monkeypatch)
    said = capsys.readouterr().err.splitlines()
    lines = [line for line in said if line.startswith("preprocess.py: error")]
    if code == 0:   # a slope that is not a number means "not scaled" (NIfTI-1)
        assert change is SLOPE and not lines
    else:
        assert code == 2 and len(lines) == 1 and "case_2" in lines[0] and not (tmp_path / "data").exists()
    assert not any("Traceback" in line for line in said)


# 18: files of a run, and of sliced data -------------------------------------------------------------------------------

JSONS = ["[1]", "3", '"x"', "null", "{", "[" * 5000, "{" * 5000, '{"a": ' + "1" * 5000 + "}", '{"settings": 3}', "{}",
         '{"settings": {"epochs": [1]}}', '{"a": "\\ud800"}', '{"a": NaN}', "\ufeff{}"]


@pytest.fixture
def finished(results, tmp_path):
    """A finished run of one's own."""
    return Path(shutil.copytree(results / "gdl" / "seed0", tmp_path / "results" / "isles" / "gdl" / "seed0"))


def is_object(content: str) -> bool:
    with contextlib.suppress(ValueError, RecursionError):
        return isinstance(json.loads(content), dict) and "NaN" not in content and "ud800" not in content
    return False


@pytest.mark.parametrize(("name", "content"), [
    *(("config.json", content) for content in JSONS),
    # Any object will do: it only says where a run was trained.
    *(("env.json", content) for content in JSONS if not is_object(content)),
], ids=lambda value: value[:12])
def test_descriptions_of_a_run_that_are_none(sliced, finished, monkeypatch, capsys, name, content):
    """Neither evaluation nor more epochs begin, and nothing of the run changes."""
    (finished / name).write_text(content)
    before = contents(finished)
    more = ("--data", sliced, "--out", finished, "--width", "4", "--epochs", "2", "--batch-size", "4", "--resume")
    for module, arguments in ((evaluate, ("run", finished, "--data", sliced)), (train, more)):
        if module is evaluate and name == "env.json":
            continue    # evaluation does not read it
        assert call(module, *arguments, monkeypatch=monkeypatch) == 2
        assert one_line(capsys.readouterr().err, name)
        assert contents(finished) == before


@pytest.mark.parametrize("content", JSONS, ids=range(len(JSONS)))
def test_descriptions_of_sliced_data_that_are_none(sliced, tmp_path, monkeypatch, capsys, content):
    data = shutil.copytree(sliced, tmp_path / "data")
    (data / "meta.json").write_text(content)
    assert call(train, "--data", data, "--out", tmp_path / "run", *SMALL, monkeypatch=monkeypatch) == 2
    assert one_line(capsys.readouterr().err, "meta.json") and not (tmp_path / "run").exists()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def without(*names):
    return lambda state: {key: value for key, value in state.items() if key not in names}


STATES = {
    "a list": lambda state: [1, 2],
    "a tensor": lambda state: torch.zeros(3),
    "an empty one": lambda state: {},
    "no weights": without("model"),
    "weights of a list": lambda state: {**state, "model": [1]},
    "a weight too few": lambda state: {**state, "model": dict(list(state["model"].items())[1:])},
    "weights of another shape": lambda state: {**state, "model": {k: torch.zeros(2, 9) for k in state["model"]}},
    "weights of NaN": lambda state: {**state, "model": {k: v * math.nan for k, v in state["model"].items()}},
    "no epoch": without("epoch"),
    "an epoch of NaN": lambda state: {**state, "epoch": math.nan},
    "an epoch of a word": lambda state: {**state, "epoch": "one"},
}


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_checkpoints_of_something_else(sliced, finished, monkeypatch, capsys, name, kind):
    state = torch.load(finished / name, weights_only=True)
    torch.save(STATES[kind](state), finished / name)
    before = contents(finished)
    if name == "best.pt":
        code = call(evaluate, "run", finished, "--data", sliced, monkeypatch=monkeypatch)
    else:
        code = call(train, "--data", sliced, "--out", finished, "--width", "4", "--epochs", "2", "--batch-size", "4",
                    "--resume", monkeypatch=monkeypatch)
    assert code == 2
    assert one_line(capsys.readouterr().err, name, "NaN or infinity in its model" if kind == "weights of NaN" else "")
    assert contents(finished) == before


def table_of(folder, monkeypatch) -> int:
    return call(evaluate, "table", folder, "--rows", "a", "b", "--name", "t", monkeypatch=monkeypatch)


@pytest.mark.parametrize(("line", "said"), [
    (("x", "lesion", math.inf, 1, 2, 9, 9), "inf"),
    (("x", "lesion", 0.5, -math.inf, 2, 9, 9), "inf"),
    (("x", "lesion", 1e400, 1, 2, 9, 9), "inf"),
    (("x", "lesion", 0.5, 1, 2, "9" * 5000, 9), "metrics.csv"),
    (("x", "lesion", 0.5, 1, 2, -1, 9), "metrics.csv"),
    (("x", "core", 0.5, 1, 2, 9, 9), "core"),
])
def test_metrics_that_cannot_be(tmp_path, monkeypatch, capsys, line, said):
    """Infinite, longer than Python's numbers may be, or of a class that only one run has."""
    folder = tmp_path / "isles"
    for row in ("a", "b"):
        lines = [case("x", 0.5, 3), case("y", 0.25, 4)]
        write_run(folder / row / "seed0", [line, lines[1]] if row == "b" else lines, {"seed": 0})
    assert table_of(folder, monkeypatch) == 2
    err = capsys.readouterr().err
    assert one_line(err, said) and len(err) < 2500
    assert not (folder / "t.csv").exists()


def test_a_run_of_no_slices(results, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(results, tmp_path / "isles")
    path = folder / "gdl" / "seed0" / "metrics_2d.csv"
    head, line = path.read_text().splitlines()[:2]
    values = line.split(",")
    values[head.split(",").index("n_slices")] = "0"
    path.write_text(f"{head}\n{','.join(values)}\n")
    assert call(evaluate, "table", folder, "--rows", "gdl", "--level", "slice", "--name", "t",
                monkeypatch=monkeypatch) == 2
    assert one_line(capsys.readouterr().err, "metrics_2d.csv")


# 19: numbers beyond all use -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [
    ("--batch-size", "1" + "0" * 20), ("--batch-size", str(2**40)), ("--lr", "1e38"), ("--lr", "inf"), ("--lr", "nan"),
    ("--width", str(2**31)), ("--width", "1" + "0" * 30), ("--epochs", "1" + "0" * 30), ("--seed", str(2**64)),
    ("--seed", "1" * 5000), ("--weight-decay", "1e300"), ("--gradient-clip", "1e300"), ("--alpha-epochs", str(2**70)),
    ("--alpha-start", "1e300"), ("--alpha-step", "-1e300"), ("--betas", "1e300", "0"),
])
def test_numbers_that_no_run_is_made_with(sliced, tmp_path, monkeypatch, capsys, flags):
    code = call(train, "--data", sliced, "--out", tmp_path / "run", *SMALL, *flags, monkeypatch=monkeypatch)
    assert code == 2
    assert one_line(capsys.readouterr().err, flags[0]) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [("--size", "100000"), ("--size", "1" + "0" * 20), ("--spacing", "1e-30"),
                                   ("--spacing", "1e300"), ("--val", "1" + "0" * 20), ("--max-share", "nan")])
def test_numbers_that_nothing_is_sliced_with(tmp_path, monkeypatch, capsys, flags):
    raw = make_isles(tmp_path / "raw")
    more = ("--fit", "centre") if flags[0] == "--spacing" else ()
    code = call(preprocess, "isles", "--source", raw, "--dest", tmp_path / "data", *flags, *more,
                monkeypatch=monkeypatch)
    assert code == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err and flags[0] in err.splitlines()[-1] and not (tmp_path / "data").exists()


@pytest.mark.parametrize("smooth", ["1e300", "nan", "-1"])
def test_curves_smoothed_beyond_all_use(results, monkeypatch, capsys, smooth):
    assert call(evaluate, "curves", results, "--rows", "gdl", "--smooth", smooth, monkeypatch=monkeypatch) == 2
    assert one_line(capsys.readouterr().err, "--smooth")


# 20 to 23: the world around -------------------------------------------------------------------------------------------


def test_what_a_stream_without_a_reader_holds_goes_nowhere():
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    stream.write("the rest")
    os.close(reader)
    drop(stream)
    stream.close()      # BrokenPipeError of a stream that was not dropped


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_streams(sliced, tmp_path, closed):
    """No file of the run gets a line that was meant for the terminal, and the exit codes are the same."""
    command = f'exec {sys.executable} "$@" {closed}'
    good = ["train.py", "--data", sliced, "--out", tmp_path / "run", *SMALL]
    bad = ["eval.py", "run", tmp_path / "nowhere"]
    for arguments, code in ((good, 0), (bad, 2)):
        done = subprocess.run(["sh", "-c", command, "sh", *map(str, arguments)], cwd=ROOT, capture_output=True,
                              text=True)
        assert done.returncode == code and "Traceback" not in done.stderr
    lines = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert len(lines) == 2 and len({line.count(",") for line in lines}) == 1
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["epoch"] == 0


@pytest.mark.parametrize("row", [r"$\bad$", "$", "a_b^c", "%", r"\frac{", "<b>&amp;", "{0}"])
def test_a_row_with_signs_of_formulas(results, tmp_path, monkeypatch, capsys, row):
    """matplotlib reads text between dollar signs as a formula."""
    folder = tmp_path / "isles"
    shutil.copytree(results / "gdl", folder / row)
    for command in ("curves", "table"):
        assert call(evaluate, command, folder, "--rows", row, "--name", "t", monkeypatch=monkeypatch) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_libraries_say_nothing(results, tmp_path):
    """matplotlib without a folder that it may write to speaks of it at length."""
    folder = shutil.copytree(results, tmp_path / "isles")
    (tmp_path / "file").write_text("")
    nowhere = str(tmp_path / "file" / "below")
    environment = {**os.environ, "MPLCONFIGDIR": nowhere, "XDG_CONFIG_HOME": nowhere, "XDG_CACHE_HOME": nowhere,
                   "HOME": nowhere}
    done = start("eval.py", "curves", folder, "--rows", "gdl", "--name", "t", env=environment)
    _, err = done.communicate(timeout=120)
    assert (done.returncode, err) == (0, ""), err
    done = start("eval.py", "curves", folder, "--rows", "nothing", "--name", "u", env=environment)
    assert one_line(done.communicate(timeout=120)[1], "eval.py: error", "nothing") and done.returncode == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
@pytest.mark.parametrize("failure", ["", " or open('no/such/file')"])
def test_a_full_disk_behind_stdout_is_one_line(failure):
    """The few words of a command reach it when the work is done, or has failed for another reason."""
    program = (
        "import sys\n"
        "from environment.command import run_command\n"
        f"sys.exit(run_command(lambda _: print('all done'){failure}))\n"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONUNBUFFERED": ""})
    said = "No such file or directory: 'no/such/file'" if failure else "No space left on device"
    assert done.returncode == 2 and one_line(done.stderr, "-c: error", said)


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("remark", ["warnings.warn('a remark', FutureWarning)", "logging.warning('a remark')"])
def test_remarks_of_libraries_are_left_out_unless_python_is_asked_for_them(remark, asked):
    program = (
        "import logging, sys, warnings\n"
        "from environment.command import run_command\n"
        f"sys.exit(run_command(lambda _: {remark}))\n"
    )
    done = start(*(("-W", "default") if asked else ()), "-c", program, env={**os.environ, "PYTHONWARNINGS": ""})
    _, err = done.communicate(timeout=60)
    assert done.returncode == 0 and ("a remark" in err if asked else err == ""), err


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        (SystemExit(0), 0, ""), (SystemExit(None), 0, ""),
        (MemoryError("for an array"), 1, "work.py: error: out of memory for an array\n"),
        (StoppedError("no more"), 1, "work.py: error: no more\n"), (InputError("bad"), 2, "work.py: error: bad\n"),
        (BrokenPipeError(), 1, ""), (OSError("no room"), 2, "work.py: error: no room\n"),
        (KeyboardInterrupt("at step 3"), 130, "work.py: at step 3\n"),
        (InputError("a\n b " + 1996 * "x"), 2, f"work.py: error: a b {1996 * 'x'}\n"),
        (InputError(2001 * "x"), 2, f"work.py: error: {2000 * 'x'} ...\n"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_a_commands_end_comes_to(monkeypatch, capsys, ending, code, said):
    assert call(command_that_ends_with(ending), monkeypatch=monkeypatch) == code
    assert capsys.readouterr() == ("", said)


def command_that_ends_with(ending):
    def main(_):
        raise ending

    return SimpleNamespace(__name__="work", main=main)


@pytest.mark.parametrize("code", [3, "in words"])
def test_an_exit_code_of_its_own_is_kept(monkeypatch, code):
    with pytest.raises(SystemExit) as left:
        call(command_that_ends_with(SystemExit(code)), monkeypatch=monkeypatch)
    assert left.value.code == code
