"""Real processes killed at seeded random moments end with the very bits of the undisturbed ones."""

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from forked import Forked
from raw_files import make_isles, tree
from training_runs import SMALL, assert_same_run, run

import preprocess
import train
from environment.locks import exclusive
from slicing import workers
from slicing.workers import in_processes
from utils import InputError, StoppedError, progress

# Two chains at once, of seven sessions and one to the end: six kills each, two of them while a checkpoint is written,
# and a SIGTERM.
PLAN = ("start", "train", "write", "stop", "train", "write", "train")


def start(module, arguments) -> Forked:
    return Forked(module.__file__, arguments)


def wait_for(process, happened, interval: float = 0.002, seconds: float = 60) -> None:
    """Until ``happened()``, or the process has ended."""
    deadline = time.monotonic() + seconds
    while process.returncode is None and not happened() and time.monotonic() < deadline:
        time.sleep(interval)


def epochs_in(log) -> int:
    """Lines of a log, which may not be there yet."""
    try:
        return len(log.read_text().splitlines())
    except FileNotFoundError:
        return 0


def disturb(arguments, out, kind: str, moment: float) -> tuple[int, bool]:
    """One session that is killed or stopped; returns its exit code and whether a half-written checkpoint was left."""
    log = out / "log.csv"
    began, epochs = time.time_ns(), epochs_in(log)
    process = start(train, arguments)
    # However fast the machine is, no session trains more than a few epochs: all of them meet a run under way.
    if kind == "start":
        # From the imports to the first epochs, by way of what is restored.
        wait_for(process, lambda: epochs_in(log) > epochs + 2, seconds=5 * moment)
    else:
        # The log is written anew when a session starts to train, and then after each epoch.
        wait_for(process, lambda: log.exists() and log.stat().st_mtime_ns > began)
        wait_for(process, lambda: epochs_in(log) > epochs + 2, seconds=0.2 * moment)
    if kind == "stop":
        # However slow it is: the first epochs are under way.
        wait_for(process, lambda: epochs_in(log) > epochs)
    if kind == "write":
        wait_for(process, lambda: bool(list(out.glob(f".unfinished-{process.pid}.*.pt"))), interval=0.0002)
    process.send_signal(signal.SIGTERM if kind == "stop" else signal.SIGKILL)
    code, error = process.wait(timeout=60)
    if kind == "stop":
        assert code == 130 and error.startswith("train.py: stopped at epoch "), error
    return code, bool(list(out.glob(".*.pt")))


def chain(data, out, flags, seed: int) -> tuple[int, int]:
    """A run through all of PLAN and then to its end; returns how many kills there were, and how many within a write."""
    moments = random.Random(seed)
    arguments = ("--data", data, "--out", out, *SMALL, *flags, "--resume")
    found = [disturb(arguments, out, kind, moments.random()) for kind in PLAN]
    # A disk may be so fast that a write is over before the kill comes: again, until one is torn.
    for _ in range(5):
        if not any(torn for _, torn in found):
            found.append(disturb(arguments, out, "write", moments.random()))
    code, error = start(train, arguments).wait(timeout=600)
    assert code == 0, error
    assert not list(out.glob(".*"))
    return sum(code == -signal.SIGKILL for code, _ in found), sum(torn for _, torn in found)


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_as_the_undisturbed_one(sliced, tmp_path):
    flags = ("--contour", "boundary", "--epochs", "40", "--batch-size", "2")
    with ThreadPoolExecutor(3) as pool:
        chains = [
            pool.submit(chain, sliced, tmp_path / f"killed{seed}", (*flags, "--resident", resident), seed)
            for seed, resident in enumerate(("host", "stream"))
        ]
        run(sliced, tmp_path / "whole", *flags)
        kills, torn = zip(*(one.result() for one in chains), strict=False)
    assert min(kills) >= 6 and min(torn) >= 1
    for seed in range(2):
        assert_same_run(tmp_path / "whole", tmp_path / f"killed{seed}")


def wait_for_workers(partial) -> None:
    """Orphaned workers hold the folder's lock until they have noticed that they are."""
    for _ in range(100):
        try:
            if partial.exists():
                with exclusive(partial):
                    pass
            return
        except InputError:
            time.sleep(0.05)


def slices_since(began: int, partial) -> int:
    """How many slices were written after ``began``; what an earlier session left is being cleared meanwhile."""
    try:
        return sum(path.stat().st_mtime_ns > began for path in partial.glob("*/image/*.npy"))
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_slicing_killed_at_random_moments_ends_as_the_undisturbed_one(tmp_path):
    make_isles(tmp_path / "raw", cases=[f"case_{n}" for n in range(1, 7)], shape=(64, 64, 22))
    moments, partial = random.Random(0), tmp_path / "data" / ".isles.partial"

    def arguments(dest):
        return ("isles", "--source", tmp_path / "raw", "--dest", dest, "--val", "2", "--jobs", "2", "--size", "256")

    for sent in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        began = time.time_ns()
        process = start(preprocess, arguments(tmp_path / "data" / "isles"))
        # By what was done and not by the clock, since a fast machine slices all of it in a second.
        reached = moments.randrange(1, 60)
        wait_for(process, lambda began=began, reached=reached: slices_since(began, partial) >= reached)
        process.send_signal(sent)
        assert process.wait(timeout=60)[0] == (-sent if sent == signal.SIGKILL else 130)
        wait_for_workers(partial)
        # What is not whole does not have the name; a stopped run cleans up after itself.
        assert not (tmp_path / "data" / "isles").exists()
        assert partial.exists() == (sent == signal.SIGKILL)
    for dest in (tmp_path / "data" / "isles", tmp_path / "undisturbed"):
        assert start(preprocess, arguments(dest)).wait(timeout=60) == (0, "")
    assert os.listdir(tmp_path / "data") == ["isles"]
    names = tree(tmp_path / "undisturbed")
    assert names == tree(tmp_path / "data" / "isles") and len(names) == 6 * 22 * 4 + 3 + 2 + 8
    for name in names:
        one, other = tmp_path / "undisturbed" / name, tmp_path / "data" / "isles" / name
        assert one.is_dir() or one.read_bytes() == other.read_bytes(), name


def kill_itself(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail_or_wait(job: tuple[int, Path]) -> None:
    number, path = job
    if number:
        raise InputError("a bad case")
    time.sleep(3)
    path.touch()


def test_a_bad_case_ends_those_that_are_under_way(tmp_path):
    with pytest.raises(InputError, match="a bad case"):
        in_processes(fail_or_wait, [(0, tmp_path / "a"), (1, tmp_path / "b")], workers=2, description="")
    assert not list(tmp_path.iterdir())


def test_progress_says_what_is_done(monkeypatch):
    bars = []
    monkeypatch.setattr(workers, "progress", lambda **options: bars.append(options) or progress(**options))
    assert in_processes(kill_itself, [0, 2, 3], workers=2, description="doing things") == [0, 2, 3]
    assert bars == [{"total": 3, "desc": "doing things", "unit": "case"}]


def test_a_killed_worker_is_said():
    assert in_processes(kill_itself, [0, 2], workers=1, description="") == [0, 2]
    with pytest.raises(StoppedError, match="a worker was killed, perhaps for want of memory; try --jobs 1"):
        in_processes(kill_itself, [0, 1, 2], workers=1, description="")
