"""Predictions case by case, and masks of scans on their own grids, of networks whose answers are known."""

import csv
import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import evaluate
from medpy.metric import binary
from raw_files import isles_path, make_wmh
from scipy import ndimage
from torch import nn
from varied_data import SCANS, VAL

import dataloader
import preprocess
import train
from evaluation import prediction, run_metrics
from evaluation.measuring import MeasuringOptions
from sliced_data.meta import read_meta
from utils import InputError


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7, 8])
def test_cases_that_share_a_batch_get_their_own_slices(trained, varied, batch_size):
    """Cases of 5 and 2 slices, beside the network on each slice alone."""
    model = prediction.load_model(trained, "best", torch.device("cpu"))
    val = dataloader.load_slices(read_meta(varied), "val")
    with torch.no_grad():
        alone = torch.cat([model.network(image[None].float()) for image in val.image])
    found = list(prediction.predict_cases(model, val, batch_size))
    assert [len(logits) for logits in found] == [5, 2]
    assert torch.allclose(torch.cat(found), alone, atol=1e-4) and len(alone.flatten(1).unique(dim=0)) == 7


def resampled(volume, shape):
    """(X, Y, Z) on another number of pixels over the same field of view: linear, edges on edges (SciPy)."""
    x, y = ((np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(shape, volume.shape[:2], strict=True))
    grid = np.meshgrid(x, y, indexing="ij")
    return np.stack(
        [ndimage.map_coordinates(volume[..., z], grid, order=1, mode="nearest") for z in range(volume.shape[2])], -1
    )


class Bright(nn.Module):
    """Lesion where the second modality is bright, by logits so steep that where softmax is taken matters."""

    def forward(self, image):
        return torch.cat((torch.zeros_like(image[:, :1]), 40 * (image[:, 1:2] - 0.6)), dim=1)


class Rounding(nn.Module):
    """Logits that are 0 only where the image holds numbers of float16."""

    def forward(self, image):
        rest = 1e5 * (image[:, :1] - image[:, :1].half().float())
        return torch.cat((torch.zeros_like(rest), rest), dim=1)


def with_network(trained, network, case):
    """The run's model with another network, and the scan of a validation case."""
    model = prediction.load_model(trained, "best", torch.device("cpu"))
    raw = Path(model.data).parent / "raw"
    (scan,) = (scan for scan in model.raw.find_cases(raw) if scan.case_id == case)
    return replace(model, network=network), scan, raw


def bright_by_hand(raw, case):
    """What ``Bright`` finds in a scan (X, Y, Z): its softmax resized back; and the softmax of its logits resized back.

    Normalised, resized, rounded, segmented: each step by NumPy and SciPy.
    """
    image = np.asarray(nib.load(isles_path(raw, case, "CT_CBF")).dataobj).astype(np.float64)
    image = (image - image.min()) / (image.max() - image.min())
    logits = 40 * (resampled(image, (32, 32)).astype(np.float16).astype(np.float64) - 0.6)
    softmax, wrong = (resampled(values, SCANS[case][0][:2]) for values in (1 / (1 + np.exp(-logits)), logits))
    return softmax, 1 / (1 + np.exp(-wrong))


@pytest.mark.parametrize("case", VAL)
def test_probabilities_are_resampled_not_logits(trained, case):
    model, scan, raw = with_network(trained, Bright(), case)
    softmax, wrong = bright_by_hand(raw, case)
    classes, probs = prediction.segment(model, scan, batch_size=2)
    assert probs[..., 1] == pytest.approx(softmax, abs=2e-2) and probs.sum(-1) == pytest.approx(1, abs=1e-5)
    assert np.abs(wrong - softmax).max() > 0.1
    assert np.array_equal(classes, probs[..., 1] > probs[..., 0]) and 0 < classes.mean() < 1


@pytest.mark.parametrize("case", VAL)
def test_a_scan_is_rounded_as_its_slices_are(trained, case):
    model, scan, _ = with_network(trained, Rounding(), case)
    _, probs = prediction.segment(model, scan)
    assert probs == pytest.approx(0.5, abs=1e-6)


def measured_natively(run, monkeypatch, network, *flags):
    """The lines of metrics.csv on the scans' own grid, of a network in the run's place."""
    load = run_metrics.load_model
    with monkeypatch.context() as patch:
        patch.setattr(run_metrics, "load_model", lambda *arguments: replace(load(*arguments), network=network))
        evaluate.main(["run", str(run), "--device", "cpu", "--space", "native", *flags])
    return list(csv.DictReader((run / "metrics.csv").open()))


def test_native_metrics_are_medpys_with_the_scans_own_spacing(trained, tmp_path, monkeypatch):
    run = shutil.copytree(trained, tmp_path / "run")
    raw = Path(prediction.load_model(run, "best", torch.device("cpu")).data).parent / "raw"
    sliced = (run / "metrics.csv").read_text()
    rows = measured_natively(run, monkeypatch, Bright())
    assert [row["case_id"] for row in rows] == list(VAL)
    told_apart = 0
    for row in rows:
        shape, spacing = SCANS[row["case_id"]]
        found = nib.load(run / "predictions_native" / f"{row['case_id']}.nii.gz")
        mask = np.asarray(found.dataobj) == 1
        reference = np.asarray(nib.load(isles_path(raw, row["case_id"], "OT")).dataobj) == 1
        assert mask.shape == shape and (mask & reference).any() and (mask ^ reference).any()
        softmax, wrong = bright_by_hand(raw, row["case_id"])
        clear = np.abs(softmax - 0.5) > 0.02
        assert np.array_equal(mask[clear], softmax[clear] > 0.5)
        told_apart += np.count_nonzero(mask[clear] != (wrong[clear] > 0.5))
        assert (row["space"], int(row["n_voxels"])) == ("native", mask.size)
        assert float(row["dsc"]) == pytest.approx(binary.dc(mask, reference))
        for column, metric in (("hd_mm", binary.hd), ("hd95_mm", binary.hd95), ("assd_mm", binary.assd)):
            assert float(row[column]) == pytest.approx(metric(mask, reference, spacing), abs=1e-4)
        difference = np.prod(spacing) * (mask.sum() - reference.sum(dtype=float))
        assert float(row["volume_difference_mm3"]) == pytest.approx(difference, rel=1e-5)
    assert told_apart > 0 and (run / "metrics.csv").read_text() != sliced
    for case in VAL:        # pictures are of the sliced grid
        assert nib.load(run / "predictions" / f"{case}.nii.gz").shape == (32, 32, SCANS[case][0][2])


@pytest.mark.parametrize("case", VAL)
def test_a_new_scan_gets_the_mask_that_was_measured(trained, tmp_path, capsys, case):
    """predict and `run --space native`: the same preprocessing and network; the mask is neither empty nor full."""
    run = shutil.copytree(trained, tmp_path / "run")
    evaluate.main(["run", str(run), "--device", "cpu", "--space", "native"])
    raw = Path(prediction.load_model(run, "best", torch.device("cpu")).data).parent / "raw"
    where = ("--case", str(raw / "TRAINING" / case), "--out", str(tmp_path / "mask.nii"))
    capsys.readouterr()
    evaluate.main(["predict", str(run), *where, "--device", "cpu"])
    one, other = (
        np.asarray(nib.load(path).dataobj)
        for path in (run / "predictions_native" / f"{case}.nii.gz", tmp_path / "mask.nii")
    )
    assert one.shape == SCANS[case][0] and np.array_equal(one, other) and 0 < one.mean() < 0.5
    assert capsys.readouterr().out == f"{tmp_path / 'mask.nii'}: {case}, voxels of lesion {np.count_nonzero(one)}\n"


class Everywhere(nn.Module):
    """Class 1 in every pixel."""

    def forward(self, image):
        return torch.cat((torch.zeros_like(image[:, :1]), torch.ones_like(image[:, :1])), dim=1)


def test_the_ignored_label_leaves_both_masks(tmp_path, monkeypatch):
    """WMH's label 2, of other pathology, where the prediction is everywhere: it is no error then."""
    make_wmh(tmp_path / "raw")
    for case in ("Utrecht/0", "Singapore/50"):
        path = tmp_path / "raw" / case / "wmh.nii.gz"
        image = nib.load(path)
        label = np.asarray(image.dataobj).copy()
        label[1:9, 2:5, 1] = 2
        nib.save(nib.Nifti1Image(label, image.affine, image.header), path)
    split = tmp_path / "split.txt"
    split.write_text("0\n50\n")
    where = ("--source", str(tmp_path / "raw"), "--dest", str(tmp_path / "data"), "--split", str(split))
    preprocess.main(["wmh", *where, "--size", "24", "--jobs", "1"])
    run = tmp_path / "run"
    small = ("--width", "1", "--epochs", "1", "--device", "cpu")
    train.main(["--data", str(tmp_path / "data"), "--out", str(run), *small])
    for ignored in (None, 2, 1):
        flags = () if ignored is None else ("--ignore-label", str(ignored))
        for row in measured_natively(run, monkeypatch, Everywhere(), *flags):
            site = {"0": "Utrecht", "50": "Singapore"}[row["case_id"]]
            label = np.asarray(nib.load(tmp_path / "raw" / site / row["case_id"] / "wmh.nii.gz").dataobj)
            mask, reference = label != ignored, (label == 1) & (label != ignored)
            assert (int(row["n_pred"]), int(row["n_ref"])) == (mask.sum(), reference.sum())
            assert float(row["dsc"]) == pytest.approx(2 * reference.sum() / (mask.sum() + reference.sum()))
            assert row["ignore_label"] == ("" if ignored is None else str(ignored))
            assert (label == 2).sum() == 25 and (label == 1).any()


def test_a_mask_has_no_display_range_of_its_scan(trained, tmp_path):
    """A viewer would show a mask of 0 and 1 as black by the scan's range of Hounsfield units."""
    raw = Path(prediction.load_model(trained, "best", torch.device("cpu")).data).parent / "raw"
    copy = shutil.copytree(raw, tmp_path / "raw")
    for path in copy.rglob("*.nii"):
        content = bytearray(path.read_bytes())
        content[124:132] = struct.pack("<ff", 900, 10)      # cal_max and cal_min
        path.write_bytes(content)
    where = ("--case", str(copy / "TRAINING" / "case_4"), "--out", str(tmp_path / "mask.nii"))
    evaluate.main(["predict", str(trained), *where, "--probabilities", str(tmp_path / "soft.nii"), "--device", "cpu"])
    for name in ("mask.nii", "soft.nii"):
        header = nib.load(tmp_path / name).header
        assert (float(header["cal_min"]), float(header["cal_max"])) == (0, 0)


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("settings", {"engine": "nnunet"}, "expected a run of the project's own training, found one of nnunet, which"),
        ("settings", {"lr": -1.0}, "--lr: expected a positive number, found -1.0"),
        ("meta", {"fit": "stretch"}, "expected the settings of a run, found ValueError('fit stretch')"),
        ("meta", {"resize_labels": "sinc"}, "expected the settings of a run, found ValueError('resize_labels sinc')"),
        ("meta", {"normalise": "log"}, "expected the settings of a run, found ValueError('normalise log')"),
        ("meta", {"normalise": "clip-zscore"}, "found ValueError('intensities of 0 channels')"),
        ("meta", {"normalise": "clip-zscore", "intensities": [[0, 1, 2, 3]]}, "('intensities of 1 channels')"),
    ],
)
def test_a_run_that_this_version_cannot_predict_with_is_named(trained, tmp_path, part, changes, said):
    config = json.loads((trained / "config.json").read_text())
    prediction.describe_run(trained / "config.json")
    config[part] |= changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError) as refusal:
        prediction.describe_run(tmp_path / "config.json")
    assert str(refusal.value).startswith(f"{tmp_path / 'config.json'}: ") and said in str(refusal.value)


def test_what_a_kill_left_of_an_evaluation_goes_with_the_next(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "predictions_native").mkdir()
    left = [run / f"{folder}.unfinished-7.{name}" for folder, name in (
        ("", "metrics.csv"), ("predictions/", "case_4.nii.gz"), ("predictions_native/", "a.nii"))]
    for path in left:
        path.write_text("half")
    mine = run / "predictions" / ".mine"
    mine.write_text("whole")
    evaluate.main(["run", str(run), "--device", "cpu"])
    assert not any(path.exists() for path in left) and mine.read_text() == "whole"


@pytest.mark.parametrize("name", ["predictions", "predictions_native"])
def test_a_link_in_place_of_predictions_is_refused(trained, tmp_path, name):
    run = shutil.copytree(trained, tmp_path / "run")
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "case_4.nii.gz").write_text("mine")
    (labels / ".unfinished-7.case_4.nii.gz").write_text("mine")
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(labels)
    with pytest.raises(InputError, match=f"{name}: expected a folder of this run's own, found a link to .*labels"):
        evaluate.main(["run", str(run), "--device", "cpu"])
    assert {path.read_text() for path in labels.iterdir()} == {"mine"} and len(list(labels.iterdir())) == 2
    assert (run / "metrics.csv").read_bytes() == (trained / "metrics.csv").read_bytes()


def test_the_scans_own_grid_needs_the_raw_scan_of_each_case(trained, varied, tmp_path):
    model = prediction.load_model(trained, "best", torch.device("cpu"))
    meta = read_meta(varied)
    (val,) = dataloader.open_parts(meta, ("val",), device=torch.device("cpu"))
    options = MeasuringOptions("best", "native", None, 2.0, None)
    with pytest.raises(InputError, match="data: expected to know its raw data, found no source in meta.json; --source"):
        run_metrics.read_native(replace(meta, source=None), model, val, options)
    raw = Path(shutil.copytree(meta.source, tmp_path / "raw"))
    assert list(run_metrics.read_native(meta, model, val, replace(options, source=raw))) == list(VAL)
    shutil.rmtree(raw / "TRAINING" / "case_5")
    with pytest.raises(InputError, match=f"{raw}: expected the raw scan of case_5, found none"):
        run_metrics.read_native(meta, model, val, replace(options, source=raw))
