"""A voxel whose class nobody knows counts in no map, no loss and no metric."""

import csv
import json
import shutil

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest
import torch
from commands import evaluate
from medpy.metric import binary
from raw_files import call, make_nnunet
from scipy import ndimage
from training_runs import run

import dataloader
import preprocess
import train
from losses import CONTOUR_LOSSES, REGION_LOSSES
from reporting import page, pictures, runs
from sliced_data.maps import region_wise_maps, signed_maps
from sliced_data.meta import read_meta
from training.settings import Settings
from training.trainer import Trainer

IGNORED = 255


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("ignored")
    make_nnunet(root / "raw")
    (root / "split.txt").write_text("b_2\n")
    preprocess.main(["mydata", "--layout", "nnunet", "--source", str(root / "raw"), "--dest", str(root / "data"),
                     "--size", "24", "--jobs", "1", "--split", str(root / "split.txt")])
    return root / "data"


def stack(data, part, kind, case_id):
    return np.stack([np.load(path) for path in sorted((data / part / kind).glob(f"{case_id}_????.npy"))])


def signed(mask, ignored, spacing):
    """SciPy's signed map, its distances to voxels whose class is known; 0 elsewhere."""
    if not mask.any() or (mask | ignored).all():
        return np.zeros(mask.shape)
    outside, inside = (ndimage.distance_transform_edt(m, sampling=spacing) for m in (~mask, mask | ignored))
    return np.where(ignored, 0, np.where(mask, -inside, outside))


def test_stored_maps_are_those_of_the_known_classes_and_0_where_nothing_is_known(data):
    label = stack(data, "val", "label", "b_2")
    ignored = label == IGNORED
    assert ignored.any() and set(np.unique(label)) == {0, 1, 2, IGNORED}
    spacing = read_meta(data).cases[0].spacing
    found = {kind: stack(data, "val", kind, "b_2") for kind in ("phi2d", "phi3d")}
    for k in range(3):
        mask = label == k
        in_3d = signed(mask, ignored, (spacing[2], *spacing[:2]))
        assert np.allclose(found["phi3d"][:, k], in_3d, rtol=1e-3, atol=1e-3)
        in_2d = np.stack([signed(*pair, spacing[:2]) for pair in zip(mask, ignored, strict=True)])
        assert np.allclose(found["phi2d"][:, k], in_2d, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("convention", ["paper", "authors"])
def test_a_border_of_which_nothing_is_known_is_as_if_it_were_not_there(convention):
    label = np.zeros((9, 9), np.uint8)
    label[2:6, 2:5] = 1
    without = signed_maps(label[:7], 2, (1.0, 1.0), convention=convention)
    label[7:] = IGNORED
    found = signed_maps(label, 2, (1.0, 1.0), convention=convention)
    assert np.array_equal(found[:, :7], without) and not found[:, 7:].any()
    for kind in ("rrw", "ac", "boundary"):
        found = region_wise_maps(label, 2, (1.0, 1.0), kind=kind)
        assert np.array_equal(found[:, :7], region_wise_maps(label[:7], 2, (1.0, 1.0), kind=kind))
        assert not found[:, 7:].any()
    assert not signed_maps(np.full((4, 4), IGNORED, np.uint8), 2, (1.0, 1.0), convention=convention).any()


@pytest.mark.parametrize("names", [
    *((region, "none") for region in REGION_LOSSES), *(("none", contour) for contour in CONTOUR_LOSSES),
], ids="-".join)
def test_what_is_predicted_on_ignored_pixels_changes_no_loss_of_a_run(data, names):
    meta = read_meta(data)
    settings = Settings(region=names[0], contour=names[1], width=4, epochs=1, precision="fp32")
    objective = Trainer(settings, meta, torch.device("cpu")).objective
    part = dataloader.load_slices(meta, "val", maps=objective.map_name(maps="2d", region_wise=None))
    batch = part.take(torch.arange(len(part))).prepared()
    logits = torch.randn((len(part), 3, 24, 24), generator=torch.Generator().manual_seed(0))
    ignored = (batch.label == IGNORED)[:, None].expand_as(logits)
    found = []
    for fill in (0.0, 9.0):
        leaf = logits.masked_fill(ignored, fill).requires_grad_()
        terms = objective.terms(leaf, batch.label, batch.maps, batch.spacing)
        value = terms[names[0] == "none"]
        value.backward()
        found.append((value.item(), leaf.grad))
        assert not leaf.grad[ignored].any() and leaf.grad[~ignored].any()
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])


def test_the_boundary_loss_is_the_mean_over_the_known_pixels(data):
    meta = read_meta(data)
    trainer = Trainer(
        Settings(region="none", contour="boundary", width=4, epochs=1, precision="fp32"), meta, torch.device("cpu")
    )
    part = dataloader.load_slices(meta, "val", maps="phi2d")
    batch = part.take(torch.arange(len(part))).prepared()
    logits = torch.randn((len(part), 3, 24, 24), generator=torch.Generator().manual_seed(0))
    _, found = trainer.objective.terms(logits, batch.label, batch.maps, batch.spacing)
    known = (batch.label != IGNORED)[:, None].expand(-1, 2, -1, -1)
    assert found.item() == pytest.approx((logits.softmax(1) * batch.maps)[:, 1:][known].mean().item(), rel=1e-5)


def test_training_and_evaluation_count_the_known_voxels(data, tmp_path):
    (row,) = run(data, tmp_path / "run", "--region", "ce", "--epochs", "1", "--width", "4")
    evaluate.main(["run", str(tmp_path / "run"), "--device", "cpu"])
    label = np.moveaxis(stack(data, "val", "label", "b_2"), 0, -1)
    prediction = np.asarray(nib.load(tmp_path / "run" / "predictions" / "b_2.nii.gz").dataobj)
    known = label != IGNORED
    spacing = read_meta(data).cases[0].spacing
    lines = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    for line in lines:
        one, other = (prediction == int(line["class_index"])) & known, (label == int(line["class_index"])) & known
        assert int(line["n_pred"]) == one.sum() and int(line["n_ref"]) == other.sum()
        assert float(line["dsc"]) == pytest.approx(binary.dc(one, other))
        if one.any():
            assert float(line["hd_mm"]) == pytest.approx(binary.hd(one, other, voxelspacing=spacing), rel=1e-5)
    mean = np.mean([float(line["dsc"]) for line in lines])
    assert float(row["val_dsc_3d"]) == pytest.approx(mean, abs=1e-6)


class Everywhere(torch.nn.Module):
    """Predicts class 1 in every pixel."""

    def forward(self, image):
        return torch.stack((0 * image[:, 0], 0 * image[:, 0] + 9, 0 * image[:, 0]), dim=1)


def test_a_prediction_on_ignored_voxels_is_no_false_positive(data):
    trainer = Trainer(Settings(region="ce", width=4, epochs=1, precision="fp32"), read_meta(data), torch.device("cpu"))
    trainer.forward = Everywhere()
    found = trainer.validate((1.0, 0.0))
    label = stack(data, "val", "label", "b_2")
    known = (label != IGNORED).sum()
    gland = (label == 1).sum()
    assert found["val_dsc_3d_gland"] == pytest.approx(2 * gland / (gland + known))


def test_255_is_no_class_where_every_voxel_is_known(sliced, tmp_path, monkeypatch, capsys):
    copy = shutil.copytree(sliced, tmp_path / "isles")
    path = next((copy / "val" / "label").iterdir())
    label = np.load(path)
    label[0, 0] = IGNORED
    np.save(path, label)
    command = ("--data", copy, "--out", tmp_path / "run", "--device", "cpu")
    assert call(train, *command, monkeypatch=monkeypatch) == 2
    assert "expected classes 0 to 1, found 255" in capsys.readouterr().err


@pytest.fixture(scope="module")
def everywhere(data, tmp_path_factory):
    """A finished run that predicts class 1 in every voxel."""
    out = tmp_path_factory.mktemp("pictures") / "results" / "mydata" / "ce" / "seed0"
    run(data, out, "--region", "ce", "--epochs", "1", "--width", "4")
    evaluate.main(["run", str(out), "--device", "cpu"])
    path = out / "predictions" / "b_2.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.ones(image.shape, np.uint8), image.affine, image.header), path)
    return out.parent.parent


def test_pictures_fill_no_error_where_the_class_is_not_known(data, everywhere, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "draw_errors", lambda axis, *masks: drawn.append(masks))
    meta, (one,) = read_meta(data), runs.find_runs(everywhere, "ce", [0])
    picture = pictures.read_picture(meta, "b_2", one)
    label = stack(data, "val", "label", "b_2")[picture.z]
    assert (label == IGNORED).any() and np.array_equal(picture.label, np.where(label == IGNORED, 0, label))
    figure, panels = plt.subplots(1, 3)
    pictures.draw_case(panels, "case", picture, {"ce": one}, 3)
    plt.close(figure)
    window = picture.window
    ((prediction, reference),) = drawn
    assert np.array_equal(prediction, (label != IGNORED)[window].astype(np.uint8))
    assert np.array_equal(reference, np.where(label == IGNORED, 0, label)[window])


def test_the_page_has_no_mask_where_the_class_is_not_known(data, everywhere, tmp_path):
    slices, (one,) = dataloader.load_slices(read_meta(data), "val"), runs.find_runs(everywhere, "ce", [0])
    page.write_cases(tmp_path / "slices", slices, {"ce": one}, 3)
    text = (tmp_path / "slices" / "0.js").read_text()
    reference, prediction = json.loads(text[text.index("["):].rstrip().removesuffix(");"))
    label = slices.label.numpy()
    for k in (1, 2):
        assert [sum(one[k - 1][1::2]) for one in reference] == (label == k).sum(axis=(1, 2)).tolist()
    assert [sum(one[0][1::2]) for one in prediction] == (label != IGNORED).sum(axis=(1, 2)).tolist()


def test_maps_are_drawn_of_the_classes(everywhere):
    evaluate.main(["maps", str(everywhere), "--rows", "ce", "--name", "maps"])
    assert (everywhere / "maps.png").exists()
