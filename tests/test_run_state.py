"""A last.pt in which one part is not what this run might have saved: what is wrong with it is said."""

import copy
import math
import re
from dataclasses import replace

import pytest
import torch
from training_runs import SMALL

import train
from sliced_data.meta import read_meta
from training.run_folder import read_settings
from training.run_state import check_count, check_like, check_state, check_tensor
from training.trainer import Trainer
from utils import InputError


@pytest.fixture(scope="module")
def stopped(sliced, tmp_path_factory):
    """The folder of a run that was stopped after the first of two steps of its second epoch."""
    out, step, calls = tmp_path_factory.mktemp("stopped") / "run", Trainer.step, []

    def stop(trainer, *arguments):
        step(trainer, *arguments)
        calls.append(arguments)
        trainer.stop.received = len(calls) == 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", stop)
        with pytest.raises(KeyboardInterrupt, match="epoch 1, step 1"):
            train.main(["--data", str(sliced), "--out", str(out), *SMALL, "--width", "1"])
    return out


@pytest.fixture(scope="module")
def trainer(sliced, stopped):
    """One that has not begun."""
    return Trainer(read_settings(stopped), read_meta(sliced), torch.device("cpu"))


@pytest.fixture(scope="module")
def state(stopped):
    return torch.load(stopped / "last.pt", weights_only=True)


def put(*path_and_value):
    """A change of one value in the state, at the end of a path of keys; tuples on the way become others."""
    *path, value = path_and_value

    def change(state):
        return placed(state, path, value)

    return change


def placed(part, path, value):
    if not path:
        return value(part) if callable(value) else value
    key, *rest = path
    if isinstance(part, tuple):
        return (*part[:key], placed(part[key], rest, value), *part[key + 1 :])
    changed = copy.copy(part)
    changed[key] = placed(part[key], rest, value)
    return changed


RATE, MOMENT = ("optimiser", "param_groups", 0, "lr"), ("optimiser", "state", 0, "exp_avg")
CHANGES = {
    "weights of a list": (put("model", [1]), "a list as its model"),
    "a generator's state of fewer parts": (put("random", "numpy", lambda found: found[:-1]), "a tuple as its numpy"),
    "a generator of another kind": (put("random", "numpy", 0, "PCG64"), "'PCG64' as its numpy"),
    "a number in place of a switch": (put("random", "numpy", 3, 0.5), "0.5 as its numpy"),
    "an infinite normal number": (put("random", "numpy", 4, math.inf), "inf as its numpy"),
    "a normal number of a word": (put("random", "numpy", 4, "0"), "'0' as its numpy"),
    "the generator's place beyond its numbers": (
        put("random", "numpy", 2, 625), "place 625 in the numbers of NumPy's generator",
    ),
    "Python's generator of another kind": (put("random", "python", 2, "0"), "a str in the state of Python's generator"),
    "Python's generator of fractions": (put("random", "python", 1, 0, 0.5), "0.5 as its state of Python's generator"),
    "Python's generator below 0": (put("random", "python", 1, 7, -1), "-1 as its state of Python's generator"),
    "CUDA's generators of a word": (put("random", "cuda", "none"), "a str as the states of CUDA's generators"),
    "CUDA's generator of fractions": (
        put("random", "cuda", [torch.zeros(16)]), "torch.float32 (16,) as its state of a CUDA generator",
    ),
    "torch's generator of another size": (
        put("random", "torch", torch.zeros(3, dtype=torch.uint8)), "torch.uint8 (3,) as its torch",
    ),
    "a rate's count of a word": (put("rate", "last_epoch", "1"), "'1' as its rate last_epoch"),
    "a rate's count below 0": (put("rate", "last_epoch", -1), "-1 as its rate last_epoch"),
    "a rate's count of a switch": (put("rate", "last_epoch", True), "True as its rate last_epoch"),
    "a rate's best of NaN": (put("rate", "best", math.nan), "nan as its rate best"),
    "a learning rate of NaN": (put(*RATE, math.nan), "nan as its learning rate"),
    "a learning rate below 0": (put(*RATE, -1e-3), "-0.001 as its learning rate"),
    "a learning rate of a switch": (put(*RATE, True), "True as its learning rate"),
    "an infinite learning rate": (put(*RATE, math.inf), "inf as its learning rate"),
    "moments of a list": (put(*MOMENT, [1.0]), "a list as its exp_avg"),
    "moments of another shape": (
        put("optimiser", "state", 0, "exp_avg_sq", torch.zeros(2)), "torch.float32 (2,) as its exp_avg_sq",
    ),
    "moments of NaN": (put(*MOMENT, lambda t: t * math.nan), "NaN or infinity in its exp_avg"),
    "sparse moments": (put(*MOMENT, lambda t: t.to_sparse()), "a Tensor as its exp_avg"),
    "moments without values": (put(*MOMENT, lambda t: t.to("meta")), "a Tensor as its exp_avg"),
    "steps of another type": (put("optimiser", "state", 0, "step", torch.tensor(1)), "torch.int64 () as its step"),
    "a log of words": (put("log", "none"), "a str as its log"),
    "an epoch of a word": (put("epoch", "1"), "'1' as its epoch"),
    "an epoch of a switch": (put("epoch", True), "True as its epoch"),
    "an epoch beyond the log": (put("epoch", 2), "epoch 2 beside a log of 1 epochs"),
    "a log without a column": (
        put("log", 0, lambda row: {key: value for key, value in row.items() if key != "lr"}),
        "a log without a number in each of epoch, region_weight,",
    ),
    "a log with a column more": (put("log", 0, lambda row: {**row, "mine": 1}), "a log without a number in each of"),
    "a log of words in a column": (put("log", 0, "train_loss", "low"), "a log without a number in each of"),
    "a row that is none": (put("log", 0, 3), "a log without a number in each of"),
    "a log of other epochs": (put("log", 0, "epoch", 4), "epoch 4 as number 0 of its log"),
    "a DSC of NaN": (put("log", 0, "val_dsc", math.nan), "val_dsc nan in its log"),
    "an infinite 3D DSC": (put("log", 0, "val_dsc_3d", math.inf), "val_dsc_3d inf in its log"),
    "a logged rate of NaN": (put("log", 0, "lr", math.nan), "lr nan in its log"),
    "steps of NaN in a loss that it has": (
        put("so_far", "steps", lambda steps: steps * math.nan), "NaN or infinity in its so_far steps",
    ),
    "counts of more slices": (
        put("so_far", "counts", lambda counts: counts.repeat(1, 2, 1)), "torch.int64 (3, 12, 2) as its so_far counts",
    ),
    "seconds of a word": (put("so_far", "seconds", "long"), "'long' as its so_far seconds"),
    "a part more": (put("so_far", lambda found: {**found, "mine": 1}), "6 parts of its so_far"),
    "no step": (put("so_far", "n_steps", 0), "4 slices in 0 steps of its so_far"),
    "more steps than an epoch has": (put("so_far", "n_steps", 3), "4 slices in 3 steps of its so_far"),
    "slices of other steps": (put("so_far", "n_slices", 3), "3 slices in 1 steps of its so_far"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_part_that_no_such_run_saves_is_named(trainer, state, name):
    change, said = CHANGES[name]
    with pytest.raises(ValueError, match=re.escape(said)):
        check_state(change(state), trainer)


def test_what_may_differ_is_no_fault(trainer, state):
    """The states of another machine's GPUs, a loss that the run does not have, a best that is none yet."""
    check_state(state, trainer)
    assert state["so_far"]["steps"][0, 2].isnan() and (state["epoch"], len(state["log"])) == (1, 1)
    for change in (
        put("random", "cuda", [torch.zeros(16, dtype=torch.uint8)] * 2), put("random", "python", 2, 0.5),
        put("rate", "best", -math.inf), put("log", 0, "train_contour", math.nan), put("epoch", 0),
        put("so_far", None), put("random", "numpy", 2, 624), put(*RATE, 0.0),
    ):
        check_state(change(state), trainer)


def test_the_moments_are_those_of_the_optimiser(sliced, stopped, state):
    """SGD keeps one for each parameter, Adam two and its steps."""
    settings = replace(read_settings(stopped), optimiser="sgd")
    sgd = Trainer(settings, read_meta(sliced), torch.device("cpu"))
    group = {**sgd.optimiser.state_dict()["param_groups"][0], "lr": 0.01}
    moments = {n: {"momentum_buffer": torch.zeros_like(p)} for n, p in enumerate(sgd.network.parameters())}
    check_state({**state, "optimiser": {"state": moments, "param_groups": [group]}}, sgd)
    del moments[1]["momentum_buffer"]
    with pytest.raises(KeyError, match="momentum_buffer"):
        check_state({**state, "optimiser": {"state": moments, "param_groups": [group]}}, sgd)
    with pytest.raises(KeyError, match="momentum_buffer"):
        check_state(state, sgd)


def test_a_state_that_is_refused_changes_nothing(trainer, state, tmp_path):
    before = copy.deepcopy(trainer.network.state_dict())
    torch.save(CHANGES["a DSC of NaN"][0](state), tmp_path / "last.pt")
    said = "last.pt: expected the state of this run, found another (ValueError('val_dsc nan in its log'))"
    with pytest.raises(InputError, match=re.escape(said)):
        trainer.restore(tmp_path / "last.pt")
    assert all(torch.equal(value, before[key]) for key, value in trainer.network.state_dict().items())
    assert trainer.log == [] and not trainer.optimiser.state


def test_a_count_is_a_whole_number_that_a_float_holds():
    for count in (0, 1, 2**53 - 1):
        check_like(count, 0, "n_steps")
    for found in (-1, 2**53, 1.0, True, "1"):
        with pytest.raises(ValueError, match="as its n_steps"):
            check_like(found, 0, "n_steps")
    check_count(2, "epoch", below=3)
    with pytest.raises(ValueError, match="3 as its epoch"):
        check_count(3, "epoch", below=3)


def test_words_and_switches_are_the_very_ones():
    check_like({"mode": "max", "nesterov": True, "none": None}, {"mode": "max", "nesterov": True, "none": None}, "rate")
    for found, said in (("min", "'min' as its rate"), (1, "1 as its rate"), (None, "None as its rate")):
        for expected in ("max", True, None):
            if found != expected or type(found) is not type(expected):
                with pytest.raises(ValueError, match=said):
                    check_like(found, expected, "rate")


@pytest.mark.parametrize(("found", "said"), [
    ([1.0, 2.0], "a list as its w"), (torch.zeros(2).to_sparse(), "a Tensor as its w"),
    (torch.zeros(2, device="meta"), "a Tensor as its w"), (torch.zeros(3), r"torch.float32 \(3,\) as its w"),
    (torch.zeros(2).double(), r"torch.float64 \(2,\) as its w"),
    (torch.tensor([0, math.inf]), "NaN or infinity in its w"),
])
def test_a_tensor_is_one_in_memory_of_that_shape_and_type(found, said):
    check_tensor(torch.zeros(2), "w", shape=(2,), dtype=torch.float32)
    with pytest.raises(ValueError, match=said):
        check_tensor(found, "w", shape=(2,), dtype=torch.float32)
