"""The pipeline as its user runs it: phantom zips to a table through make, in a copy of the project."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import time

import pytest
from project_copy import ROOT, copy_project, make, make_phantom, without_make

TINY = ["SLICE_ARGS=--size 32 --val 1", "ARGS=--width 4 --epochs 2 --precision fp32", "SEEDS=0"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("make") / "project")
    for name in ("isles", "wmh"):
        make_phantom(folder, name)
    return folder


@pytest.mark.slow
def test_from_zips_to_a_table(project):
    rows = ("gdl", "gdl-boundary-3d")
    done = make(project, "-j2", *(f"isles-{row}" for row in rows), "RAW=raw/isles", *TINY)
    assert done.returncode == 0, done.stderr
    results = project / "results" / "isles"
    for row in rows:
        (line,) = csv.DictReader((results / f"{row}.csv").open())
        assert line["seeds"] == "0" and line["cases"] == "1" and 0 <= float(line["dsc"]) <= 1
        assert float(line["published_dsc"]) > 0.5 and line["published_source"] == "MedIA 2021"
    stamps = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    again = make(project, *(f"isles-{row}" for row in rows), "RAW=raw/isles", *TINY)
    assert again.returncode == 0 and "train.py" not in again.stdout and "preprocess.py" not in again.stdout
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    # A table of one's own, and the tests of its rows against the baseline; then every figure and the report.
    own = make(project, "isles-two", f"TABLE_two={' '.join(rows)}", "RAW=raw/isles", *TINY)
    assert own.returncode == 0 and "paired over 1 validation cases" in own.stdout and "train.py" not in own.stdout
    line = next(csv.DictReader((results / "two-tests.csv").open()))
    assert (line["row"], line["baseline"], line["metric"]) == (rows[1], "gdl", "dsc")
    assert make(project, "-j2", "isles-figures", "isles-report").returncode == 0
    for figure in ("curves", "pictures", "boxes", "maps", "shares"):
        assert (results / f"{figure}.pdf").stat().st_size > 5000
    assert (results / "report" / "index.html").exists()


@pytest.mark.slow
def test_the_other_layout_comes_to_a_row_too(project):
    done = make(project, "wmh-gdl-boundary", "RAW=raw/wmh", *TINY[:2], "SEEDS=0", "EVAL_ARGS=--space native")
    assert done.returncode == 0 and "on the scans' own grid" in done.stdout, done.stderr
    (line,) = csv.DictReader((project / "results" / "wmh" / "gdl-boundary" / "seed0" / "metrics.csv").open())
    assert line["space"] == "native" and int(line["n_voxels"]) != 32 * 32 * 3


@pytest.mark.slow
def test_a_failed_row_is_not_taken_for_a_finished_one(project):
    run = project / "results" / "isles" / "focal" / "seed0"
    arguments, flags = ["isles-focal", "RAW=raw/isles", TINY[0], "SEEDS=0"], TINY[1]
    failed = make(project, *arguments, f"{flags} --lr 1e30")
    assert failed.returncode == 2 and "expected finite values, found loss" in failed.stderr
    assert not (run / "metrics.csv").exists()
    refused = make(project, *arguments, flags)
    assert refused.returncode == 2 and "expected a run with lr 0.001, found one with 1e+30" in refused.stderr
    shutil.rmtree(run)
    assert make(project, *arguments, flags).returncode == 0 and (run / "metrics.csv").exists()


@pytest.mark.slow
def test_a_sweep_of_alpha_leaves_a_table_and_curves(project):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "SEEDS": "0",
        "STRATEGIES": "increase",
        "RAW": "raw/isles",
        "SLICE_ARGS": "--size 32 --val 1",
        "ARGS": "--width 4 --epochs 2 --precision fp32",
        "JOBS": "2",
        "RESULTS": "swept",
    }
    done = subprocess.run(
        ["scripts/sweep_alpha.sh", "isles", "0.3"], cwd=project, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    rows = [row["row"] for row in csv.DictReader((project / "swept" / "isles" / "sweep.csv").open())]
    assert rows == ["gdl", "gdl-boundary-constant-0.3", "gdl-boundary-increase"]
    log = csv.DictReader((project / "swept" / "isles" / rows[1] / "seed0" / "log.csv").open())
    assert {(row["region_weight"], row["contour_weight"]) for row in log} == {("1.0", "0.3")}
    assert (project / "swept" / "isles" / "sweep-curves.pdf").exists()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["isles"], "found 1 arguments"),
        (["isles", "0.1 high"], "found high"),
        (["isles", "1e-3"], "found 1e-3"),
        (["", "0.1"], "expected a data set's name, found"),
        (["--eval=$(shell touch hacked)y", "0.1"], "expected a data set's name, found --eval"),
        (["a b", "0.1"], "expected a data set's name, found a b"),
        (["isles", "0.1", ("SEEDS", "$(shell touch hacked)")], "SEEDS: expected whole numbers, found $(shell"),
        (["isles", "0.1", ("JOBS", "2 hacked")], "JOBS: expected a whole number, found 2 hacked"),
    ],
)
def test_a_sweep_refuses_what_is_no_list_of_numbers(project, arguments, found):
    """And what make would run, or take for a flag."""
    environment = without_make() | dict(each for each in arguments if isinstance(each, tuple))
    words = [each for each in arguments if isinstance(each, str)]
    failed = subprocess.run(["scripts/sweep_alpha.sh", *words], cwd=project, capture_output=True, text=True,
                            env=environment)
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1 and found in failed.stderr
    assert not (project / "hacked").exists()


def test_bad_raw_data_leaves_no_data_set(project):
    shutil.rmtree(project / "data" / "wmh", ignore_errors=True)
    failed = make(project, "wmh-data", "RAW=raw/nowhere")
    assert failed.returncode == 2 and "raw/nowhere: expected the raw data" in failed.stderr
    assert not (project / "data" / "wmh").exists()


def test_figures_know_the_tables_of_their_data_set(project):
    text = make(project, "-n", "wmh-demo-curves").stdout
    assert re.findall(r"--table (\S+)", text) == ["midl", "table1", "table3"] and "--baseline" not in text
    text = make(project, "-n", "busi-demo-figures").stdout
    assert "--table table1 ce ce-boundary-combination" in text and "--baseline ce" in text


def test_the_environment_makes_no_row(project, monkeypatch):
    monkeypatch.setenv("ROW_mine", "--region dice")
    monkeypatch.setenv("TABLE_mine", "gdl")
    assert "mine" not in make(project, "help").stdout
    assert make(project, "isles-mine").returncode == 2
    assert "--region dice" in make(project, "-n", "isles-mine", "ROW_mine=--region dice", "RAW=raw/isles").stdout


def test_a_demo_is_never_made_from_the_users_data(project):
    text = make(project, "-n", "isles-demo-gdl", "RAW=raw/isles").stdout
    assert "data/raw/isles-demo" in text and 'raw/isles"' not in text


def test_an_unknown_row_lists_the_known_ones(project):
    failed = make(project, "isles-gdll")
    assert failed.returncode == 2 and "focal-boundary" in failed.stderr and "found gdll" in failed.stderr


def test_help_has_every_named_target(project):
    text = make(project, "help").stdout
    named = re.findall(r"^\.PHONY: ([a-z0-9-]+)$", (project / "Makefile").read_text(), re.MULTILINE)
    assert len(named) >= 6 and all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in named)


def test_analyses_train_the_rows_that_they_need(project):
    """What make would run: seeds, snapshots, and the 50 epochs of Figs. 5 and 6c apart from the tables' runs."""
    signs = make(project, "-n", "acdc-gradients", "RAW=raw", "SEEDS=0 1 2", 'ARGS=--epochs 20', "SNAPSHOTS=1 20").stdout
    trained = re.findall(r"train.py .* --out results/acdc/(\S+) .*--snapshot-epochs 1 20 --epochs 20", signs)
    assert trained == [f"{row}/seed{seed}" for row in ("rw-boundary-alone", "rrw-alone") for seed in "01"]
    assert "eval.py gradients results/acdc --rows rw-boundary-alone rrw-alone --seeds 0 1" in signs
    assert "--snapshot-epochs 1 2 5 10 20" in make(project, "-n", "acdc-gradients", "RAW=raw").stdout
    assert "--snapshot-epochs" not in make(project, "-n", "acdc-rrw-alone", "RAW=raw").stdout
    found = make(project, "-n", "acdc-convergence", "RAW=raw", "SEEDS=4 7", "ARGS=--width 8").stdout
    strategies = [f"{of}-{how}" for of in ("rrw", "rw-boundary") for how in
                  ("alone", "dice-equal", "dice-gradual", "ce-equal", "ce-gradual")]
    trained = re.findall(r"train.py .* --out results/convergence/acdc/(\S+) .*--epochs 50 --width 8", found)
    assert trained == [f"{row}/seed{seed}" for row in strategies for seed in (4, 7)]
    assert f"eval.py convergence results/convergence/acdc --rows {' '.join(strategies)} --seeds 4 7" in found
    demo = make(project, "-n", "acdc-demo-convergence", "SEEDS=0").stdout
    assert "--out results/acdc-demo/rrw-alone/seed0" in demo and "eval.py convergence results/acdc-demo --rows" in demo


def test_every_row_of_every_table_has_flags_that_train_accepts(project):
    import train_nnunet

    import train

    text = (project / "experiments.mk").read_text()
    rows = dict(re.findall(r"^ROW_(\S+)\s*:= (.+)$", text, re.MULTILINE))
    for name, flags in rows.items():
        if name.startswith("nnunet-"):
            train_nnunet.parse(["--data", "d", "--out", "o", *flags.split()])
            continue
        args, _ = train.parse(["--data", "d", "--out", "o", *flags.split()])
        is_boundary = args.contour == "boundary" or args.region_wise_map == "boundary"
        assert ("boundary" in name) == is_boundary and ("hausdorff" in name) == (args.contour == "hausdorff")
        assert (args.maps == "3d") == name.endswith("-3d")
    # Every row of the papers' tables has a target of its name.
    tables = ("media2021_table1", "media2021_table3", "midl2019_table1", "regionwise2022_tables2-4", "busi_table1")
    for table in tables:
        for line in csv.DictReader((project / "published" / f"{table}.csv").open()):
            assert line["row"] in rows


OTHER_OPTIONS = {
    "--width": {"ARGS": "--width 8 --epochs 2"},
    "--epochs": {"ARGS": "--width 4 --epochs 3"},
    "--size": {"SLICE_ARGS": "--size 48 --val 1"},
    "--val": {"SLICE_ARGS": "--size 32 --val 2"},
    "--source": {"RAW": "raw/wmh"},
    "--tolerance": {"EVAL_ARGS": "--tolerance 3"},
    "--checkpoint": {"EVAL_ARGS": "--checkpoint last"},
}


# One of each command: what is refused is asked again, and the options of before pass.
ASKED_AGAIN = ("--width", "--size", "--tolerance")


@pytest.fixture(scope="module")
def finished(project):
    """A finished run of one seed, in folders of its own."""
    done = make(project, "isles-gdl", *options())
    assert done.returncode == 0, done.stderr
    return project


def options(**other):
    chosen = {"RAW": "raw/isles", "SLICE_ARGS": "--size 32 --val 1", "ARGS": "--width 4 --epochs 2", "SEEDS": "0",
              "DATA": "honest/data", "RESULTS": "honest/results"}
    return [f"{name}={value}" for name, value in {**chosen, **other}.items()]


@pytest.mark.slow
@pytest.mark.parametrize("flag", OTHER_OPTIONS)
def test_make_never_passes_with_other_options_than_those_of_the_finished_runs(finished, flag):
    before = {path: path.read_bytes() for path in (finished / "honest").rglob("*") if path.suffix in (".csv", ".json")}
    for _ in range(1 + (flag in ASKED_AGAIN)):
        refused = make(finished, "isles-gdl", *options(**OTHER_OPTIONS[flag]))
        assert refused.returncode == 2, refused.stdout
        (line,) = [line for line in refused.stderr.splitlines() if ": error: " in line]
        assert flag in line and "found" in line and re.search(r"\b(RESULTS|DATA)=", line) and "remove" in line
    assert before == {path: path.read_bytes() for path in before}
    if flag not in ASKED_AGAIN:
        return
    again = make(finished, "isles-gdl", *options())
    assert again.returncode == 0 and "DSC" in again.stdout, again.stderr
    # Nothing to ask any more: the finished table is there at once.
    assert ".py" not in make(finished, "isles-gdl", *options()).stdout


@pytest.mark.slow
def test_the_same_options_in_other_words_pass(finished):
    asked = make(finished, "isles-gdl", *options(ARGS="--epochs=2   --width=4 --lr 0.001"))
    assert asked.returncode == 0 and "--check" in asked.stdout, asked.stderr
    assert make(finished, "isles-gdl", *options()).returncode == 0


@pytest.mark.slow
def test_slices_made_anew_with_other_options_are_noticed(finished, tmp_path):
    data, results = tmp_path / "data", tmp_path / "results"
    shutil.copytree(finished / "honest" / "results", results)
    folders = {"DATA": str(data), "RESULTS": str(results)}
    refused = make(finished, "isles-gdl", *options(SLICE_ARGS="--size 48 --val 1", **folders))
    assert refused.returncode == 2 and "other slices" in refused.stderr, refused.stderr
    shutil.rmtree(data)
    (data.with_name("data") / ".isles.options").unlink(missing_ok=True)
    assert make(finished, "isles-gdl", *options(**folders)).returncode == 0


def test_variants_live_side_by_side(project):
    text = make(project, "-n", "isles-gdl", "DATA=other/data", "RESULTS=other/results", "RAW=raw/isles").stdout
    assert "--dest other/data/isles" in text and "--out other/results/isles/gdl/seed0" in text
    assert " data/" not in text and " results/" not in text


def start_make(project, *arguments, **environment):
    return subprocess.Popen(
        ["make", *arguments], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=without_make() | environment,
    )


def slow_python(project, tmp_path, product):
    """VENV whose python does nothing but make the file ``product`` and wait, as between a command's end and make's."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nmkdir -p "$(dirname "{product}")"; touch "{product}"; exec sleep 30\n')
    python.chmod(0o755)
    (tmp_path / "venv" / ".ready").touch()
    return f"VENV={tmp_path / 'venv'}"


@pytest.mark.parametrize("product", ["data/isles/meta.json", "results/isles/gdl/seed0/metrics.csv"])
def test_a_stopped_make_deletes_nothing_that_is_whole(project, tmp_path, product):
    folders = [f"DATA={tmp_path / 'data'}", f"RESULTS={tmp_path / 'results'}", "RAW=raw/isles", "SEEDS=0"]
    whole = tmp_path / product
    if whole.name == "metrics.csv":
        (tmp_path / "data" / "isles").mkdir(parents=True)
        (tmp_path / "data" / "isles" / "meta.json").touch()
        arguments = ["isles-gdl", "--old-file", str(tmp_path / "data" / "isles" / "meta.json")]
    else:
        arguments = ["isles-data"]
    process = start_make(project, *arguments, *folders, slow_python(project, tmp_path, whole))
    deadline = time.monotonic() + 30
    while not whole.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    process.terminate()
    error = process.communicate(timeout=30)[1]
    assert process.returncode != 0 and "Terminated" in error, error
    assert whole.exists() and "Deleting" not in error, error


@pytest.mark.slow
def test_two_makes_at_once_make_one_phantom(project, tmp_path):
    folder = f"DATA={tmp_path / 'data'}"
    goal = str(tmp_path / "data" / "raw" / "isles-demo")
    both = [start_make(project, goal, folder) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert os.listdir(tmp_path / "data" / "raw") == ["isles-demo"]
    assert os.listdir(goal) == ["ISLES2018_Training.zip"]
    number = os.stat(goal).st_ino
    assert (tmp_path / "data" / ".isles-demo.phantom").read_text() == f"{number} {goal}\n"


@pytest.mark.parametrize("other", ["folder", "file"])
def test_a_phantom_that_another_make_gave_in_the_last_moment_stays(project, tmp_path, other):
    """What gives the folder its name (python -c, or mv) finds another there that was not when the recipe began."""
    goal = tmp_path / "data" / "raw" / "isles-demo"
    appear = f"touch {goal}" if other == "file" else f"mkdir -p {goal}; touch {goal}/theirs"
    programs = {
        "venv/bin/python": f'case "$1" in -c) {appear}; exec python3 "$@";; esac\nmkdir -p "$4"; touch "$4/mine"\n',
        "bin/mv": f'{appear}; exec /bin/mv "$@"\n',
    }
    for name, script in programs.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "venv" / ".ready").touch()
    process = start_make(project, str(goal), f"DATA={tmp_path / 'data'}", f"VENV={tmp_path / 'venv'}",
                         PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    error = process.communicate(timeout=60)[1]
    assert set(os.listdir(goal.parent)) <= {goal.name} and not (tmp_path / "data" / ".isles-demo.phantom").exists()
    if other == "folder":
        assert process.returncode == 0 and os.listdir(goal) == ["theirs"], error
    else:
        first = error.splitlines()[0]
        assert process.returncode == 2 and first.startswith("make: error: ") and f"'{goal}'" in first, error


def test_clean_leaves_a_demo_that_is_not_the_projects(project):
    mine = project / "data" / "my-demo" / "keep.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    raw = project / "data" / "raw"
    for name in ("isles-demo", "wmh-demo"):
        (raw / name).mkdir(parents=True, exist_ok=True)
    # What make writes of a phantom of its own, and of one that has another folder in its place now.
    for name, number in (("isles-demo", (raw / "isles-demo").stat().st_ino), ("wmh-demo", 1)):
        (project / "data" / f".{name}.phantom").write_text(f"{number} data/raw/{name}\n")
    assert make(project, "clean").returncode == 0
    assert mine.exists() and os.listdir(raw) == ["wmh-demo"]
    assert not (project / "data" / ".isles-demo.phantom").exists()
    shutil.rmtree(mine.parent)
    shutil.rmtree(raw / "wmh-demo")


def test_a_sweep_takes_values_on_several_lines(project, tmp_path):
    """A make that only says what it was asked for."""
    shim = tmp_path / "make"
    shim.write_text('#!/bin/sh\necho "$@" >&2\nexit 3\n')
    shim.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "STRATEGIES": "increase\nrebalance"}
    command = ["scripts/sweep_alpha.sh", "isles", "0.1\n0.2  0.3\n"]
    asked = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)
    rows = [f"isles-gdl-boundary-constant-0.{n}" for n in (1, 2, 3)]
    for goal in (*rows, "isles-gdl-boundary-increase", "isles-gdl-boundary", "ALPHAS=0.1 0.2 0.3"):
        assert goal in asked.stderr, asked.stderr
    refused = subprocess.run(
        ["scripts/sweep_alpha.sh", "isles", "0.1\nhigh"], cwd=project, capture_output=True, text=True
    )
    assert refused.returncode == 2 and "found high" in refused.stderr


@pytest.mark.slow
def test_a_baseline_that_is_not_in_the_table_is_refused(finished):
    own = ["TABLE_one=gdl"]
    refused = make(finished, "isles-one", *own, *options(), "BASELINE=focal")
    assert refused.returncode == 2, refused.stdout
    assert "BASELINE: expected a row of isles-one, one of gdl, found focal" in refused.stderr
    assert make(finished, "isles-one", *own, *options()).returncode == 0


@pytest.mark.slow
def test_the_readmes_example_of_a_data_set_of_your_own(project):
    """Its two commands, at a smaller size."""
    readme = (ROOT / "README.md").read_text()
    block = next(text for text in readme.split("```") if "phantom.py nnunet" in text).replace("\\\n", " ")
    phantom, run = (shlex.split(line) for line in block.strip().splitlines())
    subprocess.run([*phantom, "--cases", "5", "--slices", "4", "--in-plane", "48"], cwd=project, check=True,
                   capture_output=True)
    start = run.index("make")
    tiny = ("SLICE_ARGS=--size 32", "ARGS=--width 2 --epochs 1 --precision fp32", "SEEDS=0")
    done = make(project, *run[start + 1 :], *run[:start], *tiny)
    assert done.returncode == 0, done.stderr
    assert "| gdl-boundary | lesion |" in done.stdout


def test_raw_data_in_a_folder_of_any_name(project, tmp_path):
    """Neither make nor the shell takes the path apart."""
    name = "it's a $HOME \"b\" c;d e $(HOME) f `touch made` #g"
    (tmp_path / name).symlink_to(project / "raw" / "isles")
    (tmp_path / "data").mkdir()
    for _ in range(2):
        done = make(project, "isles-data", f"RAW={tmp_path / name}", f"DATA={tmp_path / 'data'}", TINY[0])
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "data" / "isles" / "meta.json").exists() and not (project / "made").exists()


@pytest.mark.parametrize("variable", ["DATA", "RESULTS", "VENV"])
@pytest.mark.parametrize("path", ["it's", "a b", "c;d", "e$$f", *(f"r{sign}s" for sign in "&|<>()[]{}#:%*?=!\\\"`")])
def test_folders_that_make_would_take_apart(project, variable, path):
    refused = make(project, "isles-data", "RAW=raw/isles", f"{variable}={path}")
    assert refused.returncode == 2 and f"{variable}: expected a path without" in refused.stderr
    assert not any((project / word).exists() for word in (path, path.split()[0], "e$f"))


def test_papers_without_data_say_what_to_get(project, tmp_path):
    done = make(project, "papers", f"DATA={tmp_path}", "DEVICE=cpu")
    assert done.returncode == 2
    lines = [line.split(": missing: ") for line in done.stdout.splitlines()]
    names = ["isles", "wmh", "acdc", "brats", "kits", "busi", "convergence/acdc"]
    assert [words[0] for words in lines if len(words) == 2] == [f"results/{name}" for name in names]


def test_papers_are_every_table_and_figure_of_the_data_that_are_there(project, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "wmh").symlink_to(project / "raw" / "wmh")
    text = make(project, "-n", "papers", f"DATA={tmp_path}", "DEVICE=cpu").stdout
    goals = next(line for line in text.splitlines() if "wmh-table1" in line and "make" in line)
    assert "wmh-table1 wmh-table3 wmh-figures wmh-report" in goals and "isles-" not in goals and "busi-" not in goals
    assert "nnunet" not in goals    # an engine of its own, which has its own targets
    every = make(project, "-n", "papers-demo").stdout
    for goal in ("isles-demo-table1", "isles-demo-table3", "isles-demo-midl", "wmh-demo-table1", "acdc-demo-table2",
                 "brats-demo-table3", "kits-demo-table4", "busi-demo-table1", "busi-demo-figures",
                 "acdc-demo-gradients", "acdc-demo-convergence"):
        assert f" {goal}" in every
