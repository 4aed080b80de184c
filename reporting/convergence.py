"""How surely rows converge (Valverde and Tohka 2022, sections 4.3 and 4.4): figures and a table over many seeds.

A run's Dice is the validation Dice (3D) after its last epoch, the mean over cases and foreground classes, of log.csv.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

from environment.atomic_outputs import written_together
from reporting.comparison import SIGNIFICANT, printed_p
from reporting.figures import drawable_runs, paper_style, read_log, save
from reporting.run_settings import shared_settings
from reporting.runs import Run
from reporting.statistics import holm
from reporting.table_formats import PrintedTable, Text, format_number
from utils import InputError

THRESHOLD = 0.6         # of a run that has not converged: the paper's failed ones have about 0.5
WINDOW = (0.1, 0.7)     # of the epochs, in which the paper compares the oscillations: 30 to 210 of 300
COLUMNS = ("row", "baseline", "seeds", "mean", "sd", "lowest", "median", "below", "threshold", "share_below", "ks",
           "p_ks", "p_ks_holm", "first_epoch", "last_epoch", "change", "fluctuation")


@dataclass(frozen=True)
class Convergence:
    """What the runs of a row came to: their Dice (N,), and their mean Dice by epoch (E,)."""

    row: str
    dice: np.ndarray
    curve: np.ndarray

    def below(self, threshold: float) -> int:
        """How many runs have a Dice below the threshold."""
        return int((self.dice < threshold).sum())

    def change(self, first: int, last: int) -> float:
        """Mean absolute change of the curve from each epoch to the next, from epoch ``first`` to ``last`` (from 1)."""
        return mean_or_nan(np.abs(np.diff(self.curve[first - 1 : last])))

    def fluctuation(self, first: int, last: int) -> float:
        """Mean distance of the curve from the middle between the epochs before and after: a steady rise counts 0."""
        part = self.curve[first - 1 : last]
        return mean_or_nan(np.abs(part[1:-1] - (part[:-2] + part[2:]) / 2))


def mean_or_nan(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def write_convergence(
    results: Path, rows: Sequence[str], name: str, *, baseline: str, threshold: float = THRESHOLD,
    epochs: tuple[int, int] | None = None, seeds: Sequence[int] | None = None,
) -> tuple[str, list[Path]]:
    """NAME (.csv, .md, .tex; .png, .pdf of the distribution of Dice) and NAME-epochs (.png, .pdf).

    ``epochs``: first and last of those that the fluctuations are measured over (from 1). Returns the text of the table
    and the figures' paths. ``InputError`` where the baseline is no row, or rows were trained for different epochs.
    """
    runs = drawable_runs(results, rows, seeds)
    if baseline not in rows:
        raise InputError(f"--baseline: expected one of {', '.join(rows)}, found {baseline}")
    found = {row: read_convergence(row, of_row) for row, of_row in runs.items()}
    lengths = {row: len(one.curve) for row, one in found.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{results}: expected rows of equally many epochs, found {lengths}")
    window = measured_epochs(lengths[baseline], epochs)
    with written_together():
        text = write_table(results, name, found, runs, baseline=baseline, threshold=threshold, window=window)
        figures = write_distribution(results, name, found, threshold)
        return text, [*figures, *write_epochs(results, f"{name}-epochs", found, runs, window)]


def measured_epochs(count: int, epochs: tuple[int, int] | None) -> tuple[int, int]:
    """First and last epoch (from 1) that the fluctuations are measured over; by default the paper's share of them."""
    first, last = epochs or (max(1, round(WINDOW[0] * count)), max(1, round(WINDOW[1] * count)))
    if not 1 <= first <= last <= count:
        raise InputError(f"--epochs: expected two of the epochs 1 to {count}, the first before the last, "
                         f"found {first} {last}")
    return first, last


def read_convergence(row: str, runs: Sequence[Run]) -> Convergence:
    curves = pd.concat([read_log(run)["val_dsc_3d"] for run in runs], axis=1)      # (E, N)
    if curves.isna().any(axis=None):
        raise InputError(f"{runs[0].folder.parent}: expected a validation Dice of every epoch and seed, found none")
    return Convergence(row, curves.iloc[-1].to_numpy(), curves.mean(axis=1).to_numpy())


# The table ----------------------------------------------------------------------------------------------


def write_table(
    results: Path, name: str, found: Mapping[str, Convergence], runs: Mapping[str, Sequence[Run]], *, baseline: str,
    threshold: float, window: tuple[int, int],
) -> str:
    tests = ks_tests(found, baseline)
    lines = [csv_line(one, baseline, threshold, window) | tests.get(row, {}) for row, one in found.items()]
    header = ["row", "seeds", "Dice", "lowest", "median", f"below {threshold:g}", "KS", "p (KS)", "p (Holm)", "change",
              "fluctuation"]
    body = [printed_line(line) for line in lines]
    rule = Text(
        "Dice: 3D validation Dice after the last epoch, mean over cases and foreground classes; mean (sample sd), "
        f"lowest and median over seeds. KS: two-sample Kolmogorov-Smirnov distance from {baseline}, its p and Holm's "
        f"correction over the rows; bold below {SIGNIFICANT}. Change: of the mean Dice over seeds from an epoch to the "
        f"next; fluctuation: its distance from the middle between the epochs before and after; means over the epochs "
        f"{window[0]} to {window[1]}."
    )
    return PrintedTable(header, body, [[rule], shared_settings(runs)]).write(results, name, lines, COLUMNS)


def ks_tests(found: Mapping[str, Convergence], baseline: str) -> dict[str, dict]:
    """Each other row against the baseline: distance of the distributions, p, and p corrected over the rows."""
    others = [row for row in found if row != baseline]
    results = [stats.ks_2samp(found[row].dice, found[baseline].dice) for row in others]
    corrected = holm([float(result.pvalue) for result in results]) if others else []
    return {
        row: {"ks": float(result.statistic), "p_ks": float(result.pvalue), "p_ks_holm": p}
        for row, result, p in zip(others, results, corrected, strict=True)
    }


def csv_line(one: Convergence, baseline: str, threshold: float, window: tuple[int, int]) -> dict:
    count = len(one.dice)
    return {
        "row": one.row, "baseline": baseline, "seeds": count, "mean": float(one.dice.mean()),
        "sd": float(one.dice.std(ddof=1)) if count > 1 else math.nan, "lowest": float(one.dice.min()),
        "median": float(np.median(one.dice)), "below": one.below(threshold), "threshold": threshold,
        "share_below": one.below(threshold) / count, "first_epoch": window[0], "last_epoch": window[1],
        "change": one.change(*window), "fluctuation": one.fluctuation(*window),
    }


def printed_line(line: Mapping) -> list[Text]:
    digits = {"lowest": 3, "median": 3}
    spread = f" ({line['sd']:.3f})" if line["seeds"] > 1 else ""
    texts = [line["row"], str(line["seeds"]), f"{line['mean']:.3f}{spread}"]
    texts += [format_number(line[key], places) for key, places in digits.items()]
    texts.append(f"{line['below']} of {line['seeds']} ({100 * line['share_below']:.0f} %)")
    cells = [Text(text) for text in texts]
    if "ks" in line:
        cells += [Text(f"{line['ks']:.2f}"), Text(printed_p(line["p_ks"]))]
        cells.append(Text(printed_p(line["p_ks_holm"]), line["p_ks_holm"] < SIGNIFICANT))
    else:
        cells += [Text("")] * 3
    return [*cells, *(Text(format_number(line[key], 4)) for key in ("change", "fluctuation"))]


# The figures --------------------------------------------------------------------------------------------


def write_distribution(results: Path, name: str, found: Mapping[str, Convergence], threshold: float) -> list[Path]:
    """The share of a row's runs with at most each Dice (Eq. 8; Figs. 5 and 6c): one step line per row."""
    with paper_style():
        figure, axis = plt.subplots(figsize=(4.6, 3.4), layout="constrained")
        for row, one in found.items():
            count = len(one.dice)
            shares = np.array([0.0, *np.arange(1, count + 1) / count, 1.0])
            axis.step([0.0, *np.sort(one.dice), 1.0], shares, where="post", label=f"{row} ({count} seeds)")
        axis.axvline(threshold, color="0.5", linewidth=0.8, linestyle="-", zorder=0)
        axis.text(threshold, 1.03, f"{threshold:g}", fontsize=7, color="0.4", ha="center", va="bottom")
        axis.set(xlabel="validation Dice after the last epoch", ylabel="share of runs with at most this Dice")
        axis.set(xlim=(0, 1), ylim=(-0.02, 1.02))
        figure.legend(loc="outside lower center", ncols=1 if len(found) < 4 else 2)
        return save(figure, results, name)


def write_epochs(
    results: Path, name: str, found: Mapping[str, Convergence], runs: Mapping[str, Sequence[Run]],
    window: tuple[int, int],
) -> list[Path]:
    """Mean validation Dice by epoch over seeds and classes (Fig. 6a, b): a panel per region-wise map."""
    panels: dict[str, list[str]] = {}
    for row, of_row in runs.items():
        panels.setdefault(map_of(of_row[0]), []).append(row)
    with paper_style():
        styles = dict(zip(found, plt.rcParams["axes.prop_cycle"], strict=False))    # as in the distribution
        figure, axes = plt.subplots(
            1, len(panels), squeeze=False, sharey=True, layout="constrained", figsize=(0.6 + 3.3 * len(panels), 3.6)
        )
        for axis, (title, rows) in zip(axes[0], panels.items(), strict=True):
            axis.axvspan(*window, color="0.95")
            for row in rows:
                curve, fluctuation = found[row].curve, found[row].fluctuation(*window)
                label = f"{row}, fluctuation {format_number(fluctuation, 4)}"
                axis.plot(np.arange(1, len(curve) + 1), curve, label=label, **styles[row])
            axis.set(title=title, xlabel="epoch", ylim=(0, 1))
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=7)
        counts = sorted({len(one.dice) for one in found.values()})
        axes[0, 0].set_ylabel("mean validation Dice")
        seeds = f"{'/'.join(map(str, counts))} seed{'' if counts == [1] else 's'}"
        explained = f"mean over {seeds} and the foreground classes; "
        figure.supxlabel(f"{explained}fluctuation: over the shaded epochs {window[0]} to {window[1]}", fontsize=7)
        return save(figure, results, name)


def map_of(run: Run) -> str:
    """Which region-wise map a run was trained with, in print."""
    if run.settings["contour"] != "region-wise":
        return "other losses"
    kind = run.settings["region_wise_map"] or "rrw"
    return {"rrw": "RRW maps", "boundary": "RW-boundary maps"}.get(kind, f"{kind} maps")
