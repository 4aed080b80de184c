"""eval.py score: metrics of any two masks, against medpy and by hand."""

import csv
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from commands import evaluate
from medpy.metric import binary
from PIL import Image
from raw_files import call, save_nifti

from boundary_loss import lesion_detection, lesion_scores
from evaluation import scoring
from evaluation.mask_files import MaskPair, as_integers, find_pairs, masks_in, read_npy, read_pair
from evaluation.scoring import ScoreOptions
from raw_data.files import RawFile
from utils import InputError

SPACING = (0.7, 0.9, 3.0)


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def blobs(seed, shape=(24, 20, 6)):
    """Labels 0, 1, 2 in boxes that overlap those of another seed in part."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    for value in (1, 2, 1):
        x, y, z = (rng.integers(0, n // 2) for n in shape)
        label[x : x + 9, y : y + 8, z : z + 3] = value
    return label


@pytest.fixture
def masks(tmp_path):
    """Two folders of three volumes, of different shapes and spacings; the last has no label 2 in the reference."""
    for i, (case, shape) in enumerate({"a": (24, 20, 6), "b.1": (18, 26, 5), "c": (20, 20, 4)}.items()):
        spacing = tuple(np.multiply(SPACING, 1 + i / 10))
        reference, prediction = blobs(10 + i, shape), blobs(20 + i, shape)
        if case == "c":
            reference[reference == 2] = 0
        save_nifti(tmp_path / "ref" / f"{case}.nii.gz", reference, spacing)
        save_nifti(tmp_path / "pred" / f"{case}.nii.gz", prediction, spacing)
    return tmp_path


def test_metrics_are_medpys_per_case_and_label(masks, monkeypatch, capsys):
    out = masks / "m.csv"
    assert call(evaluate, "score", masks / "pred", masks / "ref", "--out", out, monkeypatch=monkeypatch) == 0
    rows = rows_of(out)
    assert [(row["case_id"], row["label"]) for row in rows] == [
        (case, label) for case in ("a", "b.1", "c") for label in ("1", "2")
    ]
    measured = 0
    for row in rows:
        images = [nib.load(masks / part / f"{row['case_id']}.nii.gz") for part in ("pred", "ref")]
        pred, ref = (np.asarray(image.dataobj) == int(row["label"]) for image in images)
        spacing = [float(size) for size in images[0].header.get_zooms()]
        assert (int(row["n_pred"]), int(row["n_ref"])) == (pred.sum(), ref.sum())
        if not ref.any():
            assert row["outcome"] == "false_alarm" and float(row["dsc"]) == 0 and row["avd_percent"] == "nan"
            continue
        assert row["outcome"] == "scored" and row["unit"] == "mm"
        for name, theirs in {"hd_mm": binary.hd, "hd95_mm": binary.hd95, "assd_mm": binary.assd}.items():
            assert float(row[name]) == pytest.approx(theirs(pred, ref, spacing), abs=1e-4)
        assert float(row["dsc"]) == pytest.approx(binary.dc(pred, ref))
        difference = (pred.sum() - int(ref.sum())) * np.prod(spacing)
        assert float(row["volume_difference_mm3"]) == pytest.approx(difference)
        measured += 1
    assert measured == 5
    values = [float(row["dsc"]) for row in rows if row["label"] == "1"]
    first, dsc_line, *_ = capsys.readouterr().out.splitlines()
    assert first == "label 1, 3 cases, 3 measured"
    assert dsc_line.split() == ["DSC", f"{np.mean(values):.3f}", f"({np.std(values, ddof=1):.3f})"]


def test_labels_and_the_ignore_label(masks, monkeypatch):
    whole, chosen, ignored = (masks / f"{name}.csv" for name in ("whole", "chosen", "ignored"))
    both = masks / "pred", masks / "ref"
    assert call(evaluate, "score", *both, "--out", whole, monkeypatch=monkeypatch) == 0
    assert call(evaluate, "score", *both, "--labels", "2", "--out", chosen, monkeypatch=monkeypatch) == 0
    assert rows_of(chosen) == [row for row in rows_of(whole) if row["label"] == "2"]
    assert call(evaluate, "score", *both, "--ignore-label", "2", "--out", ignored, monkeypatch=monkeypatch) == 0
    rows = rows_of(ignored)
    assert {row["label"] for row in rows} == {"1"}
    pred, ref = (np.asarray(nib.load(masks / part / "a.nii.gz").dataobj) for part in ("pred", "ref"))
    assert ((pred == 1) & (ref == 2)).any()
    assert float(rows[0]["dsc"]) == pytest.approx(binary.dc((pred == 1) & (ref != 2), ref == 1))


def test_the_tolerance_is_of_the_surface_dice(masks, monkeypatch):
    """Every surface is within the grid's diagonal of the other; within 0 mm are the voxels that both have."""
    out, both = masks / "m.csv", (masks / "pred", masks / "ref")
    shares = {}
    for tolerance in ("0", "2", "100"):
        assert call(evaluate, "score", *both, "--tolerance", tolerance, "--out", out, monkeypatch=monkeypatch) == 0
        row = rows_of(out)[0]
        shares[tolerance] = float(row.pop("surface_dice"))
        assert float(row.pop("tolerance_mm")) == float(tolerance)
        assert row == shares.setdefault("other columns", row)
    assert 0 < shares["0"] < shares["2"] < shares["100"] == 1


def test_any_number_of_processes_gives_the_same(masks, monkeypatch, capsys):
    used, written = [], []
    original = scoring.in_processes

    def counted(*arguments, workers, **options):
        used.append(workers)
        return original(*arguments, workers=workers, **options)

    monkeypatch.setattr(scoring, "in_processes", counted)
    for jobs in ("1", "3"):
        out = masks / f"{jobs}.csv"
        both = masks / "pred", masks / "ref"
        assert call(evaluate, "score", *both, "--jobs", jobs, "--out", out, monkeypatch=monkeypatch) == 0
        written.append(out.read_text())
    assert used == [1, 3] and written[0] == written[1]


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy"])
def test_an_image_is_measured_in_2d(tmp_path, monkeypatch, ending):
    y, x = np.mgrid[:40, :30]
    ref, pred = np.hypot(y - 18, x - 12) <= 9, np.hypot(y - 18, x - 17) <= 8
    for name, mask in (("ref", ref), ("pred", pred)):
        (tmp_path / name).mkdir()
        path = tmp_path / name / f"benign (1){ending}"
        if ending == ".npy":
            np.save(path, mask if name == "ref" else mask.astype(np.float32))
        else:
            Image.fromarray(mask * np.uint8(255 if name == "ref" else 1)).save(path)
    out, both = tmp_path / "m.csv", (tmp_path / "pred", tmp_path / "ref")
    assert call(evaluate, "score", *both, "--out", out, monkeypatch=monkeypatch) == 0
    (row,) = rows_of(out)
    assert row["unit"] == "px" and row["label"] == "1"
    assert float(row["hd95_mm"]) == pytest.approx(binary.hd95(pred, ref))
    # An image's x goes along its rows, an array's along its first axis.
    spacing = ("0.5", "2") if ending == ".npy" else ("2", "0.5")
    assert call(evaluate, "score", *both, "--out", out, "--spacing", *spacing, monkeypatch=monkeypatch) == 0
    (row,) = rows_of(out)
    assert row["unit"] == "mm" and float(row["hd95_mm"]) == pytest.approx(binary.hd95(pred, ref, (0.5, 2)))


def test_lesions_one_by_one_by_hand(tmp_path, monkeypatch):
    """One found in two parts, one missed, two that one prediction joins, and a false alarm."""
    ref, pred = np.zeros((30, 12), bool), np.zeros((30, 12), bool)
    ref[1:7, 1:3] = True
    pred[1:3, 1:3] = pred[5:7, 1:3] = True
    ref[10:12, 1:3] = True
    ref[15:17, 5:7] = ref[19:21, 5:7] = True
    pred[15:21, 5:7] = True
    pred[26:28, 8:10] = True
    found = lesion_scores(pred, ref, (1.0, 2.0))
    outcomes = ["scored", "missed", "scored", "scored", "false_alarm"]
    assert [(lesion["lesion"], lesion["outcome"]) for lesion in found] == list(enumerate(outcomes, start=1))
    assert [(lesion["n_ref"], lesion["n_pred"]) for lesion in found] == [(12, 8), (4, 0), (4, 12), (4, 12), (0, 4)]
    assert [lesion["dsc"] for lesion in found] == pytest.approx([16 / 20, 0, 8 / 16, 8 / 16, 0])
    left, joined = np.zeros_like(ref), np.zeros_like(ref)
    left[15:17, 5:7] = joined[15:21, 5:7] = True
    assert found[2]["hd95_mm"] == pytest.approx(binary.hd95(joined, left, (1.0, 2.0)))
    assert found[1]["hd95_mm"] == found[4]["hd95_mm"] == pytest.approx(np.hypot(30, 24))
    detection = lesion_detection(pred, ref)
    assert detection["n_lesions_detected"] == outcomes.count("scored")
    assert detection["n_lesions_false"] == outcomes.count("false_alarm")
    for name, mask in (("ref", ref), ("pred", pred)):
        np.save(tmp_path / f"{name}.npy", mask)
    files, table = (tmp_path / "pred.npy", tmp_path / "ref.npy"), tmp_path / "lesions.csv"
    assert call(evaluate, "score", *files, "--lesions", table, "--spacing", "1", "2", monkeypatch=monkeypatch) == 0
    assert [float(row["dsc"]) for row in rows_of(table)] == pytest.approx([lesion["dsc"] for lesion in found])
    assert [row["case_id"] for row in rows_of(table)] == ["ref"] * 5


def test_ignored_voxels_part_no_lesion_that_they_touch_not():
    ref = np.array([[1, 1, 1, 0, 1]])
    ignore = np.array([[0, 1, 0, 0, 0]])
    found = lesion_scores(np.array([[1, 0, 1, 0, 0]]), ref, (1, 1), ignore=ignore)
    assert [(lesion["outcome"], lesion["n_ref"]) for lesion in found] == [("scored", 1), ("scored", 1), ("missed", 1)]
    assert lesion_scores(ref * 0, ref * 0, (1, 1)) == []


def change(case_mask, spacing=SPACING):
    """A function that replaces the prediction of case a."""
    return lambda root: save_nifti(root / "pred" / "a.nii.gz", case_mask, spacing)


BAD = {
    "no prediction": (lambda root: (root / "pred" / "a.nii.gz").unlink(), "found none for a"),
    "two of one name": (lambda root: np.save(root / "ref" / "a.npy", np.ones((2, 2))), "one mask of each name"),
    "another shape": (change(blobs(0, (24, 20, 5))), "a: expected shape (24, 20, 6)"),
    "another spacing": (change(blobs(0), (0.7, 0.9, 4.0)), "a: expected spacing"),
    "probabilities": (change(np.full((24, 20, 6), 0.5)), "expected whole numbers"),
    "negative": (change(np.full((24, 20, 6), -1, np.int16)), "labels of 0 to"),
    "damaged": (
        lambda root: (root / "pred" / "a.nii.gz").write_bytes(b"\x1f\x8bno"), "a.nii.gz: expected a readable file"
    ),
    "mirrored": (
        lambda root: nib.save(nib.Nifti1Image(blobs(0), np.diag([-0.7, 0.9, 3.0, 1.0])), root / "pred" / "a.nii.gz"),
        "expected the orientation of",
    ),
    "a cut .npy": (
        lambda root: [
            (root / part / "a.nii.gz").unlink() or np.save(root / part / "a.npy", blobs(0)) for part in ("pred", "ref")
        ] and (root / "pred" / "a.npy").write_bytes((root / "pred" / "a.npy").read_bytes()[:-1]),
        "a: expected an array (X, Y) or (X, Y, Z) of labels",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_nothing_is_written(masks, monkeypatch, capfd, name):
    damage, message = BAD[name]
    damage(masks)
    out = masks / "m.csv"
    assert call(evaluate, "score", masks / "pred", masks / "ref", "--out", out, monkeypatch=monkeypatch) == 2
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--labels", "0"), "--labels: expected labels other than 0"),
        (("--labels", "2", "--ignore-label", "2"), "--labels: expected labels other than 0 and the ignored one"),
        (("--labels", "1", "7"), "--labels: expected labels of ref or pred, found 7 in no mask"),
        (("--tolerance", "-1"), "--tolerance: expected at least 0"),
        (("--spacing", "1", "0", "1"), "--spacing: expected"),
        (("--spacing", "1", "1"), "--spacing: expected 3 numbers"),
        (("--spacing", "1"), "--spacing: expected"),
        (("--jobs", "0"), "--jobs: expected"),
        (("--out", "same.csv", "--lesions", "same.csv"), "same.csv: expected a file of its own"),
    ],
)
def test_flags_that_do_not_fit(masks, monkeypatch, capfd, flags, message):
    monkeypatch.chdir(masks)
    assert call(evaluate, "score", "pred", "ref", *flags, monkeypatch=monkeypatch) == 2
    assert message in capfd.readouterr().err and not (masks / "same.csv").exists()


def test_only_a_table_of_scores_is_replaced(masks, monkeypatch, capsys):
    out, both = masks / "m.csv", (masks / "pred", masks / "ref")
    out.write_text("my,own,table\n")
    assert call(evaluate, "score", *both, "--out", out, monkeypatch=monkeypatch) == 2
    assert out.read_text() == "my,own,table\n" and "was made here before" in capsys.readouterr().err
    out.unlink()
    for _ in range(2):
        assert call(evaluate, "score", *both, "--out", out, monkeypatch=monkeypatch) == 0


def test_a_prediction_without_a_reference_is_said(masks, monkeypatch, capsys):
    (masks / "ref" / "a.nii.gz").unlink()
    assert call(evaluate, "score", masks / "pred", masks / "ref", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "a: a prediction without a reference, left out" in printed and "label 1, 2 cases" in printed


def test_what_has_no_partner_is_named_in_order(tmp_path):
    for folder, names in (("pred", "febda"), ("ref", "ba")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.npy").touch()
    pairs, left_out = find_pairs(tmp_path / "pred", tmp_path / "ref")
    assert [pair.case_id for pair in pairs] == ["a", "b"] and left_out == ["d", "e", "f"]
    with pytest.raises(InputError, match="expected a mask for each of .*pred, found none for d, e, f$"):
        find_pairs(tmp_path / "ref", tmp_path / "pred")
    (tmp_path / "pred" / "c.npy").touch()
    with pytest.raises(InputError, match="found none for c, d, e and others$"):
        find_pairs(tmp_path / "ref", tmp_path / "pred")


def test_what_is_no_mask_is_named(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", blobs(0), SPACING)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for pair in (("a.nii.gz", "notes.txt"), ("notes.txt", "a.nii.gz")):
        with pytest.raises(InputError, match=r"notes.txt: expected a mask \(.nii.gz, .*.npy\), found another file"):
            find_pairs(*(tmp_path / name for name in pair))
    for name, found in (("a.nii.gz", "a file"), ("gone", "nothing")):
        with pytest.raises(InputError, match=f"{name}: expected two masks or two folders of masks, found {found}"):
            masks_in(tmp_path / name)
    with pytest.raises(InputError, match=r"empty: expected masks \(.nii.gz, .*.npy\), found none"):
        masks_in(tmp_path / "empty")


def test_a_folder_may_hold_more_than_masks(tmp_path):
    for name in ("b.npy", ".hidden.npy", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert masks_in(tmp_path) == {"b": RawFile(tmp_path / "b.npy")}


@pytest.mark.parametrize(("name", "make", "found"), [
    ("d.npy", Path.mkdir, "a folder"), ("d.npy", lambda path: path.symlink_to("gone.npy"), "a link that leads to"),
    ("d.nii.gz", os.mkfifo, "no regular file"), ("d.NII.GZ", Path.touch, "its ending in capitals"),
    ("d.Png", Path.touch, "its ending in capitals"),
])
def test_what_is_named_like_a_mask_does_not_drop_out(masks, monkeypatch, capsys, name, make, found):
    make(masks / "ref" / name)
    assert call(evaluate, "score", masks / "pred", masks / "ref", monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"ref/{name}: expected a mask (.nii.gz, " in error and f"found {found}" in error


@pytest.fixture
def pair(tmp_path):
    """Two arrays in files of which none has a spacing."""

    def write(prediction, reference):
        for name, values in (("prediction", prediction), ("reference", reference)):
            np.save(tmp_path / f"{name}.npy", values)
        ((found,), _) = find_pairs(tmp_path / "prediction.npy", tmp_path / "reference.npy")
        return found

    return write


def test_two_masks_without_a_spacing_are_of_one_shape(pair):
    label = blobs(0)
    assert read_pair(pair(label, label), None).unit == "px"
    said = r"reference: expected a mask of shape \(24, 20, 6\), found \(24, 20, 5\) in .*prediction.npy"
    with pytest.raises(InputError, match=said):
        read_pair(pair(label[..., :5], label), None)


@pytest.mark.parametrize("spaced", ["prediction", "reference"])
def test_the_spacing_is_that_of_the_mask_that_has_one(tmp_path, spaced):
    label = blobs(0)[..., :1]
    for name in ("prediction", "reference"):
        if name == spaced:
            save_nifti(tmp_path / f"{name}.nii.gz", label, SPACING)
        else:
            np.save(tmp_path / f"{name}.npy", label)
    ((pair,), _) = find_pairs(*(next(tmp_path.glob(f"{name}.*")) for name in ("prediction", "reference")))
    found = read_pair(pair, None)
    assert found.spacing == pytest.approx(SPACING) and found.unit == "mm"


def test_slices_have_a_distance_between_them(pair):
    label = blobs(0)
    with pytest.raises(InputError, match="--spacing: expected 3 numbers for .*reference.npy of 6 slices, found 2"):
        read_pair(pair(label, label), (1.0, 2.0))
    assert read_pair(pair(label, label), (1.0, 2.0, 3.0)).spacing == (1.0, 2.0, 3.0)
    assert read_pair(pair(label[..., 0], label[..., 0]), (1.0, 2.0)).spacing == (1.0, 2.0, 1.0)


@pytest.mark.parametrize("values", [np.zeros(3, np.uint8), np.zeros((2, 2, 2, 2), np.uint8)])
def test_an_array_is_a_slice_or_a_volume_of_numbers(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    said = r"a: expected an array \(X, Y\) or \(X, Y, Z\) of labels, found .* in .*a.npy"
    with pytest.raises(InputError, match=said):
        read_npy("a", RawFile(tmp_path / "a.npy"))


def test_an_array_is_whole(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4), np.uint8))
    content = (tmp_path / "a.npy").read_bytes()
    for damaged in (content[:-1], content + b"0"):
        (tmp_path / "a.npy").write_bytes(damaged)
        with pytest.raises(InputError, match=r"a: expected an array"):
            read_npy("a", RawFile(tmp_path / "a.npy"))


def test_two_masks_lie_in_the_same_place(tmp_path):
    """A header that says nothing of it, as ISLES 2018 has them, goes with any."""
    place = np.diag([*SPACING, 1.0])
    for name, shift in (("a", 0.0), ("b", 5.0)):
        place[0, 3] = shift
        nib.save(nib.Nifti1Image(blobs(0), place), tmp_path / f"{name}.nii")
    save_nifti(tmp_path / "isles.nii", blobs(0), SPACING, identity_affine=True)
    with pytest.raises(InputError, match="b: expected the place of .*b.nii, found one 5 mm away in .*a.nii"):
        read_pair(MaskPair("b", RawFile(tmp_path / "a.nii"), RawFile(tmp_path / "b.nii")), None)
    for name in ("a", "b"):
        read_pair(MaskPair("b", RawFile(tmp_path / f"{name}.nii"), RawFile(tmp_path / "isles.nii")), None)


def test_two_masks_lie_in_the_same_way(tmp_path):
    for name, affine in (("a", np.diag([1, 1, 2, 1.0])), ("b", np.diag([-1, 1, 2, 1.0]))):
        nib.save(nib.Nifti1Image(blobs(0), affine), tmp_path / f"{name}.nii")
    ((found,), _) = find_pairs(tmp_path / "a.nii", tmp_path / "b.nii")
    with pytest.raises(InputError, match="expected the orientation of .*b.nii, LAS, found RAS in .*a.nii"):
        read_pair(found, None)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1 + 1j], "expected labels, found complex128"),
        ([1, -1], "expected labels of 0 to 65535, found -1 to 1"),
        ([1, 2**16], "expected labels of 0 to 65535, found 1 to 65536"),
        ([1.0, np.nan], "expected labels of 0 to 65535, found nan to nan"),
        ([1.0, 0.5], "expected whole numbers, found others"),
    ],
)
def test_labels_are_small_whole_numbers(tmp_path, values, said):
    with pytest.raises(InputError, match=f"a: {said} in {tmp_path}/a.npy"):
        as_integers("a", RawFile(tmp_path / "a.npy"), np.array(values))
    found = as_integers("a", RawFile(tmp_path / "a.npy"), np.array([0.0, 65535.0]))
    assert found.dtype == np.uint16 and found.tolist() == [0, 65535]


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(scoring, "in_processes", lambda function, jobs, **_: [function(job) for job in jobs])


def test_masks_of_nothing_but_background_have_no_score(tmp_path, in_this_process):
    for part in ("pred", "ref"):
        save_nifti(tmp_path / part / "a.nii.gz", np.zeros((4, 4, 2), np.uint8), SPACING)
    with pytest.raises(InputError, match="ref: expected a label other than 0 in .*ref or .*pred, found none"):
        scoring.score(tmp_path / "pred", tmp_path / "ref", ScoreOptions(), jobs=1)


def test_a_label_of_another_case_is_empty_in_both_masks(masks, in_this_process):
    """Every case has a line of every label, so that means are over the same cases."""
    for part in ("pred", "ref"):
        label = blobs(3)
        label[label == 2] = 0
        save_nifti(masks / part / "d.nii.gz", label, SPACING)
    rows = scoring.score(masks / "pred", masks / "ref", ScoreOptions(tolerance_mm=3.0), jobs=1).rows
    assert [(row["case_id"], row["label"]) for row in rows][-2:] == [("d", 1), ("d", 2)]
    empty = rows[-1]
    assert (empty["outcome"], empty["dsc"], empty["hd95_mm"]) == ("both_empty", 1.0, 0.0)
    assert (empty["n_ref"], empty["n_pred"], empty["unit"], empty["tolerance_mm"]) == (0, 0, "mm", 3.0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.5], "0.500"), ([0.5, 0.7], "0.600 (0.141)"), ([0.5, np.nan], "0.500 over 1 cases"),
        ([0.5, 0.7, np.nan], "0.600 (0.141) over 2 cases"), ([np.nan], "none"),
    ],
)
def test_a_mean_says_over_how_many_cases_it_is(values, said):
    assert scoring.mean_and_sd([{"dsc": value} for value in values], "dsc") == said
