import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from raw_files import call, make_isles, make_wmh, tree
from scipy import ndimage

import preprocess
from raw_data import DATASETS
from raw_data.dataset import Case
from raw_data.files import RawFile
from raw_data.volumes import Volume
from sliced_data.writing import new_folder
from slicing import slicer
from slicing.grid import Grid
from slicing.normalisation import scale
from slicing.options import Options, SplitOptions
from slicing.resampling import resize_volume
from slicing.selection import kept_slices
from slicing.splits import group_patients, read_folds, split_by_group, split_by_parity, split_by_scan
from utils import InputError

ROOT = Path(preprocess.__file__).parent


def slices(folder, case, kind):
    return np.stack([np.load(path, allow_pickle=False) for path in sorted((folder / kind).glob(f"{case}_????.npy"))])


def signed_distance(mask, spacing):
    """Eq. 4 with SciPy's transform, as the paper's text has it."""
    if not mask.any() or mask.all():
        return np.zeros(mask.shape)
    outside, inside = (ndimage.distance_transform_edt(m, sampling=spacing) for m in (~mask, mask))
    return outside - inside


def test_files_dtypes_shapes_and_tables(sliced):
    rows = list(csv.DictReader((sliced / "cases.csv").open()))
    assert [row["case_id"] for row in rows] == ["case_1", "case_10", "case_2"]
    assert sorted(row["split"] for row in rows) == ["train", "train", "val"]
    for row in rows:
        assert (row["n_slices"], row["n_lesion_slices"], row["size_x"], row["size_y"]) == ("3", "2", "16", "20")
        # 16 x 20 pixels of 0.9 x 0.8 mm, which headers keep in float32, became 32 x 32.
        assert float(row["spacing_x_mm"]) == float(np.float32(0.9)) * 16 / 32
        assert float(row["spacing_y_mm"]) == float(np.float32(0.8)) * 20 / 32
        folder = sliced / row["split"]
        shapes = {"image": (3, 5, 32, 32), "label": (3, 32, 32), "phi2d": (3, 2, 32, 32), "phi3d": (3, 2, 32, 32)}
        for kind, shape in shapes.items():
            array = slices(folder, row["case_id"], kind)
            assert array.shape == shape and array.dtype == (np.uint8 if kind == "label" else np.float16)
    meta = json.loads((sliced / "meta.json").read_text())
    assert meta["class_names"] == ["background", "lesion"] and meta["split"] == {"rule": "scan", "seed": 0, "val": 1}


def test_maps_are_scipys(sliced):
    spacing = (0.45, 0.5, 5.0)
    for row in csv.DictReader((sliced / "cases.csv").open()):
        folder = sliced / row["split"]
        label = slices(folder, row["case_id"], "label")  # (Z, X, Y)
        for k in (0, 1):
            in_3d = signed_distance(np.moveaxis(label == k, 0, -1), spacing)  # (X, Y, Z)
            stored = np.moveaxis(slices(folder, row["case_id"], "phi3d")[:, k], 0, -1)
            assert np.allclose(stored, in_3d, rtol=1e-3, atol=1e-3)
            in_2d = np.stack([signed_distance(one == k, spacing[:2]) for one in label])
            assert np.allclose(slices(folder, row["case_id"], "phi2d")[:, k], in_2d, rtol=1e-3, atol=1e-3)
        assert not slices(folder, row["case_id"], "phi2d")[0].any()  # no lesion there: zero map


def test_scaling_is_by_each_whole_volume():
    """0 to 23 in the first volume, slices of unlike ranges; 100 to 8 in the second."""
    first = np.arange(24.0).reshape(2, 3, 4)
    image = np.stack([first, 100 - 4 * first])
    assert np.allclose(scale(image), [first / 23, 1 - first / 23], atol=1e-7) and scale(image).dtype == np.float32


def test_resize_is_linear_without_antialiasing():
    rng = np.random.default_rng(0)
    image = rng.random((1, 6, 10, 2), dtype=np.float32)
    label = (rng.random((6, 10, 2)) > 0.6).astype(np.uint8)
    resized = resize_volume(Volume(image, label, (1.0, 2.0, 3.0)), Grid(8))
    assert resized.spacing == (0.75, 2.5, 3.0)
    # The centre of output pixel i lies at (i + 0.5) * n / 8 - 0.5 in input pixels.
    x, y = ((np.arange(8) + 0.5) * n / 8 - 0.5 for n in (6, 10))
    for z in range(2):
        grid = np.meshgrid(x, y, indexing="ij")
        expected = ndimage.map_coordinates(image[0, ..., z].astype(float), grid, order=1, mode="nearest")
        assert np.allclose(resized.image[0, ..., z], expected, atol=1e-6)
        rows, columns = (np.floor((np.arange(8) + 0.5) * n / 8).astype(int) for n in (6, 10))
        assert np.array_equal(resized.label[..., z], label[np.ix_(rows, columns, [z])][..., 0])


def test_the_authors_split_of_isles():
    """random.seed(0); random.sample(sorted names, 20), written out once from a separate Python session."""
    ids = [f"case_{n}" for n in range(1, 95)]
    assert split_by_scan(ids, 20, 0) == EXPECTED_ISLES


def test_the_authors_split_of_wmh():
    ids = [str(n) for n in (*UTRECHT, *SINGAPORE, *GE3T)]
    assert len(ids) == 60 and split_by_scan(ids, 10, 0) == EXPECTED_WMH


def test_split_by_patient_keeps_patients_whole():
    patients = [f"Train_{n // 2:02d}" if n < 30 else f"Train_{n}" for n in range(40)]
    cases = [Case(f"case_{n}", patient, (), (RawFile(ROOT),), "") for n, patient in enumerate(patients)]
    for seed in range(5):
        validation = split_by_group(group_patients(cases, "a patient"), 7, seed)
        assert len(validation) == 7     # patients of one scan fill the last place
        patients = {part: {c.patient_id for c in cases if (c.case_id in validation) == part} for part in (True, False)}
        assert not patients[True] & patients[False]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("split.json", '{"train": ["case_1"], "val": ["case_10"]}'),
        ("split.csv", "case_id,split\ncase_1,train\ncase_10,val\n"),
        ("split.txt", "# validation\ncase_10\n"),
    ],
)
def test_split_files(tmp_path, name, text, capsys):
    (tmp_path / name).write_text(text)
    make_isles(tmp_path / "raw")
    preprocess.main(
        [
            "isles",
            "--source",
            str(tmp_path / "raw"),
            "--dest",
            str(tmp_path / "out"),
            "--size",
            "16",
            "--split",
            str(tmp_path / name),
        ]
    )
    rows = {row["case_id"]: row["split"] for row in csv.DictReader((tmp_path / "out" / "cases.csv").open())}
    assert rows == {"case_1": "train", "case_10": "val", **({"case_2": "train"} if name == "split.txt" else {})}
    assert ("in neither list" in capsys.readouterr().out) == (name != "split.txt")


def test_two_slicings_of_one_folder_are_one_too_many(tmp_path):
    """The second is refused, and takes nothing away from the first."""
    with new_folder(tmp_path / "data") as folder:
        (folder / "train" / "label" / "mine.npy").touch()
        with pytest.raises(InputError, match="another process is at work"), new_folder(tmp_path / "data"):
            pass
        assert (folder / "train" / "label" / "mine.npy").exists()
    assert (tmp_path / "data" / "train" / "label" / "mine.npy").exists()


def test_one_process_or_two_give_the_same(tmp_path):
    make_wmh(tmp_path / "raw")
    for jobs in (1, 2):
        preprocess.main(
            [
                "wmh",
                "--source",
                str(tmp_path / "raw"),
                "--dest",
                str(tmp_path / f"out{jobs}"),
                "--size",
                "16",
                "--val",
                "1",
                "--jobs",
                str(jobs),
            ]
        )
    assert tree(tmp_path / "out1") == tree(tmp_path / "out2")
    for path in tree(tmp_path / "out1"):
        if (tmp_path / "out1" / path).is_file():
            assert (tmp_path / "out1" / path).read_bytes() == (tmp_path / "out2" / path).read_bytes()


# Sixty ids in the ranges of the three sites.
UTRECHT = (0, 2, 4, 6, 8, 11, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 49)
SINGAPORE = range(50, 70)
GE3T = (100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 112, 113, 114, 115, 116, 126, 132, 137, 138)
EXPECTED_ISLES = {
    "case_54",
    "case_58",
    "case_14",
    "case_4",
    "case_69",
    "case_66",
    "case_56",
    "case_44",
    "case_65",
    "case_50",
    "case_77",
    "case_34",
    "case_68",
    "case_25",
    "case_42",
    "case_20",
    "case_81",
    "case_39",
    "case_71",
    "case_91",
}
EXPECTED_WMH = {
    "65",
    "2",
    "6",
    "67",
    "23",
    "101",
    "115",
    "35",
    "33",
    "21",
}


def test_a_split_by_parity_needs_numbers():
    with pytest.raises(InputError, match="left: expected a number in its name to split by, found none; use --val"):
        split_by_parity([Case("left", None, (), (), "left.nii")])


@pytest.mark.parametrize("content", ["[]", "3", "[1]", '["a"]', '"a"'])
def test_a_split_file_of_something_else(tmp_path, content):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(InputError, match="split.json: expected lists named train and val, or a list of such folds"):
        read_folds(path)


def options(dataset="isles", **changes):
    return Options(**{
        "raw": DATASETS[dataset], "source": Path("raw"), "dataset": dataset, "layout": None, "grid": Grid(16),
        "normalise": "none", "max_share": None, "classes": None, "all_slices": True, "distance_map": "paper",
        "split": SplitOptions("scan"), **changes,
    })


@pytest.mark.parametrize(("value", "said"), [(70_000.0, "found 0 to 70000"), (-70_000.0, "found -70000 to 0")])
def test_intensities_beyond_float16_are_refused(value, said):
    image, label = np.zeros((1, 16, 16, 2), np.float32), np.zeros((16, 16, 2), np.uint8)
    image[0, 3, 3, 1] = value
    case = Case("a", None, (), (), "a")
    with pytest.raises(InputError, match=f"a: expected intensities that float16 can hold, {said}; use another --norm"):
        slicer.slice_volume(case, Volume(image, label, (1.0, 1.0, 1.0)), options(), None)
    image[0, 3, 3, 1] = 65_504 * np.sign(value)
    found = slicer.slice_volume(case, Volume(image, label, (1.0, 1.0, 1.0)), options(), None).image
    assert np.abs(found).max() == 65_504


def test_distances_beyond_float16_are_refused_where_there_are_any():
    image, label = np.zeros((1, 16, 16, 66), np.float32), np.zeros((16, 16, 66), np.uint8)
    case, spacing = Case("a", None, (), (), "a"), (1.0, 1.0, 1000.0)
    with pytest.raises(InputError, match="a: expected distances that float16 can hold, found a diagonal of 66000 mm"):
        slicer.slice_volume(case, Volume(image, label, spacing), options(), None)
    assert slicer.slice_volume(case, Volume(image, label, spacing), options("busi"), None).spacing == (1.0, 1.0, 1.0)
    fewer = Volume(image[..., :65], label[..., :65], spacing)
    assert slicer.slice_volume(case, fewer, options(), None).spacing == spacing


def test_the_training_cases_have_foreground_and_contrast(monkeypatch):
    cases = [Case(name, None, (), (), name) for name in "ab"]
    samples = {"a": np.array([[1.0, 2.0], [3.0, 3.0]]), "b": np.array([[5.0], [3.0]])}
    monkeypatch.setattr(slicer, "in_processes", lambda _, jobs, **__: [samples[job.case.case_id] for job in jobs])
    wmh, split = options("wmh"), {"a": "train", "b": "train"}
    with pytest.raises(InputError, match="raw: expected contrast in the foreground of T1, found one value"):
        slicer.measure_intensities(wmh, cases, split, 1)
    samples["b"] = np.array([[5.0], [4.0]])
    assert slicer.measure_intensities(wmh, cases, split, 1)[0][2] == pytest.approx(8 / 3)
    with pytest.raises(InputError, match="expected contrast in the foreground of FLAIR, found one value"):
        slicer.measure_intensities(wmh, cases, {"a": "val", "b": "train"}, 1)      # one voxel
    samples["a"] = np.zeros((2, 0))
    said = r"raw: expected foreground to train on \(--normalise clip-zscore\), found none"
    with pytest.raises(InputError, match=said):
        slicer.measure_intensities(wmh, cases, {"a": "train", "b": "val"}, 1)


def test_a_case_without_a_label_has_no_slice_unless_all_are_kept():
    case, label = Case("a", None, (), (), "a"), np.zeros((4, 4, 3), np.uint8)
    label[0, 0, 2] = 255
    with pytest.raises(InputError, match="a: expected a slice with a label, found none; --all-slices keeps them all"):
        kept_slices(case, label, all_slices=False)
    assert kept_slices(case, label, all_slices=True).tolist() == [0, 1, 2]
    label[0, 0, 1] = 1
    assert kept_slices(case, label, all_slices=False).tolist() == [1]


def test_what_a_killed_slicing_left_is_no_part_of_the_next(tmp_path):
    left = tmp_path / ".data.partial"
    (left / "train" / "label").mkdir(parents=True)
    for name in (".unfinished", "cases.csv", "train/label/old_0000.npy"):
        (left / name).write_text("half")
    with new_folder(tmp_path / "data"):
        pass
    assert not left.exists() and not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_a_kill_while_a_failed_slicing_is_cleared_leaves_its_sign(tmp_path, monkeypatch):
    """The sign goes with the folder, when nothing else is in it any more."""
    remove, left = shutil.rmtree, []

    def watch(path, **options):
        if path.name == ".data.partial":
            left.append(os.listdir(path))
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watch)
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "data") as folder:
        (folder / "cases.csv").write_text(f"{1 / 0}")
    assert left == [[".unfinished"]] and not os.listdir(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "link to a folder", "link to nothing", "file"])
def test_what_lies_in_the_way_of_slicing_and_is_not_its_own_stays(tmp_path, monkeypatch, capsys, kind):
    """Raw data, for instance, that are in a folder of that name."""
    make_isles(tmp_path / "mine")
    way = tmp_path / ".data.partial"
    if kind == "folder":
        (tmp_path / "mine").rename(way)
    elif kind == "file":
        way.write_text("mine")
    else:
        way.symlink_to("mine" if kind == "link to a folder" else "nothing")
    before = tree(tmp_path)
    source = way if kind == "folder" else tmp_path / "mine"
    arguments = ("isles", "--source", source, "--dest", tmp_path / "data", "--size", "32", "--val", "1", "--jobs", "1")
    assert call(preprocess, *arguments, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert ".data.partial: expected nothing, or what a killed preprocess.py has left" in error
    assert tree(tmp_path) == before

