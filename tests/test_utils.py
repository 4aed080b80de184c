"""What every command shares: files of text, JSON and CSV up to their limits, names, and words for what is damaged."""

import json
import os
import stat

import pytest

import utils
from utils import InputError


@pytest.mark.parametrize(
    "text", ["1e5", "-0.5", '{"a": [null, true, "ä"]}', "9" * 18, "-" + "9" * 17, "[" * 40 + "]" * 40]
)
def test_json_is_pythons(text):
    assert utils.parse_json(text) == json.loads(text)


@pytest.mark.parametrize("text", [
    "9" * 19, "-" + "9" * 18, "9" * 5000, "NaN", "Infinity", "-Infinity", "1e400", r'"\ud800"', "[" * 100_000,
    "", "{", "[1,]", '{"a": 1, "a": 1}', '[{"b": {"a": [], "c": 2, "a": 1}}]',
])
def test_json_that_no_file_of_ours_could_hold_again_is_refused(text):
    with pytest.raises(ValueError, match="."):
        utils.parse_json(text)


def test_nesting_leaves_room_for_more():
    """What is accepted can be written again some levels deeper, as a part of a file of ours."""
    deep = next(depth for depth in range(100, 100_000) if not is_parsed("[" * depth + "]" * depth))
    value = utils.parse_json("[" * (deep - 1) + "]" * (deep - 1))
    for _ in range(40):
        value = [value]
    json.dumps(value)


def is_parsed(text):
    try:
        utils.parse_json(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("content", "said"), [
    ("[1]", "expected a JSON object, found list"), ("{", "expected a readable JSON file, found "),
    (None, "expected a readable JSON file, found .*No such file"),
    (b"\xff{}", "expected a readable JSON file, found .*utf-8"),
    ('{"train": ["a"], "val": ["b"], "val": ["c"]}', "expected a readable JSON file, found the key 'val' twice$"),
])
def test_a_file_that_is_no_object_is_named(tmp_path, content, said):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"^{path}: {said}"):
        utils.read_json(path)


def test_json_and_csv_come_back(tmp_path):
    value = {"a": [1, 0.1, None], "ä": "\u2028", "nested": {"b": 2**53}}
    utils.write_json(tmp_path / "a.json", value)
    assert utils.read_json(tmp_path / "a.json") == value and (tmp_path / "a.json").read_text().endswith("}\n")
    rows = [{"x": 0.1 + 0.2, "y": "a,b"}, {"x": 1e-300, "y": 'say "no"\nor yes'}]
    utils.write_rows(tmp_path / "a.csv", rows, ("y", "x"))
    found = utils.read_rows(tmp_path / "a.csv", ("x",))
    assert [(float(row["x"]), row["y"]) for row in found] == [(row["x"], row["y"]) for row in rows]
    assert (tmp_path / "a.csv").read_text().startswith("y,x\n")


@pytest.mark.parametrize(("text", "said"), [
    ("a,b\n1,2", "line 2 is cut off or too long: expected 2 fields"), ("a,b\n1\n3,4\n", "line 2 is cut off"),
    ("a,b\n1,2\n3,4,5\n", "line 3 is cut off"), ("a,c\n1,2\n", "expected a column b, found a, c"),
    ("b,a,b\n1,2,3\n", "expected a readable CSV file, found the column 'b' twice$"),
    ("a,b\n", "expected a column b, found no rows"), ("", "expected a column b, found no rows"),
])
def test_a_csv_that_is_not_whole_is_named(tmp_path, text, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=f"^{tmp_path / 'a.csv'}: {said}"):
        utils.read_rows(tmp_path / "a.csv", ("b",))


@pytest.mark.parametrize("name", ["a", "case 7.1", "ä" * 100, "x" * 200, "...", "-"])
def test_a_plain_file_name(name):
    utils.check_file_name(name, "id")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "a\0", "a\n", "\x1f", "\x7f", "x" * 201, "ä" * 101, "\udce9"]
)
def test_a_name_that_is_no_file_name(name):
    with pytest.raises(InputError, match="^id: expected a "):
        utils.check_file_name(name, "id")


@pytest.mark.parametrize("error", [ValueError("its words"), KeyError("its words"), RecursionError("its words")])
def test_damage_is_said_in_a_librarys_words_or_by_its_kind(error):
    with pytest.raises(InputError, match="^expected a file, found .*its words.* in a place$"):
        with utils.refuse_damage("expected a file", " in a place"):
            raise error
    with pytest.raises(InputError, match=f"^expected a file, found {type(error).__name__}$"):
        with utils.refuse_damage("expected a file", in_words=False):
            raise error
    with pytest.raises(InputError, match=f"^expected a file, found {type(error).__name__}$"):
        with utils.refuse_damage("expected a file"):
            raise type(error)


@pytest.mark.parametrize("error", [InputError("ours"), MemoryError("ours"), RuntimeError("CUDA Out of memory: ours")])
def test_what_is_no_damage_is_left_as_it_is(error):
    with pytest.raises(type(error), match="ours$"), utils.refuse_damage("expected a file"):
        raise error


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match="^a: could not be written: No space left"), utils.naming("a"):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="^a: could not be written: in words$"), utils.naming("a"):
        raise OSError("in words")
    with pytest.raises(OSError, match="'b'$"), utils.naming("a"):
        raise OSError(28, "No space left on device", "b")


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.nii.gz"
    with utils.atomic_path(path) as temporary:
        temporary.write_text("one")
        assert not path.exists() and temporary == path.with_name(f".unfinished-{os.getpid()}.a.nii.gz")
        assert utils.leftovers(path.parent) == [temporary]
    with pytest.raises(ZeroDivisionError), utils.atomic_path(path) as temporary:
        temporary.write_text(f"two {1 / 0}")
    assert path.read_text() == "one" and os.listdir(path.parent) == ["a.nii.gz"]
    (path.parent / ".unfinished-7.folder").mkdir()
    for of_a_user in (".hidden", ".2024.notes", ".unfinished-work.pt"):
        (path.parent / of_a_user).touch()
    assert utils.leftovers(path.parent) == []


def test_a_pipe_or_too_large_a_description_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="pipe is no regular file"):
        utils.open_file(tmp_path / "pipe")
    assert len(os.listdir("/proc/self/fd")) == before       # it is not left open
    (tmp_path / "a").write_bytes(b"0123456789")
    monkeypatch.setattr(utils, "MAX_BYTES", 10)
    assert utils.read_bytes(tmp_path / "a") == b"0123456789" and stat.S_ISREG(os.stat(tmp_path / "a").st_mode)
    monkeypatch.setattr(utils, "MAX_BYTES", 9)
    with pytest.raises(OSError, match=f"more than 9 bytes in {tmp_path / 'a'}"):
        utils.read_bytes(tmp_path / "a")


def test_words_of_earlier_versions():
    assert [utils.current_word(word) for word in ("reference", "authors", "paper")] == ["authors", "authors", "paper"]
