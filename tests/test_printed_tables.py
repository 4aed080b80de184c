"""What is printed of tables and tests, beside figures made by hand: bold, corrected p, counts, peers."""

import csv
import json
from dataclasses import fields

import numpy as np
import pytest
from result_folders import case, change_settings, write_run

from reporting import comparison, statistics, tables
from reporting.comparison import Protocol
from training.settings import PAPER, Settings
from utils import InputError

COLUMNS = ("dsc", "hd95_mm", "hd_mm", "assd_mm", "surface_dice", "lesion_recall", "lesion_precision", "lesion_f1",
           "avd_percent", "hd95_max_mm")
HIGHER = {"dsc", "surface_dice", "lesion_recall", "lesion_precision", "lesion_f1"}
SIX = np.array([1.0, 1.25, 1.5, 1.75, 2.0, 2.25])     # gains of six cases: 1 of 64 sign patterns is as large


def scale(metric):
    """Metrics from 0 to 1 are 20 times smaller than distances."""
    return 1 / 20 if metric in HIGHER else 1


def write_metrics(folder, gains, classes=("lesion",)):
    """Six cases; each metric is 5 and the gain of its class, by its scale."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"settings": {"data_fingerprint": "f", "dataset": "isles"}}))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("case_id", "class", *COLUMNS, "n_ref", "n_pred"))
        for i in range(6):
            for name in classes:
                writer.writerow((f"c{i}", name, *((5 + gains[name][i]) * scale(metric) for metric in COLUMNS), 9, 9))


def printed(text):
    """Cells of each line of a Markdown table by its header."""
    header, _, *body = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")
    ]
    return [dict(zip(header, cells, strict=True)) for cells in body]


def test_only_a_corrected_p_below_five_per_cent_is_bold(tmp_path):
    """Three rows whose six cases all gain: p 2/64 and 1/64, by Holm three times that, 0.094 and 0.047."""
    write_metrics(tmp_path / "gdl" / "seed0", {"lesion": 0 * SIX})
    rows = ["a", "b", "c"]
    for factor, row in enumerate(rows, start=1):
        write_metrics(tmp_path / row / "seed0", {"lesion": factor * SIX})
    text = comparison.write_comparison(tmp_path, rows, "t", protocol=Protocol("gdl"), metrics=["dsc"])
    for line in printed(text):
        assert [line[name] for name in ("p", "p (Holm)", "p better", "p better (Holm)")] == [
            "0.031", "0.094", "0.016", "**0.047**"
        ]
    assert text.count("**") == 6 and (tmp_path / "t.tex").read_text().count(r"\textbf") == 3
    one = comparison.write_comparison(tmp_path, ["a"], "t", protocol=Protocol("gdl"), metrics=["dsc"])
    assert [printed(one)[0][name] for name in ("p", "p (Holm)", "p better (Holm)")] == [
        "0.031", "**0.031**", "**0.016**"
    ]


def test_what_is_better_is_the_metrics_own_direction(tmp_path):
    write_metrics(tmp_path / "gdl" / "seed0", {"lesion": 0 * SIX})
    write_metrics(tmp_path / "more" / "seed0", {"lesion": SIX})
    comparison.write_comparison(tmp_path, ["more"], "t", protocol=Protocol("gdl"), metrics=list(COLUMNS))
    rows = {row["metric"]: row for row in csv.DictReader((tmp_path / "t.csv").open())}
    assert list(rows) == list(COLUMNS)
    for name, row in rows.items():
        # All six differences are positive: the best of 64 patterns where more is better, else the worst.
        assert float(row["p_better"]) == (1 / 64 if name in HIGHER else 1.0), name
        assert float(row["p"]) == 2 / 64
        assert float(row["difference"]) == pytest.approx(SIX.mean() * scale(name))


def test_each_class_is_compared_by_itself_and_corrected_by_itself(tmp_path):
    classes = ("gland", "lesion")
    write_metrics(tmp_path / "gdl" / "seed0", {"gland": 0 * SIX, "lesion": 0 * SIX}, classes)
    for row in "ab":
        write_metrics(tmp_path / row / "seed0", {"gland": SIX, "lesion": -2 * SIX}, classes)
    text = comparison.write_comparison(tmp_path, ["a", "b"], "t", protocol=Protocol("gdl"), metrics=["dsc", "hd_mm"])
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert len(rows) == 8
    for row in rows:
        gland = row["class"] == "gland"
        expected = (1 if gland else -2) * SIX.mean() * scale(row["metric"])
        assert row["cases"] == "6" and float(row["difference"]) == pytest.approx(expected)
        better = (row["metric"] == "dsc") == gland
        assert float(row["p_better"]) == (1 / 64 if better else 1.0)
        # Two rows of a class and metric: twice the p, at most 1.
        assert float(row["p_better_holm"]) == (2 / 64 if better else 1.0) and float(row["p_holm"]) == 4 / 64
    assert [(line["class"], line["difference"]) for line in printed(text)[:3]] == [
        ("gland", "+0.081"), ("gland", "+0.081"), ("gland", "+1.62")
    ]


def test_interval_and_difference_are_printed_with_the_digits_of_the_metric(tmp_path):
    for row, gains in (("gdl", 0 * SIX), ("a", SIX)):
        write_metrics(tmp_path / row / "seed0", {"lesion": gains})
    text = comparison.write_comparison(tmp_path, ["a"], "t", protocol=Protocol("gdl"), metrics=["dsc", "hd_mm"])
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    for line, row, digits in zip(printed(text), rows, (3, 2), strict=True):
        low, high = float(row["ci_low"]), float(row["ci_high"])
        assert line["95 % interval"] == f"[{low:+.{digits}f}, {high:+.{digits}f}]"
        assert 1 < low / scale(row["metric"]) < 1.625 < high / scale(row["metric"]) < 2.25


@pytest.mark.parametrize("chunk", [1, 7, 130, 2**22])
def test_all_permutations_and_resamples_count_however_many_are_held_at_a_time(monkeypatch, chunk):
    monkeypatch.setattr(statistics, "CHUNK", chunk)
    few = 500
    assert len(statistics.sign_sums(np.arange(40.0), few, seed=0)) == few
    # No other pattern of forty equal gains is as large: p is one over all that were drawn, and the observed one.
    assert statistics.permutation_test(np.ones(40), permutations=few) == 1 / (few + 1)
    steps = []
    monkeypatch.setattr(np, "percentile", lambda means, _: (len(steps.append(len(means)) or [0]), 0))
    statistics.bootstrap_interval(np.arange(40.0), resamples=few)
    assert steps == [few]


def test_volumes_empty_in_both_masks_are_neither_missed_nor_false_alarms(tmp_path):
    cases = [case("both", 1.0, 0.0, 0, 0), case("missed", 0.0, 30.0, 9, 0), case("alarm", 0.0, 30.0, 0, 9),
             case("alarm 2", 0.0, 30.0, 0, 1), case("scored", 0.5, 2.0, 9, 9)]
    write_run(tmp_path / "gdl" / "seed0", cases, {"seed": 0})
    write_run(tmp_path / "gdl" / "seed1", [*cases[:-1], case("scored", 0.0, 30.0, 9, 0)], {"seed": 1})
    text = tables.write_table(tmp_path, ["gdl"], "t")
    (row,) = csv.DictReader((tmp_path / "t.csv").open())
    assert (row["missed"], row["false_alarms"], row["collapsed"]) == ("3", "4", "False")
    (line,) = printed(text)
    assert (line["missed"], line["false alarms"], line["seeds"]) == ("3 of 10", "4 of 10", "2")


def test_a_collapsed_row_is_no_peer_and_never_the_best(tmp_path):
    """It has as good a mean DSC as the best, since one reference is empty too; only the other's is bold."""
    write_run(tmp_path / "a" / "seed0", [case("1", 0.5, 9.0), case("2", 0.5, 9.0, n_ref=0)], {"seed": 0})
    write_run(tmp_path / "b" / "seed0", [case("1", 0.0, 12.0, n_pred=0), case("2", 1.0, 0.0, 0, 0)], {"seed": 0})
    write_run(tmp_path / "c" / "seed0", [case("1", 0.3, 8.0), case("2", 0.3, 8.0, n_ref=0)], {"seed": 0})
    lines = {line["row"]: line for line in printed(tables.write_table(tmp_path, ["a", "b", "c"], "t"))}
    assert [lines[row]["DSC"] for row in "abc"] == ["**0.500**", "0.500", "0.300"]
    assert [lines[row]["HD95 (mm)"] for row in "abc"] == ["9.00", "collapsed (1 missed)", "**8.00**"]
    # With one row that has not collapsed there is nothing to be better than.
    assert "**" not in tables.write_table(tmp_path, ["a", "b"], "t").split("Settings")[0]


def test_a_collapsed_row_with_the_highest_mean_takes_no_bold_away(tmp_path):
    for row, dsc in (("a", 0.4), ("c", 0.3)):
        write_run(tmp_path / row / "seed0", [case("1", dsc, 9.0), case("2", dsc, 9.0)], {"seed": 0})
    write_run(tmp_path / "b" / "seed0", [case("1", 0.0, 12.0, n_pred=0), case("2", 1.0, 0.0, 0, 0)], {"seed": 0})
    lines = printed(tables.write_table(tmp_path, ["a", "b", "c"], "t"))
    assert [line["DSC"] for line in lines] == ["**0.400**", "0.500", "0.300"]


def test_rows_that_are_equally_good_are_all_bold(tmp_path):
    for row, dsc in (("a", 0.5), ("b", 0.5), ("c", 0.25)):
        write_run(tmp_path / row / "seed0", [case("1", dsc, 1.0)], {"seed": 0})
    lines = printed(tables.write_table(tmp_path, ["a", "b", "c"], "t"))
    assert [line["DSC"] for line in lines] == ["**0.500**", "**0.500**", "0.250"]


@pytest.mark.parametrize(("one", "other"), [("12", "123"), ("123", "12")])
def test_a_case_more_or_less_is_refused(tmp_path, one, other):
    for row, names in (("gdl", one), ("a", other)):
        write_run(tmp_path / row / "seed0", [case(name, 0.5, 1.0) for name in names], {"seed": 0})
    for write in (lambda: tables.write_table(tmp_path, ["gdl", "a"], "t"),
                  lambda: comparison.write_comparison(tmp_path, ["a"], "t", protocol=Protocol("gdl"))):
        with pytest.raises(InputError, match="found 3 in only one"):
            write()


@pytest.mark.parametrize("setting", [field.name for field in fields(Settings) if field.name != "seed"])
def test_seeds_of_a_row_agree_in_every_setting(tmp_path, setting):
    for seed in (0, 1):
        write_run(tmp_path / "gdl" / f"seed{seed}", [case("1", 0.5, 1.0)], {**PAPER.to_json(), "seed": seed})
    tables.write_table(tmp_path, ["gdl"], "t")
    value = getattr(PAPER, setting)
    other = {
        bool: not value, int: 7, float: 0.25, str: "other", tuple: [0.5, 0.5], type(None): "other",
    }[type(value)]
    if setting in ("alpha_epochs", "gradient_clip", "iterations"):
        other = 7
    change_settings(tmp_path / "gdl" / "seed1", **{setting: other})
    with pytest.raises(InputError, match=f"seed1: expected the settings of seed0, found {setting} "):
        tables.write_table(tmp_path, ["gdl"], "t")


@pytest.mark.parametrize(("permutations", "said"), [(63, "63 random"), (64, "all 64"), (65, "all 64")])
def test_a_comparison_says_which_permutations_it_is_of(tmp_path, permutations, said):
    """Six cases have 64 patterns of signs."""
    write_metrics(tmp_path / "gdl" / "seed0", {"lesion": 0 * SIX})
    write_metrics(tmp_path / "a" / "seed0", {"lesion": SIX})
    protocol = Protocol("gdl", permutations=permutations)
    text = comparison.write_comparison(tmp_path, ["a"], "t", protocol=protocol, metrics=["dsc"])
    assert f"of the absolute mean difference, {said} permutations; p better" in text
    assert "over 6 validation cases" in text and "over the 1 rows" in text
