"""Processor time per run of make's own look, of table, compare and report, from 10 to 1,000 run folders.

One run is trained; the others are copies of it under other rows and seeds, whose metrics differ a little.
"""
import argparse
import contextlib
import csv
import io
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import train
from environment.cores import core_count
from environment.provenance import package_version, processor

ROOT = Path(__file__).resolve().parent.parent
SEEDS = 10


def train_one(data: Path, out: Path) -> None:
    """A run of one epoch, evaluated."""
    flags = ("--width", "1", "--epochs", "1", "--device", "cpu", "--precision", "fp32")
    with contextlib.redirect_stdout(io.StringIO()):
        train.main(["--data", str(data), "--out", str(out), *flags])
    subprocess.run([sys.executable, "eval.py", "run", out], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def copy_run(run: Path, out: Path, seed: int) -> None:
    """The run as another seed's, with a DSC and a loss of its own: a table refuses runs that are the same."""
    shutil.copytree(run, out, ignore=shutil.ignore_patterns("*.pt"))
    config = json.loads((out / "config.json").read_text())
    config["settings"]["seed"] = seed
    (out / "config.json").write_text(json.dumps(config))
    for name, column in (("metrics.csv", "dsc"), ("log.csv", "train_loss")):
        with (out / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            row[column] = random.uniform(0.2, 0.8)
        with (out / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def seconds(*command: object, checkout: Path = ROOT) -> float:
    """Processor seconds of a command: what other processes do changes them little."""
    start = os.times()
    done = subprocess.run([str(word) for word in command], cwd=checkout, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    end = os.times()
    return end.children_user + end.children_system - start.children_user - start.children_system


def measure(folder: Path, run: Path, count: int) -> dict[str, float]:
    """Processor seconds of each command on ``count`` runs; make's second look, at a table that is finished."""
    data, results = folder / "data", folder / f"results{count}"
    rows = [f"r{number}" for number in range(count // SEEDS)] if count > SEEDS else ["r0", "r1"]
    seeds = range(count // len(rows))
    names = [f"ROW_{row}=--region gdl" for row in rows]
    choices = (
        f"DATA={data}", f"RESULTS={results}", f"RAW={folder / 'raw'}", f"SEEDS={' '.join(map(str, seeds))}",
        "BASELINE=r0", f"TABLE_big={' '.join(rows)}", f"VENV={os.path.relpath(sys.prefix, ROOT)}", *names,
    )
    subprocess.run(["make", *choices, *(f"{results}/wmh/{row}/.options" for row in rows), f"{data}/.wmh.options"],
                   cwd=ROOT, check=True, capture_output=True)
    os.utime(data / "wmh" / "meta.json")
    for row in rows:
        for seed in seeds:
            copy_run(run, results / "wmh" / row / f"seed{seed}", seed)
    what = (results / "wmh", "--rows", *rows, "--name", "big")
    python = (sys.executable, "eval.py")
    found = {
        "table": seconds(*python, "table", *what), "compare": seconds(*python, "compare", *what, "--baseline", "r0"),
        "report": seconds(*python, "report", results / "wmh", "--table", "big", *rows, "--baseline", "r0"),
    }
    seconds("make", "wmh-big", *choices)
    return {"make": seconds("make", "wmh-big", *choices), **found}


def per_run(found: dict[str, float], fewest: dict[str, float], runs: int) -> str:
    """Milliseconds of each command for each of so many ``runs`` more than the fewest."""
    return ", ".join(f"{name} {1e3 * (value - fewest[name]) / runs:.1f}" for name, value in found.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 100, 1000], help="run folders")
    args = parser.parse_args()
    random.seed(0)
    print(f"{processor()}, {core_count()} cores, {platform.system()}, torch {package_version('torch')}\n")
    print("| runs | make's look at a finished table, s | table, s | compare, s | report, s | per run, ms |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = folder / "data" / "wmh"
        phantom = (ROOT / "scripts" / "phantom.py", "wmh", "--out", folder / "raw", "--cases", "4", "--slices", "3")
        seconds(sys.executable, *phantom, "--in-plane", "48")
        seconds(sys.executable, "preprocess.py", "wmh", "--source", folder / "raw", "--dest", data, "--size", "32",
                "--val", "2")
        train_one(data, folder / "run")
        fewest: dict[str, float] = {}
        for count in args.counts:
            found = measure(folder, folder / "run", count)
            fewest = fewest or found
            each = per_run(found, fewest, count - args.counts[0]) if count != args.counts[0] else ""
            print(f"| {count:,} | {' | '.join(f'{value:.2f}' for value in found.values())} | {each} |", flush=True)


if __name__ == "__main__":
    main()
