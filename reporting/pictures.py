"""Pictures of validation slices: contours and errors of each row, and the maps that the losses use."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from matplotlib.colors import ListedColormap, Normalize, TwoSlopeNorm, to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from boundary_loss.distance import region_wise_map
from raw_data.files import RawFile
from raw_data.nifti import stored_voxels
from raw_data.volumes import IGNORED
from reporting.figures import data_of, drawable_runs, paper_style, save
from reporting.runs import Run, evaluated_runs
from sliced_data.meta import Meta, part_files
from sliced_data.slices import read_slice
from utils import InputError

# Apart in grey too: the reference is light, the prediction dark.
REFERENCE, PREDICTION = "#F0E442", "#D55E00"
OUTLINE = [patheffects.withStroke(linewidth=2.2, foreground="black")]    # readable on white and on black
MAPS = (
    ("ac", "active contour\n(Eq. 17)"),
    ("cao", "Cao et al.\n(Eq. 29)"),
    ("boundary", "boundary distance, mm\n(Eq. 3)"),
    ("rrw", "rectified (RRW)\n(Eq. 4)"),
)


def choose_cases(first: Run, last: Run) -> list[tuple[str, str]]:
    """Title and case by rule: where the last row gains most DSC over the first, the median gain, and its lowest DSC.

    The last is a failure case, always shown; one without a lesion where a false alarm is the worst there is.
    """
    dsc, before = (run.metrics.groupby("case_id")["dsc"].mean() for run in (last, first))
    sized = last.metrics.groupby("case_id")["n_ref"].sum() > 0
    if not sized.any():
        raise InputError(f"{last.folder}: expected a validation case with a lesion, found none")
    if len(dsc) == 1:
        return [("the only case", str(dsc.index[0]))]
    # One row has no gain over itself: its own best and median.
    alone = first.folder == last.folder
    ranked = (dsc if alone else dsc - before)[sized].sort_values(kind="stable")
    word = "" if alone else " gain"
    chosen = {str(ranked.index[-1]): f"best{word}"}
    chosen.setdefault(str(ranked.index[len(ranked) // 2]), f"median{word}")
    chosen.setdefault(str(dsc.idxmin()), "lowest DSC")
    return [(title, case_id) for case_id, title in chosen.items()]


def write_pictures(
    results: Path, rows: Sequence[str], name: str, *, seed: int = 0, baseline: str = "gdl"
) -> list[Path]:
    """One slice of each chosen case (MedIA 2021, Figs. 1 and 4 to 6): image and reference, then one column per row.

    Contours of reference and prediction; what only one of them has is filled. The slice is the one with the largest
    reference area (of the largest prediction where there is none); the label below a picture has the case's 3D DSC
    and HD95. Cases are those of the best and the median gain of the last row over the baseline, or over the first row
    where the baseline is none of them, and of the last row's lowest DSC.
    """
    runs = {}
    for row, found in drawable_runs(results, rows).items():
        runs[row] = next((run for run in found if run.seed == seed), None)
        if runs[row] is None:
            raise InputError(f"{results / row}: expected an evaluated run of seed {seed}, found none; see --seed")
    first = baseline if baseline in rows[:-1] else rows[0]
    cases = choose_cases(runs[first], runs[rows[-1]])
    meta = data_of(runs[rows[0]])
    with paper_style():
        figure, axes = plt.subplots(
            len(cases), len(rows) + 2, squeeze=False, layout="constrained",
            figsize=(2.0 * (len(rows) + 2), 2.2 * len(cases) + 0.6),
        )
        for panels, (title, case_id) in zip(axes, cases, strict=True):
            draw_case(panels, title, read_picture(meta, case_id, runs[rows[-1]]), runs, len(meta.class_names))
        for axis, title in zip(axes[0], ("image", "reference", *rows), strict=True):
            axis.set_title(title)
        chosen = choice_of_cases(first, rows[-1], len(cases))
        figure.legend(handles=picture_key(), loc="outside lower center", ncols=4, title=chosen)
        return save(figure, results, name)


def choice_of_cases(first: str, last: str, cases: int) -> str:
    """How the cases were chosen, in print."""
    if cases == 1:
        return ""
    if first == last:
        return f"cases: best, median and lowest DSC of {last}"
    return f"cases: best and median gain in DSC of {last} over {first}, and lowest DSC of {last}"


def picture_key() -> list:
    """What the colours mean."""
    shown = (("reference", REFERENCE), ("prediction", PREDICTION))
    lines = [Line2D([], [], color=colour, path_effects=OUTLINE, label=label) for label, colour in shown]
    filled = (("false negative", REFERENCE), ("false positive", PREDICTION))
    return lines + [Patch(facecolor=colour, alpha=0.6, edgecolor="0.3", label=label) for label, colour in filled]


@dataclass(frozen=True)
class Picture:
    """One slice of a case: image, classes, what is IGNORED (X, Y), its number, the volume's shape, a pixel's sides."""

    case_id: str
    image: np.ndarray
    label: np.ndarray
    ignored: np.ndarray
    z: int
    volume_shape: tuple[int, int, int]
    spacing: tuple[float, float]

    @property
    def aspect(self) -> float:
        return self.spacing[1] / self.spacing[0]

    @property
    def window(self) -> tuple[slice, slice]:
        return crop(self.image, self.label > 0)


def read_picture(meta: Meta, case_id: str, run: Run) -> Picture:
    """The slice of a validation case with the largest reference, in the channel that shows it best.

    Where there is no reference, the slice with the largest prediction of ``run``.
    """
    files = part_files(meta, "val")
    found = [(case, at) for case, at in files.case_ranges() if case.case_id == case_id]
    if not found:
        raise InputError(f"{meta.root}: expected a validation case {case_id}, found none")
    case, at = found[0]
    image, labels = (np.empty((n, *files.stored[kind][0]), files.stored[kind][1]) for kind, n in
                     (("image", 1), ("label", case.n_slices)))                          # (1, C, H, W), (Z, H, W)
    for z, label in enumerate(labels):
        read_slice(files, "label", at.start + z, label)
    ignored = labels == IGNORED
    labels[ignored] = 0
    shape = (*labels.shape[1:], case.n_slices)
    shown = labels if labels.any() else np.moveaxis(read_prediction(run, case_id, shape, len(meta.class_names)), -1, 0)
    z = int(np.count_nonzero(shown, axis=(1, 2)).argmax())
    read_slice(files, "image", at.start + z, image[0])
    channel = display_channel(image[0].astype(np.float32), shown[z])
    return Picture(case_id, image[0, channel].astype(np.float32), labels[z], ignored[z], z, shape, case.spacing[:2])


def draw_case(
    panels: Sequence[plt.Axes], title: str, picture: Picture, runs: dict[str, Run], classes: int
) -> None:
    window, case_id = picture.window, picture.case_id
    reference = picture.label[window]
    for axis in panels:
        draw_image(axis, picture.image[window], aspect=picture.aspect)
    panels[0].set_xlabel(f"{title}: {case_id}, slice {picture.z}")
    draw_classes(panels[1], reference, REFERENCE)
    for axis, run in zip(panels[2:], runs.values(), strict=True):
        predicted = read_prediction(run, case_id, picture.volume_shape, classes)[..., picture.z]
        prediction = np.where(picture.ignored, 0, predicted)[window]    # where nobody knows, nothing is right or wrong
        draw_errors(axis, prediction, reference)
        draw_classes(axis, reference, REFERENCE)
        draw_classes(axis, prediction, PREDICTION)
        of_case = run.metrics[run.metrics["case_id"] == case_id]
        axis.set_xlabel(f"DSC {of_case['dsc'].mean():.3f}, HD95 {of_case['hd95_mm'].mean():.1f} {run.length_unit}")


def read_prediction(run: Run, case_id: str, shape: tuple[int, int, int], classes: int) -> np.ndarray:
    """Classes (X, Y, Z) uint8 that a run predicted for a case on the sliced grid; ``shape`` is that of its label."""
    path = run.folder / "predictions" / f"{case_id}.nii.gz"
    if not path.exists():
        raise InputError(f"{path}: expected a prediction, found nothing; evaluate the run again")
    try:
        volume = stored_voxels(case_id, RawFile(path))
    except InputError as error:
        raise InputError(f"{path}: expected a prediction, found a damaged one ({error}); evaluate again") from None
    if volume.shape != tuple(shape):
        raise InputError(f"{path}: expected the shape of the label {tuple(shape)}, found {volume.shape}")
    strange = volume[~np.isin(volume, np.arange(classes))]
    if strange.size:
        raise InputError(f"{path}: expected classes 0 to {classes - 1}, found {strange[0]}")
    return volume.astype(np.uint8)


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
    hide_axes(axis)


def hide_axes(axis: plt.Axes) -> None:
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def draw_contour(axis: plt.Axes, mask: np.ndarray, colour: str) -> None:
    if mask.any() and not mask.all():
        lines = axis.contour(mask.T.astype(float), levels=[0.5], colors=[colour], linewidths=1.0)
        lines.set_path_effects(OUTLINE)


def draw_classes(axis: plt.Axes, classes: np.ndarray, colour: str) -> None:
    """The contour of each class but the background."""
    for k in np.unique(classes[classes > 0]):
        draw_contour(axis, classes == k, colour)


def draw_errors(axis: plt.Axes, prediction: np.ndarray, reference: np.ndarray) -> None:
    """Pixels of a class that the prediction has missed or taken for another, and of one that is not there, filled."""
    missed = (reference > 0) & (prediction != reference)
    extra = (prediction > 0) & (reference == 0)
    for wrong, colour in ((missed, REFERENCE), (extra, PREDICTION)):
        rgba = np.zeros((*wrong.T.shape, 4))
        rgba[wrong.T] = to_rgba(colour, 0.6)
        axis.imshow(rgba, origin="lower", interpolation="nearest", aspect=axis.get_aspect())


def write_maps(results: Path, rows: Sequence[str], name: str) -> list[Path]:
    """The maps of one slice's foreground (region-wise paper, Fig. 1): label, active contour, Cao, boundary, RRW.

    The slice is that of the largest reference among the validation cases of the first row.
    """
    run = evaluated_runs(results, rows)[rows[0]][0]
    meta = data_of(run)
    sized = run.metrics.groupby("case_id")["n_ref"].sum()
    picture = read_picture(meta, str(sized.idxmax()), run)
    window, label = picture.window, picture.label
    with paper_style():
        figure, axes = plt.subplots(1, len(MAPS) + 1, figsize=(2.2 * (len(MAPS) + 1), 2.6), layout="constrained")
        draw_image(axes[0], picture.image[window], aspect=picture.aspect)
        draw_contour(axes[0], label[window] > 0, REFERENCE)
        axes[0].set_title("image\nand reference")
        axes[0].set_xlabel(f"{picture.case_id}, slice {picture.z}")
        for axis, (kind, title) in zip(axes[1:], MAPS, strict=True):
            found = region_wise_map(label, int(label.max()) + 1, kind, spacing=picture.spacing)[-1][window]
            draw_map(axis, found, aspect=picture.aspect)
            draw_contour(axis, label[window] > 0, "white")
            axis.set_title(title)
        return save(figure, results, name)


def draw_map(axis: plt.Axes, found: np.ndarray, *, aspect: float) -> None:
    """A map (X, Y) of one class, dark where it rewards and light where it punishes; each sign has half the colours."""
    low, high = min(float(found.min()), 0.0), max(float(found.max()), 1e-6)
    colours = plt.get_cmap("cividis")(np.linspace(0 if low < 0 else 0.5, 1, 256))
    norm = TwoSlopeNorm(0.0, vmin=low, vmax=high) if low < 0 else Normalize(0.0, high)
    shown = axis.imshow(
        found.T, cmap=ListedColormap(colours), norm=norm, origin="lower", interpolation="nearest", aspect=aspect
    )
    hide_axes(axis)
    bar = axis.figure.colorbar(shown, location="bottom", shrink=0.9, pad=0.03, aspect=18)
    ticks = sorted({low, 0.0, high})
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
    bar.outline.set_linewidth(0.4)
