"""Figures of made-up runs beside pictures of them that were looked at and found right, in tests/approved.

A figure that is meant to change: look at the file that the failure names, then copy it over the approved one.
"""

import json
import warnings
from pathlib import Path

import matplotlib
import nibabel as nib
import numpy as np
import pytest
from matplotlib.testing.compare import compare_images
from PIL import Image
from result_folders import case, write_run

from evaluation.gradient_signs import Signs
from reporting import convergence, figures, gradient_signs, pictures, simplex
from reporting.runs import find_runs
from sliced_data.meta import read_meta

APPROVED = Path(__file__).parent / "approved"
HEADER = "epoch,train_loss,train_dsc,val_dsc_3d,val_hd95_3d_mm"
# Root mean square over all pixels, of 255 grey values: none on one machine, and little where rounding differs.
TOLERANCE = 0.2


@pytest.fixture
def looks_right(monkeypatch, tmp_path):
    """Whether the next figures that are saved look like the approved ones."""
    checked = []

    def save(figure, _, name):
        found, approved = tmp_path / f"{name}.png", APPROVED / f"{name}.png"
        figure.savefig(found, dpi=60)
        matplotlib.pyplot.close(figure)
        assert approved.exists(), f"{found}: expected an approved picture, found none in {APPROVED}"
        with Image.open(approved) as one, Image.open(found) as other:
            versions = {image.info["Software"] for image in (one, other)}
        if len(versions) > 1:
            pytest.skip(f"approved with another Matplotlib than {matplotlib.__version__}")
        assert compare_images(str(approved), str(found), TOLERANCE) is None, f"{found} is not like {approved}"
        checked.append(name)
        return []

    for module in (figures, pictures, simplex, gradient_signs, convergence):
        monkeypatch.setattr(module, "save", save)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield
    assert checked


def write_logs(root, courses):
    """A log.csv for each run: its validation DSC by epoch; the other columns follow it."""
    for (row, seed), dsc in courses.items():
        lines = [f"{epoch},{1 - value},{value + 0.1},{value},{40 - 30 * value}" for epoch, value in enumerate(dsc)]
        (root / row / f"seed{seed}" / "log.csv").write_text("\n".join([HEADER, *lines]) + "\n")


def runs_on(root, data, rows, seeds=(0,), **settings):
    """Runs of a sliced data set that have learnt nothing, with metrics for each of its validation cases."""
    meta = read_meta(data)
    cases = [one.case_id for one in meta.cases if one.split == "val"]
    for number, row in enumerate(rows):
        for seed in seeds:
            folder, scores = root / row / f"seed{seed}", [0.5 + 0.1 * number, 0.7 - 0.2 * number]
            lines = [case(name, dsc, 3.0 + number) for name, dsc in zip(cases, scores, strict=True)]
            write_run(folder, lines, {"seed": seed, "data_fingerprint": meta.fingerprint, **settings})
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"data": str(data)}))
    return meta, cases


def test_curves_and_boxes(tmp_path, looks_right):
    for row, seed, dsc in (("gdl", 0, 0.4), ("gdl", 1, 0.6), ("focal", 0, 0.7), ("ce", 0, 0.1)):
        lines = [(str(n), k, dsc + 0.02 * n - 0.1 * (k == "lesion"), 2.0 + n * dsc + 9 * seed, 9.0, 9, 9)
                 for n in range(8) for k in ("gland", "lesion")]
        write_run(tmp_path / row / f"seed{seed}", lines, {"seed": seed})
    write_logs(tmp_path, {
        ("gdl", 0): (0.1, 0.3, 0.4, 0.5, 0.5, 0.6), ("gdl", 1): (0.2, 0.5, 0.4, 0.7, 0.6, 0.8),
        ("focal", 0): (0.0, 0.1, 0.5, 0.4, 0.7, 0.7), ("ce", 0): (0.3, 0.2, 0.1, 0.1, 0.0, 0.1),
    })
    rows = ["gdl", "focal", "ce"]
    figures.write_curves(tmp_path, rows, "curves", smooth=1)
    figures.write_boxes(tmp_path, rows, "boxes")


def test_shares_maps_and_pictures(tmp_path, varied, looks_right):
    rows = ("gdl", "gdl-boundary")
    meta, cases = runs_on(tmp_path, varied, rows)
    for number, row in enumerate(rows):
        for name in cases:
            slices = sorted((meta.root / "val" / "label").glob(f"{name}_*.npy"))
            label = np.stack([np.load(path) for path in slices], axis=-1)
            folder = tmp_path / row / "seed0" / "predictions"
            folder.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(np.roll(label, 2 - number, axis=0), np.eye(4)), folder / f"{name}.nii.gz")
    figures.write_shares(tmp_path, rows, "shares")
    pictures.write_maps(tmp_path, rows, "maps")
    pictures.write_pictures(tmp_path, rows, "pictures")


def test_simplex(tmp_path, looks_right):
    simplex.write_simplex(tmp_path, simplex.losses_of([(12.0, 4.0, -3.0), (10.0, 10.0, -3.0)]), "simplex")


def test_gradient_signs(tmp_path, three_classes, looks_right):
    meta, _ = runs_on(tmp_path, three_classes, ("rw-boundary", "rrw"), seeds=(0, 1))
    counts = np.arange(32 * 32).reshape(32, 32) // 90 % 4
    pixels = np.array([[900, 90, 10], [80, 15, 5], [900, 60, 40]])
    found = {
        row: [
            (run, [Signs(epoch, *pixels * (epoch, 1, run.seed + 1 + 3 * number), (counts + run.seed) % (3 - number))
                   for epoch in (1, 2, 4, 8, 16)])
            for run in find_runs(tmp_path, row)
        ]
        for number, row in enumerate(("rw-boundary", "rrw"))
    }
    runs = {row: [run for run, _ in every] for row, every in found.items()}
    text = gradient_signs.write_table(tmp_path, "signs", found, runs)
    assert text == (tmp_path / "signs.md").read_text() == (APPROVED / "signs.md").read_text()
    gradient_signs.write_maps(tmp_path, "sign-maps", found, meta)
    gradient_signs.write_curves(tmp_path, "sign-curves", found)


def test_convergence(tmp_path, looks_right):
    maps = {"rrw": None, "rw-boundary": "boundary", "gdl": None}
    region_wise = {"region": "none", "contour": "region-wise"}
    settings = {row: region_wise | {"region_wise_map": kind} for row, kind in maps.items()}
    settings["gdl"] = {"region": "gdl", "contour": "none"}
    courses = {(row, seed): [0.2 + 0.1 * epoch - 0.1 * number * (epoch % 2) + 0.05 * seed for epoch in range(6)]
               for number, row in enumerate(maps) for seed in range(3)}
    for row, seed in courses:
        write_run(tmp_path / row / f"seed{seed}", [case("a", 0.5, 3.0)], {"seed": seed, "epochs": 6, **settings[row]})
    write_logs(tmp_path, courses)
    convergence.write_convergence(tmp_path, list(maps), "convergence", baseline="rrw")
    for end in (".md", ".tex"):
        found = tmp_path / f"convergence{end}"
        assert found.read_text() == (APPROVED / found.name).read_text(), f"{found} is not like {APPROVED / found.name}"


