"""Each flag of train.py changes the part of a run that it should, and no other."""

import hashlib

import pytest
import torch
from training_runs import read_log, run

import train
from sliced_data.meta import read_meta
from training import precision, session
from training import trainer as training
from training.trainer import Trainer

# Beside a flag: what it needs to act, its value, and the parts of the run that change. All parts: ``parts_of``.
AFTER = "weights after"
# In whose first batch there is a slice without a lesion.
SEED = ("--seed", "5")
ACTS = {
    "--width": ((), ("2",), {"network", "first weights", "terms", AFTER}),
    "--epochs": ((), ("3",), {"epochs", "order", "loss weights", "lr", AFTER}),
    "--batch-size": ((), ("5",), {"order", "images", "labels", "terms", AFTER}),
    "--optimiser": ((), ("sgd",), {AFTER}),
    "--lr": ((), ("0.01",), {"lr", AFTER}),
    "--betas": ((), ("0.5", "0.99"), {AFTER}),
    "--weight-decay": ((), ("0.1",), {AFTER}),
    "--gradient-clip": ((), ("0.001",), {AFTER}),
    "--augment": (("--contour", "boundary"), ("flips",), {"images", "labels", "maps", "terms", AFTER}),
    "--seed": ((), ("1",), {"first weights", "order", "images", "labels", "terms", AFTER}),
    "--precision": ((), ("bf16",), {"arithmetic", "terms", AFTER}),
    "--deterministic": ((), (), {"algorithms"}),
    "--region": ((), ("dice",), {"terms", AFTER}),
    "--contour": ((), ("boundary",), {"maps", "terms", "loss weights", AFTER}),
    "--maps": (("--contour", "boundary"), ("3d",), {"maps", "terms", AFTER}),
    "--region-wise-map": (("--contour", "region-wise"), ("ac",), {"maps", "terms", AFTER}),
    "--region-classes": ((), ("foreground",), {"terms", AFTER}),
    "--contour-classes": (("--contour", "boundary"), ("all",), {"terms", AFTER}),
    "--alpha": (("--contour", "boundary"), ("constant",), {"loss weights", AFTER}),
    "--alpha-start": (("--contour", "boundary"), ("0.5",), {"loss weights", AFTER}),
    "--alpha-step": (("--contour", "boundary"), ("0.5",), {"loss weights", AFTER}),
    "--alpha-epochs": (("--contour", "boundary", "--alpha", "busi-linear"), ("5",), {"loss weights", AFTER}),
    "--contour-alone-weight": (("--region", "none", "--contour", "boundary"), ("0.5",), {"loss weights", AFTER}),
    "--protocol": (("--contour", "boundary"), ("authors",),
                   {"maps", "terms", "loss weights", "lr", "score", AFTER}),
    "--lr-rule": ((), ("authors",), {"lr", AFTER}),
    "--selection": ((), ("slice",), {"score"}),
    "--distance-map": (("--contour", "boundary"), ("authors",), {"maps", "terms", AFTER}),
    "--hausdorff": (("--contour", "hausdorff"), ("authors",), {"terms", AFTER}),
    "--gdl-absent": ((), ("authors",), {"terms", AFTER}),
    "--cross-entropy": (("--region", "unet-ce"), ("authors",), {"terms", AFTER}),
    # A loss that differs by some 1e-8: a rate at which the weights differ by more than any processor's rounding.
    "--dice": (("--region", "dice", "--lr", "0.1"), ("authors",), {AFTER}),
    "--cross-entropy-factor": (("--region", "ce"), ("50.5",), {"loss weights", AFTER}),
    "--order": ((), ("fixed",), {"order", AFTER}),
    "--resident": ((), ("stream",), {"place"}),
    "--detect-anomaly": ((), (), {"anomaly"}),
}
# Flags that act before a run, between runs, or where there is CUDA; the test of each is below or in another file.
ELSEWHERE = {
    "--data": "test_train.py::test_the_logged_validation_is_that_of_independent_code",
    "--out": "test_train.py::test_a_run_leaves_what_it_promises",
    "--network": "test_train.py::test_the_resnet_unet_trains_and_predicts_and_needs_a_size_of_its_own",
    "--encoder-weights": "test_train.py::test_the_encoder_begins_with_the_weights_of_a_file",
    "--compile": "test_train_flags.py::test_compile_is_of_cuda_alone_and_can_be_left_out",
    "--device": "test_train_flags.py::test_the_device_is_the_one_asked_for",
    "--resume": "test_train.py::test_a_finished_run_is_left_alone_and_a_longer_one_goes_on",
    "--snapshot-epochs": "test_snapshots.py::test_a_snapshot_is_the_weights_after_that_many_epochs",
    "--check": "test_settings.py::test_check_says_whether_a_finished_run_is_the_one_asked_for",
}


def digest(*tensors):
    return hashlib.sha256(b"".join(t.detach().float().contiguous().numpy().tobytes() for t in tensors)).hexdigest()


def parts_of(data, out, *flags):
    """What a run consists of: what it begins with, its batches, its first losses, its rates, its end."""
    found = {"order": [], "algorithms": None}
    init, step, batches = Trainer.__init__, Trainer.step, training.batches

    def made(trainer, *arguments, **options):
        init(trainer, *arguments, **options)
        found["network"] = [(name, tuple(value.shape)) for name, value in trainer.network.named_parameters()]
        found["first weights"] = digest(*trainer.network.parameters())
        found["place"] = type(trainer.train).__name__
        found["score"] = trainer.score({"val_dsc": 1, "val_dsc_3d": 2})

    def ordered(slices, order, batch_size, device):
        found["order"].append((order.tolist(), batch_size))
        return batches(slices, order, batch_size, device)

    def stepped(trainer, batch, epoch, weights):
        if "images" not in found:
            found["images"], found["labels"] = digest(batch.image), digest(batch.label)
            found["maps"] = None if batch.maps is None else digest(batch.maps)
            found["anomaly"] = torch.is_anomaly_enabled()
            found["algorithms"] = torch.are_deterministic_algorithms_enabled()
            hook = trainer.network.register_forward_hook(lambda _, __, y: found.update(arithmetic=str(y.dtype)))
            step(trainer, batch, epoch, weights)
            hook.remove()
            found["terms"] = str(trainer.totals.steps[0, 1:3].tolist())
        else:
            step(trainer, batch, epoch, weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "__init__", made)
        patch.setattr(Trainer, "step", stepped)
        patch.setattr(training, "batches", ordered)
        small = ("--data", data, "--out", out, "--width", "1", "--batch-size", "4", "--epochs", "2", "--device", "cpu")
        # Not what is faster on this processor: that is measured, and bf16 rounds small differences away.
        train.main([*map(str, small), "--precision", "fp32", *SEED, *flags])
    log = read_log(out)
    torch.use_deterministic_algorithms(False)
    found["epochs"] = len(log)
    found["loss weights"] = [(row["region_weight"], row["contour_weight"]) for row in log]
    found["lr"] = [row["lr"] for row in log]
    found[AFTER] = digest(*torch.load(out / "last.pt", weights_only=True)["model"].values())
    return found


@pytest.fixture(scope="module")
def without(varied, tmp_path_factory):
    """The parts of a run without a flag, by what it needs beside it."""
    known = {}

    def find(base):
        if base not in known:
            known[base] = parts_of(varied, tmp_path_factory.mktemp("base") / "run", *base)
        return known[base]

    return find


@pytest.mark.parametrize("flag", ACTS)
def test_a_flag_changes_what_it_should_and_only_that(varied, tmp_path, without, monkeypatch, flag):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    base, value, changes = ACTS[flag]
    before = without(base)
    after = parts_of(varied, tmp_path / "run", *base, flag, *value)
    found = {part for part in before if before[part] != after[part]}
    # Whether the first loss differs too hangs on how the processor rounds it.
    assert found - {"terms"} == changes if flag == "--dice" else found == changes


def test_the_number_of_a_flag_is_the_one_that_acts(varied, tmp_path):
    """Rates and weights of the losses, by hand."""
    log = run(varied, tmp_path / "run", "--width", "1", "--batch-size", "4", "--epochs", "3", "--contour", "boundary",
              "--alpha", "increase", "--alpha-start", "0.25", "--alpha-step", "0.5", "--lr", "0.0125")
    weights = [(float(row["region_weight"]), float(row["contour_weight"])) for row in log]
    assert weights == [(1, 0.25), (1, 0.75), (1, 1)]
    assert {row["lr"] for row in log} == {"0.0125"}


def test_alpha_may_be_one_all_along(varied, tmp_path):
    """The upper end of its range, in each schedule that has a start."""
    for alpha in ("constant", "increase", "rebalance"):
        flags = ("--contour", "boundary", "--alpha", alpha, "--alpha-start", "1", "--alpha-step", "1", "--epochs", "1")
        (row,) = run(varied, tmp_path / alpha, "--width", "1", *flags)
        assert float(row["contour_weight"]) == (0.99 if alpha == "rebalance" else 1.0)


@pytest.mark.parametrize(
    ("flags", "compiled"), [((), True), (("--no-compile",), False), (("--detect-anomaly",), False)]
)
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_compile_is_of_cuda_alone_and_can_be_left_out(varied, monkeypatch, flags, compiled, device):
    monkeypatch.setattr(training, "Compiled", lambda network: ("compiled", network))
    monkeypatch.setattr(torch.nn.Module, "to", lambda network, *_, **__: network)
    monkeypatch.setattr(Trainer, "empty_totals", lambda *_: None)
    settings, execution = train.parse(["--data", "d", "--out", "o", "--width", "1", *flags])
    made = Trainer(settings, read_meta(varied), torch.device(device), resident="host",
                   detect_anomaly=execution.detect_anomaly)
    expected = ("compiled", made.network) if compiled and device == "cuda" else made.network
    assert made.forward == expected


@pytest.mark.parametrize("there", [True, False])
def test_the_device_is_the_one_asked_for(varied, tmp_path, monkeypatch, there):
    chosen = []

    class Stop(Exception):
        pass

    def stop(settings, execution, device, measured):
        chosen.append(device.type)
        raise Stop

    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(there))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(session, "check_room", lambda *_: None)
    monkeypatch.setattr(precision, "computes_in_bf16", lambda device: False)
    monkeypatch.setattr(session, "train", stop)
    for name in ("auto", "cpu", *(["cuda"] if there else [])):
        with pytest.raises(Stop):
            train.main(["--data", str(varied), "--out", str(tmp_path / "run"), "--device", name])
    assert chosen == (["cuda", "cpu", "cuda"] if there else ["cpu", "cpu"])
