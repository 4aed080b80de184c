"""Scripts as processes of their own, forked from a server that has their modules already: imports take two seconds."""

import multiprocessing
import os
import runpy
import sys
import tempfile
import threading
from pathlib import Path

import pytest

ONE_AT_A_TIME = threading.Lock()
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["forked_modules"])


def run_script(words: list[str], error: str) -> None:
    with open(error, "w") as stderr, open(os.devnull, "w") as stdout:
        os.dup2(stderr.fileno(), 2)
        os.dup2(stdout.fileno(), 1)
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


class Forked:
    """What the tests use of ``subprocess.Popen``."""

    def __init__(self, script: str, arguments) -> None:
        number, self.error = tempfile.mkstemp(suffix=".stderr")
        os.close(number)
        self.process = CONTEXT.Process(target=run_script, args=([script, *map(str, arguments)], self.error))
        # The server begins with the first process, and finds its modules where this one does.
        with ONE_AT_A_TIME, pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
            self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> tuple[int, str]:
        """Exit code and stderr."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, "it has not ended"
        error = Path(self.error).read_text()
        os.unlink(self.error)
        return self.process.exitcode, error
