"""Signs of the gradients of runs over the epochs (Valverde and Tohka 2022, Fig. 3): maps, curves and a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from dataloader import open_parts
from environment.atomic_outputs import written_together
from evaluation.gradient_signs import Signs, largest_slice, run_signs
from raw_data.volumes import IGNORED
from reporting.figures import data_of, drawable_runs, paper_style, save
from reporting.pictures import REFERENCE, crop, draw_classes, draw_image, hide_axes
from reporting.run_settings import shared_settings
from reporting.runs import Run, first_run
from reporting.table_formats import PrintedTable, Text
from sliced_data.meta import Meta
from training.snapshots import snapshot_epochs
from utils import InputError

MAP_SEEDS, MAP_EPOCHS = 2, 4        # at most, in the maps; the paper has two runs and three time-points
COUNT_COLOURS = ("0.8", "0.97", "#E69F00", "#D55E00", "#7A0403")    # of 0, 1, 2, 3 and more negative components
COLUMNS = ("row", "seed", "epoch", "pixels", "negative_0", "negative_1", "negative_more", "share_more",
           "share_more_foreground", "share_more_equation_2")
# Row -> its runs, each with the signs of its snapshots.
SignsOfRows = Mapping[str, Sequence[tuple[Run, Sequence[Signs]]]]


def write_signs(
    results: Path, rows: Sequence[str], name: str, *, seeds: Sequence[int] | None, device: torch.device
) -> tuple[str, list[Path]]:
    """NAME-maps and NAME-epochs (.png, .pdf) and the table NAME-epochs (.csv, .md, .tex) of runs with snapshots.

    Returns the text of the table and the figures' paths. ``InputError`` where a run has no snapshot, or another loss.
    """
    runs = drawable_runs(results, rows, seeds)
    meta = data_of(first_run(runs))
    found = {row: [(run, list(run_signs(run.folder, epochs_of(run), meta, device))) for run in of_row]
             for row, of_row in runs.items()}
    with written_together():
        text = write_table(results, f"{name}-epochs", found, runs)
        figures = [*write_maps(results, f"{name}-maps", found, meta), *write_curves(results, f"{name}-epochs", found)]
        return text, figures


def epochs_of(run: Run) -> list[int]:
    """After how many epochs a run has snapshots."""
    epochs = snapshot_epochs(run.folder)
    if not epochs:
        raise InputError(f"{run.folder}: expected snapshots, found none; train.py --snapshot-epochs keeps them")
    return epochs


def share_of_several(pixels: np.ndarray) -> float:
    """Share of pixels (K,), by their number of negative components, that have more than one."""
    return float(pixels[2:].sum() / max(1, pixels.sum()))


# The table ----------------------------------------------------------------------------------------------


def write_table(results: Path, name: str, found: SignsOfRows, runs: Mapping[str, Sequence[Run]]) -> str:
    lines = [csv_line(run, signs) for of_row in found.values() for run, every in of_row for signs in every]
    header = ["row", "seed", "epochs", "no component", "one", "more", "more, of the foreground", "more, by Eq. 2"]
    body = [
        [Text(text) for text in (line["row"], str(line["seed"]), str(line["epoch"]), *(
            f"{100 * share:.2f} %" for share in (
                line["negative_0"] / line["pixels"], line["negative_1"] / line["pixels"], line["share_more"],
                line["share_more_foreground"], line["share_more_equation_2"],
            )))]
        for line in lines
    ]
    rule = Text(
        "Share of the validation slices' pixels by how many components of the gradient with respect to the logits are "
        "negative: of the region-wise loss with the run's map, by autograd in double precision, and by Eq. 2. One is "
        "what the true class needs; none: the map's values are all equal, as in a slice without foreground, or the "
        "gradient has vanished (below 1e-12 of them)."
    )
    return PrintedTable(header, body, [[rule], shared_settings(runs)]).write(results, name, lines, COLUMNS)


def csv_line(run: Run, signs: Signs) -> dict:
    pixels = signs.pixels
    return {
        "row": run.row, "seed": run.seed, "epoch": signs.epoch, "pixels": int(pixels.sum()),
        "negative_0": int(pixels[0]), "negative_1": int(pixels[1]), "negative_more": int(pixels[2:].sum()),
        "share_more": share_of_several(pixels), "share_more_foreground": share_of_several(signs.foreground),
        "share_more_equation_2": share_of_several(signs.by_equation_2),
    }


# The figures --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slice:
    """The validation slice that the maps show: image and classes (X, Y), its name, the window, a pixel's aspect."""

    name: str
    image: np.ndarray
    label: np.ndarray
    window: tuple[slice, slice]
    aspect: float


def read_shown(meta: Meta) -> Slice:
    """The validation slice with the most foreground, which ``Signs.shown`` is of."""
    (val,) = open_parts(meta, ("val",), device=torch.device("cpu"))
    index = largest_slice(val.label)
    batch = val.take(torch.tensor([index]))
    image, label = batch.image[0, 0].float().numpy(), batch.label[0].numpy()
    label = np.where(label == IGNORED, 0, label)
    spacing = batch.spacing[0].tolist()
    return Slice(val.names[index], image, label, crop(image, label > 0), spacing[1] / spacing[0])


def write_maps(results: Path, name: str, found: SignsOfRows, meta: Meta) -> list[Path]:
    """The number of negative components of each pixel of one slice: a line per row and seed, a column per snapshot."""
    lines = [(run, every) for of_row in found.values() for run, every in of_row[:MAP_SEEDS]]
    epochs = spread(sorted(set.intersection(*({signs.epoch for signs in every} for _, every in lines))), MAP_EPOCHS)
    if not epochs:
        raise InputError(f"{results}: expected snapshots after the same epochs, found none that all runs have")
    shown = read_shown(meta)
    with paper_style():
        figure, axes = plt.subplots(
            len(lines), len(epochs) + 1, squeeze=False, layout="constrained",
            figsize=(1.5 * (len(epochs) + 1) + 0.9, 1.62 * len(lines) + 0.5),
        )
        for panels, (run, every) in zip(axes, lines, strict=True):
            draw_line(panels, shown, {signs.epoch: signs for signs in every}, epochs)
            panels[0].set_ylabel(f"{run.row}\nseed {run.seed}")
        words = [f"{epoch} epoch{'s' if epoch > 1 else ''}" for epoch in epochs]
        for axis, title in zip(axes[0], ("reference", *words), strict=True):
            axis.set_title(title)
        figure.legend(
            handles=count_key(len(meta.class_names) - 1), loc="outside lower center", ncols=len(COUNT_COLOURS),
            title=f"negative components of a pixel's gradient (one is right), validation slice {shown.name}",
        )
        return save(figure, results, name)


def spread(values: Sequence[int], most: int) -> list[int]:
    """At most so many of the values, from the first to the last at equal steps."""
    return [values[round(place)] for place in np.linspace(0, len(values) - 1, min(most, len(values)))]


def draw_line(panels: Sequence[plt.Axes], shown: Slice, of_epoch: Mapping[int, Signs], epochs: Sequence[int]) -> None:
    """Image and reference, then the counts after each of the epochs."""
    window = shown.window
    draw_image(panels[0], shown.image[window], aspect=shown.aspect)
    draw_classes(panels[0], shown.label[window], REFERENCE)
    last = len(COUNT_COLOURS) - 1
    for axis, epoch in zip(panels[1:], epochs, strict=True):
        counts = np.minimum(of_epoch[epoch].shown[window], last)
        axis.imshow(counts.T, cmap=ListedColormap(COUNT_COLOURS), vmin=-0.5, vmax=last + 0.5, origin="lower",
                    interpolation="nearest", aspect=shown.aspect)
        draw_classes(axis, shown.label[window], "white")
        hide_axes(axis)


def count_key(most: int) -> list[Patch]:
    """What the colours of the maps mean; the last one is also of all higher counts."""
    last = len(COUNT_COLOURS) - 1
    words = [str(count) + (" or more" if count == last < most else "") for count in range(min(most, last) + 1)]
    colours = COUNT_COLOURS[: len(words)]
    return [Patch(facecolor=colour, edgecolor="0.3", label=word) for word, colour in zip(words, colours, strict=True)]


def write_curves(results: Path, name: str, found: SignsOfRows) -> list[Path]:
    """Share of pixels with more than one negative component by epoch: the mean over seeds, each seed thin beside it."""
    panels = (("all validation pixels", "pixels"), ("pixels of the foreground", "foreground"))
    with paper_style():
        figure, axes = plt.subplots(1, len(panels), figsize=(6.4, 2.8), layout="constrained", sharex=True)
        for axis, (title, part) in zip(axes, panels, strict=True):
            for row, of_row in found.items():
                seeds = [
                    pd.Series({signs.epoch: 100 * share_of_several(getattr(signs, part)) for signs in every})
                    for _, every in of_row
                ]
                mean = pd.concat(seeds, axis=1).sort_index().mean(axis=1)
                line, = axis.plot(mean.index, mean, marker="o", markersize=3, label=row)
                for seed in seeds if len(seeds) > 1 else ():
                    axis.plot(seed.index, seed, color=line.get_color(), linestyle="-", linewidth=0.6, alpha=0.6)
            axis.set(title=title, xlabel="epochs trained", ylabel="more than one negative component (%)")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.set_ylim(bottom=0)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(found), 4))
        return save(figure, results, name)
