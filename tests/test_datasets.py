import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from raw_files import isles_path, make_isles, make_wmh, save_nifti

from raw_data import DATASETS, LAYOUTS, dataset_of_facts, find_dataset
from raw_data.dataset import Case
from raw_data.files import RawFile, list_files
from raw_data.skipped import describe_skipped
from raw_data.volumes import read_volumes
from slicing.fingerprint import describe_cases
from utils import InputError

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "wmh_like"


def zip_folder(folder, archive):
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                opened.write(path, path.relative_to(folder))


def test_each_data_set_has_the_code_of_its_papers_authors():
    """Whose code --protocol authors follows: MedIA 2021's, the breast-ultrasound study's, the region-wise paper's."""
    assert {name: dataset.authors for name, dataset in LAYOUTS.items()} == {
        "isles": "boundary", "wmh": "boundary", "busi": "busi", "acdc": "region-wise", "brats": "region-wise",
        "kits": "region-wise",
    }


def test_isles_folder_and_zip_give_the_same(tmp_path):
    folder = make_isles(tmp_path / "raw")
    (tmp_path / "zipped").mkdir()
    zip_folder(folder, tmp_path / "zipped" / "ISLES2018_Training.zip")
    unpacked, zipped = DATASETS["isles"].find_cases(folder), DATASETS["isles"].find_cases(tmp_path / "zipped")
    assert [case.case_id for case in unpacked] == ["case_1", "case_10", "case_2"]  # plain string order
    assert [(c.case_id, c.patient_id, c.source) for c in unpacked] == [
        (c.case_id, c.patient_id, c.source) for c in zipped
    ]
    for one, other in zip(unpacked, zipped, strict=True):
        a, b = DATASETS["isles"].read_case(one), DATASETS["isles"].read_case(other)
        assert np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label) and a.spacing == b.spacing


def test_isles_values_channels_patients_and_spacing(tmp_path):
    cases = DATASETS["isles"].find_cases(make_isles(tmp_path / "raw"))
    volume = DATASETS["isles"].read_case(cases[0])
    for channel, modality in enumerate(("CT", "CT_CBF", "CT_CBV", "CT_MTT", "CT_Tmax")):
        stored = np.asarray(nib.load(isles_path(tmp_path / "raw", "case_1", modality)).dataobj)
        assert np.array_equal(volume.image[channel], stored)
    # The affine is the identity: the spacing must come from the zooms.
    assert np.array_equal(nib.load(isles_path(tmp_path / "raw", "case_1", "CT")).affine, np.eye(4))
    assert volume.spacing == pytest.approx((0.9, 0.8, 5.0))
    assert {case.case_id: case.patient_id for case in cases} == {
        "case_1": "Train_01",
        "case_2": "Train_01",
        "case_10": "Train_02",
    }


def test_sidecars_of_two_patients_are_named(tmp_path):
    root = make_isles(tmp_path / "raw")
    sidecar = isles_path(root, "case_1", "OT").with_suffix(".json")
    sidecar.with_name("copy.json").write_text(sidecar.read_text())
    DATASETS["isles"].find_cases(root)
    sidecar.with_name("other.json").write_text('{"description": "Train_99_A"}')
    with pytest.raises(InputError, match=r"case_1/.*: expected sidecars of one patient, found .*json and .*other.json"):
        DATASETS["isles"].find_cases(root)


def test_isles_old_names_and_junk(tmp_path):
    root = make_isles(tmp_path / "raw", cases=("case_1",))
    for modality in ("CT_CBF", "CT_MTT"):
        path = isles_path(root, "case_1", modality)
        renamed = path.parent.with_name(path.parent.name.replace("CT_", "MR_"))
        path.parent.rename(renamed)
        (renamed / path.name).rename(renamed / path.name.replace("CT_", "MR_"))
    perfusion = isles_path(root, "case_1", "CT_4DPWI")
    perfusion.parent.mkdir()
    perfusion.write_bytes(b"large and never read")
    label = isles_path(root, "case_1", "OT")
    (label.parent / f"._{label.name}").write_bytes(b"resource fork")
    shutil.copytree(root / "TRAINING" / "case_1", root / "TESTING" / "case_1")
    (root / "ISLES2018_Testing.zip").write_bytes(b"a broken download that nobody needs")
    (case,) = DATASETS["isles"].find_cases(root)
    assert DATASETS["isles"].read_case(case).image.shape == (5, 16, 20, 3)


@pytest.mark.parametrize(("skipped", "said"), [
    ({}, ""),
    ({"x": "x/a.nii"}, "skipped 1 folder with images but no case of the layout L: x/a.nii"),
    ({"a.nii": "a.nii"}, "skipped 1 image but no case of the layout L: a.nii"),
    ({"x": "x/a.nii", "y": "y/b.nii", "c.nii": "c.nii"},
     "skipped 2 folders with images and 1 image but no case of the layout L: x/a.nii, y/b.nii, c.nii"),
    ({name: name for name in "abcd"}, "skipped 4 images but no case of the layout L: a, b, c, ..."),
])
def test_what_was_skipped_is_said(skipped, said):
    assert describe_skipped(skipped, "L") == said


def test_what_a_zip_of_macos_adds_is_no_scan(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("x/a.nii", "__MACOSX/x/a.nii", "__MACOSX/x/._a.nii", "x/._a.nii", "x/.DS_Store", "x/Thumbs.db"):
            archive.writestr(name, b"")
    assert list(list_files(tmp_path / "a.zip")) == ["x/a.nii"]
    assert list(list_files(tmp_path)) == ["x/a.nii", "a.zip"]


@pytest.mark.parametrize(("name", "classes", "lines"), [
    ("isles", [None] * 2, []),
    ("busi", ["malignant", "benign", "malignant"], ["3 images: 1 benign (33.33%), 2 malignant (66.67%)"]),
    ("brats", ["HGG", None], ["2 cases: 1 HGG (50.00%)",
                              "share of the voxels: NCR_NET 2.50% (paper 0.16%), ED 5.00% (paper 0.66%), "
                              "ET 7.50% (paper 0.26%)"]),
    ("acdc", [None] * 2, ["share of the voxels: RV 2.50% (paper 1.21%), MYO 5.00% (paper 1.30%), "
                          "LV 7.50% (paper 1.27%)"]),
])
def test_what_a_data_set_consists_of_in_print(name, classes, lines):
    cases = [SimpleNamespace(image_class=image_class) for image_class in classes]
    voxels = [{"voxels": [170, 5, 10, 15][: len(DATASETS[name].class_names)]}] * len(cases)
    assert describe_cases(DATASETS[name], cases, voxels) == lines


def test_wmh_old_and_new_layout(tmp_path):
    old = make_wmh(tmp_path / "old")
    new = tmp_path / "new"
    for old_name, new_name in (("Utrecht", "Utrecht"), ("Singapore", "Singapore"), ("GE3T", "Amsterdam/GE3T")):
        shutil.copytree(old / old_name, new / "training" / new_name)
        shutil.copytree(old / old_name, new / "test" / new_name)
        shutil.copytree(old / old_name, new / "additional_annotations" / "observer_o3" / "training" / new_name)
    for case in ("Utrecht/0", "Singapore/50"):
        shutil.copytree(new / "training" / case / "pre", new / "training" / case / "orig")
        shutil.copy(new / "training" / case / "pre" / "T1.nii.gz", new / "training" / case / "pre" / "3DT1.nii.gz")
    (new / "MANIFEST.TXT").write_text("stray")
    a, b = DATASETS["wmh"].find_cases(old), DATASETS["wmh"].find_cases(new)
    assert [case.case_id for case in a] == [case.case_id for case in b] == ["0", "100", "50"]
    assert b[1].source == "training/Amsterdam/GE3T/100"
    for one, other in zip(a, b, strict=True):
        assert np.array_equal(DATASETS["wmh"].read_case(one).image, DATASETS["wmh"].read_case(other).image)


def test_wmh_other_pathology_is_background(tmp_path):
    case = DATASETS["wmh"].find_cases(make_wmh(tmp_path / "raw"))[0]
    stored = np.asarray(nib.load(tmp_path / "raw" / "Utrecht" / "0" / "wmh.nii.gz").dataobj)
    label = DATASETS["wmh"].read_case(case).label
    assert set(np.unique(stored)) == {0, 1, 2} and np.array_equal(label, stored == 1)


def test_headers_may_differ_as_the_real_ones_do(tmp_path):
    case = DATASETS["wmh"].find_cases(make_wmh(tmp_path / "raw", cases=("Utrecht/0",)))[0]
    path = case.images[1].path
    image = nib.load(path)
    voxels = np.asarray(image.dataobj)
    for difference, fits in ((2e-5, True), (1e-3, False)):
        changed = nib.Nifti1Image(voxels, None)
        changed.header.set_zooms((1.2 + difference, 0.98, 3.0))
        nib.save(changed, path)
        if fits:
            DATASETS["wmh"].read_case(case)
        else:
            with pytest.raises(InputError, match=r"0: expected spacing \(1.2, 0.98, 3.0\) mm, found \(1.201, .*T1"):
                DATASETS["wmh"].read_case(case)


def test_one_case_in_two_folders_is_named(tmp_path):
    root = make_wmh(tmp_path / "raw", cases=("Utrecht/7", "Singapore/7"))
    with pytest.raises(InputError, match="7: expected one folder of this case, found Singapore/7 and Utrecht/7"):
        DATASETS["wmh"].find_cases(root)


def test_shares_of_the_classes_are_those_that_the_region_wise_paper_prints():
    """In per cent of the voxels."""
    printed = {"acdc": (1.21, 1.3, 1.27), "brats": (0.16, 0.66, 0.26), "kits": (1.89, 0.47)}
    for name, shares in printed.items():
        raw = DATASETS[name]
        assert tuple(raw.recipe.class_shares) == raw.class_names[1:]
        assert tuple(100 * share for share in raw.recipe.class_shares.values()) == pytest.approx(shares)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real lesions beside the project")
def test_real_scans_are_nibabels():
    wmh = DATASETS["wmh"]
    cases = wmh.find_cases(REAL)
    assert len(cases) == 5
    for case in cases:
        volume, (scan,) = wmh.read_case(case), REAL.glob(f"*/{case.case_id.split('_')[-1]}")
        images = [nib.load(scan / "pre" / f"{name}.nii.gz") for name in ("FLAIR", "T1")]
        assert np.array_equal(volume.image, np.stack([image.get_fdata(dtype=np.float32) for image in images]))
        label = np.asarray(nib.load(scan / "wmh.nii.gz").dataobj)
        assert np.array_equal(volume.label == 1, label == 1) and volume.label.max() <= 1
        assert volume.spacing == pytest.approx(images[0].header.get_zooms())


def test_a_data_set_and_its_layout_are_known_ones(tmp_path):
    with pytest.raises(InputError, match="mine: expected its raw data in nnU-Net's layout, found none"):
        find_dataset("mine", "nnunet")
    with pytest.raises(InputError, match="mine: expected a data set of acdc, .*wmh-demo, or --layout beside it"):
        find_dataset("mine")
    with pytest.raises(InputError, match="--layout: expected one of acdc, .*wmh, nnunet, found dicom"):
        find_dataset("mine", "dicom")
    assert find_dataset("mine", "wmh") is DATASETS["wmh"]
    facts = {"dataset": "mine", "layout": "nnunet", "modalities": ["T2"], "class_names": ["a", "b"], "unit": "mm"}
    for damaged in (facts, facts | {"label_values": {"x": 1}}):
        with pytest.raises(InputError, match=r"meta.json: expected endings and label_values of nnU-Net, found .*\("):
            dataset_of_facts(damaged)


def test_a_label_value_that_no_class_has_is_named(tmp_path):
    file = RawFile(tmp_path / "label.nii")
    case, label = Case("a", None, (file,), (file,), "a"), np.array([0, 4, 2, 1], np.float32)
    with pytest.raises(InputError, match="a: expected label values 0, 1, 2, 3, found 4 in .*label.nii"):
        DATASETS["acdc"].classes_of(case, label)
    assert DATASETS["brats"].classes_of(case, label).tolist() == [0, 3, 2, 1]


def test_files_of_another_shape_are_named(tmp_path):
    paths = [tmp_path / "a.nii", tmp_path / "b.nii"]
    for path, slices in zip(paths, (3, 2), strict=True):
        save_nifti(path, np.zeros((4, 5, slices), np.uint8), (1, 1, 1))
    with pytest.raises(InputError, match=r"c: expected shape \(4, 5, 3\), found \(4, 5, 2\) in .*b.nii"):
        read_volumes("c", [RawFile(path) for path in paths])
