import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from medpy.metric import binary
from raw_files import call, isles_path, make_isles, save_nifti
from training_runs import SMALL, assert_same_run, run, same

import dataloader
import preprocess
import train
from boundary_loss.losses import Boundary, GeneralizedDice
from evaluation.prediction import load_model
from networks import build_network
from sliced_data import maps as slice_maps
from sliced_data.meta import read_meta
from sliced_data.slices import PartFiles, SlicedCase
from training import lr_rules
from training.epoch_totals import slice_dsc
from training.run_folder import read_settings
from training.settings import PAPER
from training.trainer import LOG_COLUMNS, Trainer
from utils import InputError, StoppedError


def small_trainer(sliced):
    settings = replace(PAPER, width=4, epochs=3, batch_size=4, precision="fp32")
    return Trainer(settings, read_meta(sliced), torch.device("cpu"))


def test_a_run_leaves_what_it_promises(sliced, tmp_path):
    log = run(sliced, tmp_path / "run", "--contour", "boundary")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "config.json",
        "env.json",
        "log.csv",
        "best.pt",
        "last.pt",
    }
    assert tuple(log[0]) == LOG_COLUMNS and [row["epoch"] for row in log] == ["0", "1", "2"]
    assert [float(row["contour_weight"]) for row in log] == pytest.approx([0.01, 0.02, 0.03])
    for row in log:
        weights, terms = (
            [float(row[name]) for name in names]
            for names in (("region_weight", "contour_weight"), ("train_region", "train_contour"))
        )
        assert sum(weights) == pytest.approx(1) and float(row["train_loss"]) == pytest.approx(
            np.dot(weights, terms), rel=1e-4
        )
    env = json.loads((tmp_path / "run" / "env.json").read_text())
    assert env["packages"]["torch"] == torch.__version__.split("+")[0] or env["packages"]["torch"] == torch.__version__
    assert {"command", "git_commit", "git_diff", "processor", "cores", "device"} <= set(env)


def test_the_logged_validation_is_that_of_independent_code(sliced, tmp_path):
    """The last epoch's figures, computed again from the checkpoint with medpy and the losses themselves."""
    flags = ("--contour", "boundary", "--alpha", "constant", "--epochs", "20", "--batch-size", "2", "--seed", "1",
             "--precision", "fp32")
    row = run(sliced, tmp_path / "run", *flags)[-1]
    model = load_model(tmp_path / "run", "last", torch.device("cpu"))
    val = dataloader.load_slices(read_meta(model.data), "val", maps="phi2d")
    with torch.no_grad():
        logits = model.network(val.image.float())
    prediction, reference = logits.argmax(1).numpy() == 1, val.label.numpy() == 1
    assert prediction.any() and not prediction.all() and (prediction & reference).any()
    assert float(row["val_dsc_3d"]) == pytest.approx(binary.dc(prediction, reference), abs=1e-6)
    hd95 = binary.hd95(prediction, reference, (5.0, 0.45, 0.5))
    assert float(row["val_hd95_3d_mm"]) == pytest.approx(hd95, abs=1e-3)
    slices = [1.0 if not (p.any() or r.any()) else binary.dc(p, r) for p, r in zip(prediction, reference, strict=True)]
    assert float(row["val_dsc"]) == pytest.approx(np.mean(slices), abs=1e-6)
    region, contour = GeneralizedDice()(logits, val.label.long()), Boundary()(logits, val.maps.float())
    assert float(row["val_loss"]) == pytest.approx(float(region + 0.01 * contour), rel=1e-4)


@pytest.mark.parametrize(
    ("region", "contour", "flags", "weights"),
    [
        ("none", "boundary", (), (0, 1)),
        ("focal", "none", (), (1, 0)),
        ("none", "boundary", ("--protocol", "authors"), (0, 0.1)),
        ("focal", "none", ("--protocol", "authors"), (1, 0)),
    ],
)
def test_a_loss_alone_has_weight_one_and_a_contour_loss_a_tenth_by_the_authors(
    sliced, tmp_path, region, contour, flags, weights
):
    log = run(sliced, tmp_path / "run", "--region", region, "--contour", contour, "--epochs", "1", *flags)
    assert (float(log[0]["region_weight"]), float(log[0]["contour_weight"])) == weights
    missing = "train_region" if region == "none" else "train_contour"
    assert math.isnan(float(log[0][missing])) and math.isfinite(float(log[0]["train_loss"]))


def test_the_2d_and_the_3d_map_train_differently(sliced, tmp_path):
    logs = [
        run(sliced, tmp_path / maps, "--contour", "boundary", "--maps", maps, "--epochs", "1") for maps in ("2d", "3d")
    ]
    assert logs[0][0]["train_contour"] != logs[1][0]["train_contour"]


def weights(folder, name="last"):
    return torch.load(folder / f"{name}.pt", weights_only=True)["model"]


def test_the_same_seed_gives_the_same_run_and_another_does_not(sliced, tmp_path):
    logs = [run(sliced, tmp_path / name, "--seed", seed) for name, seed in (("a", "0"), ("b", "0"), ("c", "1"))]
    assert same(logs[0], logs[1]) and not same(logs[0], logs[2])
    assert all(
        torch.equal(x, y)
        for x, y in zip(weights(tmp_path / "a").values(), weights(tmp_path / "b").values(), strict=True)
    )


def test_the_resnet_unet_trains_and_predicts_and_needs_a_size_of_its_own(sliced, tmp_path):
    flags = ("--network", "resnet34-unet", "--epochs", "1", "--device", "cpu")
    train.main(["--data", str(sliced), "--out", str(tmp_path / "run"), *flags])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["settings"]["network"] == "resnet34-unet" and config["settings"]["width"] is None
    model = load_model(tmp_path / "run", "last", torch.device("cpu"))
    assert sum(parameter.numel() for parameter in model.network.parameters()) == 24_430_242 + 4 * 49 * 64
    other = shutil.copytree(sliced, tmp_path / "other")
    meta = json.loads((other / "meta.json").read_text())
    del meta["seal"]
    (other / "meta.json").write_text(json.dumps({**meta, "size": 40}))
    with pytest.raises(InputError, match="expected slices of a multiple of 32 pixels for resnet34-unet, found 40"):
        train.main(["--data", str(other), "--out", str(tmp_path / "refused"), *flags])
    assert not (tmp_path / "refused").exists()


def test_the_encoder_begins_with_the_weights_of_a_file(sliced, tmp_path):
    state = torchvision_names()
    torch.save(state, tmp_path / "resnet34.pth")
    flags = ("--network", "resnet34-unet", "--epochs", "1", "--device", "cpu", "--lr", "1e-12")
    base = ["--data", str(sliced), *flags, "--encoder-weights", str(tmp_path / "resnet34.pth")]
    train.main([*base, "--out", str(tmp_path / "run")])
    found = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"]
    assert torch.allclose(found["encoder.layer3.2.conv1.weight"], state["layer3.2.conv1.weight"], atol=1e-6)
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert settings["encoder_weights"].startswith("sha256 ")
    with pytest.raises(InputError, match="encoder_weights None, found one with sha256"):
        train.main(["--data", str(sliced), *flags, "--out", str(tmp_path / "run"), "--resume"])
    with pytest.raises(InputError, match="--encoder-weights: expected --network resnet34-unet beside it, found unet"):
        train.main(["--data", str(sliced), "--out", str(tmp_path / "no"), *base[-2:]])
    with pytest.raises(InputError, match="expected a readable state dict"):
        train.main([*base[:-1], str(tmp_path / "nothing.pth"), "--out", str(tmp_path / "no")])
    assert not (tmp_path / "no").exists()


def torchvision_names():
    """A state dict in torchvision's names, of random weights, with the classifier that is dropped."""
    encoder = build_network("resnet34-unet", 3, 2).encoder.state_dict()
    state = {name: value * 0.9 if value.is_floating_point() else value for name, value in encoder.items()}
    return {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


def test_a_stopped_run_goes_on_bit_for_bit(sliced, tmp_path, monkeypatch):
    whole = run(sliced, tmp_path / "whole", "--contour", "boundary")
    original = Trainer.save_epoch

    def save_then_stop(trainer, out, snapshots):
        original(trainer, out, snapshots)
        if len(trainer.log) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "save_epoch", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run(sliced, tmp_path / "stopped", "--contour", "boundary")
    monkeypatch.setattr(Trainer, "save_epoch", original)
    resumed = run(sliced, tmp_path / "stopped", "--contour", "boundary", "--resume")
    assert same(whole, resumed)
    for name in ("last", "best"):
        pairs = zip(
            weights(tmp_path / "whole", name).values(), weights(tmp_path / "stopped", name).values(), strict=True
        )
        assert all(torch.equal(x, y) for x, y in pairs)


def test_a_finished_run_is_left_alone_and_a_longer_one_goes_on(sliced, tmp_path):
    run(sliced, tmp_path / "run")
    before = (tmp_path / "run" / "last.pt").read_bytes()
    assert len(run(sliced, tmp_path / "run", "--resume")) == 3
    assert (tmp_path / "run" / "last.pt").read_bytes() == before
    longer = run(sliced, tmp_path / "run", "--resume", "--epochs", "4")
    assert same(longer, run(sliced, tmp_path / "fresh", "--epochs", "4"))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--resume", "--lr", "0.5"), "lr 0.5, found one with 0.001"),
        (("--resume", "--seed", "4"), "seed 4, found one with 0"),
        (("--resume", "--epochs", "2"), "epochs 2, found one with 3"),
        (("--lr", "0.5"), "lr 0.5"),
        ((), "--resume goes on with it"),
    ],
)
def test_a_run_of_other_settings_is_refused_and_kept(sliced, tmp_path, flags, named):
    run(sliced, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(InputError, match=named):
        run(sliced, tmp_path / "run", *flags)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_a_loss_that_is_not_finite_names_epoch_step_and_slices(sliced, tmp_path, capsys, monkeypatch):
    code = call(train, "--data", sliced, "--out", tmp_path / "run", *SMALL, "--lr", "1e30", monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 1 and error.count("\n") == 1
    assert re.search(r"epoch 0, step 1, slices (case_\d+_\d{4}(, )?){2}: expected finite values, found loss nan", error)
    assert "region nan, gradient norm nan; --detect-anomaly names the operation" in error
    assert not (tmp_path / "run" / "last.pt").exists()


def test_learning_rate_is_halved_at_the_twentieth_epoch_without_gain(sliced, tmp_path):
    trainer = small_trainer(sliced)
    rates = []
    for score in [0.5, *[0.4] * 19, 0.5, 0.4]:
        trainer.lr_rule.step(score)
        rates.append(trainer.optimiser.param_groups[0]["lr"])
    # Epoch 0 is the best; the twentieth after it has no gain either, and an equal value is none.
    assert rates[:20] == [0.001] * 20 and rates[20:] == [0.0005] * 2


def test_slice_dsc_counts_empty_slices_as_one():
    counts = torch.tensor([[[8, 2], [10, 0]], [[9, 3], [10, 0]], [[8, 2], [10, 0]]])
    assert slice_dsc(counts) == pytest.approx((2 * 2 / 5 + 1) / 2)


def test_stopped_error_is_not_bad_input():
    assert not issubclass(StoppedError, InputError)


def test_the_authors_learning_rate_rule():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rule = lr_rules.Authors(optimiser, epochs=70)
    halved = []
    for epoch in range(70):
        before = optimiser.param_groups[0]["lr"]
        rule.step({0: 0.1, 5: 0.5, 30: 0.6}.get(epoch, 0.0))
        if optimiser.param_groups[0]["lr"] == before / 2:
            halved.append(epoch)
    # Epoch 0, then the multiples of the best epoch + 20: 25 while 5 is best, 50 while 30 is.
    assert halved == [0, 25, 50]


def parsed(*flags):
    settings, _ = train.parse(["--data", "data", "--out", "run", *flags])
    return settings


def test_the_authors_protocol_switches_every_departure_on():
    def departures(*flags):
        found, text = parsed(*flags).to_json(), PAPER.to_json()
        return {name: value for name, value in found.items() if value != text[name]}

    every = dict.fromkeys(("alpha", "lr_rule", "distance_map", "hausdorff", "gdl_absent", "cross_entropy"), "authors")
    every |= {"selection": "slice", "betas": (0.9, 0.99), "contour_alone_weight": 0.1, "precision": "fp32"}
    assert departures() == {}
    assert departures("--protocol", "authors") == every
    assert departures("--protocol", "reference") == every  # the word of earlier versions
    without = {name: value for name, value in every.items() if name != "selection"}
    assert departures("--protocol", "authors", "--selection", "volume") == without
    assert departures("--lr-rule", "authors") == {"lr_rule": "authors"}
    assert parsed("--protocol", "authors", "--precision", "bf16").precision == "bf16"
    assert parsed("--protocol", "authors", "--alpha", "increase").alpha == "authors"  # R2
    assert parsed("--protocol", "authors", "--alpha", "constant").alpha == "constant"
    hausdorff = parsed("--protocol", "authors", "--contour", "hausdorff")
    assert (hausdorff.alpha, hausdorff.alpha_start) == ("constant", 0.1)  # R9


def test_a_run_of_the_authors_protocol(varied, tmp_path):
    flags = ("--width", "4", "--batch-size", "2", "--lr", "0.003", "--epochs", "4")
    log = run(varied, tmp_path / "run", "--protocol", "authors", "--contour", "boundary", *flags)
    assert [float(row["lr"]) for row in log] == [0.003, 0.0015, 0.0015, 0.0015]
    sums = [float(row["region_weight"]) + float(row["contour_weight"]) for row in log]
    assert sums == pytest.approx([1.01] * 4)
    scores = [float(row["val_dsc"]) for row in log]
    assert len(set(scores)) == 4
    assert torch.load(tmp_path / "run" / "best.pt", weights_only=True)["epoch"] == scores.index(max(scores))


@pytest.mark.parametrize("maps", ["phi2d", "phi3d"])
def test_authors_maps_from_paper_slices_are_those_that_slicing_writes(tmp_path, maps):
    make_isles(tmp_path / "raw")
    # A volume without a lesion: its background fills everything (R20).
    save_nifti(
        isles_path(tmp_path / "raw", "case_2", "OT"), np.zeros((16, 20, 3), np.uint8), (0.9, 0.8, 5.0),
        identity_affine=True,
    )
    (tmp_path / "split.txt").write_text("case_1\n")
    loaded = []
    for convention in ("paper", "authors"):
        places = ("--source", tmp_path / "raw", "--dest", tmp_path / convention, "--split", tmp_path / "split.txt")
        preprocess.main(["isles", *map(str, places), "--size", "32", "--distance-map", convention])
        meta = read_meta(tmp_path / convention)
        loaded.append(dataloader.load_slices(meta, "train", maps=maps, convention="authors").maps)
    stored = dataloader.load_slices(meta, "train", maps=maps).maps
    assert torch.equal(loaded[0], stored) and torch.equal(loaded[1], stored)
    background = stored[:, 0].flatten(1)
    assert ((background.amax(dim=1) <= 0) & (background.amin(dim=1) < -10)).any()
    paper = dataloader.load_slices(read_meta(tmp_path / "paper"), "train", maps=maps).maps
    assert not torch.equal(paper, stored)


def test_a_kill_between_last_and_best_is_repaired(sliced, tmp_path, monkeypatch):
    run(sliced, tmp_path / "whole", "--epochs", "1")
    monkeypatch.setattr(Trainer, "save_weights", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(sliced, tmp_path / "killed", "--epochs", "1")
    monkeypatch.undo()
    assert (tmp_path / "killed" / "last.pt").exists() and not (tmp_path / "killed" / "best.pt").exists()
    run(sliced, tmp_path / "killed", "--epochs", "1", "--resume")
    pairs = zip(
        weights(tmp_path / "whole", "best").values(), weights(tmp_path / "killed", "best").values(), strict=True
    )
    assert all(torch.equal(x, y) for x, y in pairs)


def test_what_a_kill_left_of_a_write_is_cleared(sliced, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".unfinished-123.config.json").write_text("{")
    run(sliced, tmp_path / "run", "--epochs", "1")
    assert not (tmp_path / "run" / ".unfinished-123.config.json").exists()


def test_two_processes_on_one_run_are_one_too_many(sliced, tmp_path):
    from environment.locks import exclusive

    (tmp_path / "run").mkdir()
    with exclusive(tmp_path / "run"), pytest.raises(InputError, match="another process is at work"):
        run(sliced, tmp_path / "run", "--epochs", "1")


def test_a_schedule_spread_over_the_epochs_cannot_be_prolonged(sliced, tmp_path):
    flags = ("--contour", "boundary", "--alpha", "busi-linear")
    run(sliced, tmp_path / "run", *flags, "--epochs", "1")
    with pytest.raises(InputError, match="epochs 2, found one with 1"):
        run(sliced, tmp_path / "run", *flags, "--epochs", "2", "--resume")


def test_a_longer_run_says_so_and_keeps_files_that_are_not_its_own(sliced, tmp_path, capsys):
    out = tmp_path / "run"
    run(sliced, out, "--epochs", "1")
    (out / ".env").write_text("mine")
    (out / ".ipynb_checkpoints").mkdir()
    (out / ".unfinished-123.last.pt").write_text("what a kill left")
    run(sliced, out, "--epochs", "2", "--resume")
    assert f"{out}: going on from a run of 1 epochs to 2" in capsys.readouterr().out
    assert (out / ".env").read_text() == "mine" and not (out / ".unfinished-123.last.pt").exists()


def test_going_on_keeps_the_optimiser_of_the_device(sliced, tmp_path):
    run(sliced, tmp_path / "run", "--epochs", "1")
    trainer = small_trainer(sliced)
    trainer.settings = read_settings(tmp_path / "run")
    trainer.optimiser.param_groups[0]["fused"] = True  # as on CUDA; the run was saved without
    trainer.restore(tmp_path / "run" / "last.pt")
    assert all(group["fused"] for group in trainer.optimiser.param_groups)


def test_bf16_goes_on_bit_for_bit_too(sliced, tmp_path):
    run(sliced, tmp_path / "whole", "--precision", "bf16", "--epochs", "2")
    run(sliced, tmp_path / "parts", "--precision", "bf16", "--epochs", "1")
    run(sliced, tmp_path / "parts", "--precision", "bf16", "--epochs", "2", "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_checkpoint_of_something_else_is_named(sliced, tmp_path):
    run(sliced, tmp_path / "run", "--epochs", "1")
    (tmp_path / "run" / "last.pt").write_bytes((tmp_path / "run" / "best.pt").read_bytes())
    with pytest.raises(InputError, match="last.pt: expected the state of this run, found another"):
        run(sliced, tmp_path / "run", "--epochs", "2", "--resume")


def test_squared_distances_do_not_overflow(tmp_path):
    """A lesion in one corner of 300 mm: squared distances beyond float16."""
    label = torch.zeros(1, 64, 64, dtype=torch.uint8)
    label[0, 0, 0] = 1
    case = SlicedCase("1", "train", 1, (5.0, 5.0, 5.0))
    stored = {"label": ((64, 64), np.dtype(np.uint8))}
    layout = PartFiles(tmp_path, (case,), ("1_0000",), stored, "hausdorff", None, 2)
    shape, dtype = layout.computed
    maps = torch.from_numpy(np.empty((1, *shape), dtype))
    slice_maps.compute_maps(layout, case, label.numpy(), out=maps.numpy())
    assert torch.isfinite(maps).all() and float(maps.max()) == pytest.approx(2 * (63 * 5.0) ** 2, rel=1e-4)
