"""The changes that scripts/mutate.py makes, and which tests it lets look at them."""

from pathlib import Path

import mutate
import pytest
from mutations import find_mutations

SOURCE = '''"""A docstring with 1 < 2."""


def share(values: list[int], low=0, *, whole: bool = True) -> float:
    """Of 3."""
    if not values:
        raise ValueError(f"expected {1 + 1} values")
    kept = [value for value in values[low:] if value >= 2 and whole]
    return len(kept) / max(len(values), 1)
'''


@pytest.fixture
def found(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text(SOURCE)
    return find_mutations(path)


def test_changes_are_of_the_code_and_leave_text_and_annotations_alone(found):
    changes = {(mutation.line, mutation.before, mutation.after) for mutation in found}
    assert {
        (4, "0", "1"), (4, "True", "False"), (6, "not values", "values"), (6, "not values", "True"),
        (8, "value >= 2", "value > 2"), (8, "values[low:]", "values[low + 1:]"),
        (8, "value >= 2 and whole", "value >= 2 or whole"), (8, "value >= 2 and whole", "whole"),
        (9, "len(kept) / max(len(values), 1)", "len(kept) * max(len(values), 1)"),
        (9, "max(len(values), 1)", "min(len(values), 1)"), (9, "1", "2"),
    } <= changes
    assert not {line for line, *_ in changes} & {1, 2, 3, 5}
    assert [(m.kind, m.after) for m in found if m.line == 7] == [("statement removed", "pass")]
    # Swapped arguments of max are no change.
    assert not any(m.kind == "arguments swapped" for m in found)


def test_each_change_is_one_and_compiles(found):
    lines = SOURCE.splitlines()
    for mutation in found:
        changed = mutation.apply(SOURCE.encode()).decode().splitlines()
        compile("\n".join(changed), "changed", "exec")
        assert [a == b for a, b in zip(lines, changed, strict=True)].count(False) == 1


def test_a_default_acts_where_its_function_runs(found):
    (default, *_) = (mutation for mutation in found if mutation.line == 4)
    (condition, *_) = (mutation for mutation in found if mutation.line == 8)
    assert default.executed == (6, 6) and condition.executed == (8, 8)


def test_the_draw_is_of_the_seed(monkeypatch):
    files = [Path("training/lr_rules.py"), Path("losses.py")]
    draws = [mutate.draw(files, 8, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2] and len({(m.path, m.line) for m in draws[0]}) == 8


def test_the_tests_of_a_change_run_its_lines_and_the_quickest_comes_first(found, monkeypatch):
    monkeypatch.setattr(mutate, "ROOT", found[0].path.parent)
    known = {
        "slow": {"seconds": 9, "lines": {"sample.py": [6, 8]}}, "quick": {"seconds": 1, "lines": {"sample.py": [8]}},
        "elsewhere": {"seconds": 0, "lines": {"sample.py": [9], "other.py": [8]}},
    }
    by_line = {mutation.line: mutate.tests_of(mutation, known, 99) for mutation in found}
    assert by_line[8] == ["quick", "slow"] and by_line[9] == ["elsewhere"] and by_line[4] == ["slow"]
    of_eight = next(mutation for mutation in found if mutation.line == 8)
    within = [mutate.tests_of(of_eight, known, budget) for budget in (0.5, 9.5, 10)]
    assert within == [["quick"], ["quick"], ["quick", "slow"]]
    assert mutate.tests_of(found[0], {"none": {"seconds": 1, "lines": {}}}, 99) == ["none"]
