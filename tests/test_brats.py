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
from raw_data.files import RawFile
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


def without_grade_folders(root):
    """As BraTS 2020 has its cases: the grades are in a list beside them, if anywhere."""
    make_brats(root)
    for grade in ("HGG", "LGG"):
        (root / grade).rename(root / f"of {grade}")
    return root, [name for _, name in BRATS_NAMES]


def list_of(names, grades=("HGG", "HGG", "HGG", "LGG"), header="Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID"):
    return "".join(f"{line}\n" for line in [header, *(f"{g},NA,{n}" for g, n in zip(grades, names, strict=True))])


MEANT = {
    "as published": lambda text: text.encode(),
    "BOM": lambda text: text.encode("utf-8-sig"),
    "semicolons": lambda text: text.replace(",", ";").encode("utf-8-sig"),
    "spaces": lambda text: text.replace(",", " , ").encode(),
    "lower case": lambda text: text.replace("Grade", "grade").replace("GG", "gg").encode(),
    "Latin-1": lambda text: text.replace("NA", "Z\xfcrich").encode("latin-1"),
    "ends of Windows": lambda text: text.replace("\n", "\r\n").encode(),
}


@pytest.mark.parametrize("name", MEANT)
def test_a_list_of_grades_is_read_as_it_is_meant(tmp_path, name):
    root, names = without_grade_folders(tmp_path / "raw")
    (root / "name_mapping.csv").write_bytes(MEANT[name](list_of(names)))
    found = {case.case_id: case.image_class for case in BRATS.find_cases(root)}
    assert found == dict(zip(names, ("HGG", "HGG", "HGG", "LGG"), strict=True))


def replaced(old, new):
    return lambda text: text.replace(old, new).encode()


MISUNDERSTOOD = {
    "UTF-16": (lambda text: text.encode("utf-16"), "name_mapping.csv: expected"),
    "tabs": (replaced(",", "\t"), "name_mapping.csv: expected the columns Grade and BraTS_2020_subject_ID, found"),
    "another column": (replaced("Grade", "Degree"), "expected the columns Grade and .*, found 'Degree,BraTS_2017"),
    "the column twice": (replaced("BraTS_2017_subject_ID", "GRADE"), "expected the columns Grade and .*, found"),
    "other grades": (replaced("LGG", "II"), "name_mapping.csv: expected the grades HGG and LGG, found 'II'"),
    "of others": (replaced("Brats18", "Brats"), "name_mapping.csv: expected the grades of cases that are there, such"),
    "lines that contradict": (
        lambda text: f"{text}LGG,NA,Brats18_2013_2_1\n".encode(),
        "Brats18_2013_2_1: expected one grade, found HGG in .*name_mapping.csv and LGG in .*name_mapping.csv",
    ),
    "too large a field": (
        lambda text: f"{text}{'x' * (csv.field_size_limit() + 1)}".encode(),
        "name_mapping.csv: expected a readable CSV file, found field larger than",
    ),
}


@pytest.mark.parametrize("name", MISUNDERSTOOD)
def test_a_list_of_grades_that_says_none_is_refused(tmp_path, name):
    change, said = MISUNDERSTOOD[name]
    root, names = without_grade_folders(tmp_path / "raw")
    (root / "name_mapping.csv").write_bytes(change(list_of(names)))
    with pytest.raises(InputError, match=said):
        BRATS.find_cases(root)


def test_lists_and_folders_that_contradict_each_other_are_named(tmp_path):
    root, names = without_grade_folders(tmp_path / "raw")
    for folder, grades in (("one", "HGG HGG HGG LGG"), ("two", "HGG LGG HGG LGG")):
        (root / folder).mkdir()
        (root / folder / "name_mapping.csv").write_text(list_of(names, grades.split()))
    with pytest.raises(InputError, match=r"2013_2_1: expected one grade, found HGG in .*one/.* and LGG in .*two/name"):
        BRATS.find_cases(root)
    shutil.rmtree(root / "two")
    (root / "of LGG").rename(root / "HGG")
    with pytest.raises(InputError, match=r"AAB_1: expected one grade, found HGG in HGG/.*AAB_1 and LGG in .*one/name"):
        BRATS.find_cases(root)


def test_a_case_without_a_grade_among_others_is_refused_where_grades_are_chosen(tmp_path):
    root, names = without_grade_folders(tmp_path / "raw")
    (root / "name_mapping.csv").write_text(list_of(names, ("HGG", "NA", "HGG", "LGG")))
    with pytest.raises(InputError, match="Brats18_2013_2_1: expected its class .HGG, LGG., which is known of other"):
        sliced(root, tmp_path / "d")
    assert len(sliced(root, tmp_path / "all", "--classes", "HGG", "LGG")) == 4
    (root / "name_mapping.csv").unlink()
    assert len(sliced(root, tmp_path / "unknown")) == 4


def test_a_sequence_in_two_files_is_named(tmp_path):
    root, name = make_brats(tmp_path / "raw"), "Brats18_2013_2_1"
    shutil.copy(root / "HGG" / name / f"{name}_t1.nii.gz", root / "HGG" / name / f"{name}_t1.nii")
    with pytest.raises(InputError, match=f"{name}: expected one file of t1, found HGG.*_t1.nii and HGG.*_t1.nii.gz"):
        BRATS.find_cases(root)
