"""What is submitted, and what is not: Slurm's commands are stand-ins that keep a queue in a file."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from project_copy import ROOT, copy_project, make, make_phantom, without_make
from slurm import task_makeflags
from slurm_cluster import wait_until

# Each of them writes its arguments down. sbatch refuses its nth job with the words in the file refuse-n.
STAND_INS = {
    "sbatch": """\
        sleep "${PAUSE-0}"
        number=$(($(wc -l < "$STATE/numbers") + 1)); echo >> "$STATE/numbers"
        if [ -e "$STATE/refuse-$number" ]; then cat "$STATE/refuse-$number" >&2; exit 1; fi
        last=
        for word; do
          case $word in --job-name=*) name=${word#*=} ;; --array=*) last=${word#*-*-*-}; last=${last%\\%*} ;; esac
        done
        if [ -z "$last" ]; then echo "$number|N/A|PENDING|Dependency|$name" >> "$STATE/queue"; fi
        for index in ${last:+$(seq 0 "$last")}; do echo "$number|$index|PENDING|Priority|$name" >> "$STATE/queue"; done
        echo "$number" """,
    "squeue": """\
        [ ! -e "$STATE/down" ] || { echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; }
        cat "$STATE/queue" """,
    "scancel": """\
        for word; do name=${word#*=}; done
        grep -v "|$name\\$" "$STATE/queue" > "$STATE/kept" || true; mv "$STATE/kept" "$STATE/queue" """,
}
RUNS = ["gdl/seed0", "gdl/seed1", "focal/seed0"]


@pytest.fixture
def state(tmp_path, monkeypatch):
    """The stand-ins are the Slurm of this test, their queue is in the folder."""
    (tmp_path / "bin").mkdir()
    for name, script in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.write_text(f'#!/bin/bash\nset -u\nprintf "{name} %s\\n" "$*" >> "$STATE/calls"\n{script}\n')
        path.chmod(0o755)
    for name in ("numbers", "queue", "calls"):
        (tmp_path / name).touch()
    monkeypatch.setenv("STATE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def start(state, *flags, runs=RUNS, goal="isles-two"):
    command = [sys.executable, ROOT / "scripts" / "slurm.py", "submit", state / "results" / "isles", "--goal", goal]
    return subprocess.Popen([*command, "--runs", *runs, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=without_make(dict(os.environ)))


def submit(state, *flags, **options):
    process = start(state, *flags, **options)
    output, error = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, output, error)


def assert_refused(done, *words, code=2):
    assert done.returncode == code and not done.stdout, done
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words), line


def queue(state):
    return (state / "queue").read_text().splitlines()


def records(state):
    return sorted((state / "results" / "isles" / ".slurm").glob("*.json"))


def finish(state, run):
    """The run ends: its task leaves the queue."""
    path = state / "results" / "isles" / run / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.touch()
    leave(state, run)


def leave(state, run):
    (record,) = (each for each in map(json.loads, [p.read_text() for p in records(state)]) if run in each["tasks"])
    gone = f"|{record['tasks'].index(run)}|"
    kept = [line for line in queue(state) if not (gone in line and line.endswith(record["token"]))]
    (state / "queue").write_text("".join(f"{line}\n" for line in kept))


def test_nothing_is_submitted_twice(state):
    first = submit(state)
    assert first.returncode == 0 and "of 3 runs 0 have ended, 0 were in the queue, 3 submitted" in first.stdout
    before = queue(state)
    assert [line.split("|")[1] for line in before] == ["0", "1", "2", "N/A"]
    assert "3 were in the queue, none to submit" in submit(state).stdout
    assert queue(state) == before and len(records(state)) == 1
    # A goal that shares runs submits the others, and waits for both: tasks of the first array, all of its own.
    shared = submit(state, runs=["gdl/seed0", "dice/seed0"], goal="isles-other")
    assert "1 were in the queue, 1 submitted" in shared.stdout and len(queue(state)) == 6
    assert "--dependency=afterok:3:1_0 --kill-on-invalid-dep=yes" in (state / "calls").read_text().splitlines()[-1]


def test_what_has_ended_or_failed_leaves_the_rest(state):
    submit(state)
    finish(state, "gdl/seed0")
    leave(state, "gdl/seed1")   # failed
    again = submit(state)
    assert "of 3 runs 1 have ended, 1 were in the queue, 1 submitted as job 3; then job 4" in again.stdout
    assert [line.split("|")[:2] for line in queue(state)] == [["1", "2"], ["2", "N/A"], ["3", "0"], ["4", "N/A"]]
    calls = (state / "calls").read_text().splitlines()
    assert "--array=0-0%20" in calls[-2] and "--dependency=afterok:3:1_2 " in calls[-1]
    assert calls[-2].endswith(f" {state}/results/isles/gdl/seed1/metrics.csv")


def test_a_make_that_was_killed_in_between_finds_what_it_had_submitted(state):
    submit(state)
    (path,) = records(state)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "array": "", "after": ""}))
    (state / "queue").write_text("".join(f"{line}\n" for line in queue(state)[:3]))
    again = submit(state)
    assert "3 were in the queue, none to submit; then job 3" in again.stdout
    assert "--dependency=afterok:1_0:1_1:1_2 " in (state / "calls").read_text().splitlines()[-1]


def test_two_makes_at_once_submit_once(state, monkeypatch):
    monkeypatch.setenv("PAUSE", "0.5")
    both = [start(state) for _ in range(2)]
    outputs = sorted(process.communicate(timeout=60)[0] for process in both)
    assert "0 were in the queue, 3 submitted" in outputs[0] and "3 were in the queue, none" in outputs[1]
    assert len(queue(state)) == 4 and len(records(state)) == 1


@pytest.mark.parametrize("refused", [1, 2])
def test_a_cluster_that_refuses_is_left_with_nothing(state, refused):
    words = "sbatch: error: QOSMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates it\n"
    (state / f"refuse-{refused}").write_text(words)
    assert_refused(submit(state, "--flags=-p gpu"), "SLURM_FLAGS='-p gpu'", "QOSMaxSubmitJobLimit", "violates it")
    assert not queue(state) and not records(state)


def test_a_stop_while_it_submits_leaves_nothing(state, monkeypatch):
    monkeypatch.setenv("PAUSE", "1")
    process = start(state)
    wait_until("the second sbatch", lambda: (state / "calls").read_text().count("sbatch") == 2)
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and error.count("\n") == 1
    time.sleep(1.5)     # until sbatch has come to its end without it
    assert not queue(state) and not records(state)


def test_a_queue_that_does_not_answer(state):
    (state / "down").touch()
    assert_refused(submit(state), "squeue: expected an answer of the cluster", "Unable to contact", code=1)
    assert not records(state) and "sbatch" not in (state / "calls").read_text()


def test_no_slurm_in_path(state, monkeypatch):
    monkeypatch.setenv("PATH", str(state / "results"))
    assert_refused(submit(state), "RUNNER=slurm: expected squeue in PATH, found none")
    assert not records(state)


@pytest.mark.parametrize(("flags", "words"), [
    (["--max=0"], "SLURM_MAX: expected a number of tasks from 1, found 0"),
    (["--max=many"], "invalid int value: 'many'"),
    (["--flags=--comment='x"], "SLURM_FLAGS: expected flags of sbatch, found \"--comment='x\""),
])
def test_bad_variables(state, flags, words):
    assert_refused(submit(state, *flags), words)
    assert not queue(state) and not records(state)


def test_a_run_in_the_queue_with_other_options_is_refused(state):
    options = state / "results" / "isles" / "gdl" / ".options"
    options.parent.mkdir(parents=True)
    options.write_text("--region gdl --epochs 2;\n")
    submit(state)
    options.write_text("--region gdl --epochs 3;\n")
    asked = "gdl/seed0: expected a run with the options '--region gdl --epochs 3;'"
    assert_refused(submit(state), asked, "with '--region gdl --epochs 2;'", "scancel 1_0")
    assert len(queue(state)) == 4


def test_a_record_that_is_damaged(state):
    submit(state)
    records(state)[0].write_text('{"token": 1}')
    assert_refused(submit(state), records(state)[0].name, "expected a record of token, time, goal", "found token")


@pytest.mark.parametrize(
    "change", [{"tasks": 5}, {"tasks": ["gdl/seed0", 1]}, {"options": ["gdl"]}, {"options": {"gdl": None}},
               {"runs": "gdl"}, {"time": 7}, {"array": None}, {"after": 2}, {"goal": []}],
)
def test_a_record_of_other_kinds_is_one_line(state, change):
    submit(state)
    (record,) = records(state)
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    assert_refused(status(state), record.name, "expected texts and lists of texts, found")


def test_jobs_of_the_same_name_that_are_no_task_of_the_record(state):
    """A task beyond its last, a job that is no array's, a line that is none."""
    submit(state, runs=RUNS[:2])
    (record,) = records(state)
    for line in (f"7|2|RUNNING|None|{record.stem}", f"8|N/A|RUNNING|None|{record.stem}", "9|0|RUNNING"):
        (state / "queue").write_text((state / "queue").read_text() + f"{line}\n")
    leave(state, RUNS[1])
    lines = [line.split()[:2] for line in status(state).stdout.splitlines()[:2]]
    assert lines == [["gdl/seed0", "waits"], ["gdl/seed1", "failed"]]


@pytest.mark.parametrize(("name", "content", "words"), [
    ("config.json", b'{"settings": 5}', "config.json: expected the settings of a run, found 5"),
    ("log.csv", b"epoch\n\xff\n", "log.csv: expected"),
])
def test_a_damaged_run_is_named(state, name, content, words):
    run = state / "results" / "isles" / "gdl" / "seed0"
    run.mkdir(parents=True)
    (run / "config.json").write_text('{"settings": {"epochs": 9}}')
    (run / "log.csv").write_text("epoch\n0\n")
    assert "epoch 1 of 9" in status(state).stdout
    (run / name).write_bytes(content)
    assert_refused(status(state), words)


def test_options_that_are_no_text_are_named(state):
    options = state / "results" / "isles" / "gdl" / ".options"
    options.parent.mkdir(parents=True)
    options.write_bytes(b"--region \xff\n")
    assert_refused(submit(state), ".options: expected the options of a row")
    assert not queue(state) and not records(state)


def test_flags_of_the_user_come_after_what_may_change(state):
    submit(state, "--flags=--signal=B:TERM@300 --comment='two words'", "--max=7")
    words = (state / "calls").read_text().splitlines()[1]
    assert words.index("--signal=B:TERM@120") < words.index("--signal=B:TERM@300") < words.index("--array=0-2%7")


VALUES = {"ARGS": "--lr 1 -- \\x $$z", "RAW": "/a b\\c \"q\" it's $$HOME", "SEEDS": "0 1", "RUNNER": "slurm"}


@pytest.mark.parametrize("given", [[], ["ARGS"], ["RAW", "ARGS", "RUNNER"], list(VALUES)])
@pytest.mark.parametrize("exported", [True, False])
def test_a_task_has_the_variables_of_make(tmp_path, given, exported):
    """Those of the command line and of the environment, in an environment that was not exported, too."""
    show = "show:\n\t$(foreach v,ARGS RAW SEEDS RUNNER,$(info $($v)))@:\n"
    (tmp_path / "Makefile").write_text(f"hand:\n\t@env -0 > handed\n{show}")
    environment = without_make(dict(os.environ))
    inherited = {**environment, **{name: value for name, value in VALUES.items() if name not in given}}
    words = [f"{name}={VALUES[name]}" for name in given]

    def run(environment, *arguments):
        command = ["make", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    run(inherited, "-kj3", "hand", *words)
    handed = dict(pair.split("=", 1) for pair in (tmp_path / "handed").read_text().rstrip("\0").split("\0"))
    task = {**(inherited if exported else environment), "MAKEFLAGS": task_makeflags(handed)}
    here = run(inherited, "show", *words).splitlines()
    assert run(task, "show").splitlines() == [*here[:3], "local"] and here[3] == "slurm"
    assert not {"-j3", "--jobserver-auth"} & {word.split("=")[0] for word in task["MAKEFLAGS"].split()}


def run_task(state, *arguments, **environment):
    return subprocess.Popen([ROOT / "scripts" / "slurm_task.sh", *map(str, arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env={**os.environ, "SLURM_JOB_ID": "7", **environment})


@pytest.mark.parametrize("missing", ["checkout", "python"])
def test_a_node_without_the_checkout_or_the_environment(state, missing):
    places = {"checkout": state, "python": sys.executable, missing: state / "nowhere"}
    process = run_task(state, places["checkout"], places["python"], "", "touch", state / "made")
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 2 and error.count("\n") == 1 and f"{state}/nowhere, found none on this node" in error
    assert not (state / "made").exists()


@pytest.mark.parametrize(("slurm_says", "ends", "requeued"), [
    ("RUNNING", 143, True),         # a time limit or a preemption that was announced
    ("COMPLETING", 143, False),     # it is cancelled, or somebody has requeued it
    ("RUNNING", 0, False),          # it had ended by then
])
def test_a_stopped_task_is_queued_again(state, slurm_says, ends, requeued):
    """The stop reaches the shell alone, as --signal=B:TERM sends it, and make through it, which has time to end."""
    make = state / "bin" / "make"
    make.write_text(f"#!/bin/bash\ntrap 'sleep 0.3; echo $1 >> {state}/stopped; exit {ends}' TERM\n"
                    f"touch {state}/begun\nwhile :; do sleep 0.05; done\n")
    (state / "bin" / "squeue").write_text(f"#!/bin/sh\necho {slurm_says}\n")
    (state / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {state}/requeued\n')
    for name in ("make", "scontrol"):
        (state / "bin" / name).chmod(0o755)
    process = run_task(state, state, sys.executable, "", "first", "second", SLURM_ARRAY_JOB_ID="5",
                       SLURM_ARRAY_TASK_ID="1")
    wait_until("make", (state / "begun").exists)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == ends and (state / "stopped").read_text() == "second\n"
    assert (state / "requeued").exists() == requeued
    assert not requeued or (state / "requeued").read_text() == "requeue 5_1\n"


def status(state, *flags):
    command = [sys.executable, ROOT / "scripts" / "slurm.py", "status", state / "results" / "isles", *flags]
    return subprocess.run(command, capture_output=True, text=True)


def test_status_says_how_each_run_is(state):
    runs = [f"gdl/seed{seed}" for seed in range(5)]
    submit(state, runs=runs[:4])
    finish(state, runs[0])
    leave(state, runs[1])
    (state / "queue").write_text((state / "queue").read_text().replace("|2|PENDING|Priority", "|2|RUNNING|None"))
    (record,) = records(state)
    log = record.with_name(f"{record.stem}-1.log")
    log.write_text("train.py: error: a line\nmake: *** [Makefile:1: x] Error 2\n")
    run = state / "results" / "isles" / runs[2]
    run.mkdir()
    (run / "config.json").write_text('{"settings": {"epochs": 9}}')
    (run / "log.csv").write_text("epoch\n0\n1\n")
    done = status(state, "--runs", *runs[:4])
    assert "isles-two, job 2 after its runs: waits" in done.stdout
    done = status(state, "--runs", *runs)
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [line[1] for line in lines[:5]] == ["ended", "failed", "runs", "waits", "missing"]
    assert lines[1][2] == "train.py: error: a line" and lines[3][2] == "Priority"
    assert lines[2][2].startswith("epoch 2 of 9")
    log.unlink()
    assert "no log: it was cancelled before it began" in status(state).stdout.splitlines()[1]
    # All runs that are known, where none are named.
    assert {line.split()[0] for line in status(state).stdout.splitlines()[:4]} == set(runs[:4])


@pytest.mark.parametrize(("log", "words"), [
    (None, "cancelled, since a run failed"),
    ("| row | DSC |\nNotes.\n", "ended"),
    ("eval.py: error: no runs\nmake: *** [x] Error 2\n", "failed  eval.py: error: no runs"),
])
def test_status_says_how_the_job_after_the_runs_is(state, log, words):
    submit(state)
    (state / "queue").write_text("")
    if log:
        records(state)[0].with_name(f"{records(state)[0].stem}-after.log").write_text(log)
    for flags in ((), ("--runs", *RUNS)):
        assert status(state, *flags).stdout.splitlines()[-1].startswith(f"isles-two, job 2 after its runs: {words}")


def test_status_without_slurm(state, monkeypatch):
    finished = state / "results" / "isles" / "gdl" / "seed0"
    finished.mkdir(parents=True)
    (finished / "metrics.csv").touch()
    (state / "results" / "isles" / "gdl" / "seed1").mkdir()
    (state / "results" / "isles" / "gdl" / "seed1" / "log.csv").write_text("epoch\n0\n")
    (state / "down").touch()
    done = status(state, "--runs", *(f"gdl/seed{seed}" for seed in range(3)))
    assert [line.split()[1] for line in done.stdout.splitlines()[:3]] == ["ended", "begun", "missing"], done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("refused") / "project")
    make_phantom(folder, "isles")
    return folder


def test_make_knows_two_runners(project):
    refused = make(project, "isles-gdl", "RUNNER=torque")
    assert refused.returncode == 2 and "RUNNER: expected local or slurm, found torque" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_make_hands_its_runs_over(state, project):
    variables = ["RAW=raw/isles", "SLICE_ARGS=--size 32 --val 1", "SEEDS=0 1", "TABLE_two=gdl focal"]
    done = make(project, "isles-two", *variables, "RUNNER=slurm", "SLURM_FLAGS=--comment=\"it's\"", "SLURM_MAX=3")
    assert done.returncode == 0 and "4 submitted as job 1; then job 2" in done.stdout, done.stderr
    array, after = (line.split() for line in (state / "calls").read_text().splitlines()[1:])
    assert "--array=0-3%3" in array and "--comment=it's" in array
    assert array[-4:] == [f"results/isles/{row}/seed{seed}/metrics.csv" for row in ("gdl", "focal") for seed in (0, 1)]
    assert after[-3:] == ["make", "isles-two", "isles-figures"]
    assert (project / "data" / "isles" / "meta.json").exists() and "train.py" not in done.stdout
    refused = make(project, "isles-two", *variables, "RUNNER=slurm", "ARGS=--epochs 3")
    assert refused.returncode == 2 and "found one in the queue with" in refused.stderr


def test_a_sweep_is_one_array(state, project):
    """And a job after it that runs the sweep again, for its table and curves."""
    shutil.rmtree(project / "results", ignore_errors=True)
    environment = {**without_make(dict(os.environ)), "RUNNER": "slurm", "SEEDS": "0", "STRATEGIES": "increase",
                   "RAW": "raw/isles", "SLICE_ARGS": "--size 32 --val 1", "NAME": "my sweep"}
    done = subprocess.run(["scripts/sweep_alpha.sh", "isles", "0.3\n0.1"], cwd=project, capture_output=True, text=True,
                          env=environment)
    assert done.returncode == 0 and "4 submitted as job 1; then job 2" in done.stdout, done.stderr
    after = (state / "calls").read_text().splitlines()[-1]
    environment = "env SEEDS=0 STRATEGIES=increase NAME=my sweep RESULTS=results VENV=.venv"
    assert after.endswith(f" {environment} scripts/sweep_alpha.sh isles 0.3 0.1")
