"""Flags, and what is meant where they are left out, beside the lists in tests/approved: scripts of users count on them.

What is meant to change: read the difference, then copy the file that the failure names over the approved one.
"""

import argparse
import inspect
import json
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from commands import evaluate

import boundary_loss
import preprocess
import train
from boundary_loss import schedules
from engines.nnunet_settings import TRAINERS, Asked, settings_of
from environment.command import Parser
from environment.cores import core_count
from evaluation.metric_catalogue import CATALOGUE
from raw_data import DATASETS
from reporting.levels import LEVELS
from slicing.choices import CONVENTIONS
from slicing.options import resolve
from training.settings import PROTOCOLS

APPROVED = Path(__file__).parent / "approved"


@pytest.fixture
def approved(tmp_path):
    """Compare lines with those of an approved file."""

    def compare(name, lines):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        assert lines == (APPROVED / name).read_text().splitlines(), f"{tmp_path / name} is not like {APPROVED / name}"

    return compare


def parser_of(module) -> Parser:
    """What a command would parse its arguments with."""
    caught = []

    def stop(self, *_):
        caught.append(self)
        raise SystemExit

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(Parser, "parse_args", stop)
        with pytest.raises(SystemExit):
            module.main([])
    return caught[0]


def flags_of(name: str, parser: argparse.ArgumentParser) -> list[str]:
    """One line per flag, with all that decides what it accepts and what it is without being given."""
    exclusive = {id(action): number for number, group in enumerate(parser._mutually_exclusive_groups)
                 for action in group._group_actions}
    lines = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines.append(f"{name} COMMAND required={action.required} dest={action.dest}")
            for command, below in action.choices.items():
                lines += flags_of(f"{name} {command}", below)
            continue
        default = "cores" if "--jobs" in action.option_strings and action.default == core_count() else action.default
        facts = {
            "dest": action.dest, "nargs": action.nargs, "const": action.const, "default": default,
            "type": getattr(action.type, "__name__", None), "choices": list(action.choices or []),
            "required": action.required, "metavar": action.metavar, "one of": exclusive.get(id(action)),
        }
        said = [f"{key}={value}" for key, value in facts.items() if value not in (None, False, [])]
        lines.append(" ".join((name, " ".join(action.option_strings) or "-", *said)))
    return lines + [f"{name} {key}={getattr(value, '__name__', value)}" for key, value in parser._defaults.items()]


def test_flags(approved):
    commands = (("preprocess.py", preprocess), ("train.py", train), ("eval.py", evaluate))
    approved("flags.txt", [line for name, module in commands for line in flags_of(name, parser_of(module))])


def described(name: str, value: object) -> dict[str, str]:
    """name.field -> value, of dataclasses within each other."""
    if is_dataclass(value):
        parts = [described(f"{name}.{field.name}", getattr(value, field.name)) for field in fields(value)]
        return {key: text for part in parts for key, text in part.items()}
    if isinstance(value, frozenset):
        value = sorted(value)
    return {name: value.__name__ if callable(value) else repr(value)}


def as_lines(found: dict[str, dict[str, str]]) -> list[str]:
    """What the first is, then in what each of the others differs from it."""
    first = next(iter(found.values()))
    return [f"{name}: {key} = {value}" for name, facts in found.items() for key, value in facts.items()
            if facts is first or first.get(key) != value]


def test_what_a_data_set_is_and_how_it_is_sliced(approved):
    lines = []
    for name, raw in DATASETS.items():
        if name.endswith("-demo"):
            continue
        found = {}
        for protocol in CONVENTIONS:
            options = resolve(preprocess.parse([name, "--source", "r", "--dest", "d", "--protocol", protocol]))
            found[f"{name}, {protocol}"] = described("split", options.split) | {
                key: repr(value) for key, value in options.facts().items()
            }
        lines += [f"{name} {key} = {value}" for key, value in described("raw", raw).items()] + as_lines(found)
    approved("data_sets.txt", lines)


def test_the_librarys_parameters(approved):
    """What others call, with the defaults that they count on."""
    found = {name: getattr(boundary_loss, name) for name in boundary_loss.__all__}
    found |= {f"schedule {name}": schedule for name, schedule in schedules.SCHEDULES.items()}
    lines = []
    for name, value in found.items():
        parameters = inspect.signature(value).parameters.values()
        lines.append(f"{name}: {', '.join(str(one.replace(annotation=one.empty)) for one in parameters)}")
    approved("library.txt", lines)


def test_the_columns_of_metrics(approved):
    approved("metrics.txt", [repr(one) for one in (*CATALOGUE.values(), *LEVELS.values())])


def test_the_settings_of_each_protocol(approved):
    found = {}
    for protocol in PROTOCOLS:
        for region, contour in (("gdl", "none"), ("unet-ce", "boundary"), ("none", "region-wise")):
            words = ("--data", "d", "--out", "o", "--protocol", protocol, "--region", region, "--contour", contour)
            settings, _ = train.parse(words)
            found[f"{protocol}, {region}, {contour}"] = {
                key: json.dumps(value) for key, value in settings.to_json().items()
            }
    approved("settings.txt", as_lines(found))


def test_the_settings_of_each_trainer_of_nnunet(approved):
    found = {}
    plan = {"batch_size": 12}
    for trainer in TRAINERS:
        for asked in ({}, {"configuration": "3d_fullres", "epochs": 50, "iterations": 9, "batch_size": 3, "width": 4}):
            settings = settings_of(Asked(trainer, seed=len(asked), **asked), plan, dataset="acdc", fingerprint="f")
            found[f"{trainer}, {len(asked)} flags"] = {
                key: json.dumps(value) for key, value in settings.to_json().items()
            }
    approved("nnunet.txt", as_lines(found))
