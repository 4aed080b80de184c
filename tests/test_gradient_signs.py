"""Signs of gradients (region-wise paper, section 3.4): of one pixel beside hand-computed values, and of runs."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import evaluate
from matplotlib.colors import to_rgb
from training_runs import run

from boundary_loss import CrossEntropy, RegionWise, region_wise_map
from environment import devices
from evaluation.gradient_signs import (
    PixelLoss,
    autograd_gradient,
    count_negative,
    equation_2,
    largest_slice,
    run_signs,
)
from networks import build_network
from reporting import gradient_signs, simplex
from sliced_data.meta import read_meta
from utils import InputError

TINY = ("--width", "2", "--batch-size", "3", "--epochs", "3", "--lr", "0.01", "--region", "none", "--contour",
        "region-wise")


def by_hand(logits: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Eq. 2 in its first form, pixel by pixel: logits and z (K, N)."""
    found = np.empty_like(logits)
    for i in range(logits.shape[1]):
        y = np.exp(logits[:, i] - logits[:, i].max())
        y /= y.sum()
        for k in range(len(y)):
            found[k, i] = z[k, i] * y[k] * (1 - y[k]) - sum(z[m, i] * y[k] * y[m] for m in range(len(y)) if m != k)
    return found


def label_image() -> np.ndarray:
    label = np.zeros((12, 16), np.uint8)
    label[2:9, 2:7], label[4:11, 7:13], label[0, 15] = 1, 2, 3
    return label


# One pixel ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rrw", "boundary", "random"])
@pytest.mark.parametrize("certainty", [0.1, 3.0, 12.0])
def test_counts_by_autograd_are_those_of_equation_2(kind, certainty):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((4, 12, 16)) if kind == "random" else region_wise_map(label_image(), 4, kind)
    logits = torch.from_numpy(certainty * rng.standard_normal((1, 4, 12, 16)))
    z = torch.from_numpy(z)[None]
    largest = z.abs().amax(dim=1, keepdim=True)
    autograd = autograd_gradient(RegionWise(reduction="none"), logits, z)
    counts = count_negative(autograd, largest)
    assert torch.equal(counts, count_negative(equation_2(logits, z), largest))
    expected = by_hand(logits[0].flatten(1).numpy(), z[0].flatten(1).numpy().astype(float))
    np.testing.assert_allclose(autograd[0].flatten(1), expected, atol=1e-12)
    if certainty < 12:      # no gradient has vanished
        assert np.array_equal(counts.flatten().numpy(), (expected < 0).sum(axis=0))
    assert (counts.max() > 1) == (kind != "rrw")


def test_a_gradient_that_has_vanished_has_no_sign():
    """Where the softmax is 1 to the last digit, all that is left of a component is rounding."""
    logits = torch.tensor([60.0, 0.0, 0.0]).view(1, 3, 1, 1)
    z = torch.tensor([-3.0, 7.1, 4.3], dtype=torch.float64).view(1, 3, 1, 1)
    for gradient in (autograd_gradient(RegionWise(reduction="none"), logits, z), equation_2(logits, z)):
        assert count_negative(gradient, 7.1).item() == 0


@pytest.mark.parametrize("values", [(12, 4, -3), (5, 1, 0), (10, 10, -3), (0, 1, 1), (-2, 0, 9)])
def test_the_share_of_the_simplex_is_its_area(values):
    """Of z1 > z2 > z3, z2's is negative where the mean map value is above it: (z1 - z2) / (z1 - z3) of the area."""
    low, middle, high = sorted(values)
    expected = (high - middle) / (high - low)
    found = PixelLoss.region_wise(values).share_of_several(200_000)
    assert found == pytest.approx(expected, abs=0.005) and (expected > 0 or found == 0)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_cross_entropy_never_has_more_than_one_negative_component(classes):
    assert PixelLoss(classes, 1).share_of_several(50_000) == 0
    probs = np.random.default_rng(0).dirichlet(np.ones(classes), 20).T
    expected = probs - np.eye(classes)[:, [1]]          # softmax minus one-hot
    np.testing.assert_allclose(PixelLoss(classes, 1).gradient(probs), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("values", "component", "point", "value"),
    [
        ((0, 1, 1), 0, (0.5, 0.25, 0.25), -0.25),       # Fig. 4
        ((10, 10, -3), 2, (0.25, 0.25, 0.5), -3.25),
        ((12, 4, -3), 1, (7 / 15, 0, 8 / 15), 0.0),
    ],
)
def test_a_saddle_has_no_slope_along_the_simplex(values, component, point, value):
    loss = PixelLoss.region_wise(values)
    found = loss.saddle(component)
    assert found == pytest.approx(point)

    def at(probs):
        """Eq. 2, a polynomial, which goes on beyond the simplex."""
        return probs[component] * (values[component] - probs @ values)

    assert at(found) == pytest.approx(value, abs=1e-12)
    for direction in ((1, -1, 0), (0, 1, -1), (2, -1, -1)):
        step = 1e-5 * np.array(direction)
        assert (at(found + step) - at(found - step)) / 2e-5 == pytest.approx(0, abs=1e-7)


def test_most_components_have_no_saddle_within_the_simplex():
    assert [PixelLoss.region_wise((12, 4, -3)).saddle(k) for k in (0, 2)] == [None, None]
    assert [PixelLoss.region_wise((10, 10, -3)).saddle(k) for k in (0, 1)] == [None, None]
    assert [PixelLoss(3, 0).saddle(k) for k in range(3)] == [None] * 3


# Runs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signed(three_classes, tmp_path_factory):
    """Two rows of two seeds, three epochs each, with snapshots after the first and the last."""
    root = tmp_path_factory.mktemp("signed") / "glands"
    for row, kind in (("rw-boundary", "boundary"), ("rrw", "rrw")):
        for seed in (0, 1):
            out = root / row / f"seed{seed}"
            flags = ("--region-wise-map", kind, "--seed", str(seed), "--snapshot-epochs", "1", "3")
            run(three_classes, out, *TINY, *flags)
            evaluate.main(["run", str(out), "--device", "cpu"])
    return root


def expected_counts(data, folder, name, kind):
    """Negative components (N, H, W) and labels of the validation slices, from the files."""
    network = build_network("unet", 2, 3, width=2)
    network.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True)["model"])
    network.eval()
    counts, labels = [], []
    spacings = {row["case_id"]: (float(row["spacing_x_mm"]), float(row["spacing_y_mm"]))
                for row in csv.DictReader((data / "cases.csv").open())}
    for path in sorted((data / "val" / "label").glob("*.npy")):
        label = np.load(path)
        image = np.load(data / "val" / "image" / path.name).astype(np.float32)
        with torch.no_grad():
            logits = network(torch.from_numpy(image)[None])[0].double().numpy()
        z = region_wise_map(label, 3, kind, spacing=spacings[path.stem.rsplit("_", 1)[0]]).astype(float)
        gradient = by_hand(logits.reshape(3, -1), z.reshape(3, -1)).reshape(z.shape)
        counts.append((gradient < -1e-12 * np.abs(z).max(axis=0)).sum(axis=0))
        labels.append(label)
    return np.stack(counts), np.stack(labels)


@pytest.mark.parametrize("row", ["rw-boundary", "rrw"])
def test_counts_of_a_run_are_those_of_its_files(signed, three_classes, row):
    meta, folder = read_meta(three_classes), signed / row / "seed1"
    found = list(run_signs(folder, [1, 3], meta, torch.device("cpu")))
    assert [signs.epoch for signs in found] == [1, 3]
    for signs, name in zip(found, ("epoch0001", "epoch0003"), strict=True):
        counts, labels = expected_counts(three_classes, folder, name, "rrw" if row == "rrw" else "boundary")
        assert signs.pixels.tolist() == np.bincount(counts.ravel(), minlength=3).tolist()
        assert signs.foreground.tolist() == np.bincount(counts[labels > 0], minlength=3).tolist()
        assert signs.by_equation_2.tolist() == signs.pixels.tolist()
        assert np.array_equal(signs.shown, counts[(labels > 0).sum(axis=(1, 2)).argmax()])
        assert (signs.pixels[2] > 0) == (row == "rw-boundary")
    assert np.array_equal(found[0].pixels, found[1].pixels) == (row == "rrw")


def test_gradients_of_runs_leave_figures_and_a_table(signed, three_classes, capsys):
    evaluate.main(["gradients", str(signed), "--rows", "rw-boundary", "rrw", "--name", "g", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "z = [12, 4, -3], class 3 true: more than one negative component on 53." in printed
    assert "cross-entropy, class 3 true: more than one negative component on 0.0 %" in printed
    for name in ("g", "g-maps", "g-epochs"):
        assert (signed / f"{name}.png").stat().st_size > 10_000 and (signed / f"{name}.pdf").exists()
    lines = list(csv.DictReader((signed / "g-epochs.csv").open()))
    assert [(line["row"], line["seed"], line["epoch"]) for line in lines] == [
        (row, seed, epoch) for row in ("rw-boundary", "rrw") for seed in "01" for epoch in "13"]
    counts, _ = expected_counts(three_classes, signed / "rw-boundary" / "seed0", "epoch0003", "boundary")
    assert float(lines[1]["share_more"]) == pytest.approx((counts > 1).mean())
    assert all(line["share_more"] == line["share_more_equation_2"] for line in lines)
    assert all(float(line["share_more"]) == 0 for line in lines[4:])


def test_what_is_rounding_is_measured_by_the_largest_value_of_a_map():
    assert PixelLoss.region_wise((12, 4, -3)).largest == 12 and PixelLoss.region_wise((1, 0, -7)).largest == 7


def test_without_rows_the_simplex_alone_is_drawn(tmp_path, capsys):
    evaluate.main(["gradients", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gradients.pdf", "gradients.png"]
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'gradients.png'}\n{tmp_path / 'gradients.pdf'}\n")


def test_map_values_and_seeds_are_those_asked_for(signed, capsys):
    flags = ("--map-values", "0", "5", "1", "--map-values", "1", "1", "0", "--seeds", "1", "--name", "asked")
    evaluate.main(["gradients", str(signed), "--rows", "rrw", *flags])
    printed = capsys.readouterr().out
    assert "z = [0, 5, 1], class 1 true: more than one negative component on 80." in printed      # (5 - 1) / (5 - 0)
    assert "z = [1, 1, 0], class 3 true" in printed and "cross-entropy, class 1 true" in printed
    assert "[12, 4, -3]" not in printed
    assert {line["seed"] for line in csv.DictReader((signed / "asked-epochs.csv").open())} == {"1"}


def test_the_device_of_the_gradients_is_the_one_asked_for(signed, monkeypatch):
    asked = []

    def select(name):
        asked.append(name)
        raise InputError("asked")

    monkeypatch.setattr(devices, "select_device", select)
    for flags in (["--device", "cuda"], []):
        with pytest.raises(InputError, match="^asked$"):
            evaluate.main(["gradients", str(signed), "--rows", "rrw", "--seeds", "0", "--name", "d", *flags])
    assert asked == ["cuda", "auto"]


def test_rows_that_have_no_such_gradients_are_refused(signed, results, three_classes, tmp_path):
    with pytest.raises(InputError, match=r"expected snapshots, found none; train.py --snapshot-epochs keeps them"):
        evaluate.main(["gradients", str(results), "--rows", "gdl", "--device", "cpu"])
    flags = ("--region", "gdl", "--contour", "none", "--snapshot-epochs", "1")
    run(three_classes, tmp_path / "gdl" / "seed0", *TINY, *flags)
    evaluate.main(["run", str(tmp_path / "gdl" / "seed0"), "--device", "cpu"])
    with pytest.raises(InputError, match=r"expected a run with the region-wise loss over all classes, found none"):
        evaluate.main(["gradients", str(tmp_path), "--rows", "gdl", "--device", "cpu"])
    assert not list(tmp_path.glob("*.*")) and not list(results.glob("gradients*"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("1", "2"), "expected three numbers, one per class, found 1 2"),
        (("1", "2", "nan"), "expected three numbers, one per class, found 1 2 nan"),
        (("4", "4", "4"), "expected values that differ, found 4 4 4, whose gradient is 0"),
    ],
)
def test_map_values_that_are_none_are_refused(tmp_path, values, words):
    with pytest.raises(InputError, match=words):
        evaluate.main(["gradients", str(tmp_path), "--map-values", *values])
    assert not list(tmp_path.iterdir())


# Figures ------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """The figure that a function draws, before it is written."""
    kept = []
    for module in (simplex, gradient_signs):
        monkeypatch.setattr(module, "save", lambda figure, *_: kept.append(figure) or [])
    return kept


def test_panels_show_the_components_and_mark_the_saddles(drawn, tmp_path):
    losses = simplex.losses_of([(12.0, 4.0, -3.0), (10.0, 10.0, -3.0)])
    simplex.write_simplex(tmp_path, losses, "t")
    panels = drawn[0].axes[:9]
    titles = [f"component {k}" for k in (1, 2)] + ["component 3, of the true class"]
    assert [axis.get_title() for axis in panels] == titles * 3
    marks = [[line for line in axis.lines if line.get_marker() == "+"] for axis in panels]
    assert [len(lines) for lines in marks] == [0, 1, 0, 0, 0, 1, 0, 0, 0]
    # 7/15 of class 1 at (0, 0), 8/15 of class 3 at (1/2, sqrt(3)/2).
    assert np.ravel(marks[1][0].get_data()) == pytest.approx([4 / 15, 8 / 15 * np.sqrt(0.75)])
    assert [text.get_text() for text in panels[5].texts if "class" not in text.get_text()] == ["-3.25"]


def test_the_lattice_covers_the_simplex():
    triangles, probs = simplex.lattice()
    assert probs.sum(axis=0) == pytest.approx(1) and probs.min() > 0
    corners = np.stack([triangles.x, triangles.y], axis=1)[triangles.triangles]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum() / 2
    assert area == pytest.approx(np.sqrt(3) / 4)


def test_maps_and_curves_show_the_counts(signed, three_classes, drawn, tmp_path):
    gradient_signs.write_signs(signed, ["rw-boundary", "rrw"], "d", seeds=None, device=torch.device("cpu"))
    maps, curves = drawn
    assert [axis.get_title() for axis in maps.axes[:3]] == ["reference", "1 epoch", "3 epochs"]
    assert [axis.get_ylabel() for axis in maps.axes[::3]] == [
        "rw-boundary\nseed 0", "rw-boundary\nseed 1", "rrw\nseed 0", "rrw\nseed 1"]
    counts, labels = expected_counts(three_classes, signed / "rw-boundary" / "seed1", "epoch0003", "boundary")
    shown = maps.axes[5].images[0].get_array()
    window = gradient_signs.read_shown(read_meta(three_classes)).window
    assert np.array_equal(shown, counts[(labels > 0).sum(axis=(1, 2)).argmax()][window].T)
    mean = [curves.axes[0].lines[0].get_ydata()[-1]]
    seeds = [curves.axes[0].lines[place].get_ydata()[-1] for place in (1, 2)]
    assert seeds[1] == pytest.approx(100 * (counts > 1).mean()) and mean == pytest.approx([np.mean(seeds)])
    assert curves.axes[0].lines[3].get_ydata() == pytest.approx([0, 0])


@pytest.mark.parametrize(
    ("most", "words"),
    [(1, ["0", "1"]), (3, [*"0123"]), (4, [*"01234"]), (5, [*"0123", "4 or more"])],
)
def test_the_key_of_the_counts(most, words):
    key = gradient_signs.count_key(most)
    assert [patch.get_label() for patch in key] == words
    assert [patch.get_facecolor()[:3] for patch in key] == [to_rgb(c) for c in gradient_signs.COUNT_COLOURS[: len(key)]]


def test_the_slice_that_is_shown_has_the_most_foreground():
    label = torch.zeros(4, 3, 3, dtype=torch.uint8)
    label[1, 0, :2], label[2, :, 0], label[3] = 1, 2, 255       # what is ignored is none
    assert largest_slice(label) == 2


def test_at_most_so_many_epochs_are_shown():
    assert gradient_signs.spread([1, 2, 5], 4) == [1, 2, 5]
    assert gradient_signs.spread([1, 2, 5, 10, 20, 50, 100], 4) == [1, 5, 20, 100]


def test_a_pixel_of_the_loss_itself_counts_alike():
    """The mean of a batch has the same signs as the sum that the counts are made of."""
    logits = torch.randn(2, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 5, 5)))
    leaf = logits.clone().requires_grad_()
    RegionWise()(leaf, z).backward()
    gradient = autograd_gradient(RegionWise(reduction="none"), logits, z)
    torch.testing.assert_close(gradient / z.numel(), leaf.grad)
    label = torch.zeros(2, 5, 5, dtype=torch.long)
    assert count_negative(autograd_gradient(CrossEntropy(reduction="none"), logits, label), 1.0).max() == 1


def test_maps_are_of_epochs_that_all_runs_have(tmp_path):
    found = {row: [(None, [SimpleNamespace(epoch=epoch) for epoch in epochs])]
             for row, epochs in (("a", (1, 3)), ("b", (2, 4)))}
    with pytest.raises(InputError, match="expected snapshots after the same epochs, found none that all runs have"):
        gradient_signs.write_maps(tmp_path, "t", found, None)
