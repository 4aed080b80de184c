"""Phantoms of ACDC, BraTS, KiTS and nnU-Net against the real layouts, read with nibabel: names, axes, labels."""
import json
import re

import nibabel as nib
import numpy as np
import phantom
import pytest
from phantoms import make
from scipy.ndimage import binary_dilation


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """layout -> its folder, made when it is first asked for."""
    folders = {}

    def get(layout):
        if layout not in folders:
            folders[layout] = make(layout, tmp_path_factory.mktemp(layout))
        return folders[layout]

    return get


# ACDC.


def acdc_patients(folder):
    """patient -> (Info.cfg as a dictionary, phase -> (image, label) as nibabel has them)."""
    patients = {}
    for place in sorted((folder / "training").iterdir()):
        info = dict(line.split(": ") for line in (place / "Info.cfg").read_text().splitlines())
        stems = {phase: place / f"{place.name}_frame{int(info[phase]):02d}" for phase in ("ED", "ES")}
        pairs = {name: (nib.load(f"{stem}.nii.gz"), nib.load(f"{stem}_gt.nii.gz")) for name, stem in stems.items()}
        names = {path.name for path in place.iterdir()}
        assert len(names) == 6 and {"Info.cfg", f"{place.name}_4d.nii.gz"} <= names
        patients[place.name] = info, pairs
    return patients


def test_acdc_has_both_phases_of_each_patient_where_info_says(made):
    patients = acdc_patients(made("acdc"))
    assert list(patients) == [f"patient{number:03d}" for number in range(1, 6)]
    assert {name: info["ED"] for name, (info, _) in patients.items() if info["ED"] != "1"} == {"patient005": "4"}
    for info, _ in patients.values():
        assert int(info["ED"]) < int(info["ES"]) <= int(info["NbFrame"])
        assert info["Group"] in ("NOR", "DCM", "HCM", "MINF", "RV")
    assert nib.load(made("acdc") / "training/patient001/patient001_4d.nii.gz").ndim == 4


def test_acdc_grids_are_thick_and_of_several_shapes(tmp_path):
    assert phantom.main(["acdc", "--out", str(tmp_path), "--cases", "3", "--slices", "4"]) == 0
    shapes = set()
    for _, pairs in acdc_patients(tmp_path).values():
        for image, label in pairs.values():
            assert image.shape == label.shape and image.shape[2] == 4
            assert image.header.get_zooms() == label.header.get_zooms()
            x_mm, y_mm, z_mm = image.header.get_zooms()
            assert x_mm == y_mm and 1.3 < x_mm < 1.6 and z_mm == 10
            assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
            shapes.add(image.shape[:2])
    assert shapes == {(216, 256), (232, 256), (256, 216)}


def test_acdc_labels_are_those_of_hearts(made):
    for _, pairs in acdc_patients(made("acdc")).values():
        sizes = {}
        for phase, (image, label) in pairs.items():
            image, label = np.asarray(image.dataobj, dtype=float), np.asarray(label.dataobj)
            assert set(np.unique(label)) == {0, 1, 2, 3}
            outside = binary_dilation(label == 3, np.ones((3, 3, 1))) & (label != 3)
            assert set(np.unique(label[outside])) == {2}  # the wall closes the cavity in every slice
            assert min(image[label == 3].mean(), image[label == 1].mean()) > 1.5 * image[label == 2].mean()
            sizes[phase] = (label == 3).sum()
            x = [np.argwhere(label == value)[:, 0].mean() for value in (1, 3)]
            assert x[0] < x[1]  # the right ventricle is on the left of the image
        assert sizes["ES"] < 0.9 * sizes["ED"]


def test_acdc_slices_at_the_base_and_at_the_apex_lack_ventricles(made):
    first, last, empty, lacking, slices = [], [], 0, 0, 0
    for _, pairs in acdc_patients(made("acdc")).values():
        for _, label in pairs.values():
            has = [(np.asarray(label.dataobj) == value).any(axis=(0, 1)) for value in range(4)]
            heart = np.flatnonzero(has[2])
            first.append(has[1][heart[0]])
            last.append(has[1][heart[-1]])
            empty += int((~has[2]).sum())
            lacking += int((~has[1]).sum())
            slices += len(has[1])
    assert set(first) == {True, False}  # the right ventricle, in the first and the last slice of the heart
    assert not all(last)
    assert 0 < empty < lacking < 0.4 * slices


# BraTS.

CONTRASTS = ("t1", "t1ce", "t2", "flair")


def brats_cases(folder):
    """(grade, case id, its label and images by name), in the order of strings."""
    for place in sorted(folder.glob("*/*")):
        names = {f"{place.name}_{name}.nii.gz": name for name in (*CONTRASTS, "seg")}
        assert {path.name for path in place.iterdir()} == set(names)
        yield place.parent.name, place.name, {name: nib.load(place / file) for file, name in names.items()}


def test_brats_names_are_those_of_three_sites_in_two_grades(made):
    grades = {}
    for grade, case_id, _ in brats_cases(made("brats")):
        assert re.fullmatch(r"Brats18_(2013_\d+_1|CBICA_[A-Z]{3}_1|TCIA\d\d_\d+_1)", case_id)
        grades.setdefault(grade, []).append(case_id)
    assert {grade: len(ids) for grade, ids in grades.items()} == {"HGG": 8, "LGG": 1}
    assert grades["HGG"].index("Brats18_2013_10_1") < grades["HGG"].index("Brats18_2013_2_1")


def test_brats_volumes_share_a_grid_and_a_background_of_zero(made):
    for _, _, images in brats_cases(made("brats")):
        assert {image.shape for image in images.values()} == {(80, 80, 16)}
        assert {tuple(image.header.get_zooms()) for image in images.values()} == {(3, 3, 5)}
        assert nib.aff2axcodes(images["seg"].affine) == ("L", "P", "S")
        brains = [np.asarray(images[name].dataobj) != 0 for name in CONTRASTS]
        assert all(np.array_equal(brains[0], brain) for brain in brains)
        assert 0.1 < brains[0].mean() < 0.6 and not brains[0][0].any()
        assert not (np.asarray(images["seg"].dataobj) != 0)[~brains[0]].any()
        assert all(np.asarray(images[name].dataobj).min() == 0 for name in CONTRASTS)


def test_brats_labels_are_1_2_4_and_one_high_grade_case_lacks_4(made):
    labels = {}
    for grade, case_id, images in brats_cases(made("brats")):
        label, t1ce, flair = (np.asarray(images[name].dataobj).astype(int) for name in ("seg", "t1ce", "flair"))
        labels[grade, case_id] = set(np.unique(label))
        brain = (flair > 0) & (label == 0)
        assert flair[label == 2].mean() > 1.3 * flair[brain].mean()
        if 4 in labels[grade, case_id]:
            assert t1ce[label == 4].mean() > 1.3 * max(t1ce[brain].mean(), t1ce[label == 1].mean())
    assert set.union(*labels.values()) == {0, 1, 2, 4}
    without = [case_id for (grade, case_id), values in labels.items() if grade == "HGG" and 4 not in values]
    assert without == ["Brats18_CBICA_AAA_1"]


# KiTS.


def kits_cases(folder):
    for place in sorted(folder.iterdir()):
        assert {path.name for path in place.iterdir()} == {"imaging.nii.gz", "segmentation.nii.gz"}
        yield place.name, nib.load(place / "imaging.nii.gz"), nib.load(place / "segmentation.nii.gz")


def test_kits_axes_are_slices_rows_columns(made):
    for number, (name, image, label) in enumerate(kits_cases(made("kits"))):
        assert name == f"case_{number:05d}"
        assert image.shape == label.shape and image.shape[1:] == (64, 100 if number == 3 else 64)
        z_mm, y_mm, x_mm = image.header.get_zooms()
        assert z_mm in (3, 4, 5) and y_mm == x_mm and np.allclose(label.header.get_zooms(), (z_mm, y_mm, x_mm))
        assert nib.aff2axcodes(image.affine) == ("I", "P", "L")
        hounsfield = np.asarray(image.dataobj)
        slices, rows, columns = np.nonzero(hounsfield > 230)  # bone: the spine, one column at the back
        assert set(slices) == set(range(image.shape[0]))
        assert rows.mean() > 0.55 * image.shape[1] and columns.std() < 0.1 * image.shape[2]


def test_kits_labels_begin_and_end_inside_the_scan(made):
    types = []
    for _, image, label in kits_cases(made("kits")):
        values, hounsfield = np.asarray(label.dataobj), np.asarray(image.dataobj)
        assert set(np.unique(values)) == {0, 1, 2}
        labelled = np.flatnonzero(values.any(axis=(1, 2)))
        assert np.array_equal(labelled, np.arange(labelled[0], labelled[-1] + 1))
        assert labelled[0] > 0 and labelled[-1] < len(values) - 1
        assert hounsfield.dtype == np.int16 and -1024 <= hounsfield.min() < -900
        assert 130 < hounsfield[values == 1].mean() < 220 and 40 < hounsfield[values == 2].mean() < 110
        types.append(label.get_data_dtype())
    assert types == [np.uint8] * 4 + [np.uint16]


def test_kits_tumours_grow_on_either_side_in_even_and_in_odd_cases(made):
    sides = []
    for _, _, label in kits_cases(made("kits")):
        values = np.asarray(label.dataobj)
        sides.append(np.argwhere(values == 2)[:, 2].mean() < values.shape[2] / 2)
    assert sides == [True, True, False, False, True]


# nnU-Net's raw layout.


def test_nnunet_is_described_by_its_json(made):
    folder = made("nnunet")
    described = json.loads((folder / "dataset.json").read_text())
    assert described["channel_names"] == {"0": "T2", "1": "ADC"}
    assert described["labels"] == {"background": 0, "gland": 1, "lesion": 2, "ignore": 3}
    assert described["file_ending"] == ".nii.gz" and described["numTraining"] == 6
    ids = [f"pelvis_{number:03d}" for number in range(1, 7)]
    assert sorted(path.name for path in (folder / "labelsTr").iterdir()) == [f"{name}.nii.gz" for name in ids]
    channels = [f"{name}_000{channel}.nii.gz" for name in ids for channel in (0, 1)]
    assert sorted(path.name for path in (folder / "imagesTr").iterdir()) == channels
    unlabelled = sorted(path.name for path in (folder / "imagesTs").iterdir())
    assert unlabelled == ["pelvis_007_0000.nii.gz", "pelvis_007_0001.nii.gz"]
    folds = json.loads((folder / "splits_final.json").read_text())
    assert len(folds) == 5 and sorted(name for fold in folds for name in fold["val"]) == ids
    assert all(sorted(fold["train"] + fold["val"]) == ids for fold in folds)


def test_nnunet_lesions_need_both_channels_and_a_third_of_the_cases_has_voxels_to_ignore(made):
    ignored = {}
    for path in sorted((made("nnunet") / "labelsTr").iterdir()):
        label, name = nib.load(path), path.name.removesuffix(".nii.gz")
        images = [nib.load(made("nnunet") / "imagesTr" / f"{name}_000{channel}.nii.gz") for channel in (0, 1)]
        assert all(np.array_equal(image.affine, label.affine) and image.shape == label.shape for image in images)
        values = np.asarray(label.dataobj)
        ignored[name] = (values == 3).any()
        assert ignored[name] == (values[..., -1] == 3).all() and {0, 1, 2} <= set(np.unique(values))
        assert (values[..., :-1] == 3).any() == ignored[name]
        t2, adc = (np.asarray(image.dataobj) for image in images)
        assert t2[values == 2].mean() < 0.8 * t2[values == 1].mean()
        assert adc[values == 2].mean() < 0.7 * adc[values == 1].mean()
    assert [name for name, found in ignored.items() if found] == ["pelvis_003", "pelvis_006"]
