"""--precision auto: instructions, a measurement, and that a run keeps what it began with."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import assert_same_run, run

import train
from environment import devices
from sliced_data.meta import read_meta
from training import precision
from training.run_folder import read_settings
from training.settings import PAPER

FASTER, SLOWER = {"fp32": 2.0, "bf16": 1.0}, {"fp32": 1.0, "bf16": 2.0}
CPU = torch.device("cpu")
SMALL = replace(PAPER, width=8, batch_size=4)


@pytest.fixture(autouse=True)
def instructions(tmp_path, monkeypatch):
    """A processor with the instructions, and a user who has measured nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(devices, "cpu_flags", lambda: {"avx2", "avx512_bf16"})


def measured(monkeypatch, seconds):
    """Let a measurement find these seconds; returns the list of the measurements that were made."""
    calls = []
    monkeypatch.setattr(precision, "measure_precisions", lambda *_: calls.append(1) or seconds)
    return calls


def resolved(meta, out=Path("nowhere"), settings=SMALL):
    return precision.resolve_precision(settings, out, meta, CPU)


@pytest.mark.parametrize(("text", "has_bf16"), [
    ("flags\t\t: fpu avx2 avx512f avx512_bf16 sse4_2\n", True), ("flags\t\t: fpu amx_bf16\n", True),
    ("Features\t: fp asimd bf16 i8mm\n", True), ("flags\t\t: fpu avx2 avx512f f16c\n", False), ("", False),
])
def test_instructions_as_linux_names_them(tmp_path, monkeypatch, text, has_bf16):
    monkeypatch.undo()
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: bf16 of flags\n{text}")
    monkeypatch.setattr(devices, "CPUINFO", tmp_path / "cpuinfo")
    assert devices.computes_in_bf16(CPU) is has_bf16


@pytest.mark.parametrize(("seconds", "chosen"), [
    (FASTER, "bf16"), (SLOWER, "fp32"), ({"fp32": 1.05, "bf16": 1.0}, "fp32"), ({"fp32": 1.15, "bf16": 1.0}, "bf16"),
])
def test_the_faster_one_is_chosen(sliced, monkeypatch, seconds, chosen):
    measured(monkeypatch, seconds)
    settings, found = resolved(read_meta(sliced))
    assert (settings.precision, found) == (chosen, seconds)


def test_without_instructions_nothing_is_measured(sliced, monkeypatch):
    calls = measured(monkeypatch, FASTER)
    monkeypatch.setattr(devices, "cpu_flags", lambda: {"avx2", "avx512f"})
    settings, found = resolved(read_meta(sliced))
    assert (settings.precision, found, calls) == ("fp32", None, [])


def test_what_is_asked_for_is_not_measured(sliced, monkeypatch):
    calls = measured(monkeypatch, FASTER)
    for name in ("fp32", "bf16"):
        assert resolved(read_meta(sliced), settings=replace(SMALL, precision=name))[0].precision == name
    authors, _ = train.parse(["--data", str(sliced), "--out", "x", "--protocol", "authors"])
    assert resolved(read_meta(sliced), settings=authors)[0].precision == "fp32" and calls == []


def test_all_runs_of_a_user_compute_alike(sliced, tmp_path, monkeypatch):
    """A measurement is made once for a processor, network and batch, whatever a later one would find."""
    meta = read_meta(sliced)
    measured(monkeypatch, FASTER)
    assert resolved(meta)[0].precision == "bf16"
    calls = measured(monkeypatch, SLOWER)
    assert resolved(meta) == (replace(SMALL, precision="bf16"), FASTER) and calls == []
    for other in (replace(SMALL, width=4), replace(SMALL, batch_size=2), replace(SMALL, network="resnet34-unet")):
        assert resolved(meta, settings=other)[0].precision == "fp32"
    assert len(calls) == 3
    monkeypatch.setattr(precision, "processor", lambda: "another")
    assert resolved(meta)[0].precision == "fp32" and len(calls) == 4
    assert [path.name for path in (tmp_path / "cache" / "boundary-loss").iterdir()] == ["precision.json"]


@pytest.mark.parametrize("content", [
    "", "[1]", "{", '{"x": 3}', "\xff", '{"WHAT": 3}', '{"WHAT": {"fp32": 1}}', '{"WHAT": {"fp32": "soon", "bf16": 1}}',
])
def test_a_damaged_record_is_made_anew(sliced, tmp_path, monkeypatch, content):
    measured(monkeypatch, FASTER)
    content = content.replace('"WHAT"', json.dumps(precision.description(SMALL, read_meta(sliced))))
    path = tmp_path / "cache" / "boundary-loss" / "precision.json"
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="latin-1")
    assert resolved(read_meta(sliced))[0].precision == "bf16"
    assert list(json.loads(path.read_text()).values())[-1] == FASTER


def test_a_home_that_cannot_be_written_changes_nothing(sliced, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    measured(monkeypatch, FASTER)
    assert resolved(read_meta(sliced))[0].precision == "bf16"


@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_gpu_is_not_measured(sliced, monkeypatch, has_bf16):
    calls = measured(monkeypatch, SLOWER)
    monkeypatch.setattr(precision, "computes_in_bf16", lambda device: has_bf16 and device.type == "cuda")
    settings, found = precision.resolve_precision(SMALL, Path("nowhere"), read_meta(sliced), torch.device("cuda"))
    assert (settings.precision, found, calls) == ("bf16" if has_bf16 else "fp32", None, [])


@pytest.mark.parametrize("network", ["unet", "resnet34-unet"])
def test_a_measurement(sliced, network):
    """Both are positive, no thread count changes, and it ends: at most 2 s of one core, once a pass takes less."""
    threads = torch.get_num_threads()
    settings = replace(SMALL, network=network, width=8 if network == "unet" else None)
    seconds = precision.measure_precisions(settings, read_meta(sliced))
    assert list(seconds) == ["fp32", "bf16"] and all(0 < value < 2 for value in seconds.values())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("cost", "shapes", "best"), [
    (1e-6, [(1, 16), (1, 32), (2, 32), (4, 32)], 1.2), (5e-5, [(1, 16), (1, 32), (2, 32)], 2.0), (1e-2, [(1, 16)], 2.0),
])
def test_a_measurement_is_the_best_after_a_warm_up_and_ends_in_time(sliced, monkeypatch, cost, shapes, best):
    """By a clock of our own: a pixel takes ``cost`` s in bf16, twice as many in fp32, and twice that in a warm-up."""
    clock, seen = [0.0], []

    def seconds_of(_, image, name):
        passes = seen.count((len(image), image.shape[2], name))
        seen.append((len(image), image.shape[2], name))
        taken = image[:, 0].numel() * cost * {"fp32": 2, "bf16": 1}[name] * (2.0, 1.3, 1.2)[passes]
        clock[0] += taken
        return taken

    monkeypatch.setattr(precision, "seconds_of", seconds_of)
    monkeypatch.setattr(precision.time, "thread_time", lambda: clock[0])
    meta = read_meta(sliced)
    found = precision.measure_precisions(SMALL, meta)
    assert found == pytest.approx({"fp32": 2 * best * cost * meta.size**2, "bf16": best * cost * meta.size**2})
    assert list(dict.fromkeys(shape[:2] for shape in seen)) == shapes and (clock[0] <= 2 or len(seen) == 2)


@pytest.mark.parametrize(("batch_size", "size", "multiple", "batches"), [
    (8, 64, 8, [(1, 32), (1, 64), (2, 64), (4, 64), (8, 64)]), (6, 40, 8, [(1, 40), (2, 40), (4, 40), (6, 40)]),
    (1, 64, 8, [(1, 32), (1, 64)]), (4, 32, 32, [(2, 32), (4, 32)]), (2, 16, 8, [(1, 16), (2, 16)]),
])
def test_batches_grow_to_the_run_s_own(batch_size, size, multiple, batches):
    assert precision.growing_batches(batch_size, size, multiple) == batches


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_a_measured_run_is_the_run_that_was_asked_for(sliced, tmp_path, monkeypatch, name):
    """Bit for bit: measuring leaves no trace in the weights; and it keeps its precision when it resumes."""
    measured(monkeypatch, FASTER if name == "bf16" else SLOWER)
    run(sliced, tmp_path / "auto", "--epochs", "1")
    os.remove(precision.cache_path())
    measured(monkeypatch, SLOWER if name == "bf16" else FASTER)
    run(sliced, tmp_path / "auto", "--epochs", "2", "--resume")
    run(sliced, tmp_path / "asked", "--epochs", "2", "--precision", name)
    assert_same_run(tmp_path / "auto", tmp_path / "asked")
    assert read_settings(tmp_path / "auto").precision == name
    environment = json.loads((tmp_path / "auto" / "env.json").read_text())
    assert "precision_seconds_per_slice" not in environment
    assert environment["earlier_sessions"][0]["precision_seconds_per_slice"] == (FASTER if name == "bf16" else SLOWER)
    run(sliced, tmp_path / "auto", "--epochs", "2", "--check")


def test_a_real_measurement_leaves_no_trace(sliced, tmp_path):
    run(sliced, tmp_path / "auto", "--epochs", "1")
    run(sliced, tmp_path / "asked", "--epochs", "1", "--precision", read_settings(tmp_path / "auto").precision)
    assert_same_run(tmp_path / "auto", tmp_path / "asked")


def test_of_two_runs_that_measure_at_once_the_first_to_end_decides(sliced, tmp_path, monkeypatch):
    path, what = precision.cache_path(), precision.description(SMALL, read_meta(sliced))

    def measure(*_):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({what: SLOWER, "other": FASTER}))
        return FASTER

    monkeypatch.setattr(precision, "measure_precisions", measure)
    settings, found = resolved(read_meta(sliced))
    assert (settings.precision, found) == ("fp32", SLOWER)
    assert json.loads(path.read_text()) == {what: SLOWER, "other": FASTER}
