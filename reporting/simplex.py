"""Gradient components over the softmax simplex, as barycentric panels (Valverde and Tohka 2022, Figs. 2 and 4)."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.tri import Triangulation

from evaluation.gradient_signs import SAMPLES, PixelLoss
from reporting.figures import paper_style, save
from utils import InputError

# The paper's: a pixel's values of a boundary map, and of a rectified one.
MAP_VALUES = ((12.0, 4.0, -3.0), (10.0, 10.0, -3.0))
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])     # of the classes 1, 2 and 3
LATTICE = 150           # points along a side
INSIDE = 1e-9           # from the borders, where a logarithm would be infinite
SHADES = 10             # of colours on either side of 0


def losses_of(map_values: Sequence[Sequence[float]]) -> list[PixelLoss]:
    """Region-wise with each three map values, then the cross-entropy of the first one's true class.

    ``InputError`` for values that are no map of three classes or give no gradient at all.
    """
    for values in map_values:
        given = " ".join(f"{value:g}" for value in values)
        if len(values) != 3 or not np.isfinite(values).all() or max(np.abs(values)) > 1e30:
            raise InputError(f"--map-values: expected three numbers, one per class, found {given}")
        if len(set(values)) == 1:
            raise InputError(f"--map-values: expected values that differ, found {given}, whose gradient is 0")
    losses = [PixelLoss.region_wise(values) for values in map_values]
    return [*losses, PixelLoss(3, losses[0].true_class)]


def simplex_shares(losses: Sequence[PixelLoss]) -> list[str]:
    """In print, the share of the simplex in which each loss raises several classes at once."""
    rule = f"{SAMPLES:,} vectors drawn uniformly"
    return [
        f"{loss.title}, class {loss.true_class + 1} true: more than one negative component on "
        f"{100 * loss.share_of_several():.1f} % of the simplex ({rule})"
        for loss in losses
    ]


def write_simplex(results: Path, losses: Sequence[PixelLoss], name: str) -> list[Path]:
    """One line of three panels per loss: each component over all softmax vectors of three classes."""
    triangles, probs = lattice()
    with paper_style():
        figure, axes = plt.subplots(
            len(losses), 3, squeeze=False, layout="constrained", figsize=(7.2, 2.2 * len(losses) + 0.45)
        )
        for panels, loss in zip(axes, losses, strict=True):
            draw_components(panels, triangles, loss, probs)
        figure.supxlabel(
            "hatched: the component is negative and raises its class; black line: 0; +: saddle point, with its value\n"
            "dot on a corner: the true class. Gradients with respect to the logits, not divided by N K",
            fontsize=7,
        )
        return save(figure, results, name)


def lattice() -> tuple[Triangulation, np.ndarray]:
    """Triangles over the simplex, and the softmax vectors (3, N) at their corners."""
    steps = [(i, j, LATTICE - i - j) for i in range(LATTICE + 1) for j in range(LATTICE + 1 - i)]
    probs = np.array(steps, dtype=float).T / LATTICE                            # (3, N)
    return Triangulation(*(probs.T @ CORNERS).T), (1 - 3 * INSIDE) * probs + INSIDE


def draw_components(panels: Sequence[plt.Axes], triangles: Triangulation, loss: PixelLoss, probs: np.ndarray) -> None:
    """The three components in one scale of colours, white at 0."""
    gradient = loss.gradient(probs)                                             # (3, N)
    largest = np.abs(gradient).max()
    norm, levels = TwoSlopeNorm(0.0, -largest, largest), np.linspace(-largest, largest, 2 * SHADES + 1)
    for k, (axis, component) in enumerate(zip(panels, gradient, strict=True)):
        shown = axis.tricontourf(triangles, component, levels=levels, norm=norm, cmap="RdBu_r")
        draw_sign(axis, triangles, component)
        draw_frame(axis, loss.true_class)
        saddle = loss.saddle(k)
        if saddle is not None:
            mark_saddle(axis, saddle, float(loss.gradient(np.clip(saddle, INSIDE, None)[:, None])[k, 0]))
        axis.set_title(f"component {k + 1}{', of the true class' if k == loss.true_class else ''}")
    panels[0].text(-0.1, 1.16, loss.title, transform=panels[0].transAxes, fontweight="bold")
    bar = panels[0].figure.colorbar(shown, ax=panels, shrink=0.75, aspect=14, pad=0.02)
    bar.set_ticks(ticks := [-largest, -largest / 2, 0, largest / 2, largest], labels=[f"{tick:.2g}" for tick in ticks])
    bar.outline.set_linewidth(0.4)


def draw_sign(axis: plt.Axes, triangles: Triangulation, component: np.ndarray) -> None:
    """Hatching where the component is negative, and the line where it is 0 within the simplex."""
    with plt.rc_context({"hatch.linewidth": 0.4, "hatch.color": "0.25"}):
        axis.tricontourf(triangles, component, levels=[component.min() - 1.0, 0.0], colors="none", hatches=["////"])
    scale = 1e-6 * np.abs(component).max()      # at the borders a component is 0 but for rounding
    if component.max() > scale:
        axis.tricontour(triangles, component, levels=[0.0], colors="black", linewidths=1.2)


def draw_frame(axis: plt.Axes, true_class: int) -> None:
    """The triangle and the names of its corners, a dot at the true class."""
    axis.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color="black", linewidth=0.8, linestyle="-")
    for k, (corner, place) in enumerate(zip(CORNERS, ((-0.04, -0.05), (1.04, -0.05), (0.5, 0.9)), strict=True)):
        word = f"class {k + 1}"
        axis.text(*place, word, ha=("right", "left", "center")[k], va=("top", "top", "bottom")[k], fontsize=6.5,
                  fontweight="bold" if k == true_class else "normal")
        if k == true_class:
            axis.plot(*corner, "o", color="black", markersize=4, clip_on=False)
    axis.set(aspect="equal", xlim=(-0.12, 1.12), ylim=(-0.12, 0.98))
    axis.set_axis_off()


def mark_saddle(axis: plt.Axes, point: np.ndarray, value: float) -> None:
    x, y = point @ CORNERS
    axis.plot(x, y, "+", color="black", markersize=9, markeredgewidth=1.6, clip_on=False)
    label = "0" if abs(value) < 1e-6 else f"{value:.2f}"
    axis.annotate(label, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85})
