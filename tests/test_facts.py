"""Which values each fact of meta.json may have, up to the last that is taken and the first that is refused."""

from pathlib import Path

import pytest

from sliced_data.facts import FACTS, check_facts, check_size
from utils import InputError

NAMES = ([["a"], ["a"] * 254], [[], ["a"] * 255, "a", [1], ["a", ""], ["\0"], None])
TEXT = (["a", "a b"], ["", "a\0", 1, None, ["a"]])
TEXT_OR_NONE = ([*TEXT[0], None], [value for value in TEXT[1] if value is not None])
SWITCH = ([True, False], [0, 1, "true", None])
COUNTS = ([{}, {"a": 0, "b": 2**53 - 1}], [{"a": -1}, {"a": 2**53}, {"a": 1.0}, {"a": 1, "b": "2"}, [1], None])
NUMBER = ([0, -2.5, 1e300, None], [float("nan"), float("inf"), True, "1", [1]])
CASES = {
    "dataset": TEXT, "distance_map": TEXT, "normalise": TEXT, "fit": TEXT, "resize_labels": TEXT,
    "layout": TEXT_OR_NONE, "source": TEXT_OR_NONE, "checksums": TEXT_OR_NONE, "seal": TEXT,
    "class_names": NAMES, "modalities": NAMES, "endings": NAMES,
    "classes": ([*NAMES[0], None], [value for value in NAMES[1] if value is not None]),
    "unit": (["mm", "px"], ["cm", "", None, 1]),
    "spacing": ([1, 0.001, None], [0, -1, True, float("inf"), "1"]),
    "max_share": NUMBER,
    "all_slices": SWITCH, "has_ignored": SWITCH, "has_colours": SWITCH,
    "intensities": ([None, [], [[1, 2, 3, 4]]], [[[1, 2, 3]], [[1, 2, 3, 4, 5]], [[1, 2, 3, "4"]], [1], {}, 1]),
    "slices": COUNTS, "label_values": COUNTS,
    "split": ([{}, {"rule": "file"}], [[], "file", None]),
}


@pytest.mark.parametrize("name", FACTS)
def test_a_fact(name):
    accepted, refused = CASES[name]
    for value in accepted:
        check_facts({name: value}, Path("meta.json"))
    for value in refused:
        with pytest.raises(InputError, match=f"^meta.json: expected .* in {name}, found "):
            check_facts({name: value}, Path("meta.json"))


def test_a_fact_need_not_be_there_and_others_are_not_looked_at():
    check_facts({"anything": object()}, Path("meta.json"))


def test_the_side_of_a_slice():
    assert [check_size(size) for size in (16, 256, 4096)] == [16, 256, 4096]
    for size in (8, 15, 17, 100, 4104, 256.0, "256", None):
        with pytest.raises(ValueError, match="size "):
            check_size(size)
