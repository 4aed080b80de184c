import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(("document", "least"), [("FIDELITY.md", 26), ("FAQ.md", 5), ("MATH.md", 30)])
def test_every_test_that_a_document_names_exists(document, least):
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / document).read_text())
    assert len(named) >= least
    for name in named:
        assert f"def {name}(" in tests, name


def test_no_cell_of_fidelity_is_empty():
    for line in (ROOT / "docs" / "FIDELITY.md").read_text().splitlines():
        if re.match(r"\| [RBWM]\d", line):
            assert all(cell.strip() for cell in line.split("|")[1:-1]), line


@pytest.mark.parametrize(
    "document",
    ["README.md", "docs/DESIGN.md", "docs/FIDELITY.md", "docs/LIBRARY.md", "docs/FAQ.md", "docs/MATH.md"],
)
def test_documents_name_what_is_there(document):
    text = (ROOT / document).read_text()
    for name in re.findall(r"`((?:docs|scripts|tests|published)/[\w./-]+|[\w]+\.(?:py|mk|txt|md))`", text):
        found = (ROOT / name).exists() or name in ("table1.md",)
        assert found, name


@pytest.mark.parametrize("command", ["preprocess.py", "train.py", "eval.py"])
def test_flags_in_the_documents_exist(command, capsys):
    """Each --flag that a document gives a command is in its help."""
    words = ("run", "table", "compare", "curves", "boxes", "pictures", "maps", "shares", "report", "predict", "score",
             "gradients", "convergence")
    calls = [[word, "--help"] for word in words] if command == "eval.py" else [["--help"]]
    for call in calls:
        with pytest.raises(SystemExit):
            importlib.import_module(command.removesuffix(".py")).parse(call)
    known = capsys.readouterr().out
    design = (ROOT / "docs" / "DESIGN.md").read_text()
    for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", known)) - {"--help", "--compile"}:
        assert flag in design, flag
    for document in ("README.md", "docs/DESIGN.md", "docs/FIDELITY.md"):
        for line in re.findall(rf"{command}([^`\n]*(?:\n {{8,}}[^`\n]*)*)", (ROOT / document).read_text()):
            for flag in re.findall(r"(?<!-)--[a-z][a-z-]+", line):
                assert flag in known, (document, flag)
