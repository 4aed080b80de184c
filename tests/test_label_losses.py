"""Losses of labels as nnU-Net calls them, against maps and means computed one by one; nnU-Net is not needed."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from boundary_loss import (
    Boundary,
    Dice,
    GeneralizedDice,
    Rebalance,
    RegionWise,
    RegionWiseCrossEntropy,
    distance_maps,
    region_wise_map,
)
from boundary_loss.integrations import nnunet_command
from boundary_loss.integrations.label_losses import (
    DEPTH_STEPS,
    DeepSupervision,
    LabelLoss,
    depth_channel,
    map_of_depth,
    scale_weights,
)

K, SPACING = 3, (3.0, 0.5, 1.5)


def make_label(*, ignored=False):
    """(B, 1, D, H, W) int16 as nnU-Net's loader has it; class 2 is absent from the second image."""
    label = torch.zeros(2, 1, 8, 16, 12, dtype=torch.int16)
    label[:, :, 2:6, 3:12, 2:9] = 1
    label[0, :, 3:5, 6:10, 4:7] = 2
    if ignored:
        label[:, :, :, :2] = K
    return label


def make_logits(label):
    torch.manual_seed(0)
    return torch.randn(2, K, *label.shape[2:], requires_grad=True)


def signed(mask, spacing):
    if not mask.any():
        return np.zeros(mask.shape)
    inside, outside = (distance_transform_edt(m, sampling=spacing) for m in (mask, ~mask))
    return outside - inside


def test_the_boundary_term_is_scipys_in_mm_and_a_class_that_is_absent_has_the_zero_map():
    label, logits = make_label(), make_logits(make_label())
    phi = np.stack([[signed(image[0] == k, SPACING) for k in range(K)] for image in label.numpy()])
    probs = logits.softmax(1).detach().numpy()
    expected = (probs[:, 1:] * phi[:, 1:]).mean()
    assert not phi[1, 2].any()
    assert LabelLoss(None, Boundary())(logits, label, SPACING).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [RegionWise, RegionWiseCrossEntropy])
def test_the_region_wise_terms_have_the_rectified_map_in_mm(loss):
    label, logits = make_label(), make_logits(make_label())
    maps = torch.stack([torch.from_numpy(region_wise_map(image[0].numpy(), K, "rrw", SPACING)) for image in label])
    found = LabelLoss(None, loss())(logits, label, SPACING)
    assert found.item() == pytest.approx(loss()(logits, maps).item(), rel=1e-5)


def test_the_weights_follow_the_epochs_and_one_loss_alone_weighs_1():
    label, logits = make_label(), make_logits(make_label())
    region, contour = GeneralizedDice(), Boundary()
    terms = region(logits, label).item(), contour.from_labels(logits, label, SPACING).item()
    loss = LabelLoss(region, contour, Rebalance(0.01, 0.01))
    for epoch, weights in ((0, (0.99, 0.01)), (9, (0.9, 0.1)), (200, (0.01, 0.99))):
        loss.set_epoch(epoch)
        expected = weights[0] * terms[0] + weights[1] * terms[1]
        assert loss(logits, label, SPACING).item() == pytest.approx(expected, rel=1e-5)
    alone = LabelLoss(region, None, Rebalance(0.01, 0.01))
    alone.set_epoch(200)
    assert alone(logits, label).item() == pytest.approx(terms[0], rel=1e-6)


@pytest.mark.parametrize(
    "loss", [
        LabelLoss(GeneralizedDice(ignore_index=K), Boundary(ignore_index=K)),
        LabelLoss(None, RegionWise(ignore_index=K)),
        LabelLoss(None, RegionWise(ignore_index=K), maps="volume"),
        LabelLoss(Dice(ignore_index=K), None),
    ],
)
def test_an_ignored_voxel_has_no_part_in_value_and_gradient(loss):
    label = make_label(ignored=True)
    logits = make_logits(label)
    if loss.maps == "volume":
        depth = torch.stack([depth_channel(image[0], K, SPACING, ignore_index=K)[None] for image in label])
        label = torch.cat([label, depth], dim=1)
    value = loss(logits, label, SPACING)
    value.backward()
    assert value.isfinite() and not logits.grad[:, :, :, :2].any() and logits.grad[:, :, :, 2:].abs().min() >= 0
    changed = logits.detach().clone()
    changed[:, :, :, :2] = 99.0
    assert loss(changed, label, SPACING).item() == pytest.approx(value.item(), rel=1e-6)


def test_each_scale_of_deep_supervision_is_measured_in_its_own_mm():
    label, weights = make_label(), scale_weights(3)
    assert weights == [2 / 3, 1 / 3, 0.0]
    half = label[:, :, :, ::2, ::2].contiguous()
    torch.manual_seed(1)
    logits = [torch.randn(2, K, *target.shape[2:]) for target in (label, half, half)]
    wrapped = DeepSupervision(LabelLoss(None, Boundary()), weights, SPACING)
    fine = Boundary()(logits[0], distance_maps(label[:, 0], K, SPACING))
    coarse = Boundary()(logits[1], distance_maps(half[:, 0], K, (3.0, 1.0, 3.0)))
    found = wrapped(logits, [label, half, half]).item()
    assert found == pytest.approx((2 / 3 * fine + 1 / 3 * coarse).item(), rel=1e-5)
    single = DeepSupervision(LabelLoss(None, Boundary()), [1.0], SPACING)
    assert single(logits[0], label).item() == pytest.approx(fine.item(), rel=1e-6)


def test_a_depth_beside_the_label_makes_the_map_of_the_whole_volume():
    label = make_label()
    depth = torch.stack([depth_channel(image[0], K, SPACING)[None] for image in label])
    maps = torch.stack([torch.from_numpy(region_wise_map(image[0].numpy(), K, "rrw", SPACING)) for image in label])
    assert depth.dtype == torch.int16 and 0 < depth.max() <= DEPTH_STEPS
    assert torch.allclose(map_of_depth(label, depth, K), maps, atol=1 / DEPTH_STEPS)
    # A patch has the volume's depths, not its own.
    patch = (slice(None), slice(None), slice(3, 5), slice(4, 8), slice(3, 8))
    logits = make_logits(label)[patch]
    both = torch.cat([label, depth], dim=1)[patch]
    losses = (LabelLoss(None, RegionWise(), maps=kind) for kind in ("volume", "paper"))
    of_volume, of_patch = (loss(logits, both, SPACING) for loss in losses)
    assert of_volume.item() == pytest.approx(RegionWise()(logits, maps[patch]).item(), abs=1e-4)
    assert abs(of_volume.item() - of_patch.item()) > 0.01


def test_a_depth_is_0_where_a_volume_was_padded_or_is_ignored():
    label = make_label(ignored=True)[0, 0]
    label[0] = -1
    depth = depth_channel(label, K, SPACING, ignore_index=K)
    assert not depth[0].any() and not depth[1:, :2].any() and depth[3, 4, 4] > 0


WRONG = {
    "no loss": (lambda: LabelLoss(None, None), "expected a regional or a contour loss"),
    "a contour loss as the region": (lambda: LabelLoss(Boundary(), None), "region: expected a loss of labels"),
    "a region loss as the contour": (lambda: LabelLoss(None, Dice()), "contour: expected a loss of maps"),
    "other maps": (lambda: LabelLoss(None, RegionWise(), maps="2d"), "maps: expected paper or authors-region-wise"),
    "ignored voxels in the authors' maps": (
        lambda: LabelLoss(None, RegionWise(ignore_index=3), maps="authors-region-wise"), "found an ignore label",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_go_together_is_refused(name):
    make, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        make()


def command(*arguments):
    return nnunet_command.main(list(map(str, arguments)))


def test_the_command_helps_under_its_own_name(capsys):
    with pytest.raises(SystemExit):
        command("--help")
    assert capsys.readouterr().out.startswith("usage: boundary-loss-nnunet ")


def test_the_command_writes_one_file_of_its_own_and_removes_it(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("x = 1\n")
    for _ in range(2):
        assert command("install", "--folder", tmp_path) == 0
    written = (tmp_path / "boundary_loss_trainers.py").read_text()
    compile(written, "boundary_loss_trainers.py", "exec")
    assert all(f" {name},\n" in written for name in nnunet_command.TRAINERS)
    assert f"export nnUNet_extTrainer={tmp_path}" in capsys.readouterr().out
    assert command("uninstall", "--folder", tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_the_command_touches_no_file_of_others(tmp_path, capsys):
    other = tmp_path / "boundary_loss_trainers.py"
    other.write_text("mine = True\n")
    for action in ("install", "uninstall"):
        assert command(action, "--folder", tmp_path) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "expected a file of boundary-loss-nnunet, found another" in error
    assert other.read_text() == "mine = True\n"
    assert command("install", "--folder", tmp_path / "nowhere") == 2
    assert "expected a folder, found nothing" in capsys.readouterr().err
