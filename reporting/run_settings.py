"""What the runs of a table share in their settings, and in which settings its rows differ."""

from collections.abc import Mapping, Sequence

from evaluation.measuring import GRIDS
from reporting.runs import Run, first_run
from reporting.table_formats import Note, Text
from training.settings import PAPER

DEFAULTS = PAPER.to_json()

# What else a table needs to be read by, beside its rows' own losses and alphas.
PRINTED_SETTINGS = (
    "network", "width", "epochs", "batch_size", "lr", "alpha_step", "selection", "lr_rule", "distance_map",
)
# Printed where a run has another value than the default.
FURTHER_SETTINGS = (
    "engine", "iterations", "optimiser", "betas", "weight_decay", "gradient_clip", "augment", "order", "precision",
    "encoder_weights",
)
EPOCHS = {"best": "that of the best validation DSC", "last": "the last"}


def settings_by_row(found: Mapping[str, Sequence[Run]], name: str) -> dict[str, object]:
    """A setting of each row that has runs; the seeds of one row agree in all of theirs."""
    return {row: runs[0].settings.get(name) for row, runs in found.items() if runs}


def differing_settings(found: Mapping[str, Sequence[Run]]) -> list[str]:
    """The settings in which the rows differ."""
    names = dict.fromkeys(name for runs in found.values() if runs for name in runs[0].settings if name != "seed")
    return [name for name in names if not all_equal(settings_by_row(found, name))]


def all_equal(values: Mapping[str, object]) -> bool:
    first, *others = values.values()
    return all(value == first for value in others)


def shared_settings(found: Mapping[str, Sequence[Run]]) -> list[Text]:
    """What the runs share, or what each row has where they differ, in bold."""
    note = [Text("Settings: ")]
    further = [name for name in FURTHER_SETTINGS if set(settings_by_row(found, name).values()) != {DEFAULTS[name]}]
    # The width of a network whose channels are fixed is none.
    had = [name for name in PRINTED_SETTINGS if set(settings_by_row(found, name).values()) != {None}]
    for place, name in enumerate((*had, *further)):
        values = settings_by_row(found, name)
        separator = ", " if place else ""
        if all_equal(values):
            note.append(Text(f"{separator}{name} {next(iter(values.values()))}"))
        else:
            each = ", ".join(f"{row} {value}" for row, value in values.items())
            note += [Text(separator), Text(f"{name} differs", bold=True), Text(f" ({each})")]
    return note


def settings_note(found: Mapping[str, Sequence[Run]]) -> Note:
    """``shared_settings`` and how the runs were measured."""
    measured = first_run(found).measured
    chosen = "last" if set(settings_by_row(found, "selection").values()) == {"last"} else measured.get("checkpoint")
    epoch = EPOCHS.get(chosen, "unknown")
    return [*shared_settings(found), Text(f"; epoch evaluated: {epoch}, on {GRIDS[measured.get('space', 'sliced')]}.")]
