import csv
import json
import shutil

import numpy as np
import pytest
from commands import evaluate
from raw_files import call
from result_folders import change_settings
from scipy import stats

from reporting import comparison
from reporting.comparison import Protocol
from utils import InputError

HEADER = ("case_id", "class", "dsc", "hd95_mm", "hd_mm", "n_ref", "n_pred", "avd_percent")


def write_run(folder, values, order=None, **settings):
    """values: case id -> (dsc, hd95)."""
    folder.mkdir(parents=True)
    settings = {"data_fingerprint": "f", "dataset": "isles", **settings}
    (folder / "config.json").write_text(json.dumps({"settings": settings}))
    (folder / "log.csv").write_text(f"epoch,train_loss\n0,{folder.name[-1]}\n")
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for case in order or sorted(values):
            dsc, hd95 = values[case]
            writer.writerow((case, "lesion", dsc, hd95, hd95 + 1, 9, 9, "nan"))


@pytest.fixture
def runs(tmp_path):
    """Five cases; `better` gains 0.1, 0.2, ... 0.5 in DSC, in another order of lines; its second seed 0.2 more."""
    root = tmp_path / "isles"
    base = {f"case_{i}": (0.1 * i / 2, 20.0 + i) for i in range(1, 6)}
    better = {case: (dsc + 0.1 * i, hd95 + (-1) ** i) for i, (case, (dsc, hd95)) in enumerate(base.items(), start=1)}
    write_run(root / "gdl" / "seed0", base)
    write_run(root / "better" / "seed0", better, order=sorted(better, reverse=True))
    write_run(root / "better" / "seed1", {case: (dsc + 0.2, hd95) for case, (dsc, hd95) in better.items()})
    write_run(root / "same" / "seed0", base)
    return root


def test_by_hand(runs):
    text = comparison.write_comparison(runs, ["gdl", "better", "same"], "tests", protocol=Protocol("gdl"))
    rows = {(row["row"], row["metric"]): row for row in csv.DictReader((runs / "tests.csv").open())}
    row = rows["better", "dsc"]
    # Mean over seeds gains 0.2, 0.3, 0.4, 0.5, 0.6: mean 0.4; 1 of 32 sign patterns is as large, 2 are in size.
    assert float(row["difference"]) == pytest.approx(0.4) and row["cases"] == "5" and row["seeds"] == "0 1"
    assert (float(row["p"]), float(row["p_better"])) == (2 / 32, 1 / 32)
    assert (float(row["p_holm"]), float(row["p_better_holm"])) == (4 / 32, 2 / 32)
    assert 0.25 < float(row["ci_low"]) < 0.4 < float(row["ci_high"]) < 0.55
    assert float(rows["better", "hd95_mm"]["difference"]) == pytest.approx(-0.2)
    theirs = stats.permutation_test(
        (np.array([-1, 1, -1, 1, -1]),), np.mean, permutation_type="samples", alternative="less"
    ).pvalue
    assert float(rows["better", "hd95_mm"]["p_better"]) == pytest.approx(theirs)
    assert float(rows["same", "dsc"]["p"]) == 1 and float(rows["same", "dsc"]["difference"]) == 0
    assert "+0.400" in text and "all 32 permutations" in text and "corrected over the 2 rows" in text
    assert (runs / "tests.tex").read_text().count(r"\\") == 5


def test_a_tiny_p_is_printed_as_one_and_only_what_is_below_five_per_cent_is_bold(runs):
    many = {f"case_{i}": (0.5 + 0.01 * i, 9.0) for i in range(12)}
    write_run(runs / "a" / "seed0", many)
    write_run(runs / "b" / "seed0", {case: (dsc + 0.1, hd95) for case, (dsc, hd95) in many.items()})
    text = comparison.write_comparison(runs, ["b"], "t", protocol=Protocol("a"), metrics=["dsc"])
    assert text.count("**<0.001**") == 2 and text.count("**") == 4
    # Five cases: p better (Holm) 2/32 of two rows.
    assert "**" not in comparison.write_comparison(runs, ["better", "same"], "t", protocol=Protocol("gdl"))


def test_cases_that_do_not_pair_are_named(runs, monkeypatch, capsys):
    write_run(runs / "short" / "seed0", {"case_1": (0.5, 1.0), "case_2": (0.5, 1.0)})
    code = call(evaluate, "compare", runs, "--rows", "short", "--name", "t", monkeypatch=monkeypatch)
    assert code == 2 and "found case_3 in only one" in capsys.readouterr().err and not list(runs.glob("t.*"))


@pytest.mark.parametrize(
    ("rows", "options", "named"),
    [
        (["better"], {"protocol": Protocol("none")}, "found none"),
        (["gdl"], {}, "expected an evaluated run of a row beside gdl"),
        (["better"], {"metrics": ["assd_mm"]}, "a column assd_mm, found none"),
        (["better"], {"metrics": ["avd_percent"]}, "expected a avd_percent of every case"),
        (["better"], {"protocol": Protocol("gdl", level="slice")}, "metrics_2d.csv, found none"),
    ],
)
def test_what_cannot_be_compared(runs, rows, options, named):
    with pytest.raises(InputError, match=named):
        comparison.write_comparison(runs, rows, "t", **{"protocol": Protocol("gdl"), **options})
    assert not list(runs.glob("t.*"))


def test_a_row_without_a_run_is_listed(runs):
    (runs / "unfinished" / "seed0").mkdir(parents=True)
    text = comparison.write_comparison(runs, ["better", "unfinished"], "t", protocol=Protocol("gdl"))
    assert "No finished run of unfinished." in text
    with pytest.raises(InputError, match="expected an evaluated run of the baseline unfinished, found none"):
        comparison.write_comparison(runs, ["better"], "u", protocol=Protocol("unfinished"))
    assert not list(runs.glob("u.*"))


def test_slices_are_compared_in_what_all_runs_have(trained, trained_classes, tmp_path):
    """HD as MIDL 2019 computes it is of data sets with one class."""
    for number, (run, also) in enumerate(((trained, True), (trained_classes, False))):
        for row, seed in (("gdl", 0), ("a", 1)):
            folder = shutil.copytree(run, tmp_path / str(number) / row / f"seed{seed}")
            change_settings(folder, seed=seed)
        text = comparison.write_comparison(tmp_path / str(number), ["a"], "t", protocol=Protocol("gdl", level="slice"))
        rows = csv.DictReader((tmp_path / str(number) / "t.csv").open())
        assert {row["metric"] for row in rows} == {"dsc", "hd_mm", *(["hd_midl"] if also else [])}
        assert ("HD as MIDL 2019 computes it" in text) == also
