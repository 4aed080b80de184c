"""Slices read from the disk at every step: the same batches, in bounded memory, and damage is named in time."""
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import assert_same_run, run

import dataloader
import train
from environment import memory
from sliced_data.meta import read_meta
from utils import InputError

CPU = torch.device("cpu")
MAPS = [(None, None), ("phi2d", None), ("phi3d", "paper"), ("phi2d", "authors"), ("rrw", None), ("hausdorff", None)]


def opened(data, resident, maps=None, convention=None, device=CPU):
    meta = read_meta(data)
    return dataloader.open_parts(meta, maps=maps, convention=convention, resident=resident, device=device)


def all_batches(slices, device=CPU):
    orders = [dataloader.epoch_order(len(slices), seed=1, epoch=epoch) for epoch in (0, 1)]
    return [batch for order in orders for batch in dataloader.batches(slices, order, 4, device)]


def assert_same_batches(one, other):
    assert len(one) == len(other) == 4 and len(one[1].label) == 2
    for a, b in zip(one, other, strict=True):
        for name in ("image", "label", "maps", "spacing"):
            x, y = getattr(a, name), getattr(b, name)
            if x is None or y is None:
                assert x is y
                continue
            assert x.dtype == y.dtype and x.stride() == y.stride() and torch.equal(x.cpu(), y.cpu()), name


@pytest.mark.parametrize(("maps", "convention"), MAPS)
def test_streamed_batches_are_the_resident_ones_in_the_same_order(sliced, maps, convention):
    parts = [opened(sliced, resident, maps, convention) for resident in ("host", "stream")]
    assert type(parts[1][0]) is dataloader.StreamedSlices
    assert_same_batches(*(all_batches(train) for train, _ in parts))
    (_, val), (_, streamed) = parts
    assert torch.equal(val.label, streamed.label) and list(val.case_ranges()) == list(streamed.case_ranges())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident", ["device", "host", "stream"])
def test_batches_on_a_gpu_are_those_of_the_host(sliced, resident):
    cuda = torch.device("cuda")
    train, _ = opened(sliced, resident, "phi2d", device=cuda)
    found = all_batches(train, cuda)
    assert all(batch.image.is_cuda for batch in found)
    assert_same_batches(all_batches(opened(sliced, "host", "phi2d")[0]), found)


def test_slices_on_the_host_are_gathered_ahead_for_another_device(sliced, monkeypatch):
    """Without a GPU: the meta device stands in for it, and pinning is counted."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape[0]) or tensor)
    train, _ = opened(sliced, "host", "phi2d")
    found = list(dataloader.batches(train, torch.arange(6), 4, torch.device("meta")))
    assert [tuple(batch.image.shape) for batch in found] == [(4, 5, 32, 32), (2, 5, 32, 32)]
    assert found[0].image.is_meta and found[0].image.dtype == torch.float32
    assert sorted(pinned) == [2] * 4 + [4] * 4


@pytest.mark.parametrize("flags", [("--contour", "boundary", "--maps", "3d"), ("--contour", "region-wise")])
def test_a_streamed_run_is_the_resident_one_bit_for_bit(sliced, tmp_path, flags):
    run(sliced, tmp_path / "host", *flags, "--resident", "host")
    run(sliced, tmp_path / "stream", *flags, "--resident", "stream", "--epochs", "2")
    # Residence is no setting: a run may go on with another.
    run(sliced, tmp_path / "stream", *flags, "--resident", "auto", "--resume")
    assert_same_run(tmp_path / "host", tmp_path / "stream")


def test_a_3d_map_of_another_convention_must_be_stored(sliced, tmp_path):
    flags = ("--contour", "boundary", "--maps", "3d", "--distance-map", "authors", "--resident", "stream")
    with pytest.raises(InputError, match="preprocess.py --distance-map authors"):
        run(sliced, tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def copy(sliced, tmp_path):
    return shutil.copytree(sliced, tmp_path / "copy")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def poison(path):
    array = np.load(path)
    array[-1, -1, -1] = np.nan
    np.save(path, array)


@pytest.mark.parametrize("damage", [truncate, poison, os.unlink])
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_damaged_slice_is_named_before_training(copy, tmp_path, damage, part):
    path = sorted((copy / part / "phi2d").iterdir())[1]
    damage(path)
    with pytest.raises(InputError, match=f"{part}/phi2d/{path.name}: expected"):
        run(copy, tmp_path / "run", "--contour", "boundary", "--resident", "stream")
    assert not (tmp_path / "run").exists()


def test_a_slice_that_goes_during_training_is_named(copy):
    train, _ = opened(copy, "stream")
    path = sorted((copy / "train" / "image").iterdir())[5]
    truncate(path)
    with pytest.raises(InputError, match=path.name):
        all_batches(train)


def test_files_of_another_numpy_are_read_the_slow_way(copy):
    """A header of other bytes, as older versions wrote it, and Fortran order."""
    expected = all_batches(opened(copy, "host")[0])
    paths = sorted((copy / "train" / "image").iterdir())
    array = np.load(paths[0])
    with paths[0].open("wb") as file:
        np.lib.format.write_array(file, array, version=(2, 0))
    np.save(paths[1], np.asfortranarray(np.load(paths[1])))
    for resident in ("host", "stream"):
        assert_same_batches(expected, all_batches(opened(copy, resident)[0]))


def test_prefetching_keeps_the_order_and_its_bounds():
    started, taken, bounds = [], [], []

    def fetch(part):
        started.append(part)
        time.sleep(0.002 * (part % 3))
        return part

    for part in dataloader.prefetched(fetch, range(30), ahead=4):
        taken.append(part)
        bounds.append(len(started) - len(taken))
    assert taken == list(range(30)) and max(bounds) <= 4


def test_prefetching_ends_with_its_reader():
    started = []
    stream = dataloader.prefetched(started.append, range(1000), ahead=4)
    next(stream)
    stream.close()
    assert len(started) <= 5


@pytest.mark.parametrize(
    ("device", "free", "available", "chosen"),
    [
        ("cpu", 0, 200, "host"),
        ("cpu", 0, 199, "stream"),
        ("cuda", 200, 0, "device"),
        ("cuda", 199, 200, "host"),
        ("cuda", 199, 199, "stream"),
    ],
)
def test_auto_takes_the_first_place_with_room(monkeypatch, device, free, available, chosen):
    monkeypatch.setattr(dataloader, "free_memory", lambda device: free)
    monkeypatch.setattr(dataloader, "available_memory", lambda: available)
    assert dataloader.choose_residence(100, torch.device(device)) == chosen


def test_auto_counts_what_is_loaded(sliced, monkeypatch):
    size = 6 * 32 * 32 * (5 * 2 + 1 + 2 * 4) + 3 * 32 * 32 * (5 * 2 + 1 + 2 * 4)
    asked = []
    monkeypatch.setattr(dataloader, "choose_residence", lambda size, device: asked.append(size) or "host")
    train, val = opened(sliced, "auto", "rrw")
    assert asked == [size]
    held = [t for part in (train, val) for t in (part.image, part.label, part.maps)]
    assert sum(t.numel() * t.element_size() for t in held) == size


@pytest.mark.parametrize(
    ("lines", "folders"),
    [
        ("0::/user/job\n", ["user/job", "user", "."]),     # version 2
        ("4:cpu,cpuacct:/job\n3:memory:/job\n0::/\n", ["memory/job", "memory", "."]),     # version 1 of memory
        ("3:memory:/of/the/host\n", ["memory"]),           # within a container its own group is the root
    ],
)
def test_the_control_groups_of_a_controller(tmp_path, monkeypatch, lines, folders):
    for name in ("user/job", "memory/job", "cpu,cpuacct/job"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "read_text", {Path("/proc/self/cgroup"): lines}.get)
    assert [str(folder.relative_to(tmp_path)) for folder in memory.cgroup_folders("memory")] == folders


def test_memory_is_bounded_by_the_control_group(tmp_path, monkeypatch):
    values = {"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 500\ninactive_file 150\n"}
    for name, text in values.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "cgroup_folders", lambda controller: iter([tmp_path]))
    assert memory.available_memory() == 450
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(memory, "meminfo", lambda name: 123456)
    assert memory.available_memory() == 123456
    monkeypatch.undo()
    assert memory.meminfo("MemAvailable") > 2**20 and memory.available_memory() > 0


LIMITED = """
import resource, sys
sys.path[:0] = [sys.argv[1]]
from pathlib import Path
import numpy as np
import torch._dynamo  # what the optimiser imports when it is made
import train
import training.session  # what train imports when it begins
from boundary_loss.metrics import hd95
from environment.command import run_command
hd95(np.eye(9)[None] > 0, np.ones((1, 9, 9)) > 0, (1, 1, 1))  # what it imports where the networks find something
lines = Path("/proc/self/status").read_text().splitlines()
used = next(int(line.split()[1]) for line in lines if line.startswith("VmData")) * 1024
limit = used + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
sys.argv[1:] = sys.argv[3:]
sys.argv[0] = "train.py"
sys.exit(run_command(train.main))
"""


def enlarge(sliced, data, *, slices: int) -> None:
    """128 x 128, 80 channels, ``slices`` slices a training case; links, so that it fills little on the disk."""
    shutil.copytree(sliced, data)
    meta = json.loads((data / "meta.json").read_text()) | {"size": 128, "modalities": [f"t{n}" for n in range(80)]}
    del meta["slices"], meta["checksums"], meta["seal"]
    (data / "meta.json").write_text(json.dumps(meta))
    header, *rows = (data / "cases.csv").read_text().splitlines()
    lines, rng = [header], np.random.default_rng(0)
    for row in rows:
        case = dict(zip(header.split(","), row.split(","), strict=True))
        case["n_slices"] = "2" if case["split"] == "val" else str(slices)
        lines.append(",".join(case.values()))
        for kind, shape in {"image": (80, 128, 128), "label": (128, 128), "phi2d": (2, 128, 128)}.items():
            first, *others = (
                data / case["split"] / kind / f"{case['case_id']}_{z:04d}.npy" for z in range(int(case["n_slices"]))
            )
            np.save(first, rng.integers(0, 2, shape).astype(np.uint8 if kind == "label" else np.float16))
            for path in others:
                path.unlink(missing_ok=True)
                os.link(first, path)
    (data / "cases.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_DATA")
def test_a_set_larger_than_memory_streams(sliced, tmp_path):
    """A set of 540 MB and a process that may add 400 MB to what it has after its imports.

    Streaming adds 240 MB here, the set in memory 590 MB: far from the limit, as other processors add other amounts.
    """
    enlarge(sliced, tmp_path / "data", slices=100)
    flags = ("--width", "1", "--epochs", "1", "--batch-size", "1", "--device", "cpu", "--contour", "boundary",
             "--precision", "fp32")
    for resident, code in (("stream", 0), ("host", 1)):
        arguments = ("--data", tmp_path / "data", "--out", tmp_path / resident, *flags, "--resident", resident)
        process = subprocess.run(
            [sys.executable, "-c", LIMITED, os.path.dirname(train.__file__), str(400 * 2**20), *map(str, arguments)],
            capture_output=True,
            text=True,
        )
        assert process.returncode == code, process.stderr
    assert process.stderr.count("\n") == 1 and "--resident stream" in process.stderr
