"""Each flag of eval.py's commands changes the part of what is made that it should, and no other."""

import csv
import hashlib
import shutil

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest
from commands import evaluate
from training_runs import run

from environment import devices
from reporting import figures, pictures
from utils import InputError

# Of a command: its flag, what stands before it, its value, and the parts that change. All parts: ``parts_of``.
ROWS = ("--rows", "gdl", "ce")
TABLE = (*ROWS, "--name", "t")
MEASURED = {"run": [
    ("--checkpoint", (), ("last",), {"metrics.csv", "metrics_2d.csv", "predictions"}),
    ("--space", (), ("native",), {"metrics.csv", "metrics_2d.csv", "predictions_native"}),
    ("--ignore-label", ("--space", "native"), ("1",), {"metrics.csv", "metrics_2d.csv"}),
    ("--source", ("--space", "native"), ("COPY",), set()),
    ("--tolerance", (), ("0.5",), {"metrics.csv"}),
    ("--data", (), ("MOVED",), set()),
    ("--device", (), ("cpu",), set()),
]}
PRINTED = {
    "table": [
        ("--rows", ("--name", "t"), ("gdl",), {"t.csv", "t.md", "t.tex"}),
        ("--name", ROWS, ("u",), {"t.csv", "t.md", "t.tex", "u.csv", "u.md", "u.tex"}),
        ("--seeds", TABLE, ("1",), {"t.csv", "t.md", "t.tex"}),
        ("--level", TABLE, ("slice",), {"t.csv", "t.md", "t.tex"}),
    ],
    "compare": [
        ("--rows", ("--name", "t"), ("gdl", "ce", "dice"), {"t.csv", "t.md", "t.tex"}),
        ("--name", ROWS, ("u",), {"t.csv", "t.md", "t.tex", "u.csv", "u.md", "u.tex"}),
        ("--seeds", TABLE, ("1",), {"t.csv", "t.md", "t.tex"}),
        ("--level", TABLE, ("slice",), {"t.csv", "t.md", "t.tex"}),
        ("--baseline", TABLE, ("ce",), {"t.csv", "t.md", "t.tex"}),
        ("--metrics", TABLE, ("assd_mm",), {"t.csv", "t.md", "t.tex"}),
        ("--permutations", TABLE, ("2",), {"t.csv", "t.md", "t.tex"}),
    ],
    "curves": [
        ("--rows", (), ("ce",), {"curves"}),
        ("--table", (), ("mine", "gdl"), {"curves"}),
        ("--name", (), ("fig3",), {"curves", "fig3"}),
        ("--seeds", (), ("1",), {"curves"}),
        ("--smooth", (), ("3",), {"curves"}),
    ],
    "boxes": [
        ("--rows", (), ("ce",), {"boxes"}),
        ("--table", (), ("mine", "gdl"), {"boxes"}),
        ("--name", (), ("fig5",), {"boxes", "fig5"}),
        ("--seeds", (), ("1",), {"boxes"}),
    ],
    "pictures": [
        ("--rows", (), ("ce",), {"pictures"}),
        ("--table", (), ("mine", "gdl"), {"pictures"}),
        ("--name", (), ("fig4",), {"pictures", "fig4"}),
        ("--seed", (), ("1",), {"pictures"}),
        ("--baseline", ("--rows", "ce", "gdl", "dice"), ("ce",), {"pictures"}),
    ],
    "maps": [("--name", (), ("fig1",), {"maps", "fig1"})],
    "shares": [("--name", (), ("fig",), {"shares", "fig"})],
    "figures": [
        ("--table", (), ("mine", "gdl", "dice"), {"curves", "boxes", "pictures"}),
        ("--seeds", ("--seed", "1"), ("1",), {"curves", "boxes"}),
        ("--smooth", (), ("3",), {"curves"}),
        ("--seed", (), ("1",), {"pictures"}),
        ("--baseline", (), ("dice",), {"pictures"}),
    ],
    "report": [
        ("--rows", (), ("ce",), {"index.html", "data.js", "slices/0.js", "slices/1.js"}),
        ("--table", (), ("mine", "gdl"), {"index.html", "data.js", "slices/0.js", "slices/1.js"}),
        ("--baseline", (), ("dice",), {"index.html"}),
        ("--seed", (), ("1",), {"index.html", "data.js", "slices/0.js", "slices/1.js"}),
    ],
}
PREDICTED = {"predict": [
    ("--checkpoint", (), ("last",), {"mask.nii"}),
    ("--probabilities", (), ("SOFT",), {"soft.nii"}),
    ("--case", (), ("OTHER",), {"mask.nii"}),
    ("--out", (), ("NEW",), {"mask.nii", "new.nii"}),
    ("--device", (), ("cpu",), set()),
]}
# Flags whose tests are below, or in another file.
ELSEWHERE = {
    ("run", "--check"): "test_eval.py::test_a_check_holds_the_options_against_metrics_csv",
    ("run", "--device"): "test_eval_flags.py::test_the_device_is_the_one_asked_for",
    ("predict", "--device"): "test_eval_flags.py::test_the_device_is_the_one_asked_for",
    ("maps", "--rows"): "test_eval_flags.py::test_maps_and_shares_are_of_the_data_of_the_first_row",
    ("maps", "--table"): "test_eval_flags.py::test_maps_and_shares_are_of_the_data_of_the_first_row",
    ("shares", "--rows"): "test_eval_flags.py::test_maps_and_shares_are_of_the_data_of_the_first_row",
    ("shares", "--table"): "test_eval_flags.py::test_maps_and_shares_are_of_the_data_of_the_first_row",
    ("score", "--out"): "test_score.py::test_metrics_are_medpys_per_case_and_label",
    ("score", "--lesions"): "test_score.py::test_lesions_one_by_one_by_hand",
    ("score", "--labels"): "test_score.py::test_labels_and_the_ignore_label",
    ("score", "--ignore-label"): "test_score.py::test_labels_and_the_ignore_label",
    ("score", "--spacing"): "test_score.py::test_an_image_is_measured_in_2d",
    ("score", "--tolerance"): "test_score.py::test_the_tolerance_is_of_the_surface_dice",
    ("score", "--jobs"): "test_score.py::test_any_number_of_processes_gives_the_same",
    ("gradients", "--map-values"): "test_gradient_signs.py::test_map_values_and_seeds_are_those_asked_for",
    ("gradients", "--seeds"): "test_gradient_signs.py::test_map_values_and_seeds_are_those_asked_for",
    ("gradients", "--rows"): "test_gradient_signs.py::test_gradients_of_runs_leave_figures_and_a_table",
    ("gradients", "--name"): "test_gradient_signs.py::test_gradients_of_runs_leave_figures_and_a_table",
    ("gradients", "--device"): "test_gradient_signs.py::test_the_device_of_the_gradients_is_the_one_asked_for",
    ("convergence", "--rows"): "test_convergence.py::test_the_table_is_of_the_last_epoch",
    ("convergence", "--epochs"): "test_convergence.py::test_fluctuations_are_counted_between_epochs",
    ("convergence", "--name"): "test_convergence.py::test_fluctuations_are_counted_between_epochs",
    ("convergence", "--baseline"): "test_convergence.py::test_baseline_threshold_and_seeds_are_those_asked_for",
    ("convergence", "--threshold"): "test_convergence.py::test_baseline_threshold_and_seeds_are_those_asked_for",
    ("convergence", "--seeds"): "test_convergence.py::test_baseline_threshold_and_seeds_are_those_asked_for",
}


def cases(table):
    """One test a flag, named by its command and flag."""
    every = [(command, *rest) for command, flags in table.items() for rest in flags]
    return [pytest.param(*one, id=" ".join(one[:2])) for one in every]


@pytest.fixture(scope="module")
def compared(varied, tmp_path_factory):
    """Three rows of two seeds, three epochs each, evaluated."""
    root = tmp_path_factory.mktemp("compared") / "results"
    for row in ("ce", "dice", "gdl"):
        for seed in (0, 1):
            out = root / row / f"seed{seed}"
            learning = ("--lr", "0.003", "--width", "4", "--batch-size", "2", "--epochs", "3")
            run(varied, out, *learning, "--region", row, "--seed", str(seed))
            evaluate.main(["run", str(out), "--device", "cpu"])
    return root


def digest(content):
    return hashlib.sha256(content if isinstance(content, bytes) else repr(content).encode()).hexdigest()


def contents(folder):
    """Digests of the files below a folder, the date of a report aside."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file():
            content = path.read_bytes()
            found[name] = digest(content if path.name != "index.html" else content.split(b"Made on")[0]
                                 + content.split(b"Made on")[-1][30:])
    return found


def drawn(figure):
    """What a figure shows, in numbers and words."""
    parts = [text.get_text() for text in figure.findobj(plt.Text)]
    parts += [line.get_xydata().tolist() for line in figure.findobj(plt.Line2D)]
    parts += [np.asarray(image.get_array()).tolist() for image in figure.findobj(lambda a: hasattr(a, "get_array"))]
    return digest([str(part) for part in parts])


def parts_of(command, results, *flags):
    """What a command has made in a copy of the results: files, and figures by name."""
    before, figures_made = contents(results), {}

    def save(figure, folder, name):
        figures_made[name] = drawn(figure)
        plt.close(figure)
        return [folder / f"{name}.png"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", save)
        patch.setattr(pictures, "save", save)
        evaluate.main([command, str(results), *flags])
    made = {name: value for name, value in contents(results).items() if before.get(name) != value}
    return {name.removeprefix("report/"): value for name, value in made.items()} | figures_made


def differing(before, after):
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


@pytest.fixture(scope="module")
def without(compared, tmp_path_factory):
    known = {}

    def find(command, base):
        if (command, base) not in known:
            folder = shutil.copytree(compared, tmp_path_factory.mktemp("base") / "results")
            known[command, base] = parts_of(command, folder, *base)
        return known[command, base]

    return find


# What a flag that is required has where another one is tested.
REQUIRED = {("table", "--rows"): ("gdl", "ce"), ("table", "--name"): ("t",), ("compare", "--rows"): ("gdl", "ce"),
            ("compare", "--name"): ("t",)}


@pytest.mark.parametrize(("command", "flag", "base", "value", "changes"), cases(PRINTED))
def test_a_flag_of_what_is_printed_or_drawn(compared, tmp_path, without, command, flag, base, value, changes):
    first = (*base, flag, *REQUIRED[command, flag]) if (command, flag) in REQUIRED else base
    before = without(command, first)
    folder = shutil.copytree(compared, tmp_path / "results")
    assert differing(before, parts_of(command, folder, *base, flag, *value)) == changes


def measured(run_folder, *flags):
    evaluate.main(["run", str(run_folder), *flags])
    found = {name: digest((run_folder / name).read_bytes()) for name in ("metrics.csv", "metrics_2d.csv")}
    for part in ("predictions", "predictions_native"):
        masks = [np.asarray(nib.load(path).dataobj).tobytes() for path in sorted((run_folder / part).glob("*"))]
        found[part] = digest(masks)
    return found


@pytest.mark.parametrize(("command", "flag", "base", "value", "changes"), cases(MEASURED))
def test_a_flag_of_measuring(trained, varied, tmp_path, command, flag, base, value, changes):
    moved = shutil.copytree(varied, tmp_path / "moved") if "MOVED" in value else ""
    raw = shutil.copytree(varied.parent / "raw", tmp_path / "raw") if "COPY" in value else ""
    words = {"MOVED": str(moved), "COPY": str(raw)}
    one, other = (shutil.copytree(trained, tmp_path / name) for name in ("one", "other"))
    before, after = measured(one, *base), measured(other, *base, flag, *(words.get(word, word) for word in value))
    assert differing(before, after) == changes


def test_data_and_source_are_read_where_the_flags_say(trained, varied, tmp_path):
    """Where they were is not looked at: what is there may be damaged or gone."""
    run_folder, data = shutil.copytree(trained, tmp_path / "run"), shutil.copytree(varied, tmp_path / "data")
    raw = shutil.copytree(varied.parent / "raw", tmp_path / "raw")
    config = run_folder / "config.json"
    config.write_text(config.read_text().replace(str(varied.parent), "/gone"))
    meta = data / "meta.json"
    meta.write_text(meta.read_text().replace(str(varied.parent), "/gone"))
    evaluate.main(["run", str(run_folder), "--data", str(data), "--space", "native", "--source", str(raw)])
    assert [row["case_id"] for row in csv.DictReader((run_folder / "metrics.csv").open())] == ["case_4", "case_5"]


@pytest.mark.parametrize(("command", "flag", "base", "value", "changes"), cases(PREDICTED))
def test_a_flag_of_predicting(trained, varied, tmp_path, command, flag, base, value, changes):
    scans = varied.parent / "raw" / "TRAINING"
    found = []
    for number, given in enumerate(((), (flag, *value))):
        folder = tmp_path / str(number)
        folder.mkdir()
        words = {"SOFT": folder / "soft.nii", "OTHER": scans / "case_5", "NEW": folder / "new.nii"}
        where = ("--case", scans / "case_4", "--out", folder / "mask.nii", *given)
        evaluate.main([command, str(trained), *(str(words.get(word, word)) for word in where)])
        found.append({path.name: digest(np.asarray(nib.load(path).dataobj).tobytes()) for path in folder.iterdir()})
    assert differing(*found) == changes


@pytest.mark.parametrize("command", ["run", "predict"])
@pytest.mark.parametrize(("name", "there"), [("cuda", False), ("auto", False), ("cpu", True)])
def test_the_device_is_the_one_asked_for(trained, varied, tmp_path, monkeypatch, command, name, there):
    asked, select = [], devices.select_device
    monkeypatch.setattr(devices, "select_device", lambda name: (asked.append(name), select(name))[1])
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    run_folder = shutil.copytree(trained, tmp_path / "run")
    scan = varied.parent / "raw" / "TRAINING" / "case_4"
    flags = ("--case", str(scan), "--out", str(tmp_path / "mask.nii")) if command == "predict" else ()
    command = [command, str(run_folder), *flags, "--device", name]
    if name == "cuda":
        with pytest.raises(InputError, match="expected a CUDA device, found none"):
            evaluate.main(command)
    else:
        evaluate.main(command)
    assert asked == [name]


@pytest.mark.parametrize("command", ["maps", "shares"])
def test_maps_and_shares_are_of_the_data_of_the_first_row(trained, trained_classes, tmp_path, command):
    for row, folder in (("gdl", trained), ("other", trained_classes)):
        shutil.copytree(folder, tmp_path / row / folder.name)
    one, other = (parts_of(command, tmp_path, "--rows", row) for row in ("gdl", "other"))
    assert differing(one, other) == {command}
    gdl, last = "gdl/seed0", "other/seed1"
    for flags, first, second in (((), gdl, last), (("--table", "t", "other"), last, gdl)):
        with pytest.raises(InputError, match=f"{second}: expected the data of .*{first}"):
            parts_of(command, tmp_path, *flags)
