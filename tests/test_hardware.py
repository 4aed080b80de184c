"""Threads, compiling with a way back, deterministic algorithms, memory that is not there."""
import os
from dataclasses import replace

import pytest
import torch
from raw_files import call
from torch import nn
from training_runs import SMALL, assert_same_run, run

import train
from environment import cores
from losses import CONTOUR_LOSSES, REGION_LOSSES, Objective
from networks import parameter_bytes
from sliced_data.meta import read_meta
from training import session
from training.compilation import Compiled
from training.settings import PAPER
from training.trainer import Trainer, batches


@pytest.fixture
def compile_with(monkeypatch):
    """Let torch.compile use a backend that raises."""

    def use(error):
        def backend(graph, inputs):
            raise error

        original = torch.compile
        monkeypatch.setattr(torch, "compile", lambda network, **_: original(network, backend=backend))

    yield use
    torch._dynamo.reset()


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))


def test_a_network_that_cannot_be_compiled_runs_as_it_is_after_one_warning(compile_with, network, capsys):
    compile_with(RuntimeError("no C compiler\nat all"))
    forward, image = Compiled(network), torch.rand(1, 2, 8, 8)
    forward.eval()
    assert torch.equal(forward(image), network(image)) and torch.equal(forward(image), network(image))
    error = capsys.readouterr().err
    assert error == "warning: going on without torch.compile: RuntimeError: no C compiler\n"


def test_a_backward_pass_that_cannot_be_compiled_is_gone_around_too(monkeypatch, network, capsys):
    from torch._dynamo.backends.common import aot_autograd

    def refuse(graph, inputs):
        raise RuntimeError("no backward")

    original, backend = torch.compile, aot_autograd(fw_compiler=lambda graph, inputs: graph, bw_compiler=refuse)
    monkeypatch.setattr(torch, "compile", lambda network, **_: original(network, backend=backend))
    image = torch.rand(2, 2, 8, 8)
    Compiled(network)(image).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert "going on without torch.compile: RuntimeError: no backward" in capsys.readouterr().err
    torch._dynamo.reset()


def test_compiling_does_not_hide_that_memory_ran_out(compile_with, network):
    compile_with(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    with pytest.raises(torch.OutOfMemoryError):
        Compiled(network)(torch.rand(1, 2, 8, 8))


def test_compiling_does_not_hide_an_error_of_the_network(network):
    with pytest.raises(RuntimeError, match="expected input.* to have 2 channels"):
        Compiled(network)(torch.rand(1, 3, 8, 8))


def test_a_run_that_cannot_compile_is_the_plain_one(sliced, tmp_path, compile_with, monkeypatch, capsys):
    run(sliced, tmp_path / "plain")
    compile_with(RuntimeError("no Triton"))
    prepare = Trainer.__init__

    def compiled(trainer, *arguments, **options):
        prepare(trainer, *arguments, **options)
        trainer.forward = Compiled(trainer.network)

    monkeypatch.setattr(Trainer, "__init__", compiled)
    run(sliced, tmp_path / "compiled")
    assert capsys.readouterr().err.count("warning") == 1
    assert_same_run(tmp_path / "plain", tmp_path / "compiled")


def test_threads_are_physical_cores_within_the_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "cgroup_folders", lambda controller: iter([tmp_path]))
    free = cores.core_count()
    assert 1 <= free <= len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cores.core_count() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores.core_count() == free
    (tmp_path / "cpu.max").unlink()
    for name, value in (("quota", "-1"), ("period", "100000")):
        (tmp_path / f"cpu.cfs_{name}_us").write_text(value)
    assert cores.core_count() == free


def test_the_users_number_of_threads_stands(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    cores.use_threads()
    assert chosen == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    cores.use_threads()
    assert chosen == [cores.core_count()]


@pytest.fixture
def deterministic(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def test_deterministic_is_set_before_the_device_starts(sliced, tmp_path, deterministic, monkeypatch):
    found = []
    claim = session.claimed_device

    def claimed(name):
        found.append((torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return claim(name)

    monkeypatch.setattr(session, "claimed_device", claimed)
    run(sliced, tmp_path / "run", "--deterministic", "--epochs", "1")
    assert found == [(True, ":4096:8")] and not torch.backends.cudnn.benchmark


LOSSES = [("region", name) for name in REGION_LOSSES] + [("contour", name) for name in CONTOUR_LOSSES]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("kind", "loss"), LOSSES)
def test_deterministic_runs_on_a_gpu_are_equal(sliced, tmp_path, deterministic, kind, loss):
    flags = (f"--{kind}", loss, "--deterministic", "--device", "cuda", "--no-compile")
    for name in ("a", "b"):
        run(sliced, tmp_path / name, *flags)
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("resident", ["device", "host", "stream"])
@pytest.mark.parametrize("losses", [("gdl", "boundary"), ("gdl", "hausdorff"), ("unet-ce", "none"), ("focal", "none")])
def test_a_step_on_a_gpu_does_not_wait_for_it(sliced, resident, losses, compiled):
    settings = replace(
        PAPER, width=4, batch_size=4, region=losses[0], contour=losses[1], compile=compiled, precision="bf16"
    )
    trainer = Trainer(settings, read_meta(sliced), torch.device("cuda"), resident=resident)
    for mode in ("default", "error"):  # the first round compiles and fills the allocator's pools
        trainer.new_epoch()
        torch.cuda.set_sync_debug_mode(mode)
        try:
            for batch in batches(trainer.train, trainer.order(0), 4, trainer.device):
                trainer.step(batch, 0, (0.99, 0.01))
        finally:
            torch.cuda.set_sync_debug_mode("default")


MEMORY = {
    "device": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."),
    "host": RuntimeError("[enforce fail] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    "arrays": MemoryError("Unable to allocate 1.2 GiB for an array"),
    "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
}


@pytest.mark.parametrize("name", MEMORY)
def test_memory_that_ran_out_names_the_flags(sliced, tmp_path, monkeypatch, capsys, name):
    def step(*_):
        raise MEMORY[name]

    monkeypatch.setattr(Trainer, "step", step)
    code = call(train, "--data", sliced, "--out", tmp_path / "run", *SMALL, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 1 and error.count("\n") == 1
    assert "out of memory; take less than --batch-size 4 or --width 4, or --resident stream" in error


@pytest.mark.parametrize(("optimiser", "copies"), [("adam", 4), ("sgd", 3)])
def test_a_run_without_room_for_its_network_does_not_begin(sliced, tmp_path, monkeypatch, capsys, optimiser, copies):
    needed = copies * parameter_bytes("unet", 5, 2, width=4)
    flags = ("--optimiser", optimiser, "--epochs", "1", "--precision", "fp32")
    asked = ("--data", sliced, "--out", tmp_path / "isles" / "run", *SMALL, *flags)
    monkeypatch.setattr(session, "free_memory", lambda device: needed - 1)
    assert call(train, *asked, monkeypatch=monkeypatch) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "GiB for the network and its optimiser" in error
    assert "out of memory; take less than --batch-size 4 or --width 4, or --resident stream" in error
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(session, "free_memory", lambda device: needed)
    assert call(train, *asked, monkeypatch=monkeypatch) == 0


def test_a_gradient_that_is_not_finite_is_named_though_the_loss_is(sliced, tmp_path, monkeypatch, capsys):
    """The square root's slope at 0 is infinite, and 0 times it not a number; the loss itself is 0."""
    original = Objective.weigh

    def weigh(self, terms, weights):
        return original(self, terms, weights) + (terms[0] * 0).sqrt()

    monkeypatch.setattr(Objective, "weigh", weigh)
    arguments = ("--data", sliced, "--out", tmp_path / "run", *SMALL)
    code = call(train, *arguments, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 1 and error.count("\n") == 1 and "epoch 0, step 0, slices case_" in error
    assert "gradient norm nan" in error and "found loss 0." in error and "contour" not in error
    assert not (tmp_path / "run" / "last.pt").exists()
    arguments = ("--data", sliced, "--out", tmp_path / "again", *SMALL, "--detect-anomaly")
    with pytest.warns(UserWarning, match="Error detected"):
        code = call(train, *arguments, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 1 and "epoch 0, step 0, slices case_" in error and "MulBackward0" in error
    assert not torch.is_anomaly_enabled()


def test_another_error_of_a_backward_pass_is_no_anomaly(sliced, tmp_path, monkeypatch):
    def backward(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with pytest.raises(RuntimeError, match="a bug"):
        train.main(["--data", str(sliced), "--out", str(tmp_path / "run"), *SMALL, "--precision", "fp32"])
