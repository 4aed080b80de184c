"""Which GPU a run takes where there are several; a stand-in for CUDA's own count."""

import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import evaluate
from raw_files import call

import train
from environment import devices
from environment.gpus import claimed_gpu, is_held, visible_names
from utils import InputError

ROOT = Path(__file__).resolve().parent.parent
CLAIM = """
import sys
from pathlib import Path
from environment.gpus import claimed_gpu
with claimed_gpu(int(sys.argv[1]), Path(sys.argv[2])) as gpu:
    print(gpu, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def claimants(tmp_path):
    """Starts processes that each claim one of three GPUs until they are let go; kills those that are left."""
    processes = []

    def start(number: int) -> list[subprocess.Popen]:
        command = [sys.executable, "-c", CLAIM, "3", str(tmp_path / "claims")]
        started = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                   for _ in range(number)]
        processes.extend(started)
        return started

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def gpus(processes) -> list[int]:
    return [int(process.stdout.readline()) for process in processes]


def test_runs_that_start_at_once_spread(claimants, tmp_path):
    """Seven runs on three GPUs: three, two and two; one that ends or is killed makes room for the next."""
    runs = claimants(7)
    on = gpus(runs)
    assert sorted(on) == [0, 0, 0, 1, 1, 2, 2]
    leaving = next(run for run, gpu in zip(runs, on, strict=True) if gpu == 2)
    leaving.send_signal(signal.SIGKILL)
    leaving.wait()
    assert gpus(claimants(1)) == [2]
    ending = next(run for run, gpu in zip(runs, on, strict=True) if gpu == 1)
    ending.communicate("")
    assert gpus(claimants(1)) == [1]
    with claimed_gpu(3, tmp_path / "claims") as gpu:
        assert gpu == 1     # 3, 2 and 2 again


def test_nothing_is_left_of_a_claim(tmp_path):
    with claimed_gpu(2, tmp_path) as first, claimed_gpu(2, tmp_path) as second:
        assert (first, second) == (0, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["turn"]


def test_a_claim_ends_with_its_process(tmp_path):
    """A claim is a file that is locked: one that a killed process left is removed, and counts no more."""
    live, stale = tmp_path / "gpu-0-live", tmp_path / "gpu-0-stale"
    for path in (live, stale):
        path.touch()
    with live.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_held(live) and live.exists()
        assert not is_held(stale) and not stale.exists()
        assert not is_held(stale)       # another process has removed it meanwhile
        (tmp_path / "gpu-1-stale").touch()
        with claimed_gpu(2, tmp_path) as gpu:
            assert gpu == 1 and not (tmp_path / "gpu-1-stale").exists()
    assert not is_held(live) and not live.exists()


def test_the_names_are_those_of_the_machine(monkeypatch, tmp_path):
    """Two processes that see other GPUs as their first do not take each other's claims for their own."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert visible_names(2) == ["2", "3"]
    with claimed_gpu(2, tmp_path) as first:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,2")
        with claimed_gpu(2, tmp_path) as second:
            assert (first, second) == (0, 0)    # 2 and 3 of the machine
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_names(2) == ["0", "1"]


def test_claims_of_one_process_number_do_not_wait_for_each_other(tmp_path):
    """As of two containers that share the folder: three claims of two GPUs from one process."""
    with claimed_gpu(2, tmp_path) as first, claimed_gpu(2, tmp_path) as second, claimed_gpu(2, tmp_path) as third:
        assert (first, second, third) == (0, 1, 0)


@pytest.mark.parametrize("command", ["train", "eval"])
def test_a_check_refuses_a_device_that_is_none(results, sliced, monkeypatch, capsys, command):
    run = results / "gdl" / "seed0"
    module, arguments = {"train": (train, ("--data", sliced, "--out", run)), "eval": (evaluate, ("run", run))}[command]
    assert call(module, *arguments, "--check", "--device", "gpu", monkeypatch=monkeypatch) == 2
    assert "--device: expected auto, cpu, cuda or cuda:N, found gpu" in capsys.readouterr().err


@pytest.fixture
def three_gpus(monkeypatch, tmp_path):
    """CUDA as if there were three GPUs; returns the current devices that were set."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    return current


@pytest.mark.parametrize("name", ["cuda", "auto"])
def test_the_gpu_with_the_fewest_runs(three_gpus, name):
    with devices.claimed_device(name) as first, devices.claimed_device(name) as second:
        assert (first, second) == (torch.device("cuda:0"), torch.device("cuda:1"))
    with devices.claimed_device(name) as third:
        assert third == torch.device("cuda:0")
    assert three_gpus == [0, 1, 0]


def test_a_gpu_that_is_asked_for(three_gpus):
    with devices.claimed_device("cuda:1") as one, devices.claimed_device("cuda:1") as other:
        assert one == other == torch.device("cuda:1")
    assert three_gpus == [1, 1]
    with pytest.raises(InputError, match=r"--device cuda:3: expected one of 3 CUDA devices, cuda:0 to cuda:2"):
        devices.select_device("cuda:3")


def test_one_gpu_is_nothing_to_choose_from(three_gpus, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with devices.claimed_device("cuda") as one, devices.claimed_device("auto") as other:
        assert one == other == torch.device("cuda")
    assert list(tmp_path.iterdir()) == [] and three_gpus == [0, 0]


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:1000", "CPU", "mps", "cuda:0 "])
def test_devices_that_are_none(name):
    with pytest.raises(InputError, match="--device: expected auto, cpu, cuda or cuda:N, found"):
        devices.select_device(name)
