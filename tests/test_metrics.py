"""metrics.py against values worked out by hand, medpy, MONAI, brute force, and laws that distances obey."""

import itertools

import numpy as np
import pytest
import torch
from medpy.metric import binary as medpy
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage
from scipy.spatial.distance import cdist

from boundary_loss import metrics, surface_distances

DISTANCES = (metrics.hd, metrics.hd95, metrics.hd95_max, metrics.assd)
SPACINGS = {2: (3.0, 0.7), 3: (0.8, 0.47, 5.0)}


def drawn(*rows: str) -> np.ndarray:
    """A 2D mask from rows of `#` and `.`."""
    return np.array([[mark == "#" for mark in row] for row in rows])


def random_masks(shape: tuple[int, ...], share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two noise masks with about `share` of their voxels set, one at least."""
    masks = np.random.default_rng(seed).random((2, *shape)) < share
    masks[0][(0,) * len(shape)] = True
    masks[1][(-1,) * len(shape)] = True
    return masks[0], masks[1]


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.ogrid[tuple(slice(0, extent) for extent in shape)]
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


def pairs(ndim: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of masks that are not empty: noise, blobs, border, single voxels, identical, full."""
    shape = (19, 23, 11)[:ndim]
    middle = tuple(extent // 2 for extent in shape)
    blob, moved = ball(shape, middle, 4.5), ball(shape, tuple(m + 1 for m in middle), 3.2)
    corner, single, full = (np.full(shape, value) for value in (False, False, True))
    corner[(slice(0, 3),) * ndim] = True
    single[middle] = True
    return {
        "sparse noise": random_masks(shape, 0.02),
        "noise": random_masks(shape, 0.3),
        "dense noise": random_masks(shape, 0.9),
        "blobs": (blob, moved),
        "nested": (blob, ndimage.binary_erosion(blob)),
        "touching the border": (corner, blob),
        "single voxel": (single, blob),
        "two voxels": (single, np.roll(single, 3, axis=0)),
        "identical": (blob, blob),
        "full": (full, blob),
        "both full": (full, full),
    }


ALL_PAIRS = [pytest.param(ndim, name, id=f"{ndim}-D {name}") for ndim in (2, 3) for name in pairs(ndim)]


def assert_measures(pred, ref, spacing, *, hd, hd95, hd95_max, assd):
    found = [measure(pred, ref, spacing) for measure in DISTANCES]
    np.testing.assert_allclose(found, [hd, hd95, hd95_max, assd], rtol=1e-6, atol=1e-6)


# ---- by hand ----

def test_dsc_by_hand():
    pred = drawn("##.", "#..")
    ref = drawn("###", "..#")
    assert metrics.dsc(pred, ref) == 2 * 2 / (3 + 4)
    assert metrics.dsc(ref, ref) == 1.0
    assert metrics.dsc(pred, drawn("...", ".#.")) == 0.0


def test_distances_by_hand_on_an_anisotropic_grid():
    # The voxel at (2, 4) is one row (3 mm) and two columns (1 mm each) from ref; everything else coincides.
    pred = drawn("......", ".##...", "....#.")
    ref = drawn("......", ".##...", "......")
    far = np.sqrt(3.0**2 + 2.0**2)
    # Pooled: 0 0 0 0 far, the 95th percentile 0.8 between the last two. pred to ref: 0 0 far, 0.9 between.
    assert_measures(pred, ref, (3.0, 1.0), hd=far, hd95=0.8 * far, hd95_max=0.9 * far, assd=far / 5)
    found = metrics.distances(pred, ref, (3.0, 1.0))
    assert sorted(found.pred_to_ref) == pytest.approx([0, 0, far])
    assert sorted(found.ref_to_pred) == [0, 0]
    assert found.outcome == "scored"


def test_the_inside_of_a_mask_is_no_surface():
    # The block's nearest surface voxel is two columns (0.5 mm each) off the point, a corner two rows more.
    block = drawn(".......", ".#####.", ".#####.", ".#####.", ".#####.", ".#####.", ".......")
    point = drawn(".......", ".......", ".......", "...#...", ".......", ".......", ".......")
    found = metrics.distances(point, block, (1.0, 0.5))
    assert found.pred_to_ref == pytest.approx([1.0])
    assert len(found.ref_to_pred) == 16
    assert found.hd == pytest.approx(np.sqrt(2.0**2 + 1.0**2))


def test_voxels_on_the_arrays_border_are_surface():
    full, point = drawn("###", "###", "###"), drawn("...", ".#.", "...")
    corner = np.sqrt(2)
    # Four sides at 1 mm, four corners; the middle of the full mask is no surface.
    values = [1, 1, 1, 1, 1, corner, corner, corner, corner]
    assert_measures(full, point, (1, 1), hd=corner, hd95=corner, hd95_max=corner, assd=np.mean(values))


def test_distances_by_hand_in_3d():
    pred, ref = np.zeros((2, 3, 3)), np.zeros((2, 3, 3))
    pred[0, 0, 0], ref[1, 2, 2] = 1, 1
    far = np.sqrt(5.0**2 + (2 * 0.5) ** 2 + (2 * 2.0) ** 2)
    assert_measures(pred, ref, (5.0, 0.5, 2.0), hd=far, hd95=far, hd95_max=far, assd=far)


def test_far_false_positives_part_pooled_from_directed():
    # A line of 40 voxels; pred has every second one, and two voxels 50 mm away.
    ref, pred = np.zeros((60, 40)), np.zeros((60, 40))
    ref[0] = 1
    pred[0, ::2] = 1
    pred[50, [0, 2]] = 1
    # Pooled: 40 zeros, 20 ones, 2 x 50: rank 0.95 * 61 = 57.95. pred to ref: 20 zeros, 2 x 50: rank 19.95.
    assert_measures(pred, ref, (1, 1), hd=50, hd95=1.0, hd95_max=0.95 * 50, assd=(20 + 100) / 62)


def test_surface_dice_by_hand():
    pred = drawn("......", ".##...", "....#.")
    ref = drawn("......", ".##...", "......")
    spacing = (3.0, 4.0)                                          # the odd voxel: 3 mm and 8 mm away
    assert metrics.surface_dice(pred, ref, spacing, tolerance_mm=0) == 4 / 5
    assert metrics.surface_dice(pred, ref, spacing, tolerance_mm=8.5) == 4 / 5
    assert metrics.surface_dice(pred, ref, spacing, tolerance_mm=8.6) == 1.0
    # Three voxels of 0.1 mm are 0.30000000000000004 mm: within 0.3 mm all the same.
    assert metrics.surface_dice(drawn("#..."), drawn("...#"), (1, 0.1), tolerance_mm=0.3) == 1.0


# ---- empty masks ----

@pytest.mark.parametrize(
    ("shape", "spacing", "diagonal"), [((3, 4), (2.0, 2.0), 10.0), ((2, 3, 3), (1.0, 1.0, 2.0), 7.0)]
)
@pytest.mark.parametrize(
    ("pred_value", "ref_value", "outcome"), [(0, 0, "both_empty"), (0, 1, "missed"), (1, 0, "false_alarm")]
)
def test_empty_masks(shape, spacing, diagonal, pred_value, ref_value, outcome):
    pred, ref = np.full(shape, pred_value), np.full(shape, ref_value)
    both = outcome == "both_empty"
    assert metrics.outcome(pred, ref) == outcome
    assert metrics.dsc(pred, ref) == float(both)
    assert metrics.surface_dice(pred, ref, spacing, tolerance_mm=1000) == float(both)
    assert metrics.surface_metrics(pred, ref, spacing, tolerance_mm=1) == {
        **dict.fromkeys(("hd_mm", "hd95_mm", "hd95_max_mm", "assd_mm"), 0.0 if both else diagonal),
        "surface_dice": float(both),
        "outcome": outcome,
    }


def test_the_diagonal_is_worse_than_the_farthest_two_voxels():
    shape, spacing = (4, 5, 6), (0.5, 1.0, 3.0)
    first, last, none = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    first[0, 0, 0] = last[-1, -1, -1] = 1
    assert metrics.hd(first, last, spacing) < metrics.hd(none, last, spacing)


# ---- medpy, MONAI, brute force ----

@pytest.mark.parametrize(("ndim", "name"), ALL_PAIRS)
def test_equal_to_medpy(ndim, name):
    pred, ref = pairs(ndim)[name]
    spacing = SPACINGS[ndim]
    assert metrics.dsc(pred, ref) == pytest.approx(medpy.dc(pred, ref), abs=1e-12)
    for ours, theirs in ((metrics.hd, medpy.hd), (metrics.hd95, medpy.hd95), (metrics.assd, medpy.assd)):
        assert ours(pred, ref, spacing) == pytest.approx(theirs(pred, ref, spacing), abs=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("ndim", "name"), ALL_PAIRS)
def test_equal_to_monai(ndim, name):
    pred, ref = pairs(ndim)[name]
    spacing = SPACINGS[ndim]
    batch = [torch.from_numpy(mask)[None, None].float() for mask in (pred, ref)]                # (1, 1, ...)
    options = {"include_background": True, "spacing": list(spacing)}
    hd95_max = compute_hausdorff_distance(*batch, percentile=95, **options)
    hd = compute_hausdorff_distance(*batch, **options)
    assd = compute_average_surface_distance(*batch, symmetric=True, **options)
    within = compute_surface_dice(*batch, class_thresholds=[2.05], **options)
    assert metrics.hd95_max(pred, ref, spacing) == pytest.approx(float(hd95_max), abs=1e-4)
    assert metrics.hd(pred, ref, spacing) == pytest.approx(float(hd), abs=1e-4)
    assert metrics.assd(pred, ref, spacing) == pytest.approx(float(assd), abs=1e-4)
    share = metrics.surface_dice(pred, ref, spacing, tolerance_mm=2.05)
    assert share == pytest.approx(float(within), abs=1e-6)


def brute_force(pred: np.ndarray, ref: np.ndarray, spacing: tuple[float, ...]) -> list[np.ndarray]:
    """Distances in mm of both directions, each sorted, from all pairs of surface voxels."""
    surfaces = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing for mask in (pred, ref)]
    apart = cdist(*surfaces)                                      # (N, M)
    return [np.sort(apart.min(axis=axis)) for axis in (1, 0)]


@pytest.mark.parametrize(
    ("pred", "ref"),
    [
        pytest.param(ball((40, 40, 40), (18, 18, 18), 9), ball((40, 40, 40), (19, 18, 18), 9), id="close"),
        pytest.param(*random_masks((40, 40, 40), 0.005), id="sparse noise"),
        pytest.param(*random_masks((20, 20, 20), 0.4), id="dense noise"),
        pytest.param(ball((40, 40, 40), (20, 20, 20), 19), ball((40, 40, 40), (20, 20, 20), 8), id="facing"),
        pytest.param(*random_masks((70, 80), 0.6), id="noise in 2D"),
    ],
)
def test_tree_and_transform_equal_brute_force(pred, ref):
    spacing = (0.8, 0.47, 1.3)[: pred.ndim]
    found = metrics.distances(pred, ref, spacing)
    pred_to_ref, ref_to_pred = brute_force(pred, ref, spacing)
    np.testing.assert_allclose(np.sort(found.pred_to_ref), pred_to_ref, atol=1e-4)
    np.testing.assert_allclose(np.sort(found.ref_to_pred), ref_to_pred, atol=1e-4)


# ---- laws ----

@pytest.mark.parametrize(("ndim", "name"), ALL_PAIRS)
def test_symmetric(ndim, name):
    pred, ref = pairs(ndim)[name]
    for measure in DISTANCES:
        swapped = measure(ref, pred, SPACINGS[ndim])
        assert measure(pred, ref, SPACINGS[ndim]) == pytest.approx(swapped, abs=1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", ["noise", "blobs", "touching the border"])
def test_unchanged_by_flips_and_by_axes_permuted_with_their_spacing(ndim, name):
    pred, ref = pairs(ndim)[name]
    spacing = SPACINGS[ndim]
    expected = metrics.surface_metrics(pred, ref, spacing)
    for axes in itertools.permutations(range(ndim)):
        turned = [np.flip(mask.transpose(axes), axis=0) for mask in (pred, ref)]
        found = metrics.surface_metrics(*turned, [spacing[axis] for axis in axes])
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("order", ["C", "F", "view"])
def test_unchanged_by_memory_layout_dtype_and_margins(order):
    pred, ref = pairs(3)["blobs"]
    expected = metrics.surface_metrics(pred, ref, SPACINGS[3])
    around = [np.pad(mask, ((3, 0), (0, 7), (2, 2))).astype(np.uint8) * 3 for mask in (pred, ref)]
    if order == "view":
        laid = [np.moveaxis(mask.transpose(2, 0, 1).copy(), 0, -1) for mask in around]
    else:
        laid = [mask.copy(order) for mask in around]
    for masks in (laid, (laid[0], around[1]), (around[0], laid[1])):
        assert metrics.surface_metrics(*masks, SPACINGS[3]) == pytest.approx(expected, abs=1e-9)
        assert metrics.dsc(*masks) == metrics.dsc(pred, ref)


@pytest.mark.parametrize("name", pairs(3))
def test_distances_scale_with_the_spacing(name):
    pred, ref = pairs(3)[name]
    for measure in DISTANCES:
        once, scaled = measure(pred, ref, SPACINGS[3]), measure(pred, ref, np.multiply(SPACINGS[3], 2.5))
        assert scaled == pytest.approx(2.5 * once, abs=1e-4)


def test_identical_masks_are_perfect():
    mask, _ = pairs(3)["noise"]
    assert metrics.dsc(mask, mask) == 1.0
    assert set(metrics.surface_metrics(mask, mask, SPACINGS[3]).values()) == {0.0, "scored"}
    assert metrics.surface_dice(mask, mask, SPACINGS[3], tolerance_mm=0) == 1.0


def test_inputs_are_left_as_they_were():
    masks = random_masks((9, 8, 7), 0.3)
    ignore = masks[0] & masks[1]
    before = [mask.copy() for mask in (*masks, ignore)]
    metrics.surface_metrics(*masks, SPACINGS[3], ignore=ignore)
    metrics.lesion_detection(*masks, ignore=ignore)
    for mask, copy in zip((*masks, ignore), before, strict=True):
        np.testing.assert_array_equal(mask, copy)


# ---- lesions and volumes of the WMH challenge ----

REF_LESIONS = drawn(                                              # three: the first one holds by a diagonal
    "##......",
    "..#.....",
    ".....##.",
    ".....##.",
    "........",
    "#.......",
)
PRED_LESIONS = drawn(                                             # three: the last one is off
    ".#......",
    "........",
    "......#.",
    ".......#",
    "...#....",
    "..#.....",
)


def test_lesions_by_hand():
    # ref: {(0,0) (0,1) (1,2)}, the square, (5,0). pred: (0,1), {(2,6) (3,7)}, {(4,3) (5,2)}. Two pairs meet.
    assert metrics.lesion_detection(PRED_LESIONS, REF_LESIONS) == {
        "lesion_recall": 2 / 3,
        "lesion_precision": 2 / 3,
        "lesion_f1": pytest.approx(2 / 3),
        "n_lesions_ref": 3,
        "n_lesions_pred": 3,
        "n_lesions_detected": 2,
        "n_lesions_false": 1,
        "lesion_count_difference": 0,
    }


def test_each_count_of_lesions_is_its_own():
    """Three lesions of the reference, of which one is found; four of the prediction, of which two are true."""
    ref = drawn("###..", ".....", "..#.#")
    pred = drawn("#.#.#", ".....", "#....")
    assert metrics.lesion_detection(pred, ref) == {
        "lesion_recall": 1 / 3, "lesion_precision": 2 / 4, "lesion_f1": pytest.approx(0.4), "n_lesions_ref": 3,
        "n_lesions_pred": 4, "n_lesions_detected": 1, "n_lesions_false": 2, "lesion_count_difference": 1,
    }
    back = metrics.lesion_detection(ref, pred)
    assert (back["lesion_recall"], back["lesion_precision"]) == (2 / 4, 1 / 3)
    assert (back["n_lesions_detected"], back["n_lesions_false"], back["lesion_count_difference"]) == (2, 2, -1)


def test_one_prediction_over_two_lesions_detects_both():
    found = metrics.lesion_detection(drawn("#####", ".....", "..#.."), drawn("#...#", ".....", "....."))
    assert (found["lesion_recall"], found["lesion_precision"]) == (1.0, 1 / 2)
    assert found["lesion_f1"] == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert found["lesion_count_difference"] == 0


@pytest.mark.parametrize(
    ("pred", "ref", "recall", "precision", "f1"),
    [("...", "...", 1, 1, 1), ("...", "#.#", 0, 1, 0), ("#.#", "...", 1, 0, 0), ("#..", "..#", 0, 0, 0)],
)
def test_lesions_of_empty_masks(pred, ref, recall, precision, f1):
    found = metrics.lesion_detection(drawn(pred), drawn(ref))
    assert [found[f"lesion_{name}"] for name in ("recall", "precision", "f1")] == [recall, precision, f1]
    assert [found[f"n_lesions_{name}"] for name in ("pred", "ref", "detected", "false")] == [
        pred.count("#"), ref.count("#"), 0, pred.count("#")
    ]


def test_components_hold_by_corners():
    assert metrics.n_components(drawn("#..", ".#.", "..#")) == 1
    assert metrics.n_components(drawn("#.#", "...", "#.#")) == 4
    assert metrics.n_components(np.zeros((3, 3, 3))) == 0
    cube = np.zeros((4, 3, 3))
    cube[0, 0, 0] = cube[1, 1, 1] = cube[3, 1, 1] = 1
    assert metrics.n_components(cube) == 2


def test_ignored_voxels_leave_both_masks():
    label = np.array([[1, 1, 0, 0, 2, 2], [0, 0, 0, 0, 0, 2]])    # the WMH challenge's: 2 is other pathology
    pred = drawn("#...##", "......")
    kept = drawn("#.....", "......")
    ref, other = label == 1, label == 2
    spacing = (3.0, 1.0)
    assert metrics.dsc(pred, ref, ignore=other) == metrics.dsc(kept, ref) == 2 / 3
    for measure in DISTANCES:
        assert measure(pred, ref, spacing, ignore=other) == measure(kept, ref, spacing)
    assert metrics.lesion_detection(pred, ref, ignore=other)["lesion_f1"] == 1.0
    assert metrics.lesion_detection(pred, ref)["lesion_precision"] == 1 / 2
    assert metrics.outcome(other, ref, ignore=other) == "missed"
    assert metrics.volume_difference(pred, ref, spacing, ignore=other)["volume_pred_mm2"] == 3.0


def test_volume_difference_by_hand():
    pred, ref = np.zeros((2, 2, 2)), np.ones((2, 2, 2))
    pred[0] = 1
    assert metrics.volume_difference(pred, ref, (0.5, 2.0, 3.0)) == {
        "volume_pred_mm3": 12.0,
        "volume_ref_mm3": 24.0,
        "volume_difference_mm3": -12.0,
        "absolute_volume_difference_mm3": 12.0,
        "avd_percent": 50.0,
    }
    empty = np.zeros((2, 2, 2))
    assert metrics.volume_difference(empty, empty, (1, 1, 1))["avd_percent"] == 0.0
    assert metrics.volume_difference(empty, ref, (1, 1, 1))["avd_percent"] == 100.0
    assert np.isnan(metrics.volume_difference(ref, empty, (1, 1, 1))["avd_percent"])


# ---- counts on tensors ----

def test_counts_by_hand():
    pred = torch.tensor([[[0, 1, 1], [2, 2, 0]], [[0, 0, 0], [0, 0, 0]]])
    ref = torch.tensor([[[0, 1, 0], [2, 2, 2]], [[0, 0, 0], [0, 0, 1]]])
    intersection, n_pred, n_ref = metrics.intersection_and_sizes(pred, ref, 4)
    assert intersection.tolist() == [[1, 1, 2, 0], [5, 0, 0, 0]]
    assert n_pred.tolist() == [[2, 2, 2, 0], [6, 0, 0, 0]]
    assert n_ref.tolist() == [[2, 1, 3, 0], [5, 1, 0, 0]]
    dsc = metrics.dsc_from_counts(intersection, n_pred, n_ref)
    assert dsc.flatten().tolist() == pytest.approx([0.5, 2 / 3, 0.8, 1.0, 10 / 11, 0.0, 1.0, 1.0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_counts_of_slices_sum_to_the_volumes_dsc(dtype):
    rng = np.random.default_rng(0)
    pred, ref = rng.integers(0, 3, (2, 5, 16, 17))
    pred[2] = ref[2] = 0
    labels = [torch.tensor(part, dtype=dtype) for part in (pred, ref)]
    counts = metrics.intersection_and_sizes(*labels, 3)
    slices = metrics.dsc_from_counts(*counts)
    volume = metrics.dsc_from_counts(*(part.sum(0) for part in counts))
    for k in range(3):
        assert float(volume[k]) == pytest.approx(metrics.dsc(pred == k, ref == k))
        expected = [metrics.dsc(pred[b] == k, ref[b] == k) for b in range(5)]
        assert slices[:, k].tolist() == pytest.approx(expected)


def test_counts_leave_out_labels_that_are_no_class():
    counts = metrics.intersection_and_sizes(torch.tensor([[[255, 1]]]), torch.tensor([[[255, -1]]]), 2)
    assert [part.tolist() for part in counts] == [[[0, 0]], [[0, 1]], [[0, 0]]]


def test_counts_never_wait_for_the_device():
    # A tensor without values: reading one would raise.
    labels = torch.zeros(8, 64, 64, dtype=torch.int64, device="meta")
    counts = metrics.intersection_and_sizes(labels, labels, 2)
    assert [part.shape for part in counts] == [(8, 2)] * 3
    assert metrics.dsc_from_counts(*counts).device.type == "meta"


def test_dsc_from_counts_takes_numbers_and_arrays():
    assert metrics.dsc_from_counts(0, 0, 0) == 1.0
    assert metrics.dsc_from_counts(2, 3, 5) == 0.5
    found = metrics.dsc_from_counts(np.array([0, 0]), np.array([0, 1]), np.array([0, 0]))
    assert found.tolist() == [1, 0]


# ---- bad input ----

@pytest.mark.parametrize("measure", [*DISTANCES, metrics.volume_difference, metrics.surface_metrics])
@pytest.mark.parametrize("spacing", [(1,), (1, 1, 1), (1, -1), (1, 0), (1, float("nan")), 1.0])
def test_bad_spacing(measure, spacing):
    mask = np.ones((3, 3))
    with pytest.raises(ValueError, match=r"expected 2 spacings in mm above 0, one per axis, found .+"):
        measure(mask, mask, spacing)


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"found \(3, 4\) and \(4, 3\)"):
        metrics.dsc(np.ones((3, 4)), np.ones((4, 3)))
    with pytest.raises(ValueError, match="2-D or 3-D"):
        metrics.hd95(np.ones(4), np.ones(4), (1,))
    with pytest.raises(ValueError, match=r"ignore mask of shape \(3, 4\), found \(4, 3\)"):
        metrics.lesion_detection(np.ones((3, 4)), np.ones((3, 4)), ignore=np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"found \[1, 2, 2\], \[1, 2, 3\]"):
        metrics.intersection_and_sizes(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3), 2)


@pytest.mark.parametrize("tolerance_mm", [-1, float("nan")])
def test_bad_tolerance(tolerance_mm):
    with pytest.raises(ValueError, match="tolerance"):
        metrics.surface_dice(np.ones((3, 3)), np.ones((3, 3)), (1, 1), tolerance_mm)


# Tensors on a device -------------------------------------------------------------------------------------------------

DEVICES = ["stand-in", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(14, 11), (9, 12, 7)])
def test_tensors_are_measured_where_they_are_and_alike(monkeypatch, device, shape):
    if device == "stand-in":  # CPU tensors take the device's way
        monkeypatch.setattr(metrics, "_device_of", lambda mask: getattr(mask, "device", None))
    rng = np.random.default_rng(1)
    spacing = (0.9, 1.3, 4.0)[: len(shape)]
    blobs = [ndimage.gaussian_filter(rng.random(shape), 1) > 0.52 for _ in range(2)]
    single = np.zeros(shape, dtype=bool)
    single[(0,) * len(shape)] = True
    empty, ignore = np.zeros(shape, dtype=bool), rng.random(shape) < 0.2
    for pred, ref, options in (
        (*blobs, {}), (blobs[0], blobs[0], {}), (blobs[0], single, {}), (single, blobs[1], {"ignore": ignore}),
        (empty, single, {}), (single, empty, {}), (empty, empty, {}),
    ):
        place = "cpu" if device == "stand-in" else device
        tensors = [torch.from_numpy(mask).to(place) for mask in (pred, ref)]
        there = {name: torch.from_numpy(mask).to(place) for name, mask in options.items()}
        expected = metrics.surface_metrics(pred, ref, spacing, tolerance_mm=2.0, **options)
        found = metrics.surface_metrics(*tensors, spacing, tolerance_mm=2.0, **there)
        assert found.pop("outcome") == expected.pop("outcome")
        assert found == pytest.approx(expected, abs=1e-4)
        assert metrics.dsc(*tensors, **there) == pytest.approx(metrics.dsc(pred, ref, **options))
        assert metrics.volume_difference(*tensors, spacing, **there) == pytest.approx(
            metrics.volume_difference(pred, ref, spacing, **options), nan_ok=True
        )
        assert metrics.lesion_detection(*tensors, **there) == metrics.lesion_detection(pred, ref, **options)
    distances = metrics.distances(*(torch.from_numpy(mask).to(place) for mask in blobs), spacing)
    assert isinstance(distances.pred_to_ref, torch.Tensor) and distances.pred_to_ref.device.type == place
    with pytest.raises(ValueError, match="one 2-D or 3-D shape"):
        metrics.dsc(torch.zeros(3, 4), torch.zeros(4, 3))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_one_slice_is_measured_as_its_slice(axis):
    """As 3D masks they are all surface, so that most distances of two overlapping discs are 0."""
    y, x = np.mgrid[:40, :40]
    ref, pred = np.hypot(y - 18, x - 18) <= 9, np.hypot(y - 18, x - 23) <= 9
    volumes = np.expand_dims(pred, axis), np.expand_dims(ref, axis)
    found = metrics.surface_metrics(*volumes, np.insert([0.5, 2.0], axis, 7.0), tolerance_mm=1.0)
    expected = metrics.surface_metrics(pred, ref, (0.5, 2.0), tolerance_mm=1.0)
    assert found == expected and found["hd95_mm"] == pytest.approx(medpy.hd95(pred, ref, (0.5, 2.0)))
    assert medpy.hd95(*volumes, np.insert([0.5, 2.0], axis, 7.0)) < found["hd95_mm"]


def test_ignored_voxels_leave_both_masks_in_every_metric():
    """As if they were background in both, whichever mask has them."""
    rng = np.random.default_rng(5)
    pred, ref, ignore = (rng.random((9, 8, 4)) < share for share in (0.3, 0.3, 0.4))
    assert (pred & ignore).any() and (ref & ignore).any()
    kept, spacing = (pred & ~ignore, ref & ~ignore), (1.0, 0.5, 3.0)
    for metric, more in (
        (metrics.dsc, ()), (metrics.outcome, ()), (metrics.hd, (spacing,)), (metrics.hd95, (spacing,)),
        (metrics.hd95_max, (spacing,)), (metrics.assd, (spacing,)), (metrics.surface_dice, (spacing, 0.4)),
        (metrics.surface_metrics, (spacing,)), (metrics.volume_difference, (spacing,)), (metrics.lesion_detection, ()),
    ):
        assert metric(pred, ref, *more, ignore=ignore) == metric(*kept, *more)
        if metric in (metrics.dsc, metrics.assd, metrics.volume_difference, metrics.surface_metrics):
            assert metric(*kept, *more) not in (metric(kept[0], ref, *more), metric(pred, kept[1], *more)), metric


def test_counts_of_large_images_do_not_overflow():
    """More pixels of a class in a slice than 16 bits count, and more in a volume than 31."""
    label = torch.ones((2, 300, 300), dtype=torch.uint8)
    label[1, :10] = 0
    both, n_pred, n_ref = metrics.intersection_and_sizes(label, label, 2)
    assert both.tolist() == n_pred.tolist() == n_ref.tolist() == [[0, 90_000], [3_000, 87_000]]
    assert both.dtype == torch.int64


@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6)])
def test_the_surface_of_a_box_is_its_sides_on_a_device_too(shape):
    """Distances of a filled array from one voxel within it, both ways, by its coordinates."""
    box, one = torch.ones(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    one[(1,) * len(shape)] = True
    spacing = np.array((1.5, 0.5, 2.0)[: len(shape)])
    sides = [place for place in np.ndindex(shape) if any(i in (0, n - 1) for i, n in zip(place, shape, strict=True))]
    expected = sorted(float(np.linalg.norm((np.array(place) - 1) * spacing)) for place in sides)
    for measure in (surface_distances.surface_distances, surface_distances.device_surface_distances):
        masks = (box, one) if measure is surface_distances.device_surface_distances else (box.numpy(), one.numpy())
        there, back = measure(*masks, spacing)
        assert sorted(there.tolist()) == pytest.approx(expected) and back.tolist() == pytest.approx([expected[0]])


@pytest.mark.parametrize("count", [1, 2, 7, 20, 33])
def test_the_percentile_of_a_tensor_is_numpys(count):
    values = np.random.default_rng(count).random(count).astype(np.float32)
    found = metrics._percentile_95(torch.from_numpy(values))
    assert found == pytest.approx(np.percentile(values, 95), rel=1e-6)
