"""What a command does not need it does not wait for: torch takes a second to load, its compiler another."""

import subprocess
import sys

import pytest
from project_copy import ROOT
from raw_files import call

import train
from boundary_loss.cross_entropy import LOGARITHMS
from boundary_loss.schedules import SCHEDULES
from losses import CONTOUR_LOSSES, REGION_LOSSES
from networks import NETWORKS, network_settings
from slicing import choices as slicing_choices
from slicing.resampling import LABEL_RULES
from training import choices as training_choices
from training import session
from training.lr_rules import LR_RULES
from training.trainer import SCORES

TABLES = "import reporting.tables, reporting.comparison, reporting.convergence, eval, train, preprocess"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        (TABLES, "torch"),
        ("import reporting.figure_set, slicing.check, training.finished", "torch"),
        ("import slicing.options, slicing.slicer", "scipy.ndimage"),
        ("import networks as n; [n.parameter_bytes(name, 2, 3) for name in n.NETWORKS]", "torch._dynamo"),
    ],
    ids=["tables", "figures and --check", "slicing", "outline of a network"],
)
def test_what_is_not_loaded(code, absent):
    found = f"{code}\nimport sys\nprint({absent!r} in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", found], cwd=ROOT, text=True).strip() == "False"


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ((), None),
        (("--lr", "0.002"), "--lr 0.001, asked for --lr 0.002"),
        (("--lr", "-1"), "--lr: expected a positive number"),
        (("--snapshot-epochs", "9"), "--snapshot-epochs: expected 1 to 1"),
    ],
)
def test_a_check_of_a_finished_run_begins_no_session(results, sliced, monkeypatch, capsys, flags, error):
    """It is asked of every run of a table; only what is refused goes on to a session, which loads torch."""
    sessions, run_session = [], session.run_session
    monkeypatch.setattr(session, "run_session", lambda *given: (sessions.append(given), run_session(*given)))
    asked = ("--data", sliced, "--out", results / "gdl" / "seed0", "--width", "4", "--batch-size", "4", "--epochs",
             "1", "--check", *flags)
    code = call(train, *asked, monkeypatch=monkeypatch)
    # A setting that no run may have is found on the way to the session.
    assert bool(sessions) == (error is not None and flags[1] != "-1") and code == (2 if error else 0)
    assert error is None or error in capsys.readouterr().err


def test_the_names_of_choices_are_those_of_the_registries():
    """The flags of train.py and preprocess.py have them written out, since what they name loads torch."""
    assert training_choices.CHOICES | {
        "network": tuple(NETWORKS), "region": (*REGION_LOSSES, "none"), "contour": (*CONTOUR_LOSSES, "none"),
        "alpha": tuple(SCHEDULES), "lr_rule": tuple(LR_RULES), "selection": tuple(SCORES),
        "cross_entropy": tuple(LOGARITHMS),
    } == training_choices.CHOICES
    assert tuple(name for name in NETWORKS if "width" not in network_settings(name)) == training_choices.FIXED_CHANNELS
    assert tuple(LABEL_RULES) == slicing_choices.LABEL_RESIZES
