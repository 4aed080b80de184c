"""One function over many cases in processes of their own."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from environment.stops import STOPS
from utils import StoppedError, progress

Job = TypeVar("Job")
Result = TypeVar("Result")


def watch_parent() -> None:
    """In a worker: leave stops to the parent, which ends it, and do not outlive the parent if that is killed."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


@contextlib.contextmanager
def stops_held() -> Iterator[None]:
    """Let a stop wait while workers begin: before ``watch_parent`` they would answer it like their parent."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int, description: str
) -> list[Result]:
    """``function`` of each job, in their order."""
    results: dict[int, Result] = {}
    # No thread of the parent is left, so forking is safe; elsewhere it is not the default.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with progress(total=len(jobs), desc=description, unit="case") as bar:
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=watch_parent) as pool:
            try:
                with stops_held():
                    futures = {pool.submit(function, job): place for place, job in enumerate(jobs)}
                for future in as_completed(futures):
                    results[futures[future]] = future.result()
                    bar.update()
            except BrokenProcessPool:
                raise StoppedError("a worker was killed, perhaps for want of memory; try --jobs 1") from None
            except BaseException:
                # The cases that are under way are of no use any more.
                for worker in multiprocessing.active_children():
                    worker.kill()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    return [results[place] for place in range(len(jobs))]
