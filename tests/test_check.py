"""preprocess.py --check, the flags that a data set cannot honour, and data sets that were sliced before."""

import hashlib
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from raw_files import call, make_acdc, make_brats, make_busi, make_isles, make_nnunet, tree

import preprocess
from sliced_data.meta import read_meta
from slicing import check
from slicing.options import SplitOptions
from utils import InputError

MADE = ("--size", "32", "--val", "1")


@pytest.fixture
def isles(sliced, tmp_path, monkeypatch):
    """A copy of the sliced set, checked with ``MADE`` and what is added to it."""
    shutil.copytree(sliced, tmp_path / "isles")

    def check(*flags, source=sliced.parents[1] / "raw", made=MADE):
        command = ("isles", "--source", source, "--dest", tmp_path / "isles", *made, *flags, "--check")
        return call(preprocess, *command, monkeypatch=monkeypatch)

    return check


def test_the_same_options_pass_and_write_nothing(isles, sliced, tmp_path, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert isles() == 0
    assert isles("--split-seed", "0", "--group", "scan", "--distance-map", "paper", "--normalise", "minmax") == 0
    monkeypatch.chdir(sliced.parents[1])
    assert isles(source="data/../raw") == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--size", "48"), "expected --size 48, found it made with 32"),
        (("--val", "2"), "expected --val 2, found it made with 1"),
        (("--split-seed", "1"), "expected --split-seed 1, found it made with 0"),
        (("--group", "patient"), "expected --group patient, found it made with scan"),
        (("--distance-map", "authors"), "expected --distance-map authors, found it made with paper"),
        (("--distance-map", "reference"), "expected --distance-map authors, found it made with paper"),
        (("--normalise", "zscore"), "expected --normalise zscore, found it made with minmax"),
        (("--fit", "centre"), "expected --fit centre, found it made with resize"),
        (("--layout", "isles"), "expected --layout isles, found it made with none"),
    ],
)
def test_another_option_is_named(isles, tmp_path, capsys, flags, named):
    before = tree(tmp_path)
    assert isles(*flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and named in error and "DATA=<folder> keeps both, or remove it" in error
    assert tree(tmp_path) == before


def test_a_rule_is_named_by_its_file_where_it_has_one():
    rules = ({"rule": "file", "file": "a.json"}, {"rule": "scan", "file": None}, {})
    assert [check.describe(rule) for rule in rules] == ["a.json", "scan", None]


def test_another_source_is_named_and_a_missing_set_too(isles, tmp_path, capsys):
    assert isles(source=tmp_path) == 2
    assert f"expected --source {tmp_path}, found it made with" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "isles")
    assert isles() == 2
    assert "expected a sliced data set, found nothing" in capsys.readouterr().err


def test_a_set_without_the_rule_of_its_split_is_refused(isles, tmp_path, capsys):
    path = tmp_path / "isles" / "meta.json"
    meta = json.loads(path.read_text())
    del meta["seal"]
    without = {name: value for name, value in meta.items() if name != "split"}
    for changed, found in ((meta | {"split": "by hand"}, "'by hand'"), (without, "None")):
        path.write_text(json.dumps(changed))
        assert isles() == 2
        error = capsys.readouterr().err
        assert "meta.json: expected the rule of the split" in error and found in error


def test_a_split_file_is_held_against_the_cases(isles, sliced, tmp_path, capsys):
    validation = next(case.case_id for case in read_meta(sliced).cases if case.split == "val")
    other = next(case.case_id for case in read_meta(sliced).cases if case.split == "train")
    for name, code in ((validation, 0), (other, 2), ("case_99", 2)):
        (tmp_path / "split.txt").write_text(name)
        assert isles("--split", tmp_path / "split.txt", made=("--size", "32")) == code
    assert "expected --split" in capsys.readouterr().err.splitlines()[0]
    assert isles("--split", tmp_path / "gone.txt", made=("--size", "32")) == 2
    assert "gone.txt: expected a readable split file" in capsys.readouterr().err


def test_a_fifth_of_the_cases_is_another_split_than_their_number(sliced):
    meta = read_meta(sliced)
    wanted = SimpleNamespace(split=SplitOptions("scan"))
    with pytest.raises(InputError, match="isles: expected --val a fifth of the cases, found it made with 1; DATA=<fol"):
        check.check_split(meta, wanted)
    rule = {"rule": "scan", "seed": 0, "val_share": 0.2}
    check.check_split(replace(meta, facts=meta.facts | {"split": rule}), wanted)


def test_options_of_the_other_data_sets_are_held_too(tmp_path, monkeypatch, capsys):
    acdc, busi = make_acdc(tmp_path / "raw" / "acdc"), make_busi(tmp_path / "raw" / "busi")
    for name, source, flags, wrong in (
        ("acdc", acdc, ("--fit", "centre"), {"--val": ("--val", "2"), "--spacing": ("--spacing", "2")}),
        ("busi", busi, (), {"--max-share": ("--max-share", "0.1"), "--classes": ("--classes", "benign"),
                            "--val": ("--val", "3")}),
    ):
        command = (name, "--source", source, "--dest", tmp_path / name, "--size", "16", "--jobs", "1", *flags)
        assert call(preprocess, *command, monkeypatch=monkeypatch) == 0
        assert call(preprocess, *command, "--check", monkeypatch=monkeypatch) == 0
        for flag, values in wrong.items():
            capsys.readouterr()
            assert call(preprocess, *command, *values, "--check", monkeypatch=monkeypatch) == 2
            assert f"expected {'--group' if (name, flag) == ('acdc', '--val') else flag} " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dataset", "flags", "named"),
    [
        ("isles", ("--max-share", "0.1"), "--max-share: expected a data set of 2D images with classes, found isles"),
        ("acdc", ("--classes", "benign"), "--classes: expected a data set of 2D images with classes, found acdc"),
        ("wmh", ("--group", "image"), "--group image: expected a data set of 2D images"),
        ("wmh", ("--spacing", "1"), "--spacing: expected --fit centre beside it"),
        ("busi", ("--fit", "centre", "--spacing", "1"), "--spacing: expected a data set with a spacing in mm"),
        ("busi", ("--classes", "cyst"), "--classes: expected some of benign, malignant, normal, found cyst"),
        ("busi", ("--max-share", "0"), "--max-share: expected a share above 0"),
        ("busi", ("--max-share", "1e-9", "--classes", "malignant"), "expected images below --max-share 1e-09"),
        ("busi", ("--group", "patient"), "expected a data set that names its patients, found none (--group)"),
        ("acdc", ("--spacing", "nan"), "--spacing: expected 0.01 to 100 mm, found nan"),
        ("acdc", ("--split-seed", "1"), "--split-seed: expected --val or --group beside it"),
        ("liver", (), "liver: expected a data set of acdc, acdc-demo"),
        (
            "own", ("--layout", "nnunet", "--resize-labels", "bicubic"),
            "--resize-labels bicubic: expected labels without ignored voxels, found own",
        ),
        ("brats", ("--classes", "LGG"), "raw: expected cases of --classes LGG, found none"),
    ],
)
def test_what_a_data_set_cannot_honour(tmp_path, monkeypatch, capsys, dataset, flags, named):
    made = {"acdc": make_acdc, "busi": make_busi, "own": make_nnunet, "brats": make_brats}
    made.get(dataset, make_isles)(tmp_path / "raw")
    if dataset == "brats":
        shutil.rmtree(tmp_path / "raw" / "LGG")
    before = tree(tmp_path)
    command = (dataset, "--source", tmp_path / "raw", "--dest", tmp_path / "d", *flags)
    assert call(preprocess, *command, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and named in error, error
    assert tree(tmp_path) == before


def test_a_name_of_ones_own_in_a_known_layout(tmp_path):
    make_acdc(tmp_path / "raw")
    command = ["hearts", "--layout", "acdc", "--source", str(tmp_path / "raw"), "--dest", str(tmp_path / "d")]
    preprocess.main([*command, "--size", "16", "--fit", "centre", "--jobs", "1"])
    meta = read_meta(tmp_path / "d")
    assert (meta.dataset, meta.facts["layout"], meta.class_names[1]) == ("hearts", "acdc", "RV")


def test_data_sliced_before_keep_their_fingerprint_and_meaning(sliced, tmp_path):
    """Format 1 as commit 71d9d10 wrote it: no facts of normalisation or grid, the convention under its old name."""
    old = shutil.copytree(sliced, tmp_path / "old")
    facts = json.loads((old / "meta.json").read_text())
    named = ("format", "dataset", "size", "class_names", "modalities", "distance_map", "split", "slices", "content",
             "source", "versions")
    facts = {name: facts[name] for name in named}
    for convention in ("paper", "reference"):
        facts["distance_map"] = convention
        (old / "meta.json").write_text(json.dumps(facts))
        described = json.dumps({k: v for k, v in facts.items() if k not in ("source", "versions")}, sort_keys=True)
        expected = hashlib.sha256(described.encode() + (old / "cases.csv").read_bytes()).hexdigest()
        meta = read_meta(old)
        assert meta.fingerprint == expected and meta.convention == ("paper" if convention == "paper" else "authors")
        assert (meta.unit, meta.facts["normalise"], meta.facts["fit"]) == ("mm", "minmax", "resize")
        # The same set made today.
        today = json.loads((sliced / "meta.json").read_text()) | {"distance_map": meta.convention}
        del today["seal"]
        (old / "meta.json").write_text(json.dumps(today))
        assert read_meta(old).fingerprint == expected
