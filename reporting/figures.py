"""Figures from the numbers of finished runs: learning curves, boxes over cases, lesion shares; in one style."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen is needed, nor always there

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reporting.runs import Run, runs_of_rows
from sliced_data.meta import Meta, part_files, read_meta
from sliced_data.slices import PartFiles, read_slice
from utils import InputError, atomic_path, read_json, read_rows

STYLE = Path(__file__).resolve().parent / "paper.mplstyle"
PANELS = (
    ("train_dsc", "training DSC (slices)"),
    ("val_dsc_3d", "validation DSC (volumes)"),
    ("val_hd95_3d_mm", "validation HD95 (mm)"),
)
BOXES = (("dsc", "DSC"), ("hd95_mm", "HD95 (mm)"))


def save(figure: Figure, results: Path, name: str) -> list[Path]:
    paths = [results / f"{name}.png", results / f"{name}.pdf"]
    for path in paths:
        with atomic_path(path) as temporary:
            # No date inside: the same runs give the same bytes.
            figure.savefig(temporary, metadata={"CreationDate": None} if path.suffix == ".pdf" else None)
    plt.close(figure)
    return paths


def read_log(run: Run) -> pd.DataFrame:
    rows = read_rows(run.folder / "log.csv", ("epoch", *(column for column, _ in PANELS)))
    try:
        return pd.DataFrame(rows).astype(float)
    except ValueError as error:
        raise InputError(f"{run.folder / 'log.csv'}: expected numbers, found {error}") from None


def evaluated(results: Path, rows: Sequence[str]) -> dict[str, list[Run]]:
    """The runs of each row, of which there is at least one."""
    runs = runs_of_rows(results, rows)
    missing = [row for row in rows if not runs[row]]
    if missing:
        raise InputError(f"{results}: expected an evaluated run of each row, found none of {', '.join(missing)}")
    return runs


def drawable(results: Path, rows: Sequence[str]) -> dict[str, list[Run]]:
    """The runs of each row, and no more rows than the style can tell apart."""
    runs = evaluated(results, rows)
    with plt.style.context(STYLE):
        limit = len(plt.rcParams["axes.prop_cycle"])
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


def write_curves(results: Path, rows: Sequence[str], name: str, *, smooth: int = 1) -> list[Path]:
    """DSC and HD95 against the epoch (MedIA 2021, Figs. 3 and 7): a line a row, mean over seeds in a band of +-1 sd.

    ``smooth`` epochs, this one and those before it, are averaged; the figure says so.
    """
    logs = {row: [read_log(run) for run in runs] for row, runs in drawable(results, rows).items()}
    averaged = f", mean of {smooth} epochs" if smooth > 1 else ""
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(1, len(PANELS), figsize=(3.0 * len(PANELS), 2.9), layout="constrained")
        for axis, (column, title) in zip(axes, PANELS, strict=True):
            for row in rows:
                seeds = [log[column].rolling(smooth, min_periods=1).mean() for log in logs[row]]
                draw_curve(axis, seeds, label=row)
            axis.set(title=title, xlabel=f"epoch{averaged}")
            axis.xaxis.get_major_locator().set_params(integer=True)
            if "dsc" in column:
                axis.set_ylim(0, 1)
            else:
                axis.set_ylim(bottom=0)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(rows), 5))
        return save(figure, results, name)


def draw_curve(axis: plt.Axes, seeds: Sequence[pd.Series], *, label: str) -> None:
    values = pd.concat(seeds, axis=1)                              # (epochs, seeds)
    epochs, mean = values.index + 1, values.mean(axis=1)
    line, = axis.plot(epochs, mean, label=label)
    if values.shape[1] > 1:
        sd = values.std(axis=1, ddof=1)
        axis.fill_between(epochs, mean - sd, mean + sd, color=line.get_color(), alpha=0.2, linewidth=0)


def write_boxes(results: Path, rows: Sequence[str], name: str) -> list[Path]:
    """DSC and HD95 of every validation case: a box a row, a dot a case (its mean over the seeds).

    Box: quartiles and median; whiskers: the farthest case within 1.5 times the box's height.
    """
    runs = drawable(results, rows)
    classes = list(dict.fromkeys(runs[rows[0]][0].metrics["class"]))
    generator = np.random.default_rng(0)                           # of the dots' places, never of their values
    with plt.style.context(STYLE):
        colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        figure, axes = plt.subplots(
            len(classes), len(BOXES), squeeze=False, layout="constrained",
            figsize=(3.6 * len(BOXES), len(classes) * (0.9 + 0.34 * len(rows))),
        )
        for panels, class_name in zip(axes, classes, strict=True):
            for axis, (column, title) in zip(panels, BOXES, strict=True):
                cases = [case_values(runs[row], class_name, column) for row in rows]
                draw_boxes(axis, cases, colours, generator)
                axis.set_yticks(range(len(rows)), rows if axis is panels[0] else [""] * len(rows))
                axis.tick_params(axis="y", length=0)
                axis.invert_yaxis()
                axis.set_title(f"{title}, {class_name}" if len(classes) > 1 else title)
                axis.set_xlim(*((-0.02, 1.02) if column == "dsc" else (0, 1.05 * max(map(max, cases)) or 1)))
        seeds = {len(found) for found in runs.values()}
        mean = f", mean of {'/'.join(map(str, sorted(seeds)))} seeds" if seeds != {1} else ""
        figure.supxlabel(f"a dot a validation case{mean}; box: quartiles; whiskers: within 1.5 box widths", fontsize=7)
        return save(figure, results, name)


def case_values(runs: Sequence[Run], class_name: str, column: str) -> np.ndarray:
    """A metric of each case, mean over the seeds, by case id."""
    every = pd.concat([run.metrics[run.metrics["class"] == class_name] for run in runs])
    return every.groupby("case_id")[column].mean().to_numpy()


def draw_boxes(axis: plt.Axes, cases: Sequence[np.ndarray], colours: Sequence[str], generator) -> None:
    boxes = axis.boxplot(
        cases, positions=range(len(cases)), orientation="horizontal", widths=0.55, showfliers=False, patch_artist=True,
        medianprops={"color": "black", "linewidth": 1.4},
    )
    for position, (box, values) in enumerate(zip(boxes["boxes"], cases, strict=True)):
        box.set(facecolor="0.9", edgecolor="0.3")
        places = position + generator.uniform(-0.16, 0.16, len(values))
        axis.scatter(values, places, s=9, color=colours[position], edgecolors="white", linewidths=0.3, zorder=3)
    axis.grid(visible=False, axis="y")


def lesion_shares(files: PartFiles) -> np.ndarray:
    """Share of each slice (N,) that is lesion; of the files, only the labels are read."""
    label = np.empty(*files.stored["label"])                                            # (H, W)
    shares = np.empty(len(files.names))
    for index in range(len(shares)):
        read_slice(files, "label", index, label)
        shares[index] = np.count_nonzero(label) / label.size
    return shares


def write_shares(results: Path, rows: Sequence[str], name: str) -> list[Path]:
    """Share of a slice that is lesion, over the slices that have one (breast-ultrasound study, Fig. 3).

    The data set is that of the first row; how many slices have none stands in the titles.
    """
    run = drawable(results, rows)[rows[0]][0]
    meta = data_of(run)
    with plt.style.context(STYLE):
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
