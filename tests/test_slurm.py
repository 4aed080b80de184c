"""Runs through a real Slurm of one node: killed, requeued and failed ones, and the same table as without it."""

import contextlib
import subprocess
import tempfile
from pathlib import Path

import pytest
from commands import evaluate
from project_copy import copy_project, make, make_phantom
from slurm_cluster import ask, missing_programs, running_cluster, wait_until

import train

SEEDS = range(2)
EPOCHS = 50     # of the runs that are disturbed, both of the row "long"
ROWS = {
    "long": f"--region gdl --epochs {EPOCHS}",
    **{name: f"--region {name} --epochs 1" for name in ("gdl", "focal", "dice", "ce", "tversky")},
}
FLAGS = "--width 2 --batch-size 2 --precision fp32"
VARIABLES = (
    "RAW=raw/isles", "SLICE_ARGS=--size 32 --val 1", f"ARGS={FLAGS}", "BASELINE=long",
    *(f"ROW_{row}={flags}" for row, flags in ROWS.items()), f"TABLE_six={' '.join(ROWS)}",
    "ROW_bad=--region nothing", "TABLE_poor=gdl bad",
)


@pytest.fixture(scope="module")
def cluster():
    missing = missing_programs()
    if missing:
        pytest.skip(f"needs a Slurm to start (Debian: apt-get install slurm-wlm munge): no {missing[0]} here")
    # Not pytest's own folder: a socket's path has at most 108 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        with running_cluster(Path(folder)) as environment:
            yield environment


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("slurm") / "project")
    make_phantom(folder, "isles")
    return folder


def jobs(cluster):
    """Those that wait or run, in the order of their numbers."""
    lines = ask(cluster, "squeue", "--noheader", "--array", "--format=%i %j").splitlines()
    return sorted(lines, key=lambda line: [int(n) for n in line.split()[0].split("_")])


def epochs(run):
    return len((run / "log.csv").read_text().splitlines()) - 1 if (run / "log.csv").exists() else 0


def train_here(project, results):
    """The runs of the table without make and Slurm."""
    for row, flags in ROWS.items():
        for seed in SEEDS:
            out = results / "isles" / row / f"seed{seed}"
            data = ("--data", str(project / "data" / "isles"), "--out", str(out), "--device", "auto")
            train.main([*data, *flags.split(), "--seed", str(seed), *FLAGS.split()])
            evaluate.main(["run", str(out), "--device", "auto"])
    rows = ["--rows", *ROWS, "--seeds", *map(str, SEEDS)]
    evaluate.main(["table", str(results / "isles"), *rows, "--name", "six"])
    evaluate.main(["compare", str(results / "isles"), *rows, "--name", "six-tests", "--baseline", "long"])


def disturb(cluster, project, array):
    """Stop one run in its middle and let Slurm requeue another."""
    commands = [("scancel", "--batch", "--signal=TERM", f"{array}_0"), ("scontrol", "requeue", f"{array}_1")]
    sent = []
    for seed, command in enumerate(commands):
        run = project / "results" / "isles" / "long" / f"seed{seed}"
        wait_until(f"an epoch of {run}", lambda run=run: epochs(run) >= 2, seconds=120)
        sent.append(subprocess.Popen(command, env=cluster))
        assert epochs(run) < EPOCHS, "too late to disturb it"
    assert sent[1].wait(timeout=60) == 0
    # scancel signals a task of an array at once, but tries again for minutes where other tasks of it wait.
    with contextlib.suppress(subprocess.TimeoutExpired):
        sent[0].wait(timeout=2)
    sent[0].kill()
    sent[0].wait()


@pytest.mark.slow
def test_a_table_through_slurm_is_the_one_without_it(cluster, project, tmp_path, capsys):
    variables = (*VARIABLES, f"SEEDS={' '.join(map(str, SEEDS))}")
    environment = {"RUNNER": "slurm", "SLURM_CONF": cluster["SLURM_CONF"], "PATH": cluster["PATH"]}
    first = make(project, "isles-six", *variables, **environment)
    assert first.returncode == 0 and "12 submitted as job" in first.stdout, first.stderr
    queue = jobs(cluster)
    again = make(project, "isles-six", *variables, **environment)
    assert again.returncode == 0 and "12 were in the queue, none to submit" in again.stdout, again.stdout
    assert len(queue) == 13 and jobs(cluster) == queue
    # A row that fails: one run is submitted, the other of its table is queued already.
    poor = make(project, "isles-poor", *VARIABLES, "SEEDS=0", **environment)
    assert poor.returncode == 0 and "1 were in the queue, 1 submitted" in poor.stdout, poor.stderr
    disturb(cluster, project, queue[0].split("_")[0])

    train_here(project, tmp_path)
    wait_until("an empty queue", lambda: not jobs(cluster), seconds=300)
    there = project / "results" / "isles"
    for path in sorted((tmp_path / "isles").rglob("*.csv")):
        if path.name != "log.csv":  # it has seconds
            assert path.read_bytes() == (there / path.relative_to(tmp_path / "isles")).read_bytes(), path
    assert all((there / name).exists() for name in ("six.md", "six-tests.md", "curves.pdf"))
    killed, requeued = (next((there / ".slurm").glob(f"isles-six-*-{task}.log")).read_text() for task in (0, 1))
    assert killed.count("train.py --data") == 2 and "stopped; queued again" in killed
    assert requeued.count("train.py --data") == 2 and "stopped; queued again" not in requeued

    status = make(project, "isles-poor-status", *VARIABLES, "SEEDS=0", **environment).stdout
    assert "gdl/seed0  ended" in status and "after its runs: cancelled" in status
    (line,) = [line for line in status.splitlines() if line.startswith("bad/seed0")]
    assert "failed" in line and "argument --region: invalid choice: 'nothing'" in line
    assert not (there / "poor.md").exists()
