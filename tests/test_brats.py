"""The BraTS reader against nibabel and NumPy, in the names of 2018 to 2021."""

import csv
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from raw_files import BRATS_NAMES, call, make_brats, save_nifti, tree

import preprocess
from raw_data import DATASETS
from raw_data.brats import listed_grade
from raw_data.files import RawFile, list_files
from utils import InputError

BRATS = DATASETS["brats"]
SEQUENCES = ("t1", "t1ce", "t2", "flair")


def test_channels_labels_and_grades(tmp_path):
    root = make_brats(tmp_path / "raw")
    cases = BRATS.find_cases(root)
    names = ["Brats18_2013_10_1", "Brats18_2013_2_1", "Brats18_CBICA_AAB_1", "Brats18_TCIA01_131_1"]
    assert [case.case_id for case in cases] == names
    assert [case.image_class for case in cases] == ["HGG", "HGG", "LGG", "HGG"]
    volume, folder = BRATS.read_case(cases[1]), root / "HGG" / names[1]
    for channel, sequence in enumerate(SEQUENCES):
        stored = nib.load(folder / f"{names[1]}_{sequence}.nii.gz").get_fdata()
        assert np.array_equal(volume.image[channel], stored)
    stored = nib.load(folder / f"{names[1]}_seg.nii.gz").get_fdata()
    assert set(np.unique(stored)) == {0, 1, 2, 4}
    for value, name in ((1, "NCR_NET"), (2, "ED"), (4, "ET")):
        assert np.array_equal(volume.label == BRATS.class_names.index(name), stored == value)


def test_names_of_2020_and_2021(tmp_path):
    names = [("MICCAI_BraTS2020_TrainingData", f"BraTS20_Training_{number}") for number in ("001", "002", "355")]
    root = make_brats(tmp_path / "2020", names=names, ending=".nii")
    folder = root / names[0][0]
    shutil.copytree(folder / names[0][1], root / "MICCAI_BraTS2020_ValidationData" / "BraTS20_Validation_001")
    last = folder / names[2][1]
    (last / f"{names[2][1]}_seg.nii").rename(last / "W39_1998.09.19_Segm.nii")
    ids = "".join(f"{grade},x,{name}\n" for grade, (_, name) in zip(("HGG", "LGG", "HGG"), names, strict=True))
    (folder / "name_mapping.csv").write_text(f"Grade,BraTS_2019_subject_ID,BraTS_2020_subject_ID\n{ids}")
    cases = BRATS.find_cases(root)
    assert [case.image_class for case in cases] == ["HGG", "LGG", "HGG"]
    assert BRATS.read_case(cases[2]).label.max() == 3
    later = make_brats(tmp_path / "2021", names=[("BraTS2021_Training_Data", f"BraTS2021_{n:05d}") for n in (0, 2, 3)])
    assert [(case.case_id, case.image_class) for case in BRATS.find_cases(later)] == [
        ("BraTS2021_00000", None), ("BraTS2021_00002", None), ("BraTS2021_00003", None)
    ]


def sliced(source, dest, *flags):
    preprocess.main(["brats", "--source", str(source), "--dest", str(dest), "--size", "24", "--jobs", "1", *flags])
    return {row["case_id"]: row["split"] for row in csv.DictReader((dest / "cases.csv").open())}


def test_the_high_grade_alone_is_split_by_turns(tmp_path, capsys):
    root = make_brats(tmp_path / "raw")
    assert sliced(root, tmp_path / "hgg") == {
        "Brats18_2013_10_1": "train", "Brats18_2013_2_1": "val", "Brats18_TCIA01_131_1": "train"
    }
    assert "share of the voxels: NCR_NET" in capsys.readouterr().out
    assert list(sliced(root, tmp_path / "all", "--classes", "LGG", "HGG").values()) == ["train", "val"] * 2
    assert len(sliced(root, tmp_path / "random", "--val", "1")) == 3
    command = ["brats", "--source", str(root), "--dest", str(tmp_path / "hgg"), "--size", "24"]
    preprocess.main([*command, "--check"])


def test_the_brain_is_standardised_and_the_rest_is_0(tmp_path):
    root = make_brats(tmp_path / "raw", shape=(24, 24, 3))
    sliced(root, tmp_path / "d")
    name = "Brats18_2013_10_1"
    raw = np.stack([nib.load(root / "HGG" / name / f"{name}_{s}.nii.gz").get_fdata() for s in SEQUENCES])
    brain = raw.any(axis=0)
    paths = sorted((tmp_path / "d" / "train" / "image").glob(f"{name}_*"))
    found = np.stack([np.load(path) for path in paths], axis=-1)
    for channel, volume in zip(found, raw, strict=True):
        expected = np.where(brain, (volume - volume[brain].mean()) / volume[brain].std(), 0)
        assert np.allclose(channel, expected, atol=2e-3)


DAMAGES = {
    "sequence": (lambda f, n: (f / f"{n}_t1ce.nii.gz").unlink(), "expected a file of t1ce"),
    "label": (lambda f, n: (f / f"{n}_seg.nii.gz").unlink(), "expected a file of label"),
    "value": (
        lambda f, n: save_nifti(f / f"{n}_seg.nii.gz", np.full((20, 24, 3), 3, np.uint8), (1, 1, 1)),
        "expected label values 0, 1, 2, 4, found 3",
    ),
    "axes": (
        lambda f, n: save_nifti(f / f"{n}_seg.nii.gz", np.zeros((24, 20, 3), np.uint8), (1, 1, 1)),
        "expected shape (20, 24, 3), found (24, 20, 3)",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_cases(tmp_path, monkeypatch, capsys, name):
    damage, named = DAMAGES[name]
    root = make_brats(tmp_path / "raw")
    damage(root / "HGG" / "Brats18_2013_2_1", "Brats18_2013_2_1")
    before = tree(tmp_path)
    code = call(preprocess, "brats", "--source", root, "--dest", tmp_path / "d", "--size", "16", "--jobs", "1",
                monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and "Brats18_2013_2_1: " in error and named in error, error
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("folder", "grade"), [
    ("HGG/case", "HGG"), ("data/LGG/case", "LGG"), ("a/b/HGG/case", "HGG"), ("case", None), ("data/HGG", None),
])
def test_the_grade_is_a_folder_above_the_case(folder, grade):
    paths = {name: name for name in (*SEQUENCES, "label")}
    files = {name: RawFile(Path(name)) for name in paths}
    assert BRATS.build_case("case", folder, paths, files).image_class == grade


def test_a_list_of_grades_in_another_encoding_is_read(tmp_path):
    """Of names that no grade depends on."""
    content = "Grade,Center,BraTS_2020_subject_ID\nHGG,Z\xfcrich,case\nLGG,x,other\nnone,x,third\n".encode("latin-1")
    (tmp_path / "name_mapping.csv").write_bytes(content)
    files = list_files(tmp_path)
    assert [listed_grade(name, files) for name in ("case", "other", "third", "fourth")] == ["HGG", "LGG", None, None]
    assert listed_grade("case", {}) is None


def test_a_damaged_list_of_grades_is_named(tmp_path):
    root = make_brats(tmp_path / "raw")
    for grade in ("HGG", "LGG"):
        (root / grade).rename(root / f"of {grade}")
    path = root / "name_mapping.csv"
    path.write_text("Grade,BraTS_2018_subject_ID\nLGG,Brats18_2013_2_1\n")
    assert {case.case_id: case.image_class for case in BRATS.find_cases(root)} == {
        name: "LGG" if name == "Brats18_2013_2_1" else None for _, name in BRATS_NAMES}
    path.write_text("Grade,BraTS_2018_subject_ID\n" + "x" * (csv.field_size_limit() + 1))
    with pytest.raises(InputError, match="name_mapping.csv: expected a readable CSV file, found field larger than"):
        BRATS.find_cases(root)


def test_a_sequence_in_two_files_is_named(tmp_path):
    root, name = make_brats(tmp_path / "raw"), "Brats18_2013_2_1"
    shutil.copy(root / "HGG" / name / f"{name}_t1.nii.gz", root / "HGG" / name / f"{name}_t1.nii")
    with pytest.raises(InputError, match=f"{name}: expected one file of t1, found HGG.*_t1.nii and HGG.*_t1.nii.gz"):
        BRATS.find_cases(root)
