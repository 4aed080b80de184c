"""What is found out about a machine, from made-up files of the system and beside what Python says of it."""

import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from environment import cores, devices, memory, provenance

SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


@pytest.fixture
def machine(monkeypatch):
    """Let the system have these files, and this process these processors."""

    def be(files, usable=(0,)):
        monkeypatch.setattr(cores, "read_text", lambda path: files.get(str(path)))
        monkeypatch.setattr(memory, "read_text", lambda path: files.get(str(path)))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(usable))
        folders = {Path(name).parent for name in files if name.startswith("/group")}
        monkeypatch.setattr(cores, "cgroup_folders", lambda controller: sorted(folders) if controller == "cpu" else [])
        monkeypatch.setattr(memory, "cgroup_folders", lambda name: sorted(folders) if name == "memory" else [])

    return be


@pytest.mark.parametrize(("files", "usable", "expected"), [
    ({}, range(8), 8), ({}, (3,), 1),
    ({SIBLINGS.format(cpu): f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)}, range(8), 4),
    ({SIBLINGS.format(cpu): f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)}, (0, 4, 5), 2),
    ({"/group/cpu.max": "150000 100000"}, range(8), 2), ({"/group/cpu.max": "200000 100000"}, range(8), 2),
    ({"/group/cpu.max": "20000 100000"}, range(8), 1), ({"/group/cpu.max": "max 100000"}, range(8), 8),
    ({"/group/cpu.max": "0 100000"}, range(8), 1),
    ({"/group/cpu.cfs_quota_us": "250000", "/group/cpu.cfs_period_us": "100000"}, range(8), 3),
    ({"/group/cpu.cfs_quota_us": "-1", "/group/cpu.cfs_period_us": "100000"}, range(8), 8),
    ({"/group/cpu.max": "500000 100000", "/group/below/cpu.max": "300000 100000"}, range(8), 3),
])
def test_cores(machine, files, usable, expected):
    machine(files, usable)
    assert cores.core_count() == expected


def test_cores_of_a_system_without_an_affinity(machine, monkeypatch):
    machine({})
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores.core_count() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.core_count() == 1


MEMINFO = {"/proc/meminfo": "MemTotal:  900 kB\nMemAvailable:  500 kB\nSwapFree: 7 kB"}


@pytest.mark.parametrize(("files", "expected"), [
    ({}, sys.maxsize), (MEMINFO, 500 * 1024), ({"/proc/meminfo": "MemTotal: 900 kB"}, sys.maxsize),
    ({"/group/memory.max": "5000", "/group/memory.current": "4000"}, 1000),
    ({**MEMINFO, "/group/memory.max": "5000", "/group/memory.current": "4000"}, 1000),
    ({**MEMINFO, "/group/memory.max": "max", "/group/memory.current": "4000"}, 500 * 1024),
    ({**MEMINFO, "/group/memory.max": "5000"}, 500 * 1024),
    ({"/group/memory.max": "5000", "/group/memory.current": "6000"}, 0),
    ({"/group/memory.max": "5000", "/group/memory.current": "4000",
      "/group/memory.stat": "anon 70\nfile 600\ninactive_file 30\nactive_file 5"}, 1035),
    ({"/group/memory.limit_in_bytes": "800", "/group/memory.usage_in_bytes": "300"}, 500),
    ({"/group/memory.max": "5000", "/group/memory.current": "4000", "/group/a/memory.max": "900",
      "/group/a/memory.current": "200"}, 700),
])
def test_memory(machine, files, expected):
    machine(files)
    assert memory.available_memory() == memory.free_memory(torch.device("cpu")) == expected


def test_memory_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {"cuda:1": (300, 400)}[str(device)])
    assert memory.free_memory(torch.device("cuda:1")) == 300


def test_deterministic_algorithms_are_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    devices.use_deterministic_algorithms()
    assert asked == [True] and not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    devices.use_deterministic_algorithms()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_provenance_is_what_python_says(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/where/train.py", "--out", "a b"])
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    found = provenance.provenance()
    assert shlex.split(found["command"]) == ["train.py", "--out", "a b"]
    assert found["packages"] == {name: metadata.version(name) for name in provenance.PACKAGES}
    assert {"torch", "numpy", "scipy", "nibabel"} <= found["packages"].keys()
    expected = {
        "python": platform.python_version(), "platform": platform.platform(), "cores": cores.core_count(),
        "threads": torch.get_num_threads(), "device": "cpu", "cuda": torch.version.cuda, "slurm_job": "17",
        "processor": provenance.processor(),
    }
    assert {name: found[name] for name in expected} == expected
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a card at {device}")
    assert provenance.provenance(torch.device("cuda:1"))["device"] == "a card at cuda:1"
    assert provenance.provenance(torch.device("cpu"))["device"] == "cpu"


def test_outside_of_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    found = provenance.provenance()
    assert (found["git_commit"], found["git_diff"]) == (None, None)
    assert provenance.package_version("no such package") is None


def test_a_checkout_has_a_commit_without_its_newline(monkeypatch):
    asked = []
    monkeypatch.setattr(provenance, "git", lambda *words: asked.append(words) or "abc\n")
    found = provenance.provenance()
    assert (found["git_commit"], found["git_diff"]) == ("abc", "abc\n")
    assert asked[0] == ("rev-parse", "HEAD") and asked[1][0] == "diff"
