"""Plugin of pytest for mutate.py: which lines of the product each test runs, those of its fixtures included.

``MUTATE_TRACE`` names the file to write: {"tests": {id: {"seconds": s, "lines": {file: [line, ...]}}}}; the seconds are
those of the test and of all fixtures that it needs. What a forked worker runs counts; what a command in a process of
its own runs does not.
"""

import json
import os
import sys
import threading
import time
from collections import defaultdict
from multiprocessing import util
from pathlib import Path

import pytest

ROOT = Path.cwd()
SKIPPED = tuple(f"{ROOT / name}{os.sep}" for name in ("tests", "scripts", ".venv"))


class Recorder:
    """Lines by what runs: a test, a fixture that tests share, or neither (import)."""

    def __init__(self) -> None:
        self.running = "import"
        self.lines: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.seconds: dict[str, float] = defaultdict(float)     # of a test without its fixtures, of a fixture
        self.fixtures: dict[str, list[str]] = {}
        self.parts = Path(f"{os.environ['MUTATE_TRACE']}.parts")

    def trace(self, frame, event, _):
        name = frame.f_code.co_filename
        if not name.startswith(str(ROOT)) or name.startswith(SKIPPED):
            return None
        self.lines[self.running].add((name, frame.f_lineno))
        return self.trace_line

    def trace_line(self, frame, event, _):
        if event == "line":
            self.lines[self.running].add((frame.f_code.co_filename, frame.f_lineno))
        return self.trace_line

    def start(self) -> None:
        threading.settrace(self.trace)
        sys.settrace(self.trace)

    def in_fork(self) -> None:
        """A worker writes what it ran when it ends."""
        self.lines = defaultdict(set)
        self.start()
        util.Finalize(self, self.write_part, exitpriority=1)

    def write_part(self) -> None:
        self.parts.mkdir(exist_ok=True)
        content = {name: sorted(lines) for name, lines in self.lines.items()}
        (self.parts / f"{os.getpid()}-{time.time_ns()}.json").write_text(json.dumps(content))

    def write(self) -> None:
        sys.settrace(None)
        for part in self.parts.glob("*.json"):
            for name, lines in json.loads(part.read_text()).items():
                self.lines[name].update(map(tuple, lines))
        tests = {}
        for test, fixtures in self.fixtures.items():
            parts, files = (test, *fixtures), defaultdict(list)
            seconds = sum(self.seconds[part] for part in parts)
            for name, line in set().union(*(self.lines[part] for part in parts)):
                files[str(Path(name).relative_to(ROOT))].append(line)
            tests[test] = {"seconds": seconds, "lines": {name: sorted(lines) for name, lines in files.items()}}
        Path(os.environ["MUTATE_TRACE"]).write_text(json.dumps({"tests": tests}))


RECORDER = Recorder()
util.register_after_fork(RECORDER, Recorder.in_fork)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    RECORDER.running, start = item.nodeid, time.perf_counter()
    RECORDER.fixtures[item.nodeid] = [f"fixture {name}" for name in item.fixturenames]
    RECORDER.start()
    try:
        return (yield)
    finally:
        RECORDER.seconds[item.nodeid] += time.perf_counter() - start


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    before, start = RECORDER.running, time.perf_counter()
    if fixturedef.scope != "function":
        RECORDER.running = f"fixture {fixturedef.argname}"
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function":
            seconds = time.perf_counter() - start
            RECORDER.seconds[RECORDER.running] += seconds
            RECORDER.seconds[before] -= seconds
        RECORDER.running = before


def pytest_sessionfinish():
    RECORDER.write()
