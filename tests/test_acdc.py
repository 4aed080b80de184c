"""The ACDC reader against nibabel, on phantoms in both layouts and on real patients where they are there."""

import csv
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from raw_files import call, make_acdc, save_nifti, tree
from scipy import ndimage

import preprocess
from evaluation.scans import find_scans
from raw_data import DATASETS

ACDC = DATASETS["acdc"]
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "acdc"


def test_both_phases_of_each_patient_in_either_layout_or_a_zip(tmp_path):
    old = make_acdc(tmp_path / "old")
    new = make_acdc(tmp_path / "new", folder="database/training")
    make_acdc(tmp_path / "new", patients=(101,), folder="database/testing")
    with zipfile.ZipFile(tmp_path / "acdc.zip", "w") as archive:
        for path in old.rglob("*.*"):
            archive.write(path, path.relative_to(old))
    found = [ACDC.find_cases(source) for source in (old, new, tmp_path / "acdc.zip")]
    expected = [f"patient00{number}_{phase}" for number in (1, 2, 3, 4) for phase in ("ED", "ES")]
    for cases in found:
        assert [case.case_id for case in cases] == expected
        assert [case.patient_id for case in cases[:3]] == ["patient001", "patient001", "patient002"]
    for case, frame in zip(found[0][:2], ("04", "11"), strict=True):
        stem = old / "training" / "patient001" / f"patient001_frame{frame}"
        volume = ACDC.read_case(case)
        assert np.array_equal(volume.image[0], nib.load(f"{stem}.nii.gz").get_fdata())
        assert np.array_equal(volume.label, nib.load(f"{stem}_gt.nii.gz").get_fdata())
        assert volume.spacing == (1.5625, 1.5625, 10.0)


def test_phases_are_read_from_info_and_not_from_the_frames_order(tmp_path):
    root = make_acdc(tmp_path / "raw", patients=(1, 2))
    (root / "training" / "patient001" / "Info.cfg").write_text("ED: 11\r\nES: 4\r\n")
    cases = ACDC.find_cases(root)
    assert [case.images[0].path.name[11:18] for case in cases] == ["frame11", "frame04", "frame04", "frame11"]


def info(text):
    return lambda patient: (patient / "Info.cfg").write_text(text)


def copied(path, copy):
    copy.parent.mkdir(parents=True)
    shutil.copy(path, copy)


def save_label(change, spacing=(1.5625, 1.5625, 10.0)):
    def damage(patient):
        path = patient / "patient002_frame04_gt.nii.gz"
        save_nifti(path, change(np.asarray(nib.load(path).dataobj)), spacing)

    return damage


DAMAGES = {
    "no Info.cfg": (lambda patient: (patient / "Info.cfg").unlink(), "patient002: expected Info.cfg beside its frames"),
    "no ES": (info("ED: 4\n"), "patient002: expected one line 'ES: <frame>'"),
    "ED twice": (info("ED: 4\nES: 11\nED: 11\n"), "patient002: expected one line 'ED: <frame>' in"),
    "ED twice alike": (info("ED: 4\ned : 4\nES: 11\n"), "found ['4', '4']"),
    "a number of many digits": (info(f"ED: {'4' * 5000}\nES: 11\n"), "patient002: expected one line 'ED: <frame>' in"),
    "ED and ES alike": (info("ED: 4\nES: 04\n"), "patient002: expected two frames, ED and ES, found 4 for both in"),
    "Info.cfg in two spellings": (
        lambda patient: shutil.copy(patient / "Info.cfg", patient / "info.cfg"),
        "patient002: expected one Info.cfg, found ",
    ),
    "Info.cfg elsewhere too": (
        lambda patient: copied(patient / "Info.cfg", patient.parents[1] / "old" / "patient002" / "Info.cfg"),
        "patient002: expected one folder of this patient, found old/patient002 and training/patient002",
    ),
    "another frame": (info("ED: 4\nES: 12\n"), "patient002: expected the image of frame 12 (ES in Info.cfg), found"),
    "no label": (
        lambda patient: (patient / "patient002_frame11_gt.nii.gz").unlink(),
        "patient002: expected the label of frame 11 (ES in Info.cfg)",
    ),
    "label value": (save_label(lambda label: label * 2), "patient002_ED: expected label values 0, 1, 2, 3, found 4"),
    "label's axes": (save_label(lambda label: label.swapaxes(0, 1)), "expected shape (20, 26, 3), found (26, 20, 3)"),
    "label's spacing": (save_label(lambda label: label, (1.5, 1.5625, 10.0)), "patient002_ED: expected spacing"),
    "frame twice": (
        lambda patient: shutil.copytree(patient, patient.parent / "copy" / "patient002"),
        "patient002: expected one folder of this patient, found training/copy/patient002 and training/patient002",
    ),
    "frame twice in one folder": (
        lambda patient: shutil.copy(patient / "patient002_frame04.nii.gz", patient / "patient002_frame04.nii"),
        "patient002: expected one file of frame 4, found",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_patients(tmp_path, monkeypatch, capsys, name):
    damage, named = DAMAGES[name]
    root = make_acdc(tmp_path / "raw", patients=(1, 2))
    damage(root / "training" / "patient002")
    before = tree(tmp_path)
    code = call(preprocess, "acdc", "--source", root, "--dest", tmp_path / "d", "--size", "16", "--jobs", "1",
                monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and named in error, error
    assert tree(tmp_path) == before


def read_slices(dest, row, kind):
    return np.stack([np.load(path) for path in sorted((dest / row["split"] / kind).glob(f"{row['case_id']}_????.npy"))])


def check_slices(dest, source, size):
    """Against nibabel, NumPy and SciPy: crop around the centre, z-score, parity, maps of four classes."""
    rows = list(csv.DictReader((dest / "cases.csv").open()))
    for row in rows:
        assert row["split"] == ("val" if int(row["patient_id"][-3:]) % 2 else "train")
    for row in (rows[0], rows[-1]):
        info = dict(line.split(": ") for line in (source / row["patient_id"] / "Info.cfg").read_text().splitlines()[:2])
        stem = source / row["patient_id"] / f"{row['patient_id']}_frame{int(info[row['case_id'][-2:]]):02d}"
        image, label = (nib.load(f"{stem}{end}.nii.gz").get_fdata() for end in ("", "_gt"))
        image = (image - image.mean()) / image.std()
        x, y = ((n - size) // 2 for n in image.shape[:2])
        crop = np.s_[x : x + size, y : y + size]
        assert np.allclose(read_slices(dest, row, "image")[:, 0], np.moveaxis(image[crop], 2, 0), atol=2e-3, rtol=1e-3)
        sliced = read_slices(dest, row, "label")
        assert np.array_equal(sliced, np.moveaxis(label[crop], 2, 0))
        spacing = [float(row[f"spacing_{axis}_mm"]) for axis in "zxy"]
        assert spacing == pytest.approx(np.roll(nib.load(f"{stem}.nii.gz").header.get_zooms(), 1))
        for k in range(4):
            mask = sliced == k
            outside, inside = (ndimage.distance_transform_edt(m, sampling=spacing) for m in (~mask, mask))
            assert np.allclose(read_slices(dest, row, "phi3d")[:, k], outside - inside, rtol=1e-3, atol=1e-3)


def test_slices_are_crops_with_exact_maps_of_every_class(tmp_path):
    root = make_acdc(tmp_path / "raw")
    preprocess.main(["acdc", "--source", str(root), "--dest", str(tmp_path / "d"), "--size", "16", "--jobs", "1"])
    check_slices(tmp_path / "d", root / "training", 16)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real ACDC data beside the project")
def test_real_patients(tmp_path):
    for patient in ("patient001", "patient002", "patient017", "patient050", "patient100"):
        shutil.copytree(REAL / "training" / patient, tmp_path / "raw" / "training" / patient)
    flags = ("--size", "128", "--fit", "centre", "--jobs", "1")
    preprocess.main(["acdc", "--source", str(tmp_path / "raw"), "--dest", str(tmp_path / "d"), *flags])
    check_slices(tmp_path / "d", tmp_path / "raw" / "training", 128)


def test_the_scans_of_a_folder_are_its_frames_or_else_its_files(tmp_path):
    """A new patient needs neither Info.cfg nor labels; what lies deeper in a folder without frames is no scan."""
    root = make_acdc(tmp_path / "raw", patients=(1, 2))
    (root / "training" / "patient001" / "Info.cfg").unlink()
    frames = [f"patient{patient}_frame{frame}" for patient in ("001", "002") for frame in ("04", "11")]
    found = find_scans(ACDC, [root])
    assert [scan.case_id for scan in found] == frames and not any(scan.labels for scan in found)
    assert [scan.images[0].path.name for scan in found] == [f"{frame}.nii.gz" for frame in frames]
    own = tmp_path / "own"
    for name in ("b.nii", "a.nii.gz", "deeper/c.nii.gz"):
        save_nifti(own / name, np.zeros((4, 4, 2), np.uint8), (1, 1, 1))
    (own / "notes.txt").write_text("mine")
    assert [(scan.case_id, scan.images[0].path.name) for scan in find_scans(ACDC, [own])] == [
        ("a", "a.nii.gz"), ("b", "b.nii")]
