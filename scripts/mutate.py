"""Small wrong changes of the product, drawn by a seed, and how many of them the tests notice.

    python scripts/mutate.py -n 150 --seed 1 --jobs 2
    python scripts/mutate.py --only training/trainer.py -n 20

Each change is made in a copy of the checkout, never here; the tests that run its lines (of a change at import: that run
its module) follow, the quickest first, until one fails. Which tests those are is traced once, file by file, and kept in
.pytest_cache. Tests marked slow, and commands in processes of their own, may notice more than is counted here.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from mutations import Mutation, find_mutations

ROOT = Path(__file__).resolve().parent.parent
TRACES = ROOT / ".pytest_cache" / "traces"
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", "--no-header", "--tb=line")
# Loaded once, before a process is forked for each change.
LIBRARIES = ("torch", "scipy.ndimage", "pandas", "matplotlib.pyplot", "nibabel", "PIL.Image", "hypothesis", "pytest")


def product_files() -> list[Path]:
    """The product's modules: what git knows, but for tests and scripts."""
    names = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in names.split() if not name.startswith(("tests/", "scripts/"))]


def draw(files: Sequence[Path], count: int, seed: int) -> list[Mutation]:
    """``count`` changes of as many lines, each line of code as likely as the next."""
    by_line: dict[tuple[Path, int], list[Mutation]] = {}
    for path in files:
        for mutation in find_mutations(ROOT / path):
            by_line.setdefault((path, mutation.line), []).append(mutation)
    generator = random.Random(seed)
    lines = generator.sample(sorted(by_line), min(count, len(by_line)))
    return [generator.choice(by_line[line]) for line in lines]


# Which tests run which lines ---------------------------------------------------------------------------------


def traces(jobs: int) -> dict[str, dict]:
    """test id -> {"seconds": s, "lines": {file: [line, ...]}}; test files that changed are traced anew."""
    TRACES.mkdir(parents=True, exist_ok=True)
    shared = [ROOT / path for path in product_files()]
    shared += [path for path in sorted((ROOT / "tests").glob("*.py")) if not path.name.startswith("test_")]
    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda path: trace(path, shared), sorted((ROOT / "tests").glob("test_*.py"))))
    return {test: record for part in found for test, record in part.items()}


def trace(test_file: Path, shared: Sequence[Path]) -> dict[str, dict]:
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in (*shared, test_file))).hexdigest()[:16]
    kept = TRACES / f"{test_file.stem}-{digest}.json"
    if not kept.exists():
        for old in TRACES.glob(f"{test_file.stem}-*.json"):
            old.unlink()
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "MUTATE_TRACE": f"{folder}/trace.json", "PYTHONPATH": str(ROOT / "scripts")}
            command = [sys.executable, "-m", "pytest", *OPTIONS[1:], "-p", "mutate_trace", str(test_file)]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            if done.returncode not in (0, 5):
                raise SystemExit(f"{test_file}: expected tests that pass, found\n{done.stdout[-2000:]}")
            shutil.copy(f"{folder}/trace.json", kept)
        print(f"traced {test_file.name}", file=sys.stderr)
    return json.loads(kept.read_text())["tests"]


def tests_of(mutation: Mutation, known: dict[str, dict], budget: float) -> list[str]:
    """The tests that may notice a change, the quickest first, of together at most ``budget`` seconds.

    Of all tests where none runs its lines.
    """
    name = str(mutation.path.relative_to(ROOT))
    first, last = mutation.executed or (0, sys.maxsize)
    of_module = {test: record["lines"][name] for test, record in known.items() if name in record["lines"]}
    chosen = [test for test, lines in of_module.items() if any(first <= line <= last for line in lines)]
    ordered = sorted(chosen or known, key=lambda test: known[test]["seconds"])
    kept, spent = [], 0.0
    for test in ordered:
        spent += known[test]["seconds"]
        if kept and spent > budget:
            break
        kept.append(test)
    return kept


# One change --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def checkout() -> Iterator[Path]:
    """A copy of the working tree in a temporary folder."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    ).stdout
    # A test that was stopped may have left a disk mounted, which is no reason to lose what was found.
    with tempfile.TemporaryDirectory(prefix="mutate-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "checkout"
        for name in listing.splitlines():
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        (copy / ".venv").symlink_to(ROOT / ".venv")
        subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
        yield copy


def run_tests(copy: Path, tests: Sequence[str], output: Path, limit: int) -> None:
    """In a process of its own, forked with the libraries loaded, and stopped after ``limit`` seconds of computing."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    os.chdir(copy)
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv, sys.path[0] = ["pytest"], str(copy)
    import pytest

    code = pytest.main([*OPTIONS, f"--basetemp={copy.parent / 'tmp'}", *tests])
    os._exit(int(code))


def outcome(mutation: Mutation, tests: Sequence[str], copy: Path, limit: int) -> tuple[str, str]:
    """What the tests made of a change: ``noticed`` and by which test, ``time``, or ``survived``."""
    path = copy / mutation.path.relative_to(ROOT)
    source = path.read_bytes()
    output = copy.parent / "output.txt"
    path.write_bytes(mutation.apply(source))
    try:
        process = multiprocessing.get_context("fork").Process(target=run_tests, args=(copy, tests, output, limit))
        process.start()
        # A machine that does other work too takes longer for the same.
        process.join(10 * limit)
        if process.is_alive() or process.exitcode == -signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
            return "time", ""
        if process.exitcode == 0:
            return "survived", ""
        lines = output.read_text(errors="replace").splitlines()
        failed = [line.split(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
        return "noticed", failed[0] if failed else f"exit code {process.exitcode}"
    finally:
        path.write_bytes(source)


def describe(mutation: Mutation) -> str:
    return f"{mutation.path.relative_to(ROOT)}:{mutation.line}  {mutation.kind}"


def difference(mutation: Mutation) -> str:
    """The change as lines of a diff."""
    return f"    - {' '.join(mutation.before.split())[:200]}\n    + {' '.join(mutation.after.split())[:200]}"


def work(job: tuple[Sequence[Mutation], dict[str, dict], float]) -> list[tuple[Mutation, str]]:
    """The outcome of each change, one after the other in one copy."""
    mutations, known, budget = job
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    found = []
    with checkout() as copy:
        for mutation in mutations:
            tests, start = tests_of(mutation, known, budget), time.perf_counter()
            limit = int(60 + 3 * sum(known[test]["seconds"] for test in tests))
            result, by = outcome(mutation, tests, copy, limit)
            print(f"{describe(mutation)}  {result}  {time.perf_counter() - start:.0f} s  {by or f'{len(tests)} tests'}")
            if result == "survived":
                print(difference(mutation))
            sys.stdout.flush()
            found.append((mutation, result))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=50, help="changes to draw (50)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    parser.add_argument("--only", nargs="+", type=Path, metavar="MODULE", help="files to change (all of the product)")
    parser.add_argument("--not", dest="without", nargs="+", default=[], metavar="MODULE", help="files to leave alone")
    parser.add_argument("--jobs", type=int, default=1, help="changes at a time (1)")
    parser.add_argument("--budget", type=float, default=math.inf, metavar="S",
                        help="seconds of tests per change, the quickest first (all that run its lines)")
    parser.add_argument("--list", action="store_true", help="only show the changes")
    args = parser.parse_args()
    files = [path for path in args.only or product_files() if str(path) not in args.without]
    mutations = draw(files, args.n, args.seed)
    if args.list:
        print(*(f"{describe(mutation)}\n{difference(mutation)}" for mutation in mutations), sep="\n")
        return
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    known = traces(args.jobs)
    parts = [(mutations[job :: args.jobs], known, args.budget) for job in range(args.jobs)]
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = [result for part in pool.map(work, parts) for result in part]
    counts = Counter(result for _, result in found)
    print(f"{len(found)} changes of seed {args.seed}: {counts['noticed'] + counts['time']} noticed "
          f"({1 - counts['survived'] / max(len(found), 1):.1%}; {counts['time']} by the time limit)")


if __name__ == "__main__":
    main()
