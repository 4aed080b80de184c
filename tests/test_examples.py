"""The examples and the answers of the documents run, and say what is so."""

import doctest
import importlib.util
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[1]
# What each has learnt at the end, at least: DSC on images that it has not seen.
EXAMPLES = {"plain_loop": 0.8, "patches_3d": 0.7, "overlapping_classes": 0.7,
            "monai_pipeline": 0.8}


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_learns_and_draws_its_figure(name, tmp_path):
    found = load(name).main(str(tmp_path / "figure.png"))
    assert min(found if isinstance(found, list) else [found]) > EXAMPLES[name]
    assert plt.imread(tmp_path / "figure.png").std() > 0.1
    assert len((ROOT / "docs" / "examples" / f"{name}.py").read_text().splitlines()) <= 60
    plt.close("all")


def test_every_example_is_run_here():
    assert {path.stem for path in (ROOT / "docs" / "examples").glob("*.py")} == set(EXAMPLES)


def test_the_answers_examples_give_what_they_say():
    found = doctest.testfile(str(ROOT / "docs" / "FAQ.md"), module_relative=False)
    assert found.attempted > 20 and found.failed == 0
