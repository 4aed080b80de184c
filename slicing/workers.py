"""One function over many cases in processes of their own."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from utils import StoppedError, progress

Job = TypeVar("Job")
Result = TypeVar("Result")


def watch_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and do not outlive it if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int, description: str
) -> list[Result]:
    """``function`` of each job, in their order."""
    results: dict[int, Result] = {}
    # No thread of the parent is left, so forking is safe; elsewhere it is not the default.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with progress(total=len(jobs), desc=description, unit="case") as bar:
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=watch_parent) as pool:
            futures = {pool.submit(function, job): place for place, job in enumerate(jobs)}
            try:
                for future in as_completed(futures):
                    results[futures[future]] = future.result()
                    bar.update()
            except BrokenProcessPool:
                raise StoppedError("a worker was killed, perhaps for want of memory; try --jobs 1") from None
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    return [results[place] for place in range(len(jobs))]
