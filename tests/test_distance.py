"""Distances against SciPy, hand-drawn arrays and laws; the device's transform on the CPU's tensors."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from boundary_loss import distance, transform

SPACINGS = {1: (2.0,), 2: (0.5, 3.0), 3: (3.0, 0.9, 1.21)}
SHAPES = [(17,), (13, 29), (1, 20), (7, 14, 11), (1, 9, 12), (6, 1, 1)]


def random_mask(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Blobs and holes, with at least one element of each kind."""
    rng = np.random.default_rng(seed)
    mask = ndimage.uniform_filter(rng.random(shape), 2) < 0.55
    mask.flat[0], mask.flat[-1] = True, False
    return mask


def scipy_edt(mask: np.ndarray, spacing) -> np.ndarray:
    return ndimage.distance_transform_edt(mask, sampling=spacing)


def scipy_signed(mask: np.ndarray, spacing) -> np.ndarray:
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    return scipy_edt(~mask, spacing) - scipy_edt(mask, spacing)


# edt ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_edt_of_arrays_equals_scipy(shape, layout):
    mask = random_mask(shape)
    if layout == "F":
        mask = np.asfortranarray(mask)
    if layout == "strided":
        mask = np.repeat(mask, 2, axis=-1)[..., ::2]
    spacing = SPACINGS[len(shape)]
    found = distance.edt(mask, spacing)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, scipy_edt(mask, spacing), rtol=1e-6)


def test_edt_without_spacing_counts_voxels():
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool)
    np.testing.assert_allclose(distance.edt(mask), [[3, 2, 1, 0], [10**0.5, 5**0.5, 2**0.5, 1]], rtol=1e-6)


@pytest.mark.parametrize("lead", [(), (3,), (3, 2)])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_edt_of_tensors_is_batched_over_the_leading_axes(lead, ndim):
    shape, spacing = (9, 12, 7)[:ndim], SPACINGS[ndim]
    masks = random_mask((*lead, *shape)) if lead else random_mask(shape)
    found = distance.edt(torch.from_numpy(masks), spacing)
    assert found.dtype == torch.float32
    assert found.shape == masks.shape
    for index in np.ndindex(*lead):
        np.testing.assert_allclose(found[index], scipy_edt(masks[index], spacing), rtol=1e-6)


def test_edt_takes_one_spacing_per_image():
    masks = random_mask((3, 2, 8, 9))
    spacing = torch.tensor([[1.0, 2.0], [0.5, 0.7], [3.0, 0.2]])
    found = distance.edt(torch.from_numpy(masks), spacing)
    for b, k in np.ndindex(3, 2):
        np.testing.assert_allclose(found[b, k], scipy_edt(masks[b, k], spacing[b].numpy()), rtol=1e-5)


def test_edt_reads_a_tensor_whatever_its_strides():
    mask = torch.from_numpy(random_mask((4, 8, 9)))
    torch.testing.assert_close(distance.edt(mask.mT, (2.0, 0.5)), distance.edt(mask, (0.5, 2.0)).mT)


def test_edt_with_nothing_to_be_distant_from():
    full = np.ones((4, 5), bool)
    assert np.isposinf(distance.edt(full)).all()
    assert not distance.edt(~full).any()
    both = torch.from_numpy(np.stack([full, ~full]))
    for found in (distance.edt(both, (1.0, 2.0)), transform._transform_separable(both, torch.ones(1, 2))):
        assert torch.isposinf(found[0]).all()
        assert not found[1].any()


@pytest.mark.parametrize("as_tensor", [False, True])
def test_edt_of_a_label_map_is_the_distance_to_another_label(as_tensor):
    label = np.array([[0, 1, 1, 1, 2], [0, 1, 1, 1, 2]], np.int32)
    found = distance.edt(torch.from_numpy(label) if as_tensor else label, (9.0, 2.0))
    np.testing.assert_allclose(np.asarray(found), [[0, 2, 4, 2, 2], [0, 2, 4, 2, 2]])


@pytest.mark.parametrize("shape", [(3, 17), (3, 13, 29), (2, 40, 9), (2, 7, 14, 11), (1, 1, 9, 12)])
@pytest.mark.parametrize("chunk", [1, 2**26])
def test_device_transform_equals_scipy(shape, chunk, monkeypatch):
    monkeypatch.setattr(transform, "_CHUNK_ELEMENTS", chunk)
    masks, ndim = random_mask(shape), len(shape) - 1
    spacing = torch.rand(len(masks), ndim, generator=torch.Generator().manual_seed(1)) + 0.3
    found = transform._transform_separable(torch.from_numpy(masks), spacing)
    for b, mask in enumerate(masks):
        expected = scipy_edt(mask, spacing[b].numpy()) if not mask.all() else np.full(mask.shape, np.inf)
        np.testing.assert_allclose(found[b], expected, rtol=1e-5)


def test_device_transform_equals_the_cpu_one_on_label_maps_with_channels():
    label = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (2, 3, 6, 15, 8)))
    spacing = torch.tensor([[1.0, 2.0, 0.7]])
    found = transform._transform_separable(label, spacing)
    torch.testing.assert_close(found, distance.edt(label, (1.0, 2.0, 0.7)))


# Signed and unsigned distances --------------------------------------------------------------------------


def test_signed_distance_drawn_by_hand():
    mask = np.array(
        [
            [0, 0, 0, 0, 0],
            [0, 1, 1, 1, 0],
            [0, 1, 1, 1, 0],
            [0, 1, 1, 1, 0],
        ],
        bool,
    )
    a = 5**0.5
    expected = [
        [a, 2, 2, 2, a],
        [1, -1, -2, -1, 1],
        [1, -1, -2, -1, 1],
        [1, -1, -2, -1, 1],
    ]
    np.testing.assert_allclose(distance.signed_distance(mask, (2.0, 1.0)), expected, rtol=1e-6)
    np.testing.assert_allclose(distance.unsigned_distance(mask, (2.0, 1.0)), np.abs(expected), rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_signed_distance_equals_scipy(shape):
    mask, spacing = random_mask(shape), SPACINGS[len(shape)]
    expected = scipy_signed(mask, spacing)
    np.testing.assert_allclose(distance.signed_distance(mask, spacing), expected, rtol=1e-6)
    found = distance.unsigned_distance(torch.from_numpy(mask)[None], spacing)
    np.testing.assert_allclose(found[0], np.abs(expected), rtol=1e-6)


@pytest.mark.parametrize(("value", "convention"), [(False, "paper"), (True, "paper"), (False, "authors")])
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_a_mask_without_boundary_has_the_zero_map(value, shape, convention):
    mask = np.full(shape, value)
    found = distance.signed_distance(mask, SPACINGS[len(shape)], convention)
    assert found.dtype == np.float32
    assert not found.any()
    assert not distance.unsigned_distance(mask).any()
    assert not distance.unsigned_distance(torch.from_numpy(mask)[None], SPACINGS[len(shape)]).any()


def test_signed_distance_changes_sign_with_the_complement_and_scales_with_the_spacing():
    mask, spacing = random_mask((9, 10, 8)), (3.0, 0.9, 1.21)
    phi = distance.signed_distance(mask, spacing)
    np.testing.assert_array_equal(distance.signed_distance(~mask, spacing), -phi)
    np.testing.assert_allclose(distance.signed_distance(mask, (6.0, 1.8, 2.42)), 2 * phi, rtol=1e-6)
    turned = distance.signed_distance(mask.transpose(2, 0, 1), (1.21, 3.0, 0.9))
    np.testing.assert_allclose(turned, phi.transpose(2, 0, 1), rtol=1e-6)


@pytest.mark.parametrize(("spacing", "inner_border"), [(0.5, 0.5), (1.0, 0.0), (3.0, -2.0)])
def test_authors_convention_subtracts_one_from_millimetres(spacing, inner_border):
    mask = np.zeros((1, 1, 7), bool)
    mask[..., 1:6] = True
    phi = distance.signed_distance(mask, (9.0, 9.0, spacing), "authors")[0, 0]
    s = spacing
    np.testing.assert_allclose(phi, [s, inner_border, 1 - 2 * s, 1 - 3 * s, 1 - 2 * s, inner_border, s])


def test_authors_convention_truncates_2d_maps_toward_zero():
    mask = np.array([[0, 0, 1, 1, 1, 1, 1, 0]], bool)
    phi = distance.signed_distance(mask, (1.0, 1.4), "authors")
    #                            1.4 2.8 | 1.4 2.8 4.2 inside, less 1
    np.testing.assert_array_equal(phi, [[2, 1, 0, -1, -3, -1, 0, 1]])
    in_3d = distance.signed_distance(mask[None], (9.0, 9.0, 1.4), "authors")[0]
    np.testing.assert_allclose(in_3d, [[2.8, 1.4, -0.4, -1.8, -3.2, -1.8, -0.4, 1.4]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(6, 9), (3, 4, 5)])
def test_authors_map_of_a_full_mask_has_scipys_distances_to_a_voxel_outside(shape):
    full, spacing = np.ones(shape, bool), SPACINGS[len(shape)]
    index = np.stack(np.indices(shape), axis=-1) + np.eye(len(shape), dtype=int)[0]    # from -1 on the first axis
    outside = np.linalg.norm(index * spacing, axis=-1)
    np.testing.assert_allclose(scipy_edt(full, spacing), outside, rtol=1e-12)           # so SciPy has it
    expected = np.trunc(1 - outside) if len(shape) == 2 else 1 - outside
    found = distance.signed_distance(full, spacing, "authors")
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    maps = distance.distance_maps(np.zeros(shape, np.uint8), 2, spacing, "authors")
    np.testing.assert_array_equal(maps, np.stack([found, np.zeros(shape)]))


def test_a_slice_without_lesion_has_far_background_by_the_authors_maps():
    assert distance.distance_maps(np.zeros((256, 256), int), 2, (0.78, 0.78), "authors").min() == -280
    assert distance.distance_maps(np.zeros((256, 256), int), 2, (0.78, 0.78)).min() == 0


@pytest.mark.parametrize("ndim", [2, 3])
def test_transform_with_a_phantom_equals_scipy(ndim):
    masks = random_mask((3, 2, *(9, 12, 7)[:ndim]))
    masks[0, 1], masks[2, 0] = True, False
    spacing = torch.rand(3, ndim, generator=torch.Generator().manual_seed(1)) + 0.3
    found = transform.edt_with_phantom(torch.from_numpy(masks), spacing)
    for b, k in np.ndindex(3, 2):
        np.testing.assert_allclose(found[b, k], scipy_edt(masks[b, k], spacing[b].numpy()), rtol=1e-5)
    of_all = transform.edt_with_phantom(torch.from_numpy(masks), SPACINGS[ndim])
    np.testing.assert_allclose(of_all[0, 1], scipy_edt(masks[0, 1], SPACINGS[ndim]), rtol=1e-5)


# Distance maps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(11, 14), (6, 9, 8)])
@pytest.mark.parametrize("values", [[0, 1], [0, 1, 2, 3], [0, 2, 3], [1, 3], [2]])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_distance_maps_are_the_signed_distances_of_the_classes(shape, values, dtype):
    rng = np.random.default_rng(len(values))
    label = rng.choice(np.array(values, dtype), size=[n // 2 + 1 for n in shape])
    label = label.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]
    spacing = SPACINGS[len(shape)]
    maps = distance.distance_maps(label, 4, spacing)
    assert maps.shape == (4, *label.shape)
    assert maps.dtype == np.float32
    for k in range(4):
        np.testing.assert_allclose(maps[k], scipy_signed(label == k, spacing), rtol=1e-6)


def test_distance_maps_of_small_classes_far_apart():
    label = np.zeros((40, 50), np.uint8)
    label[3:6, 4:9], label[5, 8], label[30:33, 40:] = 1, 2, 3
    maps = distance.distance_maps(label, 4, (0.7, 1.3))
    for k in range(4):
        np.testing.assert_allclose(maps[k], scipy_signed(label == k, (0.7, 1.3)), rtol=1e-6)


def test_distance_maps_of_many_classes():
    label = np.arange(300, dtype=np.int32).reshape(1, 300)
    maps = distance.distance_maps(label, 300, (1.0, 2.0))
    assert maps[255, 0, 250:260].tolist() == [10, 8, 6, 4, 2, -2, 2, 4, 6, 8]


def test_authors_maps_of_all_classes():
    label = np.array([[0, 1, 1, 1, 2]], np.uint8)
    maps = distance.distance_maps(label, 4, (1.0, 2.0), convention="authors")
    np.testing.assert_array_equal(
        maps[:, 0], [[-1, 2, 4, 6, 8], [2, -1, -3, -1, 2], [8, 6, 4, 2, -1], [0, 0, 0, 0, 0]]
    )


# Region-wise maps ---------------------------------------------------------------------------------------

LABEL = np.array([[0, 1, 1, 1, 1, 1, 2]], np.uint8)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ac", [[0, 1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 0]]),
        ("boundary", [[-2, 2, 4, 6, 8, 10, 12], [2, -2, -4, -6, -4, -2, 2], [12, 10, 8, 6, 4, 2, -2]]),
        ("hausdorff", [[0, 4, 16, 36, 64, 100, 144], [4, 0, 0, 0, 0, 0, 4], [144, 100, 64, 36, 16, 4, 0]]),
        ("rrw", [[-1, 1, 1, 1, 1, 1, 1], [1, -1 / 3, -2 / 3, -1, -2 / 3, -1 / 3, 1], [1, 1, 1, 1, 1, 1, -1]]),
        ("cao", [[-1, 1, 1, 1, 1, 1, 1], [1, -1, -1, -1, -1, -1, 1], [1, 1, 1, 1, 1, 1, -1]]),
    ],
)
def test_region_wise_maps_drawn_by_hand(kind, expected):
    found = distance.region_wise_map(LABEL, 3, kind, spacing=(1.0, 2.0))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)


def test_cao_map_takes_numbers_and_arrays():
    found = distance.region_wise_map(LABEL, 3, "cao", alpha=0.25, beta=2.0)
    np.testing.assert_array_equal(found[1, 0], [-2, 0.25, 0.25, 0.25, 0.25, 0.25, -2])
    ramp = np.arange(7.0).reshape(1, 7)
    found = distance.region_wise_map(LABEL, 3, "cao", alpha=ramp, beta=10 * ramp)
    np.testing.assert_array_equal(found[1, 0], [0, 1, 2, 3, 4, 5, -60])
    with pytest.raises(ValueError, match=r"alpha: expected a number or shape \(1, 7\), found \(7, 1\)"):
        distance.region_wise_map(LABEL, 3, "cao", alpha=ramp.T)


def test_rrw_map_is_rectified_and_normalised():
    label = np.random.default_rng(0).integers(0, 4, (5, 12, 12)).repeat(2, axis=2)
    found = distance.region_wise_map(label, 5, "rrw", spacing=(3.0, 1.0, 0.5))
    inside = label == np.arange(5)[:, None, None, None]
    assert (found[~inside] == 1).all()
    assert [found[k].min() for k in range(4)] == [-1] * 4
    assert found[inside].max() < 0


def test_rrw_map_of_absent_and_full_classes():
    found = distance.region_wise_map(np.full((3, 4), 1), 3, "rrw")
    np.testing.assert_array_equal(found, np.broadcast_to([[[1]], [[-1]], [[1]]], (3, 3, 4)))


# Errors -------------------------------------------------------------------------------------------------

MASK, TENSOR = np.eye(4, dtype=bool), torch.eye(4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distance.edt(MASK, (1.0,)), r"spacing: expected 2 positive values .* found \(1\.0,\)"),
        (lambda: distance.edt(MASK, (1.0, 0.0)), "spacing: expected 2 positive values"),
        (lambda: distance.edt(MASK, (1.0, float("nan"))), "spacing: expected 2 positive values"),
        (lambda: distance.edt(MASK.astype(float)), "mask: expected bool or integers .* found float64"),
        (lambda: distance.edt(np.zeros((0, 3), bool)), r"mask: .* found bool of shape \(0, 3\)"),
        (lambda: distance.edt(np.zeros((1, 2, 3, 4), bool)), "mask: expected bool or integers on 1 to 3"),
        (lambda: distance.edt(TENSOR.float(), (1.0, 1.0)), "mask: expected bool or .*, found torch.float32"),
        (lambda: distance.edt(TENSOR, (1.0, 1.0, 1.0)), r"expected 1 to 3 spatial axes of \(4, 4\), found 3"),
        (lambda: distance.edt(TENSOR, (1.0, -1.0)), "spacing: expected 2 positive values"),
        (lambda: distance.edt(TENSOR, torch.ones(3, 1)), r"spacing: expected one row per entry of \(4, 4\)"),
        (lambda: distance.edt(TENSOR, torch.ones(4, 2)), "spacing: expected 1 to 3 spatial axes"),
        (lambda: distance.unsigned_distance(TENSOR.long(), (1.0, 1.0)), "expected bool, found torch.int64"),
        (lambda: distance.unsigned_distance(MASK.astype(int)), "expected bool on .* found int64"),
        (lambda: distance.signed_distance(MASK, None, "papers"), "convention: expected one of paper, aut"),
        (lambda: distance.signed_distance(MASK.astype(np.uint8), None), "mask: expected bool on"),
        (lambda: distance.distance_maps(LABEL, 2, None), "label: expected classes 0 to 1, found 0 to 2"),
        (lambda: distance.distance_maps(LABEL.astype(int) - 1, 3, None), "label: .* found -1 to 1"),
        (lambda: distance.distance_maps(LABEL * 1.0, 3, None), "label: expected bool or integers"),
        (lambda: distance.distance_maps(LABEL, 3, (1.0, 1.0, 1.0)), "spacing: expected 2 positive values"),
        (lambda: distance.region_wise_map(LABEL, 3, "RRW"), "kind: expected one of rrw, boundary, ac, cao"),
    ],
)
def test_bad_input_raises_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
