"""Every flag of the commands has a test that it acts: the flags are those of the parsers, not of a list."""

import argparse
import re
from pathlib import Path

import pytest
import test_eval_flags
import test_slice_flags
import test_train_flags
from commands import evaluate

import preprocess
import train
from environment import command

TESTS = Path(__file__).parent


def parser_of(module, monkeypatch):
    found = []

    def keep(parser, _):
        found.append(parser)
        raise InterruptedError

    monkeypatch.setattr(command.Parser, "parse_args", keep)
    with pytest.raises(InterruptedError):
        module.parse(None)
    return found[0]


def flags_of(parser):
    """The first name of each option."""
    return {action.option_strings[0] for action in parser._actions if action.option_strings} - {"-h"}


@pytest.mark.parametrize(
    ("module", "tests"), [(preprocess, test_slice_flags), (train, test_train_flags)], ids=["preprocess", "train"]
)
def test_every_flag_of_a_command_is_shown_to_act(module, tests, monkeypatch):
    flags = flags_of(parser_of(module, monkeypatch))
    assert len(flags) > 15 and flags == tests.ACTS.keys() | tests.ELSEWHERE.keys()
    assert not tests.ACTS.keys() & tests.ELSEWHERE.keys()


def test_every_flag_of_evaluation_is_shown_to_act(monkeypatch):
    parser = parser_of(evaluate, monkeypatch)
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    flags = {(name, flag) for name, command in commands.choices.items() for flag in flags_of(command)}
    tables = (test_eval_flags.MEASURED, test_eval_flags.PRINTED, test_eval_flags.PREDICTED)
    shown = {(command, flag) for table in tables for command, rows in table.items() for flag, *_ in rows}
    assert len(commands.choices) == 14 and flags == shown | test_eval_flags.ELSEWHERE.keys()


@pytest.mark.parametrize("tests", [test_eval_flags, test_slice_flags, test_train_flags], ids=["eval", "slice", "train"])
def test_tests_that_are_elsewhere_are_there_and_give_the_flag(tests):
    for flag, place in tests.ELSEWHERE.items():
        name, test = place.split("::")
        text = (TESTS / name).read_text()
        flag = flag if isinstance(flag, str) else flag[1]
        assert f"def {test}(" in text, place
        assert re.search(rf'"{flag}"|"--no-{flag[2:]}"', text), (flag, name)
