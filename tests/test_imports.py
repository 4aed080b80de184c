"""Imports run one way: read from the code, not from memory."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Lowest first. A module imports from levels below its own and from its own folder.
LEVELS = (
    ("utils", "boundary_loss"),
    ("networks", "environment", "raw_data", "published"),
    ("sliced_data",),
    ("slicing", "dataloader", "losses"),
    ("training",),
    ("evaluation",),
    ("engines", "reporting"),
    ("preprocess", "train", "eval"),
    ("scripts",),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


def sources() -> list[Path]:
    return [*ROOT.glob("*.py"), *(p for n in LEVEL for p in (ROOT / n).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """The first part of every absolute import of a module, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    allowed = {part} if path.parent != ROOT else set()
    found = {name for name in imported(path) if name in LEVEL} - allowed
    wrong = [name for name in found if LEVEL[name] >= LEVEL[part]]
    assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_the_library_imports_nothing_of_the_project():
    for path in (ROOT / "boundary_loss").rglob("*.py"):
        assert not imported(path) & (LEVEL.keys() - {"boundary_loss"}), path


def test_every_folder_of_code_has_a_level():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert {path.stem for path in ROOT.glob("*.py")} | folders <= LEVEL.keys()


def test_the_top_has_the_seven_modules_and_no_other():
    expected = {"preprocess", "train", "eval", "losses", "networks", "dataloader", "utils"}
    assert {path.stem for path in ROOT.glob("*.py")} == expected
