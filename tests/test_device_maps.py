"""Maps of batches of tensors are SciPy's, image by image: by the CPU's transform and by that of other devices."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from boundary_loss import Boundary, batch_maps, distance_maps, edt, region_wise_map, transform, unsigned_distance
from boundary_loss.distance import REGION_WISE_KINDS

SHAPES = {"1d": (3, 17), "2d": (3, 13, 29), "3d": (2, 7, 14, 11)}
SPACING = torch.tensor([[0.7, 1.3, 2.1], [3.0, 0.4, 1.2], [2.0, 1.7, 1.0]])


@pytest.fixture(params=["cpu", "device"])
def route(request, monkeypatch):
    """The CPU's transform, or that of any other device, here with tensors of the CPU."""
    if request.param == "device":
        def on_device(mask, spacing):
            return transform._transform_separable(mask, transform._spacing_rows(spacing, mask.device))

        monkeypatch.setattr(batch_maps, "edt", on_device)
    return request.param


def random_labels(shape, num_classes: int, seed: int = 0) -> torch.Tensor:
    """Blobs; the last image is of class 0 alone, the one before lacks the last class."""
    rng = np.random.default_rng(seed)
    label = rng.integers(num_classes, size=[shape[0], *[n // 2 + 1 for n in shape[1:]]])
    for axis, n in enumerate(shape[1:], start=1):
        label = label.repeat(2, axis=axis).take(range(n), axis=axis)
    label[-1] = 0
    label[-2] = label[-2].clip(max=max(0, num_classes - 2))
    return torch.from_numpy(label)


def scipy_map(mask: np.ndarray, spacing) -> np.ndarray:
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    outside, inside = (ndimage.distance_transform_edt(m, sampling=spacing) for m in (~mask, mask))
    return outside - inside


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("num_classes", [1, 2, 3, 5])
@pytest.mark.parametrize("name", SHAPES)
def test_maps_of_a_batch_are_scipys_with_a_spacing_for_each_image(name, num_classes, dtype, route):
    label = random_labels(SHAPES[name], num_classes)
    spacing = SPACING[: len(label), : label.ndim - 1]
    found = distance_maps(label.to(dtype), num_classes, spacing)
    assert found.dtype == torch.float32
    assert found.shape == (len(label), num_classes, *label.shape[1:])
    for b, k in np.ndindex(*found.shape[:2]):
        np.testing.assert_allclose(found[b, k], scipy_map(label[b].numpy() == k, spacing[b].numpy()), rtol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_one_spacing_serves_all_images_and_none_counts_voxels(name, route):
    label = random_labels(SHAPES[name], 3)
    sizes = (0.5, 2.0, 1.5)[: label.ndim - 1]
    for spacing, of_image in ((sizes, sizes), (None, None), (list(sizes), sizes), (np.array(sizes), sizes)):
        found = distance_maps(label, 3, spacing)
        for image, maps in zip(label.numpy(), found.numpy(), strict=True):
            np.testing.assert_allclose(maps, distance_maps(image, 3, of_image), rtol=1e-5)


def test_bool_is_two_classes():
    label = random_labels(SHAPES["2d"], 2)
    assert torch.equal(distance_maps(label.bool(), 2), distance_maps(label, 2))
    with_ignored = region_wise_map(label.bool(), 2, "rrw", ignore_index=255)
    assert torch.equal(with_ignored, region_wise_map(label, 2, "rrw"))


@pytest.mark.parametrize("num_classes", [1, 2, 4])
@pytest.mark.parametrize("kind", REGION_WISE_KINDS)
@pytest.mark.parametrize("name", SHAPES)
def test_region_wise_maps_of_a_batch_are_those_of_its_images(name, kind, num_classes, route):
    label = random_labels(SHAPES[name], num_classes)
    spacing = SPACING[: len(label), : label.ndim - 1]
    found = region_wise_map(label, num_classes, kind, spacing, alpha=0.25, beta=2.0)
    assert found.dtype == torch.float32
    for image, maps, row in zip(label.numpy(), found.numpy(), spacing.tolist(), strict=True):
        expected = region_wise_map(image, num_classes, kind, row, alpha=0.25, beta=2.0)
        np.testing.assert_allclose(maps, expected, rtol=1e-5)


def test_cao_maps_of_a_batch_take_numbers_arrays_and_one_array_an_image():
    label = random_labels((2, 5, 6), 3)
    alpha, beta = np.random.default_rng(0).random((2, 2, 5, 6)).astype(np.float32)
    found = region_wise_map(label, 3, "cao", alpha=alpha, beta=torch.from_numpy(beta[0]))
    for b in (0, 1):
        expected = region_wise_map(label[b].numpy(), 3, "cao", alpha=alpha[b], beta=beta[0])
        np.testing.assert_array_equal(found[b], expected)
    with pytest.raises(ValueError, match=r"alpha: expected a number or shape \(5, 6\) or \(2, 5, 6\), found \(6, 5\)"):
        region_wise_map(label, 3, "cao", alpha=alpha[0].T)


@pytest.mark.parametrize("name", ["2d", "3d"])
def test_authors_maps_of_a_batch_are_those_of_its_images(name):
    label = random_labels(SHAPES[name], 3)
    label[0] = 1    # full: SciPy measures to a voxel that does not exist
    spacing = SPACING[: len(label), : label.ndim - 1]
    found = distance_maps(label, 3, spacing, "authors")
    for image, maps, row in zip(label.numpy(), found.numpy(), spacing.tolist(), strict=True):
        np.testing.assert_array_equal(maps, distance_maps(image, 3, row, "authors"))
    masks = label[:, None] == torch.arange(3).view(1, 3, *[1] * (label.ndim - 1))
    on_device = batch_maps._authors_on_device(masks, spacing, None)
    # In float32 a distance within rounding of an integer may fall to the one below.
    torch.testing.assert_close(on_device, found, rtol=1e-5, atol=1.0 if name == "2d" else 1e-5)
    assert ((on_device - found).abs() < 1e-4).float().mean() > 0.95


def test_a_label_may_have_any_strides_and_is_left_as_it_was():
    label = random_labels(SHAPES["3d"], 3)
    turned, copy = label.transpose(1, 3), label.clone()
    expected = distance_maps(turned.contiguous(), 3, (2.0, 0.5, 1.0))
    assert torch.equal(distance_maps(turned, 3, (2.0, 0.5, 1.0)), expected)
    region_wise_map(label, 3, "rrw", ignore_index=2)
    assert torch.equal(label, copy)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_image_is_exact_in_several_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        mask = torch.from_numpy(np.random.default_rng(0).random((2, 200, 180)) < 0.995)
        assert mask[0].numel() >= transform._THREADED_ELEMENTS
        found = edt(mask, (0.5, 1.25))
    finally:
        torch.set_num_threads(before)
    for distances, one in zip(found, mask.numpy(), strict=True):
        np.testing.assert_allclose(distances, ndimage.distance_transform_edt(one, sampling=(0.5, 1.25)), rtol=1e-6)


def test_unsigned_distances_of_a_batch():
    masks = random_labels((3, 2, 9, 8), 2).bool()
    found = unsigned_distance(masks, (0.5, 2.0))
    for b, k in np.ndindex(3, 2):
        np.testing.assert_allclose(found[b, k], np.abs(scipy_map(masks[b, k].numpy(), (0.5, 2.0))), rtol=1e-6)


# On the device --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignore_index", [None, 255])
@pytest.mark.parametrize("name", SHAPES)
def test_no_map_looks_at_a_value_on_the_device(name, ignore_index):
    """Tensors of the meta device have no values: reading one raises, as reading one on a GPU would wait."""
    label = torch.empty(SHAPES[name], dtype=torch.long, device="meta")
    for convention in ("paper", "authors"):
        maps = distance_maps(label, 3, None, convention, ignore_index)
        assert maps.device.type == "meta" and maps.shape == (len(label), 3, *label.shape[1:])
    for kind in REGION_WISE_KINDS:
        assert region_wise_map(label, 2, kind, (1.0, 2.0, 3.0)[: label.ndim - 1], ignore_index=ignore_index).is_meta


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("ignore_index", [None, 1])
@pytest.mark.parametrize("name", ["2d", "3d"])
def test_a_gpu_makes_the_same_maps_and_never_waits(name, ignore_index):
    label, logits = random_labels(SHAPES[name], 3), torch.randn(SHAPES[name][0], 3, *SHAPES[name][1:])
    sizes = (0.5, 2.0, 1.5)[: label.ndim - 1]
    expected = distance_maps(label, 3, sizes, ignore_index=ignore_index)
    boundary = Boundary(ignore_index=ignore_index)
    on_gpu, logits_on_gpu = label.cuda(), logits.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = distance_maps(on_gpu, 3, sizes, ignore_index=ignore_index)
        z = region_wise_map(on_gpu, 3, "rrw", sizes, ignore_index=ignore_index)
        loss = boundary.from_labels(logits_on_gpu, on_gpu, sizes)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    expected = region_wise_map(label, 3, "rrw", sizes, ignore_index=ignore_index)
    torch.testing.assert_close(z.cpu(), expected, equal_nan=True)
    assert loss.item() == pytest.approx(boundary.from_labels(logits, label, sizes).item(), rel=1e-5)


# From labels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [None, (0, 1, 2), (2, 0)])
@pytest.mark.parametrize("name", ["2d", "3d"])
def test_boundary_of_labels_is_that_of_their_maps(name, classes):
    label = random_labels(SHAPES[name], 3)
    logits = torch.randn((len(label), 3, *label.shape[1:]), generator=torch.Generator().manual_seed(0)).requires_grad_()
    spacing = SPACING[: len(label), : label.ndim - 1]
    loss = Boundary(classes=classes)
    expected = loss(logits, distance_maps(label, 3, spacing), spacing)
    found = loss.from_labels(logits, label, spacing)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (expected, found)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("classes", [(0, 1), (1, 0)])
def test_boundary_of_labels_of_two_classes(classes, activation):
    label = random_labels(SHAPES["2d"], 2)
    masks = torch.stack([label == 0, label == 1], dim=1)
    if activation == "sigmoid":
        masks[:, 0, 5:] = True
    logits = torch.randn((3, 2, 13, 29), generator=torch.Generator().manual_seed(0))
    phi = np.stack([[scipy_map(mask, (2.0, 0.5)) for mask in image] for image in masks.numpy()])
    loss = Boundary(classes=classes, activation=activation)
    expected = loss(logits, torch.from_numpy(phi).float()).item()
    assert loss.from_labels(logits, masks, (2.0, 0.5)).item() == pytest.approx(expected, rel=1e-5)


def test_boundary_of_labels_under_autocast_is_float32():
    label = random_labels(SHAPES["2d"], 2)
    logits = torch.randn((3, 2, 13, 29), generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Boundary().from_labels(logits, label)
    assert found.dtype == torch.float32
    assert found.item() == Boundary().from_labels(logits.float(), label).item()


# Errors ---------------------------------------------------------------------------------------------------

LABEL = torch.zeros(2, 4, 5, dtype=torch.long)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distance_maps(LABEL.float(), 2), "label: expected bool or integers .* found torch.float32 of shape"),
        (lambda: distance_maps(LABEL[0, 0], 2), r"on 1 to 3 spatial axes, found torch.int64 of shape \(5,\)"),
        (lambda: distance_maps(LABEL[None, None], 2), r"found torch.int64 of shape \(1, 1, 2, 4, 5\)"),
        (lambda: distance_maps(LABEL[:0], 2), r"found torch.int64 of shape \(0, 4, 5\)"),
        (lambda: distance_maps(LABEL + 2, 2), "label: expected classes 0 to 1, found 2 to 2"),
        (lambda: distance_maps(LABEL - 1, 2), "label: expected classes 0 to 1, found -1 to -1"),
        (lambda: distance_maps(LABEL, 2, (1.0,)), r"spacing: expected 2 positive values .* found \(1.0,\)"),
        (lambda: distance_maps(LABEL, 2, torch.ones(2)), r"or a tensor \(2, 2\), found a tensor \(2,\)"),
        (lambda: distance_maps(LABEL, 2, torch.ones(3, 2)), r"or a tensor \(2, 2\), found a tensor \(3, 2\)"),
        (lambda: distance_maps(LABEL, 2, torch.zeros(2, 2)), r"spacing: expected 2 positive values"),
        (lambda: distance_maps(LABEL, 2, None, "text"), "convention: expected one of paper, authors, found 'text'"),
        (lambda: region_wise_map(LABEL, 2, "RRW"), "kind: expected one of rrw, .* found 'RRW'"),
        (lambda: region_wise_map(LABEL + 2, 2, "ac"), "label: expected classes 0 to 1, found 2 to 2"),
    ],
)
def test_bad_input_raises_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("shape", [(3, 2, 9, 11), (2, 2, 5, 6, 4)])
def test_maps_by_the_authors_on_a_device_are_those_of_the_host(shape):
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(shape, generator=generator) < 0.4
    masks[0, 0], masks[0, 1] = False, True
    ignored = torch.rand((shape[0], 1, *shape[2:]), generator=generator) < 0.2
    spacing = (1.0,) * (len(shape) - 2)
    for without in (None, ignored):
        clear = masks if without is None else masks & ~without
        host = batch_maps.authors_distances(clear, spacing, without)
        torch.testing.assert_close(batch_maps._authors_on_device(clear, spacing, without), host)


def test_an_ignored_voxel_is_on_no_side_of_a_boundary():
    """Its own distance is 0; that of the others is to the voxels of the other side that are known."""
    mask, ignored = torch.zeros(1, 1, 9, dtype=torch.bool), torch.zeros(1, 1, 9, dtype=torch.bool)
    mask[..., 2:5], ignored[..., 5:7] = True, True
    found = batch_maps.boundary_distances(mask, (2.0,), ignored)
    assert found.flatten().tolist() == [4, 2, 2, 4, 6, 0, 0, 6, 8]
    assert batch_maps.boundary_distances(mask | True, (2.0,), ignored).eq(0).all()
