"""Each flag of preprocess.py changes the part of a sliced data set that it should, and no other."""

import csv
import hashlib
import json

import numpy as np
import pytest
from raw_files import make_busi, make_isles, make_kits, make_nnunet, make_wmh

import preprocess
from slicing import slicer

CASES = [f"case_{n}" for n in range(1, 7)]
MAPS = {"phi2d", "phi3d"}
ALL = {"image", "label", *MAPS}
ISLES, KITS, BUSI, NNUNET = ("isles", "--val", "2"), ("kits",), ("busi", "--val", "2"), ("own", "--layout", "nnunet")
CENTRE = ("isles", "--val", "2", "--fit", "centre")
# What stands before a flag, its value, and the parts that change. All parts: ``parts_of``.
ACTS = {
    "--size": (ISLES, ("24",), {"meta size", "spacing", *ALL}),
    "--normalise": (ISLES, ("zscore",), {"meta normalise", "image"}),
    "--fit": (ISLES, ("centre",), {"meta fit", "spacing", *ALL}),
    "--spacing": (CENTRE, ("1.5",), {"meta spacing", "spacing", *ALL}),
    "--max-share": (BUSI, ("0.02",), {"meta max_share", "cases", "split"}),
    "--classes": (BUSI, ("malignant", "normal"), {"meta classes", "cases", "split"}),
    "--all-slices": (KITS, (), {"meta all_slices", "slices", *ALL}),
    "--distance-map": (ISLES, ("authors",), {"meta distance_map", *MAPS}),
    "--val": (ISLES, ("3",), {"meta split", "split"}),
    "--split-seed": (ISLES, ("1",), {"meta split", "split"}),
    "--group": (ISLES, ("patient",), {"meta split", "split"}),
    "--split": (("isles",), ("SPLIT",), {"meta split", "split"}),
    "--resize-labels": ((*ISLES, "--size", "24"), ("linear",), {"meta resize_labels", "label", *MAPS}),
    "--protocol": (ISLES, ("authors",), {"meta distance_map", *MAPS}),
    "--jobs": (ISLES, ("2",), {"processes"}),
    "--layout": (("isles", "--val", "2"), ("isles",), {"meta layout"}),
    "--source": (ISLES, ("OTHER",), {"meta source", "image", "label", *MAPS}),
}
ELSEWHERE = {
    "--dest": "test_slice_flags.py::test_a_flag_changes_what_it_should_and_only_that",
    "--check": "test_check.py::test_the_same_options_pass_and_write_nothing",
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Raw data of each layout, another source for ISLES, and a split file."""
    root = tmp_path_factory.mktemp("raw")
    make_isles(root / "isles", CASES)
    make_isles(root / "other", CASES[::-1])     # the same scans under each other's names
    make_kits(root / "kits")
    make_busi(root / "busi")
    make_nnunet(root / "own")
    (root / "split.txt").write_text("case_1\ncase_2\ncase_3\n")
    return root


def parts_of(raw, dest, dataset, *flags):
    """What a sliced data set consists of: what it says of itself, its split, the values of each case by kind."""
    in_processes = slicer.in_processes

    def counted(function, jobs, *, workers: int, description):
        found["processes"] = workers
        return in_processes(function, jobs, workers=workers, description=description)

    found = {}
    words = {"SPLIT": raw / "split.txt", "OTHER": raw / "other"}
    flags = [str(words.get(flag, flag)) for flag in flags]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slicer, "in_processes", counted)
        # Before the flags: the last of two counts.
        where = ("--source", str(raw / dataset), "--dest", str(dest), "--size", "16", "--jobs", "1")
        preprocess.main([dataset, *where, *flags])
    meta = json.loads((dest / "meta.json").read_text())
    aside = ("content", "checksums", "seal", "versions", "slices")
    found |= {f"meta {key}": value for key, value in meta.items() if key not in aside}
    rows = {row["case_id"]: row for row in csv.DictReader((dest / "cases.csv").open())}
    found["cases"] = sorted(rows)
    found["split"] = {case: row["split"] for case, row in rows.items()}
    for name, columns in (("slices", ("n_slices",)), ("spacing", ("spacing_",))):
        found[name] = {
            case: [value for key, value in row.items() if key.startswith(columns)] for case, row in rows.items()
        }
    for kind in ALL:
        found[kind] = {
            case: hashlib.sha256(b"".join(
                np.load(path).tobytes() for path in sorted(dest.glob(f"*/{kind}/{case}_????.npy"))
            )).hexdigest()
            for case in rows
        }
    return found


def differing(before, after):
    """The parts that differ; of those by case, in a case that both have."""
    common = set(before["cases"]) & set(after["cases"])
    by_case = {"slices", "spacing", *ALL}
    return {part for part in before if part not in by_case and before[part] != after[part]} | {
        part for part in by_case if any(before[part][case] != after[part][case] for case in common)
    }


@pytest.fixture(scope="module")
def without(raw, tmp_path_factory):
    known = {}

    def find(base):
        if base not in known:
            known[base] = parts_of(raw, tmp_path_factory.mktemp("base") / "data", *base)
        return known[base]

    return find


@pytest.mark.parametrize("flag", ACTS)
def test_a_flag_changes_what_it_should_and_only_that(raw, tmp_path, without, flag):
    base, value, changes = ACTS[flag]
    if flag == "--split":
        base = ("isles", "--val", "2")
        before, after = without(base), parts_of(raw, tmp_path / "data", "isles", flag, *value)
    else:
        before, after = without(base), parts_of(raw, tmp_path / "data", *base, flag, *value)
    assert differing(before, after) == changes


def val_of(parts):
    return [case for case, part in parts["split"].items() if part == "val"]


def test_a_split_has_as_many_cases_as_were_asked_for(raw, tmp_path, without):
    """By scan exactly; by patient at most, and exactly where the patients allow it: case_1 and case_2 are one."""
    assert len(val_of(without(ISLES))) == 2
    for number in (1, 2, 3):
        by_patient = parts_of(raw, tmp_path / str(number), "isles", "--val", str(number), "--group", "patient")
        assert len(val_of(by_patient)) == number
        assert len({by_patient["split"][case] for case in ("case_1", "case_2")}) == 1


def test_seeds_give_splits_of_their_own(raw, tmp_path):
    chosen = {
        tuple(val_of(parts_of(raw, tmp_path / str(seed), "isles", "--val", "2", "--split-seed", str(seed))))
        for seed in range(4)
    }
    assert len(chosen) > 2
    again = val_of(parts_of(raw, tmp_path / "again", "isles", "--val", "2", "--split-seed", "3"))
    assert tuple(again) in chosen


def test_the_split_of_a_file_is_its_own(raw, tmp_path):
    found = parts_of(raw, tmp_path / "data", "isles", "--split", "SPLIT")
    assert sorted(val_of(found)) == ["case_1", "case_2", "case_3"]


def test_the_values_of_flags_are_those_of_the_files(raw, tmp_path):
    """--size, --fit centre and --spacing by hand: 16 x 20 pixels of 0.9 x 0.8 mm."""
    resized = parts_of(raw, tmp_path / "a", "isles", "--val", "2", "--size", "24")
    # Headers keep 0.9 and 0.8 mm in float32.
    x, y = float(np.float32(0.9)), float(np.float32(0.8))
    assert [float(mm) for mm in resized["spacing"]["case_1"]] == pytest.approx([x * 16 / 24, y * 20 / 24, 5], rel=1e-12)
    centred = parts_of(raw, tmp_path / "b", "isles", "--val", "2", "--fit", "centre")
    assert [float(mm) for mm in centred["spacing"]["case_1"]] == [x, y, 5]
    resampled = parts_of(raw, tmp_path / "c", "isles", "--val", "2", "--fit", "centre", "--spacing", "1.6")
    # 14.4 and 16 mm become 9 and 10 pixels of 1.6 mm.
    found = [float(mm) for mm in resampled["spacing"]["case_1"]]
    assert found == pytest.approx([x * 16 / 9, y * 20 / 10, 5], rel=1e-12)
    shares = parts_of(raw, tmp_path / "d", "busi", "--val", "2", "--max-share", "1")
    assert len(shares["cases"]) == 7


def test_without_a_flag_as_many_cases_validate_as_in_the_paper(tmp_path):
    """20 of ISLES and 10 of WMH; of a data set of one's own a fifth."""
    make_isles(tmp_path / "isles", [f"case_{n}" for n in range(1, 23)], shape=(16, 16, 2))
    make_wmh(tmp_path / "wmh", [f"Utrecht/{n}" for n in range(12)], shape=(16, 16, 2))
    make_nnunet(tmp_path / "own", cases=[f"a_{n}" for n in range(9)], shape=(16, 16, 2))
    numbers = []
    for dataset, flags in (("isles", ()), ("wmh", ()), ("own", ("--layout", "nnunet"))):
        numbers.append(len(val_of(parts_of(tmp_path, tmp_path / f"{dataset} sliced", dataset, *flags))))
    assert numbers == [20, 10, 2]
