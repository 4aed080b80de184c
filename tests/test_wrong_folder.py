"""A folder of another data set is refused in a line that says which one it looks like."""

import pytest
from raw_files import (
    call,
    make_acdc,
    make_brats,
    make_busi,
    make_isles,
    make_kits,
    make_nnunet,
    make_wmh,
    tree,
)

import preprocess

MAKERS = {"isles": make_isles, "wmh": make_wmh, "acdc": make_acdc, "busi": make_busi, "brats": make_brats,
          "kits": make_kits, "nnunet": make_nnunet}


@pytest.mark.parametrize("there", MAKERS)
def test_another_data_set_is_named(tmp_path, monkeypatch, capsys, there):
    MAKERS[there](tmp_path / "raw")
    before = tree(tmp_path)
    for wanted in MAKERS:
        if wanted != there:
            dataset = ("mydata", "--layout", "nnunet") if wanted == "nnunet" else (wanted,)
            places = ("--source", tmp_path / "raw", "--dest", tmp_path / "d")
            assert call(preprocess, *dataset, *places, monkeypatch=monkeypatch) == 2
            error = capsys.readouterr().err
            assert error.count("\n") == 1 and f"; it looks like {there}" in error, (wanted, error)
    assert tree(tmp_path) == before
