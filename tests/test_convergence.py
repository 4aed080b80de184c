"""Convergence over many seeds (region-wise paper, sections 4.3 and 4.4), beside scipy and values computed by hand."""

import csv
import itertools

import numpy as np
import pytest
from commands import evaluate
from result_folders import case, write_run
from scipy import stats

from reporting import convergence
from utils import InputError

DICE = {"steady": (0.8, 0.82, 0.84, 0.86), "shaky": (0.5, 0.6, 0.59, 0.83), "gdl": (0.81, 0.85, 0.87, 0.88)}
# Of each run, less its last epoch's Dice: the mean over seeds fluctuates by hand-computed amounts.
COURSE = {"steady": (-0.3, -0.2, -0.1, 0.0), "shaky": (-0.2, -0.3, -0.1, 0.0), "gdl": (-0.3, -0.2, 0.05, 0.0)}


@pytest.fixture
def rows(tmp_path):
    """Three rows of four seeds and four epochs, written by hand; their Dice are those of DICE."""
    losses = {
        "steady": {"region": "none", "contour": "region-wise", "region_wise_map": None},
        "shaky": {"region": "none", "contour": "region-wise", "region_wise_map": "boundary"},
        "gdl": {"region": "gdl", "contour": "none"},
    }
    for (row, values), number in zip(DICE.items(), itertools.count()):
        for seed, last in enumerate(values):
            folder = tmp_path / row / f"seed{seed}"
            write_run(folder, [case("a", last, 3.0)], {"seed": seed, "epochs": 4, **losses[row]})
            lines = [f"{epoch},{number}.{seed}{epoch},0.1,{last + change:.4f},2.0"
                     for epoch, change in enumerate(COURSE[row])]
            header = "epoch,train_loss,train_dsc,val_dsc_3d,val_hd95_3d_mm"
            (folder / "log.csv").write_text("\n".join([header, *lines]) + "\n")
    return tmp_path


def lines_of(folder, name="convergence"):
    return {line["row"]: line for line in csv.DictReader((folder / f"{name}.csv").open())}


def exact_p(one, other):
    """The share of all ways to part the pooled values in which the distributions are at least as far apart."""
    pooled = np.array([*one, *other])

    def distance(first):
        places = [np.searchsorted(np.sort(part), pooled, side="right") / len(part)
                  for part in (pooled[first], np.delete(pooled, first))]
        return np.abs(places[0] - places[1]).max()

    observed = distance(list(range(len(one))))
    every = [distance(list(first)) for first in itertools.combinations(range(len(pooled)), len(one))]
    return observed, np.mean(np.array(every) >= observed - 1e-12)


def test_the_table_is_of_the_last_epoch(rows, capsys):
    evaluate.main(["convergence", str(rows), "--rows", "steady", "shaky", "gdl"])
    found = lines_of(rows)
    shaky = found["shaky"]
    assert [float(shaky[key]) for key in ("mean", "sd", "lowest", "median")] == pytest.approx(
        [0.63, np.std(DICE["shaky"], ddof=1), 0.5, 0.595])
    # A Dice of 0.6 itself is not below 0.6.
    assert (shaky["below"], shaky["share_below"]) == ("2", "0.5") and found["steady"]["below"] == "0"
    distance, p = exact_p(DICE["shaky"], DICE["steady"])
    other = exact_p(DICE["gdl"], DICE["steady"])[1]
    assert float(shaky["ks"]) == pytest.approx(distance) == 0.75 and float(shaky["p_ks"]) == pytest.approx(p)
    assert float(found["gdl"]["p_ks"]) == pytest.approx(other) and p < other
    assert float(shaky["p_ks_holm"]) == pytest.approx(2 * p) and found["steady"]["ks"] == ""
    printed = capsys.readouterr().out
    assert "| shaky  | 4     | 0.630 (0.141) | 0.500  | 0.595  | 2 of 4 (50 %) | 0.75 |" in printed
    assert printed == (rows / "convergence.md").read_text() + "\n" + "\n".join(
        str(rows / f"convergence{end}") for end in (".png", ".pdf", "-epochs.png", "-epochs.pdf")) + "\n"


def test_a_p_of_five_per_cent_is_not_below_it():
    line = dict.fromkeys(("seeds", "below", "lowest", "median", "share_below", "ks", "change", "fluctuation"), 1)
    for p, is_bold in ((0.0499, True), (0.05, False)):
        cells = convergence.printed_line(line | {"row": "gdl", "mean": 1.0, "sd": 0.0, "p_ks": 0.001, "p_ks_holm": p})
        assert [cell.bold for cell in cells] == [False] * 8 + [is_bold] + [False] * 2


def test_fluctuations_are_counted_between_epochs(rows):
    """Changes of shaky: 0.1 down, 0.2 and 0.1 up; from the middle of their neighbours: 0.15 and 0.05."""
    evaluate.main(["convergence", str(rows), "--rows", "steady", "shaky", "--epochs", "1", "4"])
    found = lines_of(rows)
    assert float(found["shaky"]["change"]) == pytest.approx(0.4 / 3)
    assert float(found["shaky"]["fluctuation"]) == pytest.approx(0.1)
    assert float(found["steady"]["change"]) == pytest.approx(0.1)
    assert float(found["steady"]["fluctuation"]) == pytest.approx(0, abs=1e-12)
    evaluate.main(["convergence", str(rows), "--rows", "shaky", "--epochs", "2", "4", "--name", "late"])
    assert float(lines_of(rows, "late")["shaky"]["change"]) == pytest.approx(0.15)


def test_baseline_threshold_and_seeds_are_those_asked_for(rows):
    flags = ("--baseline", "shaky", "--threshold", "0.85", "--seeds", "1", "3")
    evaluate.main(["convergence", str(rows), "--rows", "steady", "shaky", *flags])
    found = lines_of(rows)
    assert found["shaky"]["ks"] == "" and float(found["steady"]["ks"]) == pytest.approx(0.5)
    assert {row: (line["seeds"], line["below"]) for row, line in found.items()} == {
        "steady": ("2", "1"), "shaky": ("2", "2")}
    assert float(found["steady"]["mean"]) == pytest.approx(0.84) and found["steady"]["baseline"] == "shaky"


def test_the_papers_epochs_are_30_to_210_of_300():
    assert convergence.measured_epochs(300, None) == (30, 210)
    assert convergence.measured_epochs(1, None) == (1, 1)


@pytest.fixture
def drawn(monkeypatch):
    kept = []
    monkeypatch.setattr(convergence, "save", lambda figure, *_: kept.append(figure) or [])
    return kept


def test_figures_are_scipys_distribution_and_the_mean_of_the_logs(rows, drawn):
    convergence.write_convergence(rows, list(DICE), "t", baseline="steady")
    distribution, epochs = drawn
    lines = {line.get_label(): line for line in distribution.axes[0].lines if "seeds" in line.get_label()}
    assert list(lines) == [f"{row} (4 seeds)" for row in DICE]
    for (row, values), line in zip(DICE.items(), lines.values(), strict=True):
        expected = stats.ecdf(values).cdf
        x, y = line.get_data()
        assert line.get_drawstyle() == "steps-post" and (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1), row
        assert x[1:-1] == pytest.approx(expected.quantiles) and y[1:-1] == pytest.approx(expected.probabilities)
    assert [axis.get_title() for axis in epochs.axes] == ["RRW maps", "RW-boundary maps", "other losses"]
    (line,) = epochs.axes[1].lines
    assert line.get_label() == "shaky, fluctuation 0.1500"      # of the epochs 1 to 3
    assert line.get_xdata() == pytest.approx([1, 2, 3, 4])
    assert line.get_ydata() == pytest.approx([0.43, 0.33, 0.53, 0.63])
    # A row has one colour in both figures.
    assert line.get_color() == lines["shaky (4 seeds)"].get_color()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--baseline", "dice"), "--baseline: expected one of steady, shaky, found dice"),
        (("--threshold", "0"), "--threshold: expected a Dice above 0, at most 1, found 0"),
        (("--threshold", "nan"), "--threshold: expected a Dice above 0, at most 1, found nan"),
        (("--epochs", "3", "2"), "--epochs: expected two of the epochs 1 to 4, the first before the last, found 3 2"),
        (("--epochs", "0", "5"), "--epochs: expected two of the epochs 1 to 4, the first before the last, found 0 5"),
        (("--seeds", "9"), "expected an evaluated run"),
    ],
)
def test_what_cannot_be_shown_is_refused(rows, flags, words):
    before = sorted(rows.rglob("*"))
    with pytest.raises(InputError, match=words):
        evaluate.main(["convergence", str(rows), "--rows", "steady", "shaky", *flags])
    assert sorted(rows.rglob("*")) == before


def test_rows_of_different_lengths_are_refused(rows):
    for seed in range(4):
        log = rows / "shaky" / f"seed{seed}" / "log.csv"
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="expected rows of equally many epochs, found {'steady': 4, 'shaky': 3}"):
        evaluate.main(["convergence", str(rows), "--rows", "steady", "shaky"])
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="shaky: expected a validation Dice of every epoch and seed, found none"):
        evaluate.main(["convergence", str(rows), "--rows", "shaky"])
