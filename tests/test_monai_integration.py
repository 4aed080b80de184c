"""The library in MONAI's pipelines and loops."""

import doctest
import re

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor
from monai.losses import DiceLoss
from monai.networks.nets import DynUNet
from monai.transforms import Compose, Flipd, RandFlipd, Spacingd
from scipy.ndimage import distance_transform_edt

from boundary_loss import Boundary, CrossEntropy, Dice, RegionWise, distance_maps, region_wise_map
from boundary_loss.integrations import monai as integration
from boundary_loss.integrations.monai import MonaiLoss, SignedDistanceMapd

RNG = np.random.default_rng(0)
SPACING = (0.5, 1.5, 3.0)


def blob(shape=(12, 10, 6)):
    label = np.zeros(shape, np.int64)
    label[3:8, 2:6, 1:4] = 1
    label[8:10, 5:8, 2:5] = 2
    return label


def item(label, spacing=SPACING):
    return {"label": MetaTensor(torch.tensor(label)[None], affine=torch.diag(torch.tensor([*spacing, 1.0])))}


def signed(mask, spacing):
    inside, outside = (distance_transform_edt(m, sampling=spacing) for m in (mask, ~mask))
    return outside - inside


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_the_map_is_scipys_with_the_spacing_of_the_metadata(dtype):
    data = {"label": item(blob())["label"].to(dtype)}
    phi = SignedDistanceMapd("label", num_classes=3)(data)["label_phi"]
    assert isinstance(phi, MetaTensor) and phi.shape == (3, 12, 10, 6) and phi.dtype == torch.float32
    for k in range(3):
        assert np.allclose(phi[k].numpy(), signed(blob() == k, SPACING), atol=1e-5)
    assert torch.equal(phi.affine, data["label"].affine)


def test_arrays_and_plain_tensors_are_in_voxels_unless_told(tmp_path):
    label = blob()[..., 2]
    for given in (label[None], torch.tensor(label)[None]):
        phi = SignedDistanceMapd("label", num_classes=3)({"label": given})["label_phi"]
        assert not isinstance(phi, MetaTensor) and np.allclose(phi[1].numpy(), signed(label == 1, (1, 1)), atol=1e-5)
    phi = SignedDistanceMapd("label", num_classes=3, spacing=(2.0, 1.0))({"label": label[None]})["label_phi"]
    assert np.allclose(phi[2].numpy(), signed(label == 2, (2, 1)), atol=1e-5)


def test_one_hot_labels_other_keys_kinds_and_ignored_voxels():
    onehot = torch.nn.functional.one_hot(torch.tensor(blob()), 3).movedim(-1, 0)
    maps = SignedDistanceMapd(("a", "b"), map_keys=("za", "zb"), kind="rrw", allow_missing_keys=True)({"a": onehot})
    assert set(maps) == {"a", "za"}
    assert np.array_equal(maps["za"].numpy(), region_wise_map(blob(), 3, "rrw"))
    label = blob()
    label[0, 0, 0] = 255
    phi = SignedDistanceMapd("label", num_classes=3, ignore_index=255)(item(label))["label_phi"]
    assert phi[:, 0, 0, 0].isnan().all() and not phi[:, 1:].isnan().any()
    rrw = SignedDistanceMapd("label", num_classes=3, ignore_index=255, kind="rrw")(item(label))["label_phi"]
    assert rrw[:, 0, 0, 0].isnan().all() and not rrw[:, 1:].isnan().any()


@pytest.mark.parametrize("lazy", [False, True])
def test_flips_after_the_map_move_it_with_the_label(lazy):
    keys = ("label", "label_phi")
    flips = [Flipd(keys, spatial_axis=axis, lazy=lazy) for axis in (0, 2)]
    found = Compose([SignedDistanceMapd("label", num_classes=3), *flips], lazy=lazy)(item(blob()))
    assert np.array_equal(found["label"][0].numpy(), blob()[::-1, :, ::-1])
    anew = distance_maps(found["label"][0].long().numpy(), 3, SPACING)
    assert np.allclose(found["label_phi"].numpy(), anew, atol=1e-5)


def test_what_is_pending_is_carried_out_before_the_map():
    pixdim = (1.0, 1.5, 3.0)
    spaced = [Spacingd("label", pixdim=pixdim, mode="nearest"), SignedDistanceMapd("label", num_classes=3)]
    eager, lazy = (Compose(spaced, lazy=lazy)(item(blob())) for lazy in (False, True))
    assert eager["label"].shape == (1, 6, 10, 6) or eager["label"].shape == (1, 7, 10, 6)
    for found in (eager, lazy):
        phi = distance_maps(found["label"][0].long().numpy(), 3, pixdim)
        assert np.allclose(found["label_phi"].numpy(), phi, atol=1e-5)
    pending = Flipd("label", spatial_axis=0, lazy=True)(item(blob()))
    with pytest.raises(ValueError, match="label: expected no lazy transform pending"):
        SignedDistanceMapd("label", num_classes=3)(pending)


def test_the_map_is_made_once_and_flipped_anew_from_the_cache(monkeypatch):
    made = []
    maps_of = SignedDistanceMapd.maps_of
    monkeypatch.setattr(SignedDistanceMapd, "maps_of", lambda self, *a: made.append(1) or maps_of(self, *a))
    transforms = Compose([SignedDistanceMapd("label", num_classes=3), RandFlipd(("label", "label_phi"), 0.5, 0)])
    transforms.set_random_state(0)
    dataset = CacheDataset([item(blob())], transforms, progress=False)
    seen = set()
    for _ in range(12):
        found = dataset[0]
        seen.add(found["label"].numpy().tobytes())
        anew = distance_maps(found["label"][0].numpy(), 3, SPACING)
        assert np.allclose(found["label_phi"].numpy(), anew, atol=1e-5)
    assert len(made) == 1 and len(seen) == 2


def test_a_label_without_a_class_has_its_zero_map():
    phi = SignedDistanceMapd("label", num_classes=4)(item(blob()))["label_phi"]
    assert not phi[3].any() and phi[1].any()


WRONG = {
    "one axis": ({"label": torch.zeros(3, 4)}, 2, "label: expected a label (C, H, W) or (C, H, W, D)"),
    "no class": ({"label": torch.full((1, 4, 4), 5)}, 3, "expected classes 0 to 2, found 5 to 5"),
    "halves": ({"label": torch.full((1, 4, 4), 0.5)}, 2, "label: expected whole numbers"),
    "no number": ({"label": torch.zeros(1, 4, 4, dtype=torch.long)}, None, "label: expected num_classes"),
    "channels": ({"label": torch.zeros(3, 4, 4, dtype=torch.long)}, 2, "label: expected 1 or 2 channels, found 3"),
    "overlap": ({"label": torch.ones(2, 4, 4, dtype=torch.long)}, 2, "label: expected a one-hot label"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_labels_are_named(name):
    data, num_classes, words = WRONG[name]
    with pytest.raises(ValueError, match=re.escape(words)):
        SignedDistanceMapd("label", num_classes=num_classes)(data)


def test_each_label_has_a_key_for_its_map():
    for names in ("phi", ("phi",), ("a", "b", "c")):
        with pytest.raises(ValueError, match=r"map_keys: expected one for each of \('label', 'other'\), found \('"):
            SignedDistanceMapd(["label", "other"], num_classes=2, map_keys=names)
    assert SignedDistanceMapd("label", num_classes=2, map_keys="phi").map_keys == ("phi",)


def test_losses_under_monais_calling_habits_are_monais():
    logits = torch.tensor(RNG.normal(size=(2, 3, 12, 10, 6))).float()
    label = torch.tensor(np.stack([blob(), blob()[::-1].copy()]))[:, None]
    theirs = DiceLoss(softmax=True, to_onehot_y=True, smooth_nr=1e-5, smooth_dr=1e-5)(logits, label)
    onehot = torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1)
    for target in (label, label.float(), MetaTensor(label.float()), onehot):
        assert MonaiLoss(Dice())(MetaTensor(logits), target).item() == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize("loss", [CrossEntropy(), Boundary(), RegionWise()])
def test_outputs_of_deep_supervision_are_weighted_like_nnunet(loss):
    label = torch.tensor(blob()[None])
    target = label[:, None] if loss.target_kind == "label" else region_wise_map(label, 3, "boundary", SPACING)
    heads = [torch.tensor(RNG.normal(size=(1, 3, 12, 10, 6))).float() for _ in range(3)]
    expected = sum(w * loss(h, target) for w, h in zip((4 / 7, 2 / 7, 1 / 7), heads, strict=True))
    for given in (torch.stack(heads, dim=1), heads):
        assert MonaiLoss(loss)(given, target).item() == pytest.approx(expected.item(), rel=1e-5)
    own = MonaiLoss(loss, head_weights=(1.0, 0.0, 0.0))(heads, target)
    assert own.item() == pytest.approx(loss(heads[0], target).item(), rel=1e-6)
    given = MonaiLoss(loss, head_weights=(3.0, 0.0, 2.0))(heads, target)
    assert given.item() == pytest.approx((3 * loss(heads[0], target) + 2 * loss(heads[2], target)).item(), rel=1e-5)
    with pytest.raises(ValueError, match="head_weights: expected 3, one per output, found 2"):
        MonaiLoss(loss, head_weights=(1.0, 1.0))(heads, target)


def test_coarser_outputs_get_the_nearest_voxels():
    label = torch.arange(16).view(1, 1, 4, 4) % 2
    coarse = torch.zeros(1, 2, 2, 2)
    coarse[:, 1] = 20.0
    fine = torch.where(label == 1, 20.0, -20.0)
    fine = torch.cat([-fine, fine], dim=1)
    # nearest-exact takes the second column of each two: all of class 1
    loss = MonaiLoss(CrossEntropy(), head_weights=(1.0, 1.0))
    assert loss([fine, coarse], label).item() == pytest.approx(0, abs=1e-6)


def test_a_step_of_dynunet_changes_every_output():
    network = DynUNet(2, 1, 3, [3] * 3, [1, 2, 2], [2] * 2, filters=[4, 8, 8], deep_supervision=True, deep_supr_num=1)
    label = torch.tensor(blob((16, 16, 6))[None, ..., 2])
    phi = distance_maps(label, 3, (1.0, 1.0))
    MonaiLoss(Boundary(range(3)))(network(torch.randn(1, 1, 16, 16)), phi).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in network.named_parameters() if "weight" in n)


def test_the_examples_of_the_docstrings_run():
    found = doctest.testmod(integration)
    assert found.attempted > 4 and found.failed == 0
