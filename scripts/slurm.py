"""Runs on a Slurm cluster: make RUNNER=slurm submits those that are missing, make <goal>-status says how they are."""

from environment.startup import begin  # first, so that a stop is one line while the rest is imported, too

begin(__name__)

import os
import re
import secrets
import shlex
import shutil
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from slurm_jobs import Job, Submission, cancel, queued_jobs, queued_runs, read_submissions, sbatch

from environment.command import Parser, run_command
from environment.locks import exclusive
from utils import InputError, read_json, read_rows, read_text

TASK = Path(__file__).with_name("slurm_task.sh")
TAIL = 2**16    # bytes of a log's end
# The Makefile's variables that a user may set in the environment, which reaches a node only where sbatch is let to.
VARIABLES = (
    "SEEDS", "BASELINE", "DEVICE", "ARGS", "SLICE_ARGS", "EVAL_ARGS", "DATA", "RESULTS", "RAW", "LAYOUT", "VENV",
    "ALPHAS",
)


def parse(arguments: Sequence[str] | None) -> Namespace:
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    submit = commands.add_parser("submit", help="an array job over the runs that are missing, and a job after it")
    status = commands.add_parser("status", help="a line per run: waits, runs, ended, failed, missing")
    for command in (submit, status):
        command.add_argument("results", type=Path, help="folder of a data set's runs, for instance results/isles")
        command.add_argument("--runs", nargs="*", default=[], metavar="ROW/seedN", help="the runs of the goal")
    submit.add_argument("--goal", required=True, help="target of make that the runs are for")
    submit.add_argument("--flags", default="", help="flags of sbatch, as one text")
    submit.add_argument("--max", type=int, default=20, help="tasks that run at once")
    submit.add_argument("--after", default="", help="command of the job after the array, as one text")
    args = parser.parse_args(arguments)
    if args.command == "submit" and args.max < 1:
        raise InputError(f"SLURM_MAX: expected a number of tasks from 1, found {args.max}")
    return args


def task_makeflags(environment: Mapping[str, str]) -> str:
    """MAKEFLAGS for the makes of a job: this make's flags but for -j, its variables, and RUNNER=local.

    Variables are written as make does it, a backslash before what would end a word and dollar signs doubled; where one
    is there twice the last counts.
    """
    flags, _, given = environment.get("MAKEFLAGS", "").partition("-- ")
    kept = [word for word in flags.split() if not word.startswith(("-j", "--jobserver"))]
    inherited = [
        f"{name}=" + re.sub(r"([\s\\'\"])", r"\\\1", environment[name]).replace("$", "$$")
        for name in VARIABLES if name in environment
    ]
    return " ".join([*kept, "--", *inherited, given, "RUNNER=local"])


def row_options(results: Path, row: str) -> str:
    """What make was asked for, of a row."""
    path = results / row / ".options"
    try:
        return read_text(path).strip() if path.exists() else ""
    except ValueError as error:
        raise InputError(f"{path}: expected the options of a row, found {error}") from None


def submit(args: Namespace) -> None:
    folder = args.results.resolve() / ".slurm"
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder, wait=True):
        jobs, submissions = queued_jobs(), read_submissions(folder)
        missing = [run for run in args.runs if not (args.results / run / "metrics.csv").exists()]
        queued = {run: found for run, found in queued_runs(submissions, jobs).items() if run in missing}
        check_options(args.results, queued)
        tasks = [run for run in missing if run not in queued]
        names = {job.name for job in jobs}
        waits = [s for s in submissions if (s.goal, s.runs) == (args.goal, args.runs) and f"{s.token}-after" in names]
        if tasks or not waits:
            made = submit_jobs(args, folder, tasks, [job.task for _, job in queued.values()])
            report(args, made, len(queued), len(tasks))
        else:
            report(args, waits[-1], len(queued))


def check_options(results: Path, queued: Mapping[str, tuple[Submission, Job]]) -> None:
    """``InputError`` where a run that is queued has other options than those of this command line."""
    for run, (submission, job) in queued.items():
        row = run.split("/")[0]
        asked, there = row_options(results, row), submission.options.get(row, "")
        if asked != there:
            raise InputError(f"{results}/{run}: expected a run with the options {asked!r}, found one in the queue "
                             f"with {there!r}; wait for it, take it back (scancel {job.task}), or name other RESULTS=")


def submit_jobs(args: Namespace, folder: Path, tasks: list[str], others: list[str]) -> Submission:
    """The array job over ``tasks`` and the job after it and ``others``: both, or none of them."""
    options = {row: row_options(args.results, row) for row in dict.fromkeys(run.split("/")[0] for run in tasks)}
    token = f"{args.goal}-{secrets.token_hex(4)}"
    made = Submission(token, datetime.now(timezone.utc).isoformat(), args.goal, args.runs, tasks, options)
    made.write(folder)
    task = [str(TASK), str(Path.cwd()), sys.executable, task_makeflags(os.environ)]
    log = str(folder / token).replace("%", "%%")
    try:
        if tasks:
            array = [f"--array=0-{len(tasks) - 1}%{args.max}", f"--job-name={token}", f"--output={log}-%a.log"]
            targets = [str(args.results / run / "metrics.csv") for run in tasks]
            made = replace(made, array=sbatch(array, args.flags, [*task, *targets]))
            made.write(folder)
        awaited = ":".join([made.array, *others] if tasks else others)
        after = [f"--job-name={token}-after", f"--output={log}-after.log"]
        after += [f"--dependency=afterok:{awaited}", "--kill-on-invalid-dep=yes"] if awaited else []
        command = shlex.split(args.after) or ["make", args.goal]
        made = replace(made, after=sbatch(after, args.flags, [*task, *command]))
        made.write(folder)
    except BaseException:
        cancel(token)
        (folder / f"{token}.json").unlink()
        raise
    return made


def report(args: Namespace, submission: Submission, queued: int, submitted: int = 0) -> None:
    """One line on stdout, of ``submitted`` runs and of those that were ``queued`` already."""
    count = len(args.runs)
    array = f"{submitted} submitted as job {submission.array}" if submitted else "none to submit"
    print(f"{args.goal}: of {count} runs {count - queued - submitted} have ended, {queued} were in the queue, {array}; "
          f"then job {submission.after}. make {args.results.name}-status says how they are")


def status(args: Namespace) -> None:
    folder = args.results / ".slurm"
    submissions = read_submissions(folder)
    jobs = queued_jobs() if submissions and shutil.which("squeue") else []
    queued = queued_runs(submissions, jobs)
    newest = {run: submission for submission in submissions for run in submission.tasks}
    runs = args.runs or sorted({*newest, *(str(p.parent.relative_to(args.results)) for p in run_folders(args.results))})
    width = max((len(run) for run in runs), default=0)
    states = Counter()
    for run in runs:
        state = run_state(args.results / run, queued.get(run), newest.get(run))
        states[state] += 1
        said = queued[run][1].reason if state == "waits" else run_log(folder, run, state, newest.get(run))
        print(f"{run:<{width}}  {state:<7}  {epochs(args.results / run):<16}  {said}".rstrip())
    print(f"{len(runs)} runs: {', '.join(f'{count} {state}' for state, count in states.items()) or 'none'}")
    goals = {s.goal: s for s in submissions if s.after and args.runs in ([], s.runs)}
    for goal, submission in goals.items():
        print(f"{goal}, job {submission.after} after its runs: {after_state(submission, jobs, folder)}")


def after_state(submission: Submission, jobs: Sequence[Job], folder: Path) -> str:
    """How the job is that makes a goal of its runs."""
    for job in jobs:
        if job.name == f"{submission.token}-after":
            return f"{'waits' if job.waits else 'runs'}  {job.reason}"
    said = last_line(folder / f"{submission.token}-after.log")
    if said is None:
        return "cancelled, since a run failed or somebody cancelled it"
    return f"failed  {said}" if re.search(r": error: |\*\*\*", said) else "ended"


def run_folders(results: Path) -> list[Path]:
    return list(results.glob("*/seed*/config.json"))


def run_state(run: Path, queued: tuple[Submission, Job] | None, submission: Submission | None) -> str:
    """waits, runs, ended, failed (submitted, and no longer in the queue), begun (here, without Slurm) or missing."""
    if (run / "metrics.csv").exists():
        return "ended"
    if queued:
        return "waits" if queued[1].waits else "runs"
    if submission and submission.array:
        return "failed"
    return "begun" if (run / "log.csv").exists() else "missing"


def run_log(folder: Path, run: str, state: str, submission: Submission | None) -> str:
    """What its task said last, where it was a task."""
    said = last_line(submission.log(folder, run)) if submission else None
    if said is None and state == "failed":
        return "no log: it was cancelled before it began, or its node could not write one"
    return said or ""


def epochs(run: Path) -> str:
    """How far a run is, from its files."""
    if not (run / "log.csv").exists() or not (run / "config.json").exists():
        return ""
    settings = read_json(run / "config.json").get("settings")
    if not isinstance(settings, dict):
        raise InputError(f"{run / 'config.json'}: expected the settings of a run, found {settings!r:.80}")
    return f"epoch {len(read_rows(run / 'log.csv', ('epoch',)))} of {settings.get('epochs', '?')}"


def last_line(log: Path) -> str | None:
    """The last line of a log that says something, None without a log; make's own words come after every failure."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return None
    own = [line for line in lines if not line.startswith(("make:", "make["))]
    return (own or lines or [""])[-1]


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    {"submit": submit, "status": status}[args.command](args)


if __name__ == "__main__":
    sys.exit(run_command(main))
