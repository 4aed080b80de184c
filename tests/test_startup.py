"""What a command does not need it does not wait for: torch takes a second to load, its compiler another."""

import subprocess
import sys

import pytest
from project_copy import ROOT

TABLES = "import reporting.tables, reporting.comparison, reporting.convergence, eval, train, preprocess"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        (TABLES, "torch"),
        ("import reporting.figure_set, slicing.check", "torch"),
        ("from networks import *; [parameter_bytes(name, 2, 3) for name in NETWORKS]", "torch._dynamo"),
    ],
    ids=["tables", "figures and --check", "outline of a network"],
)
def test_what_is_not_loaded(code, absent):
    found = f"{code}\nimport sys\nprint({absent!r} in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", found], cwd=ROOT, text=True).strip() == "False"
