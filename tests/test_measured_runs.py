"""metrics.csv and metrics_2d.csv of runs that learnt something, beside medpy on the files that they left."""

import csv
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from commands import evaluate
from medpy.metric import binary
from scipy import ndimage

from sliced_data.meta import read_meta

RUNS = pytest.mark.parametrize("kind", ["trained", "trained_classes"])


def lines(folder, name="metrics.csv"):
    return list(csv.DictReader((folder / name).open()))


@pytest.fixture
def measured(request, kind):
    """Each line of a run's metrics with its two masks (X, Y, Z) and its spacing in cases.csv."""
    run = request.getfixturevalue(kind)
    data = request.getfixturevalue({"trained": "varied", "trained_classes": "three_classes"}[kind])
    spacing = {case.case_id: case.spacing for case in read_meta(data).cases}
    found = []
    for row, of_slices in zip(lines(run), lines(run, "metrics_2d.csv"), strict=True):
        case, k = row["case_id"], int(row["class_index"])
        assert (of_slices["case_id"], of_slices["class"]) == (case, row["class"])
        image = nib.load(run / "predictions" / f"{case}.nii.gz")
        assert image.header.get_zooms() == pytest.approx(spacing[case])
        files = sorted((data / "val" / "label").glob(f"{case}_*.npy"))
        reference = np.stack([np.load(path) for path in files], axis=-1)
        found.append((row, of_slices, np.asarray(image.dataobj) == k, reference == k, spacing[case]))
    assert len(found) == 2 * (len({row["class"] for row in lines(run)}))
    return found


@RUNS
def test_volumes_are_medpys(measured):
    for row, _, prediction, reference, spacing in measured:
        assert row["outcome"] == "scored"
        assert [int(row[name]) for name in ("n_pred", "n_ref", "n_voxels")] == [
            prediction.sum(), reference.sum(), reference.size
        ]
        assert float(row["dsc"]) == pytest.approx(binary.dc(prediction, reference))
        for column, metric in (("hd_mm", binary.hd), ("hd95_mm", binary.hd95), ("assd_mm", binary.assd)):
            assert float(row[column]) == pytest.approx(metric(prediction, reference, spacing), abs=1e-4), column
        one, other = (both_ways(*pair, spacing) for pair in ((prediction, reference), (reference, prediction)))
        larger = max(np.percentile(one, 95), np.percentile(other, 95))
        assert float(row["hd95_max_mm"]) == pytest.approx(larger, abs=1e-4)
        difference = np.prod(spacing) * (prediction.sum() - reference.sum(dtype=float))
        assert float(row["volume_difference_mm3"]) == pytest.approx(difference, rel=1e-6)
        assert float(row["avd_percent"]) == pytest.approx(100 * abs(difference) / (np.prod(spacing) * reference.sum()))


def surface(mask):
    return mask & ~ndimage.binary_erosion(mask)


def both_ways(mask, other, spacing):
    """Distances of a mask's surface to the other's."""
    return ndimage.distance_transform_edt(~surface(other), sampling=spacing)[surface(mask)]


@RUNS
def test_lesions_are_components_that_touch(measured):
    for row, _, prediction, reference, _ in measured:
        (of_pred, n_pred), (of_ref, n_ref) = (ndimage.label(m, np.ones((3, 3, 3))) for m in (prediction, reference))
        recall = len(set(of_ref[prediction & reference])) / n_ref
        precision = len(set(of_pred[prediction & reference])) / n_pred
        assert float(row["lesion_recall"]) == pytest.approx(recall)
        assert float(row["lesion_precision"]) == pytest.approx(precision)
        assert float(row["lesion_f1"]) == pytest.approx(2 * recall * precision / (recall + precision))
        assert int(row["lesion_count_difference"]) == n_pred - n_ref


@RUNS
def test_slices_are_medpys_in_the_plane(measured):
    """Both empty: DSC 1 and 0 mm; one empty: DSC 0 and the diagonal of the slice. Means over the slices."""
    for _, row, prediction, reference, spacing in measured:
        found = []
        for z in range(reference.shape[2]):
            pair = prediction[..., z], reference[..., z]
            if pair[0].any() and pair[1].any():
                found.append([metric(*pair, *at) for metric, at in (
                    (binary.dc, ()), (binary.hd95, (spacing[:2],)), (binary.hd, (spacing[:2],)))])
            else:
                diagonal = np.hypot(32 * spacing[0], 32 * spacing[1]) * (pair[0].any() or pair[1].any())
                found.append([float(diagonal == 0), diagonal, diagonal])
        means = [float(row[name]) for name in ("dsc", "hd95_mm", "hd_mm")]
        assert means == pytest.approx(np.mean(found, axis=0), abs=1e-4)
        assert int(row["n_slices"]) == reference.shape[2]
        assert int(row["n_empty_slices"]) == sum(not reference[..., z].any() for z in range(reference.shape[2]))


def test_slices_of_the_fixtures_tell_a_mean_from_a_median_and_empty_from_full(trained):
    rows = lines(trained, "metrics_2d.csv")
    assert {row["n_slices"] for row in rows} == {"5", "2"} and all(row["n_empty_slices"] == "1" for row in rows)
    assert len({row["hd95_mm"] for row in rows}) == 2 and all(float(row["hd_midl"]) > 0 for row in rows)


def test_hd_midl_is_of_data_sets_with_one_class(trained, trained_classes):
    assert all(row["hd_midl"] for row in lines(trained, "metrics_2d.csv"))
    assert not any(row["hd_midl"] for row in lines(trained_classes, "metrics_2d.csv"))


@RUNS
@pytest.mark.parametrize("tolerance", [0.0, 0.6, 1.2, 7.0])
def test_the_tolerance_of_the_surface_dice_is_the_flags(request, tmp_path, kind, tolerance):
    """Nikolov et al. 2018 over voxels: the share of both surfaces that lies within the tolerance."""
    run = shutil.copytree(request.getfixturevalue(kind), tmp_path / "run")
    before = lines(run)
    evaluate.main(["run", str(run), "--device", "cpu", "--tolerance", str(tolerance)])
    shares = set()
    for row, old in zip(lines(run), before, strict=True):
        image = nib.load(run / "predictions" / f"{row['case_id']}.nii.gz")
        data = request.getfixturevalue({"trained": "varied", "trained_classes": "three_classes"}[kind])
        files = sorted((data / "val" / "label").glob(f"{row['case_id']}_*.npy"))
        reference = np.stack([np.load(path) for path in files], axis=-1) == int(row["class_index"])
        prediction = np.asarray(image.dataobj) == int(row["class_index"])
        spacing = [float(size) for size in image.header.get_zooms()]
        pooled = np.concatenate([both_ways(prediction, reference, spacing), both_ways(reference, prediction, spacing)])
        assert float(row["surface_dice"]) == pytest.approx((pooled <= tolerance + 1e-4).mean(), abs=1e-6)
        assert row["tolerance_mm"] == str(tolerance)
        changed = {name for name in row if row[name] != old[name]}
        assert changed <= {"surface_dice", "tolerance_mm"} and "tolerance_mm" in changed
        shares.add(row["surface_dice"])
    assert len(shares) > 1 or tolerance == 7.0


@pytest.mark.parametrize("stops", [1, 2, 3])
def test_old_metrics_go_before_the_first_prediction_is_replaced(trained, tmp_path, monkeypatch, stops):
    """However early the renaming is killed, no metrics.csv is left beside predictions that it was not measured on."""
    run = shutil.copytree(trained, tmp_path / "run")
    replaced, replace = [], Path.replace

    def kill(path, target):
        if not target.name.startswith("."):     # not a temporary file's own
            if len(replaced) == stops - 1:
                raise KeyboardInterrupt
            replaced.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main(["run", str(run), "--device", "cpu", "--checkpoint", "last"])
    assert not (run / "metrics.csv").exists() and "metrics.csv" not in replaced


def test_the_summary_is_the_mean_over_cases_and_classes(trained_classes, tmp_path, capsys):
    run = shutil.copytree(trained_classes, tmp_path / "run")
    evaluate.main(["run", str(run), "--device", "cpu"])
    means = [np.mean([float(row[name]) for row in lines(run)]) for name in ("dsc", "hd95_mm")]
    assert f"DSC {means[0]:.3f}, HD95 {means[1]:.2f} mm over 2 volumes" in capsys.readouterr().out
