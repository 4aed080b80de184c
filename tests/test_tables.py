"""Tables of runs made by hand, beside the papers' figures."""

import csv
import json
import math
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from commands import evaluate
from raw_files import call
from result_folders import PAPER, case, change_settings, write_run, write_twenty

import published
from reporting import comparison, runs, tables
from utils import InputError, write_rows


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
    assert {rows["hausdorff"][name] for name in ("dsc", "seeds", "cases", "missed", "collapsed")} == {""}
    text = capsys.readouterr().out
    lines = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in text.splitlines()
        if "|" in line
    }
    # Two cases are not the paper's twenty: its figure is printed, a difference is not.
    assert gdl["difference_dsc"] == gdl["difference_hd95_mm"] == "" and "difference" not in text
    ours, theirs = ["0.350 (0.212)", "11.00 (7.07)"], ["0.511 (0.016)", "5.320 (1.742)"]
    assert lines["gdl"] == [*ours, *theirs, "other data (2 cases)", "2", "1 of 4", "0 of 4"]
    assert lines["focal"][:2] == ["**0.800**", "**1.50**"] and lines["boundary"][:3] == [
        "0.000",
        "collapsed (2 missed)",
        "NA",
    ]
    assert "no run" in lines["hausdorff"] and "No finished run of hausdorff." in text
    assert "\n\n\n" not in text      # no remark of a paper that has none


def test_a_row_without_a_run_has_its_published_figure(handmade):
    tables.write_table(handmade, ["gdl", "gdl-hausdorff"], "t")
    row = list(csv.DictReader((handmade / "t.csv").open()))[1]
    assert [row[name] for name in ("row", "dsc", "published_dsc", "published_hd95_mm_sd", "published_source")] == [
        "gdl-hausdorff", "", "0.582", "1.634", "MedIA 2021"
    ]


def test_results_without_any_run_are_refused(handmade, tmp_path):
    with pytest.raises(InputError, match="nowhere: expected a folder of results, found nothing; train a row first"):
        runs.runs_of_rows(tmp_path / "nowhere", ["gdl"])
    said = "expected an evaluated run of gdl-hausdorff, focal-boundary, found only boundary, focal, gdl$"
    with pytest.raises(InputError, match=said):
        runs.runs_of_rows(handmade, ["gdl-hausdorff", "focal-boundary"])
    said = r"expected rows with an evaluated run \(boundary, focal, gdl\), found nonsense$"
    with pytest.raises(InputError, match=said):
        runs.runs_of_rows(handmade, ["gdl", "nonsense"])


def test_a_difference_is_printed_where_settings_and_data_are_the_papers(tmp_path):
    write_twenty(tmp_path / "gdl" / "seed0", PAPER)
    text = tables.write_table(tmp_path, ["gdl"], "t")
    (row,) = csv.DictReader((tmp_path / "t.csv").open())
    # Ours minus the published 0.511 and 5.32.
    assert float(row["difference_dsc"]) == pytest.approx(-0.011) and row["differs_from_published"] == ""
    assert float(row["difference_hd95_mm"]) == pytest.approx(0.68)
    assert "| -0.011         | +0.68 " in text and "differs" not in text


@pytest.mark.parametrize(
    ("change", "size", "said"),
    [
        ({"width": 16, "epochs": 2}, 256, "width 16, 2 epochs"),
        ({"batch_size": 4, "lr": 0.01}, 256, "batch 4, lr 0.01"),
        ({"network": "resnet34-unet"}, 96, "network resnet34-unet, size 96 x 96"),
        ({"optimiser": "sgd", "contour": "boundary", "alpha_step": 0.06}, 256, "optimiser sgd, alpha step 0.06"),
        ({"lr": 0.01, "alpha_step": 0.06, "contour": "none"}, 256, "lr 0.01"),
        ({"lr": 0.01, "alpha_step": 0.06, "alpha": "constant"}, 256, "lr 0.01"),
    ],
)
def test_a_run_that_is_not_the_papers_has_no_difference(tmp_path, change, size, said):
    write_twenty(tmp_path / "gdl" / "seed0", {**PAPER, **change}, size)
    text = tables.write_table(tmp_path, ["gdl"], "t")
    (row,) = csv.DictReader((tmp_path / "t.csv").open())
    assert (row["difference_dsc"], row["differs_from_published"], row["published_dsc"]) == ("", said, "0.511")
    assert f"| {said} " in text and "differs from the paper in" in text and "-0.011" not in text


def test_an_encoder_without_pretrained_weights_is_not_the_studys():
    study = published.published_result("busi", "ce", "tumour", "pooled")
    ours = {"network": "resnet34-unet", "epochs": 20, "batch_size": 16, "lr": 0.001, "size": 256}
    assert study.differs(ours, 85) == ("no encoder weights",)
    ours["encoder_weights"] = "resnet34.pth"
    assert study.differs(ours, 85) == () and "ImageNet" in study.remark
    # Beside a mean over images its pooled DSC is another figure; by default the normal images are there too.
    mean = published.published_result("busi", "ce", "tumour")
    assert mean.values["dsc"][0] == study.values["dsc"][0] == 0.798
    assert mean.differs(ours, 85) == ("a mean over images, not pooled",)
    assert study.differs({**ours, "max_share": 0.05}, 85) == ("max share 0.05",)


def test_each_class_has_its_published_figures_with_hd(tmp_path):
    """The region-wise paper prints HD, one line per class, and sds over cases."""
    folder = tmp_path / "rrw" / "seed0"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"settings": {"dataset": "acdc", "data_fingerprint": "f"}}))
    (folder / "metrics.csv").write_text(
        "case_id,class,dsc,hd95_mm,hd_mm,n_ref,n_pred\n1,RV,0.5,2,3,10,9\n1,LV,0.7,1,2,40,40\n"
    )
    text = tables.write_table(tmp_path, ["rrw"], "t")
    rows = {row["class"]: row for row in csv.DictReader((tmp_path / "t.csv").open())}
    assert [rows["RV"][f"published_{name}"] for name in ("dsc", "dsc_sd", "hd_mm", "hd_mm_sd", "hd95_mm")] == [
        "0.9", "0.09", "14.58", "11.03", "",
    ]
    header, _, rv, lv, *_ = ([cell.strip() for cell in line.split("|")] for line in text.splitlines())
    printed = dict(zip(header, rv, strict=True))
    assert printed["published HD (mm)"] == "14.580 (11.030)" and printed["HD (mm)"] == "3.00"
    assert "published HD95 (mm)" not in header
    assert dict(zip(header, lv, strict=True))["published DSC"] == "0.940 (0.050)"
    assert "The published sd (Region-wise 2022) is over cases, ours over seeds." in text


def test_slices_weigh_alike_beside_midls_figures(handmade):
    for seed, means in (("seed0", (0.2, 0.8)), ("seed1", (0.4, 0.4))):
        lines = zip("12", (30, 10), means, strict=True)
        rows = [f"{name},lesion,{count},1,{dsc},1,2,1,{5 * dsc}" for name, count, dsc in lines]
        header = "case_id,class,n_slices,n_empty_slices,dsc,hd95_mm,hd_mm,class_index,hd_midl"
        (handmade / "gdl" / seed / "metrics_2d.csv").write_text("\n".join([header, *rows, ""]))
    text = tables.write_table(handmade, ["gdl"], "midl", level="slice")
    (row,) = csv.DictReader((handmade / "midl.csv").open())
    # Seed means (30 x 0.2 + 10 x 0.8) / 40 = 0.35 and 0.4.
    assert float(row["dsc"]) == pytest.approx(0.375) and "4.009 (0.016)" in text
    # Theirs is no Hausdorff distance: beside ours as theirs is computed, never beside mm.
    assert row["published_hd_midl"] == "4.009" and row["published_hd_mm"] == ""
    assert float(row["hd_midl"]) == pytest.approx(5 * 0.375) and float(row["hd_mm"]) == 2
    header = [cell.strip() for cell in text.splitlines()[0].split("|")]
    assert [title for title in header if title.startswith("published")] == [
        "published DSC (slices)", "published HD as MIDL 2019 computes it (slices)"
    ]
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


def test_distances_without_a_spacing_are_in_px(tmp_path):
    for row in ("gdl", "other"):
        write_run(tmp_path / row / "seed0", [case("1", 0.4, 2.0), case("2", 0.6, 3.0)], {"dataset": "busi"})
        config = json.loads((tmp_path / row / "seed0" / "config.json").read_text())
        (tmp_path / row / "seed0" / "config.json").write_text(json.dumps({**config, "meta": {"unit": "px"}}))
    text = tables.write_table(tmp_path, ["gdl", "other"], "t")
    text += comparison.write_comparison(tmp_path, ["other"], "c", protocol=comparison.Protocol("gdl"))
    assert text.count("HD95 (px)") == 2 and "mm" not in text


def published_dsc(*place):
    found = published.published_result(*place)
    return found and found.values["dsc"][0]


def test_a_phantom_has_no_published_figure():
    assert published_dsc("isles-demo", "gdl", "lesion") is None
    assert published_dsc("isles", "midl-gdl-boundary", "lesion") is None
    assert published_dsc("isles", "midl-gdl-boundary", "lesion", "slice") == 0.656
    # MIDL's schedule is not rebalance: its figure belongs to a row of its own.
    assert published_dsc("isles", "gdl-boundary", "lesion", "slice") is None
    assert published_dsc("isles", "gdl-boundary-constant-0.05", "lesion") == 0.606


@pytest.mark.parametrize("path", sorted(published.FOLDER.glob("*.csv")), ids=lambda path: path.stem)
def test_every_published_line_is_found(path):
    """Read by pandas: each line of each table of results, NA as nan."""
    table = pd.read_csv(path)
    if "dsc" not in table:
        assert path.name == "media2021_table2.csv"      # times, not results
        return
    level = "slice" if path.name.startswith("midl") else "volume"
    for _, line in table.iterrows():
        found = published.published_result(line["dataset"], line["row"], line.get("class", "lesion"), level)
        names = [name for name in ("dsc", "hd95_mm", "hd_mm", "hd_midl") if name in table]
        assert set(found.values) == set(names)
        for name in names:
            expected = (line[name], line.get(f"{name}_sd", math.nan))
            assert found.values[name] == pytest.approx(expected, nan_ok=True)


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
        (focal_metrics("1,lesion,1,1,1,1,1\n" + 2 * "2,lesion,1,1,1,1,1\n"), "found 2 twice"),
    ],
)
def test_runs_that_do_not_belong_together_are_named(handmade, damage, named):
    damage(handmade)
    with pytest.raises(InputError, match=named):
        tables.write_table(handmade, ["gdl", "focal"], "t")
    assert not list(handmade.glob("t.*"))


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("dsc", "7_5", "expected numbers in dsc, found '7_5'"),
        ("dsc", "٠", "expected numbers in dsc, found '٠'"),
        ("dsc", " 0.5", "expected numbers in dsc, found ' 0.5'"),
        ("dsc", "1.5", "expected finite numbers in dsc, from 0 to 1, found 1.5 of 1"),
        ("surface_dice", "-0.1", "expected finite numbers in surface_dice, from 0 to 1, found -0.1 of 1"),
        ("n_pred", "0.5", "expected finite whole numbers in n_pred, from 0 to"),
        ("n_voxels", "0", "expected finite whole numbers in n_voxels, from 1 to"),
        ("assd_mm", "-1", "expected finite numbers in assd_mm, from 0 to"),
        ("assd_mm", "inf", "expected finite numbers in assd_mm, from 0 to .*, found inf of 1"),
        ("avd_percent", "-1", "expected finite numbers in avd_percent, from 0 to"),
        ("mine", "1e400", "expected finite numbers in mine, from -1e.15 to"),
    ],
)
def test_numbers_that_no_metric_can_have_are_refused(handmade, column, value, named):
    path = handmade / "focal" / "seed0" / "metrics.csv"
    rows = [dict(row) | {column: value} for row in csv.DictReader(path.open())]
    write_rows(path, rows, list(rows[0]))
    with pytest.raises(InputError, match=f"metrics.csv: {named}"):
        tables.write_table(handmade, ["gdl", "focal"], "t")


def test_numbers_that_a_metric_can_have_are_read(handmade):
    path = handmade / "focal" / "seed0" / "metrics.csv"
    added = {"volume_difference_mm3": "-9.5e3", "lesion_count_difference": "-7", "avd_percent": "nan", "mine": "-.5",
             "lesion_f1": ""}
    rows = [dict(row) | added for row in csv.DictReader(path.open())]
    write_rows(path, rows, list(rows[0]))
    read = runs.read_run(0, path.parent).metrics.iloc[0]
    assert (read["volume_difference_mm3"], read["lesion_count_difference"], read["mine"]) == (-9500, -7, -0.5)
    assert math.isnan(read["avd_percent"]) and math.isnan(read["lesion_f1"])


def test_a_column_that_comes_twice_is_named(handmade):
    path = handmade / "focal" / "seed0" / "metrics.csv"
    path.write_text("".join(f"{line},{line.split(',')[2]}\n" for line in path.read_text().splitlines()))
    with pytest.raises(InputError, match="metrics.csv: expected a readable CSV file, found the column .dsc. twice"):
        tables.write_table(handmade, ["gdl", "focal"], "t")


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


def test_pooled_dsc_is_that_of_all_pixels_of_sixteen_images(tmp_path):
    """Beside an F1 over the pixels themselves, in batches of 16 and the 4 that are left."""
    rng = np.random.default_rng(0)
    masks = rng.random((20, 2, 12, 12)) < rng.random((20, 2, 1, 1))
    masks[3] = False                                                # nothing there and nothing found
    rows = []
    for number, (pred, ref) in enumerate(masks):
        total = pred.sum() + ref.sum()
        dsc = 2 * (pred & ref).sum() / total if total else 1.0
        rows.append((f"image {number}", "tumour", dsc, 1.0, 1.0, ref.sum(), pred.sum()))
    write_run(tmp_path / "ce" / "seed0", rows, {"dataset": "busi"})
    text = tables.write_table(tmp_path, ["ce"], "t", level="pooled")
    (row,) = csv.DictReader((tmp_path / "t.csv").open())
    expected = [f1_score(masks[part, 1].ravel(), masks[part, 0].ravel()) for part in (slice(16), slice(16, 20))]
    assert float(row["dsc"]) == pytest.approx(np.mean(expected), abs=1e-12)
    assert "DSC (pooled over 16 cases)" in text and "0.798" in text and row["hd95_mm"] == ""
    assert text.count(published.published_result("busi", "ce", "tumour", "pooled").remark) == 1
    tables.write_table(tmp_path, ["ce"], "t")
    (mean,) = csv.DictReader((tmp_path / "t.csv").open())
    assert float(mean["dsc"]) == pytest.approx(np.mean([line[2] for line in rows]))
    assert abs(float(mean["dsc"]) - float(row["dsc"])) > 0.01


def test_pooled_images_without_any_tumour_agree():
    table = pd.DataFrame({"n_ref": [0] * 20, "n_pred": [0] * 20, "dsc": [1.0] * 20})
    assert tables.pooled_dsc(table) == 1.0
    table.loc[17] = (8, 4, 0.5)
    assert tables.pooled_dsc(table) == pytest.approx((1.0 + 0.5) / 2)


def f1_score(reference, prediction):
    true_positives = (reference & prediction).sum()
    precision, recall = true_positives / prediction.sum(), true_positives / reference.sum()
    return 2 * precision * recall / (precision + recall)


def test_a_folder_of_another_name_is_no_run(handmade):
    before = tables.write_table(handmade, ["gdl"], "t")
    (handmade / "gdl" / "seed1").rename(handmade / "gdl" / "seed1-old")
    assert list(runs.finished_folders(handmade, "gdl")) == [0]
    (handmade / "gdl" / "seed1-old").rename(handmade / "gdl" / "seed1")
    shutil.copytree(handmade / "gdl" / "seed0", handmade / "gdl" / "seedx")
    assert tables.write_table(handmade, ["gdl"], "t") == before


def test_means_over_slices_are_of_the_same_cases(handmade):
    folder = handmade / "focal" / "seed0"
    header = "case_id,class,n_slices,dsc,hd95_mm,hd_mm\n"
    (folder / "metrics_2d.csv").write_text(f"{header}1,lesion,3,1,1,1\n2,lesion,3,1,1,1\n")
    assert len(runs.read_run(0, folder).metrics_2d) == 2
    for lines, said in (("1,lesion,3,1,1,1\n", "2 lesion"), ("1,lesion,3,1,1,1\n2,gland,3,1,1,1\n", "2 gland"),
                        ("1,lesion,3,1,1,1\n2,lesion,3,1,1,1\n3,lesion,3,1,1,1\n", "3 lesion")):
        (folder / "metrics_2d.csv").write_text(header + lines)
        with pytest.raises(InputError, match=f"2d.csv: expected the cases and classes of metrics.csv, found {said} in"):
            runs.read_run(0, folder)
