"""Slurm's commands, and the records of what was submitted to it."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from utils import InputError, StoppedError, read_json, write_json

WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")


@dataclass(frozen=True)
class Job:
    """A job, or a task of an array job, that waits or runs."""

    number: str     # of the array, where it is a task
    index: str      # in the array, or N/A
    state: str
    reason: str
    name: str

    @property
    def task(self) -> str:
        """What Slurm's commands call it."""
        return f"{self.number}_{self.index}" if self.index.isdigit() else self.number

    @property
    def waits(self) -> bool:
        return self.state in WAITING


@dataclass(frozen=True)
class Submission:
    """What was submitted at once: an array job over ``tasks``, and the job after it, named ``token``-after.

    It is written before it is submitted, its token is the jobs' name: the queue tells what came of it, whatever kills
    the process in between. The jobs' numbers are added then.
    """

    token: str
    time: str
    goal: str
    runs: list[str]             # all of the goal, ROW/seedN
    tasks: list[str]            # those of the array job, in its order
    options: dict[str, str]     # of each row in ``tasks``
    array: str = ""
    after: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether all of it is of its kind, which a file that somebody has edited may not be."""
        texts = [self.token, self.time, self.goal, self.array, self.after]
        for several, kind in ((self.runs, list), (self.tasks, list), (self.options, dict)):
            if not isinstance(several, kind):
                return False
            texts += several
        return all(isinstance(text, str) for text in (*texts, *self.options.values()))

    def log(self, folder: Path, run: str) -> Path:
        return folder / f"{self.token}-{self.tasks.index(run)}.log"

    def write(self, folder: Path) -> None:
        write_json(folder / f"{self.token}.json", asdict(self))


def read_submissions(folder: Path) -> list[Submission]:
    """The records in a data set's folder ``.slurm``, oldest first."""
    names = [field.name for field in fields(Submission)]
    submissions = []
    for path in folder.glob("[!.]*.json"):
        record = read_json(path)
        if sorted(record) != sorted(names):
            raise InputError(f"{path}: expected a record of {', '.join(names)}, found {', '.join(record)}")
        submission = Submission(**record)
        if not submission.is_sound:
            raise InputError(f"{path}: expected texts and lists of texts, found {record}")
        submissions.append(submission)
    return sorted(submissions, key=lambda submission: (submission.time, submission.token))


def queued_runs(submissions: Iterable[Submission], jobs: Iterable[Job]) -> dict[str, tuple[Submission, Job]]:
    """The runs whose task waits or runs, with the submission that it is of."""
    known = {submission.token: submission for submission in submissions}
    found = {}
    for job in jobs:
        submission = known.get(job.name)
        if submission and job.index.isdigit() and int(job.index) < len(submission.tasks):
            found[submission.tasks[int(job.index)]] = submission, job
    return found


def run_client(command: Sequence[str]) -> subprocess.CompletedProcess:
    """One of Slurm's commands; ``InputError`` where this machine does not have it."""
    if shutil.which(command[0]) is None:
        raise InputError(f"RUNNER=slurm: expected {command[0]} in PATH, found none; RUNNER=local trains here")
    # What narrows a user's own look at the queue would hide jobs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def queued_jobs() -> list[Job]:
    """This user's jobs and tasks that wait or run; ``StoppedError`` where Slurm does not answer."""
    done = run_client(["squeue", "--me", "--noheader", "--array", "--format=%F|%K|%T|%r|%j"])
    if done.returncode:
        raise StoppedError(f"squeue: expected an answer of the cluster, found {done.stderr.strip()}")
    return [Job(*line.strip().split("|", 4)) for line in done.stdout.splitlines() if line.count("|") >= 4]


def sbatch(options: Sequence[str], flags: str, command: Sequence[str]) -> str:
    """Submit ``command``, return the job's number; ``InputError`` where the cluster refuses it.

    ``flags`` are the user's; they win over the first of ``options``, what has to be comes after them.
    """
    try:
        users = shlex.split(flags)
    except ValueError as error:
        raise InputError(f"SLURM_FLAGS: expected flags of sbatch, found {flags!r} ({error})") from None
    defaults = ["--requeue", "--signal=B:TERM@120"]
    done = run_client(["sbatch", *defaults, *users, "--parsable", "--open-mode=append", *options, *command])
    number = done.stdout.strip().split(";")[0]
    if done.returncode or not number.isdigit():
        found = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise InputError(f"SLURM_FLAGS={shlex.quote(flags)}: expected a job that the cluster takes, found {found}")
    return number


def cancel(token: str) -> None:
    """Take back whatever was submitted under a token."""
    for name in (token, f"{token}-after"):
        run_client(["scancel", f"--name={name}"])
