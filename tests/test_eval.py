import csv
import json
import math
import shutil
import subprocess

import matplotlib.image
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from medpy.metric import binary
from raw_files import call
from scipy import ndimage

import eval as evaluate
import train
from reporting import figures, pictures, runs, tables
from utils import InputError

SMALL = ("--width", "16", "--batch-size", "4", "--device", "cpu", "--epochs", "1")


@pytest.fixture(scope="session")
def results(sliced, tmp_path_factory):
    """Two rows, two seeds, one epoch each, evaluated."""
    root = tmp_path_factory.mktemp("runs") / "results" / "isles"
    for row, contour in (("gdl", "none"), ("gdl-boundary", "boundary")):
        for seed in (0, 1):
            out = root / row / f"seed{seed}"
            train.main(["--data", str(sliced), "--out", str(out), *SMALL, "--contour", contour, "--seed", str(seed)])
            evaluate.main(["run", str(out), "--device", "cpu"])
    return root


def test_metrics_are_medpys_on_the_saved_predictions(results, sliced):
    scored = 0
    for path in sorted(results.glob("*/*/metrics.csv")):
        (row,) = csv.DictReader(path.open())
        image = nib.load(path.parent / "predictions" / f"{row['case_id']}.nii.gz")
        prediction = np.asarray(image.dataobj) == 1
        files = sorted((sliced / "val" / "label").glob(f"{row['case_id']}_*.npy"))
        reference = np.stack([np.load(path) for path in files], axis=-1) == 1
        spacing = image.header.get_zooms()
        assert spacing == pytest.approx((0.45, 0.5, 5.0)) and prediction.shape == reference.shape
        assert (int(row["n_pred"]), int(row["n_ref"])) == (prediction.sum(), reference.sum())
        lesions, found = ndimage.label(reference, structure=np.ones((3, 3, 3)))
        hit = len(set(np.unique(lesions[prediction])) - {0})
        assert float(row["lesion_recall"]) == pytest.approx(hit / found)
        difference = abs(int(prediction.sum()) - int(reference.sum()))
        assert float(row["avd_percent"]) == pytest.approx(100 * difference / reference.sum())
        if prediction.any():
            scored += 1
            assert float(row["dsc"]) == pytest.approx(binary.dc(prediction, reference), abs=1e-6)
            for name in ("hd", "hd95"):
                expected = getattr(binary, name)(prediction, reference, spacing)
                assert float(row[f"{name}_mm"]) == pytest.approx(expected, abs=1e-3)
    assert scored


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


# Tables from metrics files made by hand -----------------------------------------------------------------------------


def write_run(folder, rows, settings):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"settings": {"data_fingerprint": "f", "dataset": "isles", **settings}})
    )
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("case_id", "class", "dsc", "hd95_mm", "hd_mm", "n_ref", "n_pred"))
        writer.writerows(rows)


def case(name, dsc, hd95, n_ref=9, n_pred=9):
    return (name, "lesion", dsc, hd95, hd95 + 1, n_ref, n_pred)


@pytest.fixture
def handmade(tmp_path):
    root = tmp_path / "isles"
    write_run(root / "gdl" / "seed0", [case("1", 0.4, 2.0), case("2", 0.0, 30.0, n_pred=0)], {"seed": 0, "lr": 0.001})
    write_run(root / "gdl" / "seed1", [case("1", 0.5, 4.0), case("2", 0.5, 8.0)], {"seed": 1, "lr": 0.001})
    write_run(root / "focal" / "seed0", [case("1", 0.9, 1.0), case("2", 0.7, 2.0)], {"seed": 0, "lr": 0.001})
    write_run(
        root / "boundary" / "seed0", [case("1", 0.0, 30.0, n_pred=0), case("2", 0.0, 30.0, n_pred=0)], {"seed": 0}
    )
    return root


def test_mean_and_sd_over_seeds_beside_the_published_figure(handmade, capsys):
    evaluate.main(["table", str(handmade), "--rows", "gdl", "focal", "boundary", "hausdorff", "--name", "table1"])
    rows = {row["row"]: row for row in csv.DictReader((handmade / "table1.csv").open())}
    gdl = rows["gdl"]
    # Seed means are 0.2 and 0.5, 16 and 6 mm: mean 0.35 and 11, sample sd 0.3 / sqrt 2 and 10 / sqrt 2.
    assert float(gdl["dsc"]) == pytest.approx(0.35) and float(gdl["dsc_sd"]) == pytest.approx(0.3 / math.sqrt(2))
    assert float(gdl["hd95_mm"]) == pytest.approx(11) and float(gdl["hd95_mm_sd"]) == pytest.approx(10 / math.sqrt(2))
    assert (gdl["seeds"], gdl["cases"], gdl["missed"], gdl["false_alarms"]) == ("0 1", "2", "1", "0")
    assert (gdl["published_dsc"], gdl["published_hd95_mm"]) == ("0.511", "5.32")
    assert rows["focal"]["dsc_sd"] == "" and rows["boundary"]["collapsed"] == "True"
    assert rows["hausdorff"]["dsc"] == "" and rows["hausdorff"]["seeds"] == ""
    text = capsys.readouterr().out
    lines = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in text.splitlines()
        if "|" in line
    }
    # Ours less the published 0.511 and 5.32.
    assert float(gdl["difference_dsc"]) == pytest.approx(-0.161)
    assert float(gdl["difference_hd95_mm"]) == pytest.approx(5.68)
    ours, theirs = ["0.350 (0.212)", "11.00 (7.07)"], ["0.511 (0.016)", "5.320 (1.742)"]
    assert lines["gdl"] == [*ours, *theirs, "-0.161", "+5.68", "2", "1 of 4", "0 of 4"]
    assert lines["focal"][:2] == ["**0.800**", "**1.50**"] and lines["boundary"][:3] == [
        "0.000",
        "collapsed (2 missed)",
        "NA",
    ]
    assert "no run" in lines["hausdorff"] and "No finished run of hausdorff." in text


def test_slices_weigh_alike_beside_midls_figures(handmade):
    for seed, means in (("seed0", (0.2, 0.8)), ("seed1", (0.4, 0.4))):
        rows = [f"{name},lesion,{count},1,{dsc},1,2,1" for name, count, dsc in zip("12", (30, 10), means, strict=True)]
        header = "case_id,class,n_slices,n_empty_slices,dsc,hd95_mm,hd_mm,class_index"
        (handmade / "gdl" / seed / "metrics_2d.csv").write_text("\n".join([header, *rows, ""]))
    text = tables.write_table(handmade, ["gdl"], "midl", level="slice")
    (row,) = csv.DictReader((handmade / "midl.csv").open())
    # Seed means (30 x 0.2 + 10 x 0.8) / 40 = 0.35 and 0.4.
    assert float(row["dsc"]) == pytest.approx(0.375) and row["published_hd_mm"] == "4.009" and "4.009 (0.016)" in text
    with pytest.raises(InputError, match="expected a metrics_2d.csv, found none"):
        tables.write_table(handmade, ["focal"], "midl", level="slice")


def test_latex_escapes_and_uses_booktabs(handmade):
    write_run(handmade / "a_b" / "seed0", [case("1", 0.5, 1.0), case("2", 0.5, 1.0)], {"seed": 0})
    tables.write_table(handmade, ["gdl", "a_b"], "t")  # a row of the user's own
    text = (handmade / "t.tex").read_text()
    assert r"a\_b" in text and text.count(r"\\") == 3 and r"\toprule" in text and "diagonal; both empty" in text
    assert text.count("{") == text.count("}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_compiles_alone_and_inside_a_paper(handmade, tmp_path):
    row = r"50%_#1&~^\x{}$<|>"
    write_run(handmade / row / "seed0", [case("1", 0.5, 1.0), case("2", 0.5, 1.0)], {"seed": 0})
    tables.write_table(handmade, ["gdl", row], "t")
    paper = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{t}\par\input{t}\end{document}"
    (handmade / "paper.tex").write_text(paper)
    for name in ("t", "paper"):
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", f"{name}.tex"]
        done = subprocess.run(command, cwd=handmade, capture_output=True, text=True)
        assert done.returncode == 0 and (handmade / f"{name}.pdf").stat().st_size > 1000, done.stdout


def test_several_classes_have_their_share_of_voxels(tmp_path):
    folder = tmp_path / "acdc" / "gdl" / "seed0"
    folder.mkdir(parents=True)
    settings = {"data_fingerprint": "f", "dataset": "acdc"}
    (folder / "config.json").write_text(json.dumps({"settings": settings}))
    (folder / "metrics.csv").write_text(
        "case_id,class,dsc,hd95_mm,hd_mm,n_ref,n_pred,n_voxels\n1,rv,0.5,2,3,10,9,1000\n1,lv,0.7,1,2,40,40,1000\n"
        "2,rv,0.7,4,5,20,9,1000\n2,lv,0.9,3,4,60,60,1000\n"
    )
    text = tables.write_table(tmp_path / "acdc", ["gdl"], "t")
    rows = {row["class"]: row for row in csv.DictReader((tmp_path / "acdc" / "t.csv").open())}
    assert float(rows["rv"]["dsc"]) == pytest.approx(0.6) and float(rows["rv"]["voxel_share"]) == 30 / 2000
    assert float(rows["lv"]["voxel_share"]) == 0.05 and "1.5 %" in text and "share of voxels" in text


def test_a_phantom_has_no_published_figure():
    assert tables.published_figures("isles-demo", "gdl") == {}
    assert tables.published_figures("isles", "midl-gdl-boundary") == {}
    assert tables.published_figures("isles", "midl-gdl-boundary", "slice")["published_dsc"] == 0.656
    # MIDL's schedule is not rebalance: its figure belongs to a row of its own.
    assert tables.published_figures("isles", "gdl-boundary", "slice") == {}
    assert tables.published_figures("isles", "gdl-boundary-constant-0.05")["published_dsc"] == 0.606


def change_settings(folder, **settings):
    config = json.loads((folder / "config.json").read_text())
    config["settings"] |= settings
    (folder / "config.json").write_text(json.dumps(config))


def focal_metrics(lines):
    """Damage: the metrics of focal are these lines."""
    header = "case_id,class,dsc,hd95_mm,hd_mm,n_ref,n_pred\n"
    return lambda root: (root / "focal" / "seed0" / "metrics.csv").write_text(header + lines)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda root: change_settings(root / "gdl" / "seed1", lr=0.1), "seed1.*found lr 0.1 instead of 0.001"),
        (lambda root: change_settings(root / "focal" / "seed0", data_fingerprint="g"), "a run on other data"),
        (lambda root: (root / "gdl" / "seed0" / "config.json").unlink(), "config.json"),
        (
            lambda root: (root / "gdl" / "seed0" / "metrics.csv").write_text("case_id,class\n1,lesion\n"),
            "expected a column dsc",
        ),
        (focal_metrics("1,lesion,high,1,1,1,1\n"), "expected numbers in dsc"),
        (focal_metrics("1,lesion,1,1,1,1,1\n3,lesion,1,1,1,1,1\n"), "found 2 in only one"),
        (focal_metrics("1,lesion,1,1,1,1,1\n2,lesion,1,1,1,1,1"), "line 3 is cut off"),
        (focal_metrics("1,lesion,1,1,1,1,1\n1,lesion,1,1,1,1,1\n"), "found 1 twice"),
    ],
)
def test_runs_that_do_not_belong_together_are_named(handmade, damage, named):
    damage(handmade)
    with pytest.raises(InputError, match=named):
        tables.write_table(handmade, ["gdl", "focal"], "t")
    assert not list(handmade.glob("t.*"))


@pytest.mark.parametrize(
    ("column", "one", "other"),
    [("checkpoint", "best", "last"), ("space", "sliced", "native"), ("tolerance_mm", 2, 9), ("ignore_label", "", 2)],
)
def test_metrics_that_were_measured_otherwise_are_not_compared(tmp_path, column, one, other):
    for row, value in (("a", one), ("b", one), ("c", other)):
        folder = tmp_path / row / "seed0"
        write_run(folder, [case("1", 0.5, 1.0), case("2", 0.5, 1.0)], {"seed": 0})
        header, *lines = (folder / "metrics.csv").read_text().splitlines()
        lines = [f"{header},{column}", *(f"{line},{value}" for line in lines), ""]
        (folder / "metrics.csv").write_text("\n".join(lines))
    assert "| b " in tables.write_table(tmp_path, ["a", "b"], "t")
    with pytest.raises(InputError, match=f"c/seed0: expected metrics of {column} {one or 'none'}"):
        tables.write_table(tmp_path, ["a", "b", "c"], "u")


def test_no_run_at_all_is_an_error(handmade, tmp_path, monkeypatch, capsys):
    for results, rows in ((handmade, ("nothing", "none")), (tmp_path / "missing", ("gdl",))):
        assert call(evaluate, "table", results, "--rows", *rows, "--name", "t", monkeypatch=monkeypatch) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_table_says_where_its_rows_differ_in_their_settings(handmade):
    for folder in handmade.glob("*/seed*"):
        change_settings(folder, epochs=2 if folder.parent.name == "focal" else 100, width=16)
    text = tables.write_table(handmade, ["gdl", "focal"], "t")
    assert "width 16" in text and "**epochs differs** (gdl 100, focal 2)" in text


def test_a_table_of_chosen_seeds(handmade):
    tables.write_table(handmade, ["gdl"], "t", seeds=[1])
    (row,) = csv.DictReader((handmade / "t.csv").open())
    assert row["seeds"] == "1" and float(row["dsc"]) == pytest.approx(0.5)


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
        figures.write_curves(handmade, ["gdl", "my-row"], "t")


def test_a_log_that_is_cut_off_is_named(handmade):
    for row in ("gdl", "focal"):
        for folder in (handmade / row).iterdir():
            (folder / "log.csv").write_text("epoch,train_dsc,val_dsc_3d,val_hd95_3d_mm\n0,0.1,0.2,3.25\n1,0.1,0.2,3.")
    with pytest.raises(InputError, match="log.csv: line 3 is cut off"):
        figures.write_curves(handmade, ["gdl", "focal"], "t")


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


def test_an_unfinished_run_is_not_evaluated(results, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(results / "gdl" / "seed0", tmp_path / "run")
    change_settings(run, epochs=9)
    assert call(evaluate, "run", run, "--device", "cpu", monkeypatch=monkeypatch) == 2
    assert "expected a finished run of 9 epochs, found 1" in capsys.readouterr().err


def test_going_on_takes_back_metrics_that_are_no_longer_true(results, sliced, tmp_path):
    run = shutil.copytree(results / "gdl" / "seed0", tmp_path / "run")
    train.main(["--data", str(sliced), "--out", str(run), *SMALL, "--resume"])
    assert (run / "metrics.csv").exists()
    train.main(["--data", str(sliced), "--out", str(run), *SMALL, "--resume", "--epochs", "2"])
    assert not (run / "metrics.csv").exists() and not (run / "metrics_2d.csv").exists()
    assert len(json.loads((run / "env.json").read_text())["earlier_sessions"]) == 1


def test_pictures_refuse_a_data_set_that_was_sliced_anew(results, sliced, tmp_path, monkeypatch, capsys):
    root = shutil.copytree(results, tmp_path / "isles")
    data = shutil.copytree(sliced, tmp_path / "data")
    (data / "cases.csv").write_text((data / "cases.csv").read_text().replace(",0.45,", ",0.46,"))
    config = json.loads((root / "gdl" / "seed0" / "config.json").read_text())
    (root / "gdl" / "seed0" / "config.json").write_text(json.dumps({**config, "data": str(data)}))
    assert call(evaluate, "pictures", root, "--rows", "gdl", "--name", "p", monkeypatch=monkeypatch) == 2
    assert "was trained on, found another" in capsys.readouterr().err


def test_the_fingerprint_is_printed_beside_midls(results, capsys):
    evaluate.main(["run", str(results / "gdl" / "seed0"), "--device", "cpu"])
    # One of the three validation slices has no lesion.
    assert "0.333 of the validation slices are empty; MIDL 2019, boundary loss alone: 0.321 on isles, 0.569 on wmh" in (
        capsys.readouterr().out
    )
