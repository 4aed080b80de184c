"""Figures and pictures of finished runs, and which rows they show."""

import json
import shutil
import warnings

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from commands import evaluate
from raw_files import SLICED_X, call
from result_folders import case, write_run

from reporting import figure_set, figures, pictures, runs, tables
from sliced_data.meta import read_meta
from utils import InputError


@pytest.mark.parametrize("name", ["curves", "pictures", "boxes", "maps", "shares"])
def test_a_figure_has_content(results, name):
    evaluate.main([name, str(results), "--rows", "gdl", "gdl-boundary", "--name", name])
    pixels = matplotlib.image.imread(results / f"{name}.png")[..., :3]
    dark = pixels.min(axis=-1) < 0.9
    assert min(pixels.shape[:2]) > 300 and 0.02 < dark.mean() < 0.98
    # Nothing is cut: the outermost pixels are background.
    for edge in (dark[0], dark[-1], dark[:, 0], dark[:, -1]):
        assert not edge.any()
    pdf = (results / f"{name}.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/FontFile2" in pdf  # text as text, its font embedded


def test_curves_smooth_as_they_say(results, monkeypatch):
    (log,) = [figures.read_log(run) for run in runs.find_runs(results, "gdl", [0])]
    drawn = []
    monkeypatch.setattr(figures, "read_log", lambda run: pd.concat([log] * 4).assign(val_dsc_3d=[0.1, 0.3, 0.5, 0.9]))
    monkeypatch.setattr(figures, "draw_curve", lambda axis, seeds, label: drawn.append([*seeds[0]]))
    figures.write_curves(results, ["gdl"], "smooth", smooth=2)
    assert drawn[1] == pytest.approx([0.1, 0.2, 0.4, 0.7])


def test_errors_are_filled_where_only_one_mask_is(results):
    figure, axis = plt.subplots()
    prediction, reference = np.zeros((2, 6, 5), dtype=bool)
    prediction[1:3, 1], reference[2:5, 1] = True, True
    pictures.draw_errors(axis, prediction, reference)
    negative, positive = (image.get_array()[..., 3] > 0 for image in axis.get_images())
    # Rows of an image are y: x = 3 and 4 are missed, x = 1 is too much.
    assert np.argwhere(negative).tolist() == [[1, 3], [1, 4]] and np.argwhere(positive).tolist() == [[1, 1]]
    plt.close(figure)


def test_a_class_taken_for_another_is_an_error_and_each_class_has_its_contour(monkeypatch):
    figure, axis = plt.subplots()
    reference, prediction = np.zeros((2, 6, 5), dtype=np.uint8)
    reference[1:3, 1], reference[3:5, 1] = 1, 2
    prediction[1:4, 1], prediction[4, 1], prediction[4, 3] = 1, 2, 2
    pictures.draw_errors(axis, prediction, reference)
    negative, positive = (image.get_array()[..., 3] > 0 for image in axis.get_images())
    # At x = 3 class 2 was taken for 1; at x = 4, y = 3 there is nothing.
    assert np.argwhere(negative).tolist() == [[1, 3]] and np.argwhere(positive).tolist() == [[3, 4]]
    drawn = []
    monkeypatch.setattr(pictures, "draw_contour", lambda axis, mask, colour: drawn.append(mask))
    pictures.draw_classes(axis, reference, "red")
    assert len(drawn) == 2 and np.array_equal(drawn[0], reference == 1) and np.array_equal(drawn[1], reference == 2)
    plt.close(figure)


def test_a_box_is_of_cases_averaged_over_seeds(handmade):
    gdl = runs.find_runs(handmade, "gdl")
    assert figures.case_values(gdl, "lesion", "dsc") == pytest.approx([0.45, 0.25])


def test_cases_are_best_median_and_worst(tmp_path):
    for row, gains in (("a", (0, 0, 0, 0, 0)), ("b", (0.3, -0.2, 0.1, 0.0, 0.2))):
        cases = [case(str(i), 0.5 + gain, 1.0) for i, gain in enumerate(gains)]
        write_run(tmp_path / row / "seed0", cases, {"seed": 0})
    a, b = (runs.find_runs(tmp_path, row)[0] for row in "ab")
    assert pictures.choose_cases(a, b) == [("best gain", "0"), ("median gain", "2"), ("lowest DSC", "1")]
    assert pictures.choose_cases(b, b) == [("best", "0"), ("median", "2"), ("lowest DSC", "1")]


def test_a_failure_is_shown_whatever_its_gain(tmp_path):
    """Case 2 fails in both rows and so gains nothing; case 3 has no lesion and a false alarm in the second."""
    for row, dsc in (("a", (0.5, 0.9, 0.01, 0.5)), ("b", (0.9, 0.8, 0.01, 0.5))):
        write_run(tmp_path / row / "seed0", [case(str(i), value, 1.0) for i, value in enumerate(dsc)], {"seed": 0})
    a, b = (runs.find_runs(tmp_path, row)[0] for row in "ab")
    assert pictures.choose_cases(a, b)[-1] == ("lowest DSC", "2")
    empty = [case(str(i), value, 1.0, n_ref=9 * (i < 3)) for i, value in enumerate((0.9, 0.8, 0.1, 0.0))]
    write_run(tmp_path / "c" / "seed0", empty, {"seed": 0})
    assert pictures.choose_cases(b, runs.find_runs(tmp_path, "c")[0])[-1] == ("lowest DSC", "3")


@pytest.mark.parametrize("command", ["table", "curves", "pictures"])
def test_an_unknown_row_is_answered_with_the_rows_there_are(handmade, monkeypatch, capsys, command):
    code = call(evaluate, command, handmade, "--rows", "gdl", "gdll", "--name", "t", monkeypatch=monkeypatch)
    assert code == 2
    assert "expected rows with an evaluated run (boundary, focal, gdl), found gdll" in capsys.readouterr().err


def test_a_row_that_is_still_training_is_marked(handmade):
    (handmade / "my-row" / "seed0").mkdir(parents=True)
    text = tables.write_table(handmade, ["gdl", "my-row"], "t")
    assert "No finished run of my-row." in text and "no run" in text
    with pytest.raises(InputError, match="found none of my-row"):
        figures.write_curves(handmade, ["gdl", "my-row"], "t", smooth=1)


def test_a_log_that_is_cut_off_is_named(handmade):
    for row in ("gdl", "focal"):
        for folder in (handmade / row).iterdir():
            header = "epoch,train_loss,train_dsc,val_dsc_3d,val_hd95_3d_mm"
            (folder / "log.csv").write_text(f"{header}\n0,9,0.1,0.2,3.25\n1,9,0.1,0.2,3.")
    with pytest.raises(InputError, match="log.csv: line 3 is cut off"):
        figures.write_curves(handmade, ["gdl", "focal"], "t", smooth=1)


def test_more_rows_than_the_style_can_tell_apart_are_refused_and_ten_are_drawn(handmade, monkeypatch, capsys):
    header = "epoch,train_dsc,val_dsc_3d,val_hd95_3d_mm\n"
    rows = [f"r{number}" for number in range(15)]
    for row in rows:
        write_run(handmade / row / "seed0", [case("1", 0.5, 1.0), case("2", 0.5, 1.0)], {"seed": 0})
        (handmade / row / "seed0" / "log.csv").write_text(header + "0,0.1,0.2,3\n1,0.2,0.3,2\n")
    evaluate.main(["curves", str(handmade), "--rows", *rows[:10], "--name", "ten"])
    assert (handmade / "ten.pdf").exists()
    assert call(evaluate, "curves", handmade, "--rows", *rows, "--name", "all", monkeypatch=monkeypatch) == 2
    assert "expected at most 14 rows in a figure, found 15" in capsys.readouterr().err


def finish(results, *rows, seeds=(0,)):
    for row in rows:
        for seed in seeds:
            (results / row / f"seed{seed}").mkdir(parents=True)
            (results / row / f"seed{seed}" / "metrics.csv").touch()


def test_rows_of_figures_are_the_finished_ones_in_the_order_of_the_tables(tmp_path):
    finish(tmp_path, "z", "b", "own")
    finish(tmp_path, "later", seeds=[3])
    (tmp_path / "running" / "seed0").mkdir(parents=True)
    given = {"t1": ["z", "running", "never", "b"], "t2": ["b", "later"]}
    assert figure_set.choose_figures(tmp_path, "curves", given) == {"curves": ["z", "b", "later", "own"]}
    assert figure_set.choose_figures(tmp_path, "curves", given, [0]) == {"curves": ["z", "b", "own"]}
    assert figure_set.choose_figures(tmp_path, "curves", {}) == {"curves": ["b", "later", "own", "z"]}


def test_more_rows_than_the_style_can_tell_apart_are_a_figure_per_table(tmp_path):
    many = [f"r{number}" for number in range(14)]
    given = {"one": many[:9], "two": [*many[8:], "never"], "none": ["never"]}
    finish(tmp_path, *many)
    assert figure_set.choose_figures(tmp_path, "boxes", given) == {"boxes": many}
    finish(tmp_path, "own")
    assert figure_set.choose_figures(tmp_path, "boxes", given) == {
        "boxes-one": many[:9], "boxes-two": many[8:], "boxes-others": ["own"],
    }


def test_all_figures_at_once(results, tmp_path, capsys):
    root = shutil.copytree(results, tmp_path / "isles")
    evaluate.main(["figures", str(root), "--table", "table1", "gdl-boundary", "gdl", "--seeds", "1"])
    names = [f"{name}.{kind}" for name in ("curves", "pictures", "boxes", "maps", "shares") for kind in ("png", "pdf")]
    assert capsys.readouterr().out.split() == [str(root / name) for name in names]
    evaluate.main(["curves", str(root), "--rows", "gdl-boundary", "gdl", "--seeds", "1", "--name", "same"])
    assert (root / "same.png").read_bytes() == (root / "curves.png").read_bytes()
    evaluate.main(["pictures", str(root), "--rows", "gdl-boundary", "gdl", "--seed", "1", "--name", "same"])
    assert (root / "same.png").read_bytes() == (root / "pictures.png").read_bytes()


def test_pictures_are_of_the_rows_that_have_the_seed(results, tmp_path):
    root = shutil.copytree(results, tmp_path / "isles")
    shutil.rmtree(root / "gdl-boundary" / "seed0")
    evaluate.main(["figures", str(root), "--seed", "0"])
    evaluate.main(["pictures", str(root), "--rows", "gdl", "--name", "same"])
    assert (root / "same.png").read_bytes() == (root / "pictures.png").read_bytes()


@pytest.mark.parametrize("command", ["curves", "pictures", "boxes", "maps", "shares", "figures", "report"])
def test_without_a_finished_run_one_line_says_so(tmp_path, monkeypatch, capsys, command):
    (tmp_path / "gdl" / "seed0").mkdir(parents=True)
    assert call(evaluate, command, tmp_path, "--table", "table1", "gdl", monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{tmp_path}: expected an evaluated run" in error and "found none" in error
    assert [path.name for path in tmp_path.iterdir()] == ["gdl"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--table", "table1"), "--table table1: expected the name of a table and its rows"),
        (("--seeds", "1", "--seed", "0"), "--seed: expected one of --seeds 1, found 0"),
        (("--seeds", "7"), "expected an evaluated run of seed 7, found none"),
        (("--smooth", "0"), "--smooth: expected at least 1 epoch, found 0"),
    ],
)
def test_figures_that_cannot_be_drawn(results, monkeypatch, capsys, flags, named):
    before = set(results.iterdir())
    assert call(evaluate, "figures", results, *flags, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and named in error and set(results.iterdir()) == before


def test_pictures_refuse_a_data_set_that_was_sliced_anew(results, sliced, tmp_path, monkeypatch, capsys):
    root = shutil.copytree(results, tmp_path / "isles")
    data = shutil.copytree(sliced, tmp_path / "data")
    (data / "cases.csv").write_text((data / "cases.csv").read_text().replace(f",{SLICED_X},", ",0.46,"))
    config = json.loads((root / "gdl" / "seed0" / "config.json").read_text())
    (root / "gdl" / "seed0" / "config.json").write_text(json.dumps({**config, "data": str(data)}))
    assert call(evaluate, "pictures", root, "--rows", "gdl", "--name", "p", monkeypatch=monkeypatch) == 2
    assert "was trained on, found another" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["pictures", "figures", "report"])
def test_a_baseline_that_nobody_knows_is_refused(results, command):
    before = sorted(results.rglob("*"))
    with pytest.raises(InputError, match="--baseline: expected a row of .*isles, found nope"):
        evaluate.main([command, str(results), "--baseline", "nope"])
    assert sorted(results.rglob("*")) == before


def test_there_is_a_picture_to_choose_and_to_show(handmade, varied, tmp_path):
    write_run(tmp_path / "empty" / "seed0", [case(name, 1.0, 0.0, n_ref=0, n_pred=0) for name in "12"], {"seed": 0})
    (empty,) = runs.find_runs(tmp_path, "empty")
    with pytest.raises(InputError, match="empty/seed0: expected a validation case with a lesion, found none"):
        pictures.choose_cases(empty, empty)
    with pytest.raises(InputError, match="focal: expected an evaluated run of seed 1, found none; see --seed"):
        pictures.write_pictures(handmade, ["gdl", "focal"], "t", seed=1)
    meta = read_meta(varied)
    for name in ("case_1", "case_99"):      # one that trains, and none
        with pytest.raises(InputError, match=f"data: expected a validation case {name}, found none"):
            pictures.read_picture(meta, name, empty)


def test_a_picture_of_nothing_to_tell_apart_is_of_the_first_channel():
    image, lesion = np.random.default_rng(0).random((2, 6, 5)), np.zeros((6, 5), bool)
    lesion[2:4, 2:4] = True
    image[1] += 5 * lesion
    assert pictures.display_channel(image, lesion) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")      # as the mean of nothing makes one
        for same in (lesion & ~lesion, lesion | ~lesion):
            assert pictures.display_channel(image, same) == 0
