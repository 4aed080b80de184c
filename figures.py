"""Figures from the folders of finished runs: learning curves and contours over validation slices."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen is needed, nor always there

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.figure import Figure

from dataloader import read_meta
from tables import Run, runs_of_rows
from utils import InputError, atomic_path, read_json, read_rows

STYLE = Path(__file__).resolve().parent / "paper.mplstyle"
PANELS = (
    ("train_dsc", "training DSC (slices)"),
    ("val_dsc_3d", "validation DSC (volumes)"),
    ("val_hd95_3d_mm", "validation HD95 (mm)"),
)
REFERENCE_COLOUR = "#F0E442"
OUTLINE = [patheffects.withStroke(linewidth=2.2, foreground="black")]    # readable on white and on black


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


def write_curves(results: Path, rows: Sequence[str], name: str) -> list[Path]:
    """DSC and HD95 against the epoch (MedIA 2021, Fig. 3): a line a row, the mean over seeds in a band of +-1 sd."""
    logs = {row: [read_log(run) for run in runs] for row, runs in drawable(results, rows).items()}
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(1, len(PANELS), figsize=(3.0 * len(PANELS), 2.9), layout="constrained")
        for axis, (column, title) in zip(axes, PANELS, strict=True):
            for row in rows:
                draw_curve(axis, [log[column] for log in logs[row]], label=row)
            axis.set(title=title, xlabel="epoch")
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


def choose_cases(first: Run, last: Run) -> list[tuple[str, str]]:
    """Cases by rule: where the last row gains most DSC over the first, the median, and the worst, a failure case."""
    gain = (last.metrics.groupby("case_id")["dsc"].mean() - first.metrics.groupby("case_id")["dsc"].mean())
    sized = last.metrics.groupby("case_id")["n_ref"].sum()
    gain = gain[sized > 0].sort_values()
    if gain.empty:
        raise InputError(f"{last.folder}: expected a validation case with a lesion, found none")
    if len(gain) == 1:
        return [("the only case", str(gain.index[0]))]
    places = {"best gain": len(gain) - 1, "median gain": len(gain) // 2, "worst": 0}
    chosen: dict[str, str] = {}
    for title, place in places.items():
        chosen.setdefault(str(gain.index[place]), title)
    return [(title, case_id) for case_id, title in chosen.items()]


def write_pictures(results: Path, rows: Sequence[str], name: str, *, seed: int = 0) -> list[Path]:
    """Contours over one slice of each chosen case (MedIA 2021, Figs. 4 to 6): reference first, then a column a row.

    The slice is the one with the largest reference area; a case's 3D DSC stands under its row's picture.
    """
    runs = {}
    for row, found in drawable(results, rows).items():
        runs[row] = next((run for run in found if run.seed == seed), None)
        if runs[row] is None:
            raise InputError(f"{results / row}: expected an evaluated run of seed {seed}, found none; see --seed")
    cases = choose_cases(runs[rows[0]], runs[rows[-1]])
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(
            len(cases), len(rows) + 1, squeeze=False, layout="constrained",
            figsize=(2.1 * (len(rows) + 1), 2.25 * len(cases) + 0.4),
        )
        for panels, (title, case_id) in zip(axes, cases, strict=True):
            draw_case(panels, title, case_id, runs)
        for axis, title in zip(axes[0], ("reference", *rows), strict=True):
            axis.set_title(title)
        return save(figure, results, name)


def draw_case(panels: Sequence[plt.Axes], title: str, case_id: str, runs: dict[str, Run]) -> None:
    first = next(iter(runs.values()))
    data = Path(read_json(first.folder / "config.json")["data"])
    if read_meta(data).fingerprint != first.settings.get("data_fingerprint"):
        raise InputError(f"{data}: expected the data set that {first.folder} was trained on, found another")
    paths = sorted((data / "val" / "label").glob(f"{case_id}_????.npy"))
    labels = [np.load(path, allow_pickle=False) for path in paths]
    if not labels:
        raise InputError(f"{data}: expected the slices of case {case_id}, found none")
    z = int(np.argmax([np.count_nonzero(label) for label in labels]))
    image = np.load(data / "val" / "image" / f"{case_id}_{z:04d}.npy", allow_pickle=False).astype(np.float32)
    shown = image[display_channel(image, labels[z])]
    window = crop(shown, labels[z] > 0)
    volumes = {row: nib.load(run.folder / "predictions" / f"{case_id}.nii.gz") for row, run in runs.items()}
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    for axis, (row, run) in zip(panels, [("reference", None), *runs.items()], strict=True):
        dx, dy, _ = next(iter(volumes.values())).header.get_zooms()
        draw_image(axis, shown[window], aspect=dy / dx)
        draw_mask(axis, labels[z][window] > 0, REFERENCE_COLOUR)
        axis.set_xlabel(f"{title}: {case_id}, slice {z}")
        if run is not None:
            draw_mask(axis, np.asarray(volumes[row].dataobj)[..., z][window] > 0, colours[list(runs).index(row)])
            of_case = run.metrics[run.metrics["case_id"] == case_id]
            axis.set_xlabel(f"DSC {of_case['dsc'].mean():.3f}, HD95 {of_case['hd95_mm'].mean():.1f} mm")


def display_channel(image: np.ndarray, label: np.ndarray) -> int:
    """The channel of image (C, H, W) in which the lesion stands out most: |difference of means| over the sd."""
    inside = label > 0
    if not inside.any() or inside.all():
        return 0
    contrast = [abs(c[inside].mean() - c[~inside].mean()) / (c.std() + 1e-6) for c in image]
    return int(np.argmax(contrast))


def crop(image: np.ndarray, lesion: np.ndarray) -> tuple[slice, slice]:
    """A square around what is not background in image (H, W), with a small margin."""
    low, high = np.percentile(image, (1, 99.5))
    used = (image > low + 0.1 * (high - low)) | lesion
    first, last = np.array([np.flatnonzero(used.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]).T
    side = min(int((last - first).max()) + 5, min(image.shape))
    starts = np.clip((first + last - side) // 2 + 1, 0, np.array(image.shape) - side)
    return tuple(slice(start, start + side) for start in starts)


def draw_image(axis: plt.Axes, image: np.ndarray, *, aspect: float) -> None:
    """Array axes are (x, y): shown with x to the right and y up, as a viewer does."""
    low, high = np.percentile(image, (1, 99.5))
    limits = {"vmin": low, "vmax": max(high, low + 1e-6)}
    axis.imshow(image.T, cmap="gray", origin="lower", interpolation="nearest", aspect=aspect, **limits)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def draw_mask(axis: plt.Axes, mask: np.ndarray, colour: str) -> None:
    if mask.any() and not mask.all():
        lines = axis.contour(mask.T.astype(float), levels=[0.5], colors=[colour], linewidths=1.2)
        lines.set_path_effects(OUTLINE)
