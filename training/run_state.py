"""Whether the state in a checkpoint is one of the run that asks for it, before anything is set to it.

All functions raise ``ValueError`` in words that follow "found", or what Python raises for a part that is not there.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.checkpoints import random_states
from training.epoch_totals import STEP_VALUES
from training.settings import Settings

if TYPE_CHECKING:
    from training.trainer import Trainer


def check_like(found: object, expected: object, name: str) -> None:
    """A value must be built as ``expected``: the same types, keys, lengths and shapes, words as they are, and finite.

    Numbers may differ, and be infinite where the expected one is.
    """
    if isinstance(expected, Tensor):
        check_tensor(found, name, shape=expected.shape, dtype=expected.dtype)
    elif isinstance(expected, Mapping):
        if not isinstance(found, Mapping):
            raise ValueError(f"{kind(found)} as its {name}")
        for key, value in expected.items():
            check_like(found[key], value, f"{name} {key}")
    elif isinstance(expected, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(found) != len(expected):
            raise ValueError(f"{kind(found)} as its {name}")
        for one, value in zip(found, expected, strict=True):
            check_like(one, value, name)
    elif expected is None or isinstance(expected, (bool, str)):
        if type(found) is not type(expected) or found != expected:
            raise ValueError(f"{found!r:.60} as its {name}")
    elif isinstance(expected, int):
        check_count(found, name)
    elif not is_number(found) or not (math.isfinite(found) or (math.isinf(expected) and not math.isnan(found))):
        raise ValueError(f"{found!r:.60} as its {name}")


def kind(value: object) -> str:
    return f"a {type(value).__name__}"


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_count(found: object, name: str, *, below: int = 2**53) -> None:
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < below:
        raise ValueError(f"{found!r:.60} as its {name}")


def check_tensor(found: object, name: str, *, shape: Sequence[int], dtype: torch.dtype) -> None:
    if not isinstance(found, Tensor) or found.layout != torch.strided or found.is_meta:
        raise ValueError(f"{kind(found)} as its {name}")
    if found.shape != tuple(shape) or found.dtype != dtype:
        raise ValueError(f"{found.dtype} {tuple(found.shape)} as its {name}")
    if not found.isfinite().all():
        raise ValueError(f"NaN or infinity in its {name}")


def check_state(state: Mapping, trainer: "Trainer") -> None:
    """A last.pt must be one that this trainer, which has not begun, might save later."""
    check_like(state["model"], trainer.network.state_dict(), "model")
    check_like(state["rate"], trainer.lr_rule.state_dict(), "rate")
    check_optimiser(state["optimiser"], trainer.optimiser)
    check_log(state["log"], trainer.log_columns, epoch=state["epoch"])
    if state["so_far"] is not None:
        check_totals(state["so_far"], vars(trainer.totals), trainer.settings)
    check_random(state["random"], random_states())


def check_log(log: object, columns: Sequence[str], *, epoch: object) -> None:
    """One row of numbers per epoch, up to ``epoch`` or the one before it; a loss that the run does not have is NaN."""
    if not isinstance(log, list):
        raise ValueError(f"{kind(log)} as its log")
    check_count(epoch, "epoch")
    if epoch not in (len(log) - 1, len(log)):
        raise ValueError(f"epoch {epoch} beside a log of {len(log)} epochs")
    for number, row in enumerate(log):
        if not isinstance(row, Mapping) or row.keys() != set(columns) or not all(map(is_number, row.values())):
            raise ValueError(f"a log without a number in each of {', '.join(columns)}")
        if row["epoch"] != number:
            raise ValueError(f"epoch {row['epoch']!r:.60} as number {number} of its log")
        for name in ("val_dsc", "val_dsc_3d", "lr"):
            if not math.isfinite(row[name]):
                raise ValueError(f"{name} {row[name]} in its log")


def check_totals(found: Mapping, expected: Mapping, settings: Settings) -> None:
    """The sums of an epoch under way, and how far it is; a loss that the run does not have is NaN in each step."""
    absent = [getattr(settings, name, "") == "none" for name in STEP_VALUES]
    known = found["steps"].masked_fill(torch.tensor(absent, device=found["steps"].device), 0.0)
    check_like({**found, "steps": known}, expected, "so_far")
    if found.keys() != expected.keys():
        raise ValueError(f"{len(found)} parts of its so_far")
    steps, slices = found["n_steps"], found["n_slices"]
    whole = expected["counts"].shape[1]
    if not 0 < steps <= len(expected["steps"]) or slices != min(steps * settings.batch_size, whole):
        raise ValueError(f"{slices} slices in {steps} steps of its so_far")


def check_optimiser(found: object, optimiser: torch.optim.Optimizer) -> None:
    """The learning rate of its one group, and the moments of every parameter after at least one step."""
    (group,), (own,) = found["param_groups"], optimiser.param_groups
    if not is_number(group["lr"]) or not 0 <= group["lr"] < math.inf:
        raise ValueError(f"{group['lr']!r:.60} as its learning rate")
    for number, parameter in enumerate(own["params"]):
        shapes = {"momentum_buffer": parameter.shape}
        if isinstance(optimiser, torch.optim.Adam):
            shapes = {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        for name, shape in shapes.items():
            check_tensor(found["state"][number][name], name, shape=shape, dtype=torch.float32)


def check_random(found: object, expected: Mapping) -> None:
    """The states of the generators of Python, NumPy and torch; those of CUDA's devices may be another machine's."""
    for name in ("numpy", "torch"):
        check_like(found[name], expected[name], name)
    if not 0 <= found["numpy"][2] <= len(found["numpy"][1]):
        raise ValueError(f"place {found['numpy'][2]} in the numbers of NumPy's generator")
    _, numbers, gauss = found["python"]
    if not (gauss is None or is_number(gauss)):
        raise ValueError(f"{kind(gauss)} in the state of Python's generator")
    for number in numbers:
        check_count(number, "state of Python's generator")
    if not isinstance(found["cuda"], list):
        raise ValueError(f"{kind(found['cuda'])} as the states of CUDA's generators")
    for state in found["cuda"]:
        check_tensor(state, "state of a CUDA generator", shape=state.shape, dtype=torch.uint8)
