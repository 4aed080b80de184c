"""What figures show, read from the figures themselves before they are written, beside the files of the runs."""

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from commands import evaluate
from project_copy import ROOT
from result_folders import case, write_run
from training_runs import run

from boundary_loss.distance import region_wise_map
from reporting import figures, pictures
from reporting.runs import find_runs
from sliced_data.meta import part_files, read_meta


@pytest.fixture
def drawn(monkeypatch):
    """Draw a figure; its axes, titles in place."""
    kept = []

    def save(figure, results, name):
        figure.canvas.draw()
        kept.append(figure)
        return []

    def draw(write, *arguments, **options):
        write(*arguments, **options)
        return kept[-1]

    for module in (figures, pictures):
        monkeypatch.setattr(module, "save", save)
    yield draw
    for figure in kept:
        plt.close(figure)


@pytest.fixture(scope="module")
def rows(varied, tmp_path_factory):
    """gdl of two seeds and ce of one, three epochs each, evaluated."""
    root = tmp_path_factory.mktemp("rows")
    for row, seed in (("gdl", 0), ("gdl", 1), ("ce", 0)):
        flags = ("--width", "4", "--batch-size", "2", "--lr", "0.003", "--region", row, "--seed", str(seed))
        run(varied, root / row / f"seed{seed}", *flags)
        evaluate.main(["run", str(root / row / f"seed{seed}"), "--device", "cpu"])
    return root


def logs(root, row):
    return [pd.read_csv(path) for path in sorted((root / row).glob("seed*/log.csv"))]


@pytest.mark.parametrize("smooth", [1, 2])
def test_curves_are_the_logs_by_epoch(rows, drawn, smooth):
    figure = drawn(figures.write_curves, rows, ["gdl", "ce"], "t", smooth=smooth)
    columns = ("train_dsc", "val_dsc_3d", "val_hd95_3d_mm")
    titles = ("training DSC (slices)", "validation DSC (volumes)", "validation HD95 (mm)")
    assert [axis.get_title() for axis in figure.axes] == list(titles)
    for axis, column in zip(figure.axes, columns, strict=True):
        assert [line.get_label() for line in axis.lines] == ["gdl", "ce"]
        (band,) = axis.collections          # one seed has none
        for line, row in zip(axis.lines, ("gdl", "ce"), strict=True):
            seeds = np.array([log[column] for log in logs(rows, row)])
            if smooth == 2:
                seeds = (seeds + np.concatenate([seeds[:, :1], seeds[:, :-1]], axis=1)) / 2
            assert line.get_xdata() == pytest.approx([1, 2, 3]) and line.get_ydata() == pytest.approx(seeds.mean(0))
            if row == "gdl":
                half = np.abs(seeds[0] - seeds[1]) / np.sqrt(2)
                points = band.get_paths()[0].vertices
                for epoch in range(3):
                    ends = points[points[:, 0] == epoch + 1, 1]
                    assert ends.min() == pytest.approx(seeds.mean(0)[epoch] - half[epoch])
                    assert ends.max() == pytest.approx(seeds.mean(0)[epoch] + half[epoch])
                    assert half.max() > 0.001
        assert not (axis.get_xticks() % 1).any()        # epochs are whole
        assert axis.get_xlabel() == ("epoch" if smooth == 1 else "epoch, mean of 2 epochs")
        assert axis.get_ylim()[0] == 0 and (axis.get_ylim()[1] == 1) == (column != "val_hd95_3d_mm")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["gdl", "ce"]


def test_boxes_are_of_the_cases_means_over_seeds(handmade, drawn):
    figure = drawn(figures.write_boxes, handmade, ["gdl", "focal"], "t")
    for axis, values, title in zip(
        figure.axes, ([[0.45, 0.25], [0.9, 0.7]], [[3.0, 19.0], [1.0, 2.0]]), ("DSC", "HD95 (mm)"), strict=True
    ):
        assert axis.get_title() == title
        dots = [points.get_offsets() for points in axis.collections]
        assert [sorted(places[:, 0]) for places in dots] == [sorted(row) for row in values]
        for number, places in enumerate(dots):
            assert (np.abs(places[:, 1] - number) <= 0.16).all()
        medians = [line.get_xdata()[0] for line in axis.lines if line.get_color() == "black"]
        medians = [value for value in medians if value in {float(np.mean(row)) for row in values}]
        assert sorted(set(medians)) == sorted(np.mean(values, axis=1))
        low, high = axis.get_xlim()
        assert low <= min(map(min, values)) and high >= max(map(max, values)) and axis.yaxis_inverted()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["gdl", "focal"]
    assert "mean of 1/2 seeds" in figure.get_supxlabel()


def test_each_class_has_its_boxes(tmp_path, drawn):
    lines = [(name, k, dsc, 2.0, 3.0, 9, 9) for name in "12" for k, dsc in (("gland", 0.8), ("lesion", 0.3))]
    write_run(tmp_path / "gdl" / "seed0", lines, {"seed": 0})
    figure = drawn(figures.write_boxes, tmp_path, ["gdl"], "t")
    assert [axis.get_title() for axis in figure.axes] == [
        "DSC, gland", "HD95 (mm), gland", "DSC, lesion", "HD95 (mm), lesion"
    ]
    assert [axis.collections[0].get_offsets()[:, 0].tolist() for axis in figure.axes[::2]] == [[0.8] * 2, [0.3] * 2]
    assert "seeds" not in figure.get_supxlabel()


def test_shares_are_those_of_the_slices(rows, varied, drawn):
    figure = drawn(figures.write_shares, rows, ["gdl"], "t")
    for axis, part, counts in zip(figure.axes, ("train", "val"), ((7, 10), (5, 7)), strict=True):
        shares = [100 * np.load(path).mean() for path in (varied / part / "label").iterdir()]
        lesions = [share for share in shares if share]
        assert (len(lesions), len(shares)) == counts
        title = axis.get_title()
        assert title.startswith({"train": "training", "val": "validation"}[part])
        assert f"{counts[0]} of {counts[1]} slices" in title and f"median {np.median(lesions):.2g} %" in title
        bars = [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in axis.patches]
        assert sum(height for *_, height in bars) == counts[0]
        for low, high, height in bars:
            assert height == sum(low <= share < high for share in lesions)
        assert axis.get_xscale() == "log"


def test_ignored_pixels_are_no_lesion_of_a_slice(varied, tmp_path):
    copy = shutil.copytree(varied, tmp_path / "data")
    files = part_files(read_meta(copy), "val")
    before = figures.lesion_shares(files)
    for path in (copy / "val" / "label").iterdir():
        label = np.load(path)
        label[-3:] = 255
        np.save(path, label)
    assert figures.lesion_shares(replace(files, has_ignored=True, sums=None)) == pytest.approx(before)


def test_maps_are_those_of_the_largest_slice(rows, varied, drawn):
    figure = drawn(pictures.write_maps, rows, ["gdl"], "t")
    labels = {path.stem: np.load(path) for path in sorted((varied / "val" / "label").glob("case_4_*.npy"))}
    name = max(labels, key=lambda name: labels[name].sum())
    axes = [axis for axis in figure.axes if axis.images and axis.get_title()]
    assert axes[0].get_xlabel() == f"case_4, slice {int(name[-4:])}"
    spacing = next(case.spacing[:2] for case in read_meta(varied).cases if case.case_id == "case_4")
    for axis, kind in zip(axes[1:], ("ac", "cao", "boundary", "rrw"), strict=True):
        expected = region_wise_map(labels[name], 2, kind, spacing=spacing)[1]
        found = np.asarray(axis.images[0].get_array()).T
        # A window of it, whose extremes are in the slice.
        assert found.shape[0] <= 32 and found.min() == pytest.approx(expected.min())
        assert axis.get_aspect() == pytest.approx(spacing[1] / spacing[0])
        places = np.argwhere(np.isclose(expected, expected.min()))
        assert len(places) == np.isclose(found, expected.min()).sum()


def test_maps_are_those_of_the_last_class(rows, drawn, monkeypatch):
    label = np.zeros((20, 20), np.uint8)
    label[4:16, 5:15], label[7:12, 8:11] = 1, 2
    shown = pictures.Picture("c", label.astype(np.float32), label, label > 2, 3, (20, 20, 5), (1.0, 2.0))
    monkeypatch.setattr(pictures, "read_picture", lambda *_: shown)
    figure = drawn(pictures.write_maps, rows, ["gdl"], "t")
    for axis, kind in zip(figure.axes[1:5], ("ac", "cao", "boundary", "rrw"), strict=True):
        expected = region_wise_map(label, 3, kind, spacing=(1.0, 2.0))[2][shown.window]
        assert np.array_equal(np.asarray(axis.images[0].get_array()).T, expected)


def test_pictures_say_case_slice_and_figures_of_each_row(rows, drawn):
    figure = drawn(pictures.write_pictures, rows, ["gdl", "ce"], "t", seed=0, baseline="gdl")
    of_run = {
        row: {line["case_id"]: line for line in csv.DictReader((rows / row / "seed0" / "metrics.csv").open())}
        for row in ("gdl", "ce")
    }
    gains = {name: float(of_run["ce"][name]["dsc"]) - float(of_run["gdl"][name]["dsc"]) for name in of_run["ce"]}
    best = max(gains, key=gains.get)
    panels = np.array(figure.axes).reshape(-1, 4)
    assert [axis.get_title() for axis in panels[0]] == ["image", "reference", "gdl", "ce"]
    assert panels[0][0].get_xlabel().startswith(f"best gain: {best}, slice ")
    for panel in panels:
        name = panel[0].get_xlabel().split(": ")[1].split(",")[0]
        for axis, row in zip(panel[2:], ("gdl", "ce"), strict=True):
            line = of_run[row][name]
            # Image, false negatives, false positives; and one of the two at least has something to show.
            filled = [np.asarray(image.get_array())[..., 3].any() for image in axis.images[1:]]
            assert len(axis.images) == 3 and any(filled)
            assert axis.get_xlabel() == f"DSC {float(line['dsc']):.3f}, HD95 {float(line['hd95_mm']):.1f} mm"
    assert figure.legends[0].get_title().get_text() == (
        "cases: best and median gain in DSC of ce over gdl, and lowest DSC of ce"
    )
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["reference", "prediction", "false negative", "false positive"]


def test_the_settings_of_a_user_change_no_figure(handmade):
    header = "epoch,train_loss,train_dsc,val_dsc_3d,val_hd95_3d_mm"
    for seed in (0, 1):
        (handmade / "gdl" / f"seed{seed}" / "log.csv").write_text(f"{header}\n0,{seed},0.1,0.2,3\n")
    draw = partial(figures.write_curves, handmade, ["gdl"], smooth=1)
    plain = [path.read_bytes() for path in draw("plain")]
    with plt.rc_context({"text.usetex": True, "font.size": 30, "figure.facecolor": "red", "savefig.format": "svg"}):
        assert [path.read_bytes() for path in draw("own")] == plain


def test_the_environment_of_a_user_stops_no_figure(results, tmp_path):
    """Neither a screen nor a date nor settings are looked for, whichever module comes first."""
    (tmp_path / "matplotlibrc").write_bytes(b"font.family: \xff")
    folder = shutil.copytree(results, tmp_path / "results")
    command = [sys.executable, ROOT / "eval.py", "convergence", folder, "--rows", "gdl"]
    environment = os.environ | {"MPLBACKEND": "none such", "SOURCE_DATE_EPOCH": "none such"}
    environment["MATPLOTLIBRC"] = str(tmp_path)
    subprocess.run(command, check=True, env=environment)
    assert (folder / "convergence-epochs.pdf").exists()


def test_a_case_without_a_lesion_is_no_best_or_median_gain(tmp_path):
    """Case 0 has no lesion and would gain most; case 3 none and would be the worst."""
    for row, dsc in (("a", (0.0, 0.5, 0.5, 0.5)), ("b", (1.0, 0.7, 0.6, 0.0))):
        cases = [case(str(i), value, 1.0, n_ref=0 if i in (0, 3) else 9) for i, value in enumerate(dsc)]
        write_run(tmp_path / row / "seed0", cases, {"seed": 0})
    a, b = (find_runs(tmp_path, row)[0] for row in "ab")
    assert pictures.choose_cases(a, b) == [("best gain", "1"), ("lowest DSC", "3")]


def test_a_picture_is_of_the_slice_with_the_largest_reference_in_its_best_channel(varied, rows):
    meta, (first, _) = read_meta(varied), find_runs(rows, "gdl")
    for case_id in ("case_4", "case_5"):
        picture = pictures.read_picture(meta, case_id, first)
        labels = [np.load(path) for path in sorted((varied / "val" / "label").glob(f"{case_id}_*.npy"))]
        assert picture.z == int(np.argmax([label.sum() for label in labels]))
        assert np.array_equal(picture.label, labels[picture.z])
        image = np.load(varied / "val" / "image" / f"{case_id}_{picture.z:04d}.npy").astype(np.float32)
        inside = picture.label > 0
        contrast = [abs(c[inside].mean() - c[~inside].mean()) / c.std() for c in image]
        assert np.array_equal(picture.image, image[int(np.argmax(contrast))])
        assert picture.volume_shape == (32, 32, len(labels))


def test_the_window_holds_the_lesion_and_what_is_bright_with_a_margin():
    image, lesion = np.zeros((20, 30), np.float32), np.zeros((20, 30), bool)
    image[5:9, 20:24] = 1.0
    lesion[12, 14] = True
    rows, columns = pictures.crop(image, lesion)
    side = rows.stop - rows.start
    # From rows 5 to 12 and columns 14 to 23: the longer side of ten, and two pixels to either side.
    assert side == columns.stop - columns.start == 14
    assert rows.start <= 5 and rows.stop > 12 and columns.start <= 14 and columns.stop > 23
    assert rows.start >= 0 and rows.stop <= 20 and columns.stop <= 30


def test_a_row_of_one_case_says_so(tmp_path):
    write_run(tmp_path / "a" / "seed0", [case("1", 0.5, 1.0)], {"seed": 0})
    (only,) = find_runs(tmp_path, "a")
    assert pictures.choose_cases(only, only) == [("the only case", "1")]
    assert pictures.choice_of_cases("a", "b", 1) == ""
    assert pictures.choice_of_cases("a", "a", 3) == "cases: best, median and lowest DSC of a"
