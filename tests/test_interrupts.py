"""What stops and failed allocations come to in the middle of a training."""

import os
import signal

import pytest

from training.interrupts import StopRequest, StopTraining, memory_advice
from utils import StoppedError


@pytest.fixture
def written(monkeypatch):
    """(descriptor, text) of what is written past Python; standard error is a terminal."""
    lines = []
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 2)
    monkeypatch.setattr(os, "write", lambda *line: lines.append(line))
    return lines


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_waits_for_the_loop_and_a_second_ctrl_c_for_nothing(written, first):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest() as stop:
        stop.check()
        signal.raise_signal(first)
        assert written == [(2, b"\nstopping after this step; Ctrl-C again stops at once\n")]
        with pytest.raises(StopTraining):
            stop.check()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_log_file_is_told_nothing(written, monkeypatch):
    monkeypatch.setattr(os, "isatty", lambda _: False)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
    assert stop.received and not written


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory; take less (out of memory)"),
        (MemoryError("Unable to allocate 3 GiB"), "out of memory; take less (Unable to allocate 3 GiB)"),
        (RuntimeError("CUDA error\nTried to allocate 2 GiB, out of memory  \nmore"),
         "out of memory; take less (Tried to allocate 2 GiB, out of memory)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"),
         "out of memory; take less (DefaultCPUAllocator: can't allocate memory)"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), "out of memory; take less (CUBLAS_STATUS_ALLOC_FAILED)"),
    ],
)
def test_an_allocation_that_fails_ends_with_advice(error, said):
    with pytest.raises(StoppedError) as caught, memory_advice("take less"):
        raise error
    assert str(caught.value) == said


def test_another_error_is_none_of_memory():
    with pytest.raises(RuntimeError, match="^allocate a bug$"), memory_advice("take less"):
        raise RuntimeError("allocate a bug")
