"""Figures from the numbers of finished runs, in one style: learning curves, boxes over cases, lesion shares."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from environment.atomic_outputs import MARK, check_own, written_together
from evaluation.metric_catalogue import CATALOGUE, LENGTH, Column
from raw_data.volumes import IGNORED
from reporting.runs import Run, evaluated_runs, first_run
from sliced_data.meta import Meta, part_files, read_meta
from sliced_data.slices import PartFiles, read_slice
from utils import InputError, naming, parse_number, read_json, read_rows

STYLE = Path(__file__).resolve().parent / "paper.mplstyle"
# By which a figure of the project is known; no date, so that the same runs give the same bytes.
MADE_BY = f"{MARK.decode()}, Matplotlib {matplotlib.__version__}"
METADATA = {".png": {"Software": MADE_BY}, ".pdf": {"Creator": MADE_BY, "CreationDate": None}}


@dataclass(frozen=True)
class Panel:
    """A column of log.csv in the learning curves: which metric it is, of which part of the data."""

    column: str
    metric: Column
    part: str
    over: str = ""

    def title(self, length_unit: str = LENGTH) -> str:
        return f"{self.part} {self.metric.heading(length_unit, over=self.over)}"


PANELS = (
    Panel("train_dsc", CATALOGUE["dsc"], "training", over="slices"),
    Panel("val_dsc_3d", CATALOGUE["dsc"], "validation", over="volumes"),
    Panel("val_hd95_3d_mm", CATALOGUE["hd95_mm"], "validation"),
)
BOXES = (CATALOGUE["dsc"], CATALOGUE["hd95_mm"])


@contextlib.contextmanager
def paper_style() -> Iterator[None]:
    """The style of every figure, over Matplotlib's own defaults: a user's matplotlibrc changes no figure."""
    with plt.style.context(STYLE, after_reset=True):
        yield


def save(figure: Figure, results: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.pdf into ``results`` and close the figure."""
    paths = [results / f"{name}{end}" for end in METADATA]
    for path in paths:
        check_own(path, MARK)
    with written_together() as place:
        for path in paths:
            # Into memory first: on a full disk Matplotlib fails once more, and in other words.
            drawn = io.BytesIO()
            figure.savefig(drawn, format=path.suffix[1:], metadata=METADATA[path.suffix])
            with naming(path):
                place(path).write_bytes(drawn.getvalue())
    plt.close(figure)
    return paths


def read_log(run: Run) -> pd.DataFrame:
    """The columns of a run's log.csv as numbers, one line per epoch."""
    rows = read_rows(run.folder / "log.csv", ("epoch", *(panel.column for panel in PANELS)))
    try:
        return pd.DataFrame([{name: parse_number(text) for name, text in row.items()} for row in rows])
    except ValueError as error:
        raise InputError(f"{run.folder / 'log.csv'}: expected numbers, found {error}") from None


def most_rows() -> int:
    """How many rows the style can tell apart in one figure."""
    with paper_style():
        return len(plt.rcParams["axes.prop_cycle"])


def drawable_runs(results: Path, rows: Sequence[str], seeds: Sequence[int] | None = None) -> dict[str, list[Run]]:
    """The runs of each row, and no more rows than the style can tell apart."""
    runs = evaluated_runs(results, rows, seeds)
    limit = most_rows()
    if len(rows) > limit:
        raise InputError(f"{results}: expected at most {limit} rows in a figure, found {len(rows)}")
    return runs


def data_of(run: Run) -> Meta:
    """The data set of a run; ``InputError`` where config.json names none or the folder holds another."""
    data = read_json(run.folder / "config.json").get("data")
    if not isinstance(data, str):
        raise InputError(f"{run.folder / 'config.json'}: expected the folder of a data set in data, found {data}")
    meta = read_meta(Path(data))
    if meta.fingerprint != run.settings.get("data_fingerprint"):
        raise InputError(f"{data}: expected the data set that {run.folder} was trained on, found another")
    return meta


def write_curves(
    results: Path, rows: Sequence[str], name: str, *, smooth: int, seeds: Sequence[int] | None = None
) -> list[Path]:
    """DSC and HD95 by epoch (MedIA 2021, Figs. 3 and 7): one line per row, the mean over seeds in a band of +-1 sd.

    ``smooth`` epochs, this one and those before it, are averaged; the figure says so.
    """
    runs = drawable_runs(results, rows, seeds)
    logs = {row: [read_log(run) for run in found] for row, found in runs.items()}
    averaged = f", mean of {smooth} epochs" if smooth > 1 else ""
    with paper_style():
        figure, axes = plt.subplots(1, len(PANELS), figsize=(3.0 * len(PANELS), 2.9), layout="constrained")
        for axis, panel in zip(axes, PANELS, strict=True):
            for row in rows:
                curves = [log[panel.column].rolling(smooth, min_periods=1).mean() for log in logs[row]]
                draw_curve(axis, curves, label=row)
            axis.set(title=panel.title(first_run(runs).length_unit), xlabel=f"epoch{averaged}")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.set_ylim(0, 1 if panel.metric.bounded else None)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(rows), 5))
        return save(figure, results, name)


def draw_curve(axis: plt.Axes, seeds: Sequence[pd.Series], *, label: str) -> None:
    """The mean of one row's seeds, in a band of one sample sd to either side."""
    values = pd.concat(seeds, axis=1)                              # (epochs, seeds)
    epochs, mean = values.index + 1, values.mean(axis=1)
    line, = axis.plot(epochs, mean, label=label)
    if values.shape[1] > 1:
        sd = values.std(axis=1, ddof=1)
        axis.fill_between(epochs, mean - sd, mean + sd, color=line.get_color(), alpha=0.2, linewidth=0)


def write_boxes(
    results: Path, rows: Sequence[str], name: str, *, seeds: Sequence[int] | None = None
) -> list[Path]:
    """DSC and HD95 of every validation case: one box per row, one dot per case (its mean over the seeds).

    Box: quartiles and median; whiskers: the farthest case within 1.5 times the box's height.
    """
    runs = drawable_runs(results, rows, seeds)
    first = runs[rows[0]][0]
    generator = np.random.default_rng(0)                           # of the dots' places, never of their values
    with paper_style():
        figure, axes = plt.subplots(
            len(first.class_names), len(BOXES), squeeze=False, layout="constrained",
            figsize=(3.6 * len(BOXES), len(first.class_names) * (0.9 + 0.34 * len(rows))),
        )
        for panels, class_name in zip(axes, first.class_names, strict=True):
            for axis, metric in zip(panels, BOXES, strict=True):
                cases = [case_values(runs[row], class_name, metric.key) for row in rows]
                draw_boxes(axis, cases, generator)
                axis.set_yticks(range(len(rows)), rows if axis is panels[0] else [""] * len(rows))
                axis.set_xlim(*((-0.02, 1.02) if metric.bounded else (0, 1.05 * max(map(max, cases)) or 1)))
                title = metric.heading(first.length_unit)
                axis.set_title(f"{title}, {class_name}" if len(first.class_names) > 1 else title)
        counts = sorted({len(found) for found in runs.values()})
        mean = f", mean of {'/'.join(map(str, counts))} seeds" if counts != [1] else ""
        explained = f"one dot per validation case{mean}; box: quartiles; whiskers: within 1.5 box widths"
        figure.supxlabel(explained, fontsize=7)
        return save(figure, results, name)


def case_values(runs: Sequence[Run], class_name: str, column: str) -> np.ndarray:
    """A metric of each case, mean over the seeds, by case id."""
    every = pd.concat([run.of_class(class_name) for run in runs])
    return every.groupby("case_id")[column].mean().to_numpy()


def draw_boxes(axis: plt.Axes, cases: Sequence[np.ndarray], generator: np.random.Generator) -> None:
    """One box per row, from the top down; the dots have the rows' colours."""
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    boxes = axis.boxplot(
        cases, positions=range(len(cases)), orientation="horizontal", widths=0.55, showfliers=False, patch_artist=True,
        medianprops={"color": "black", "linewidth": 1.4},
    )
    for position, (box, values) in enumerate(zip(boxes["boxes"], cases, strict=True)):
        box.set(facecolor="0.9", edgecolor="0.3")
        places = position + generator.uniform(-0.16, 0.16, len(values))
        axis.scatter(values, places, s=9, color=colours[position], edgecolors="white", linewidths=0.3, zorder=3)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()


def lesion_shares(files: PartFiles) -> np.ndarray:
    """Share of each slice (N,) that is lesion; of the files, only the labels are read."""
    label = np.empty(*files.stored["label"])                                            # (H, W)
    shares = np.empty(len(files.names))
    for index in range(len(shares)):
        read_slice(files, "label", index, label)
        shares[index] = np.count_nonzero((label > 0) & (label != IGNORED)) / label.size
    return shares


def write_shares(results: Path, rows: Sequence[str], name: str) -> list[Path]:
    """Share of a slice that is lesion, over the slices that have one (breast-ultrasound study, Fig. 3).

    The data set is that of the rows; the titles say how many slices have none.
    """
    meta = data_of(evaluated_runs(results, rows)[rows[0]][0])
    with paper_style():
        figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.8), layout="constrained", sharex=True)
        for axis, (part, title) in zip(axes, (("train", "training"), ("val", "validation")), strict=True):
            share = 100 * lesion_shares(part_files(meta, part))                         # (N,) per cent
            lesions = share[share > 0]
            # The lesions of a data set differ by orders of magnitude: only a logarithmic axis shows them all.
            edges = np.geomspace(100 / meta.size**2, 100, 25)
            axis.hist(lesions, bins=edges, color="#0072B2", edgecolor="white", linewidth=0.4)
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.yaxis.set_major_locator(MaxNLocator(integer=True))
            median = f", median {np.median(lesions):.2g} %" if len(lesions) else ""
            axis.set(xlabel="share of the slice (%)", ylabel="slices")
            axis.set_title(f"{title}: {len(lesions)} of {len(share)} slices\nhave a lesion{median}")
        return save(figure, results, name)
