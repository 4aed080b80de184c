"""The training loop: one epoch of training, one pass of validation, and the state that survives a kill."""

import argparse
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

import schedules
from checkpoint import load_checkpoint, random_states, restore_random_states, save_checkpoint, seed_everything
from dataloader import Batch, Meta, Slices, batches, epoch_order, load_slices
from losses import CONTOUR_LOSSES, REGION_LOSSES
from metrics import dsc_from_counts, hd95, intersection_and_sizes
from networks import NETWORKS
from utils import InputError, StoppedError, progress, write_rows

LOG_COLUMNS = (
    "epoch", "region_weight", "contour_weight", "train_loss", "train_region", "train_contour", "train_dsc",
    "val_loss", "val_dsc", "val_dsc_3d", "val_hd95_3d_mm", "lr", "seconds", "slices_per_second",
)


class Objective(nn.Module):
    """The weighted sum of a regional and a contour loss, either of which may be absent (Eq. 6).

    ``options`` has keyword arguments of losses by their names.
    """

    def __init__(self, region: str, contour: str, options: Mapping[str, Mapping]):
        super().__init__()
        self.region = None if region == "none" else REGION_LOSSES[region](**options.get(region, {}))
        self.contour = None if contour == "none" else CONTOUR_LOSSES[contour](**options.get(contour, {}))

    def terms(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The two losses; an absent one is NaN, which is what the log says of it."""
        return self.term(self.region, logits, batch), self.term(self.contour, logits, batch)

    @staticmethod
    def term(loss: nn.Module | None, logits: Tensor, batch: Batch) -> Tensor:
        if loss is None:
            return logits.new_full((), math.nan)
        target = batch.label if loss.target_kind == "label" else batch.maps
        return loss(logits, target, spacing=batch.spacing) if loss.uses_spacing else loss(logits, target)

    def weigh(self, terms: tuple[Tensor, Tensor], weights: tuple[float, float]) -> Tensor:
        parts = [w * t for w, t, loss in zip(weights, terms, (self.region, self.contour), strict=True) if loss]
        return sum(parts)

    def weights(self, schedule, epoch: int) -> tuple[float, float]:
        """The schedule's weights; a loss that stands alone has weight 1."""
        if self.region is None or self.contour is None:
            return float(self.region is not None), float(self.contour is not None)
        return schedule.weights(epoch)


@dataclass
class Trainer:
    """Everything that one run needs from epoch to epoch."""

    args: argparse.Namespace
    device: torch.device
    network: nn.Module
    forward: nn.Module
    optimiser: torch.optim.Optimizer
    rate: "ReduceLROnPlateau | ReferenceRate"
    schedule: object
    objective: Objective
    train: Slices
    val: Slices
    num_classes: int
    log: list[dict]

    def logits(self, image: Tensor) -> Tensor:
        use_bf16 = self.args.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if use_bf16 else nullcontext():
            return self.forward(image)                                              # (B, K, H, W)

    def train_epoch(self, epoch: int, bar) -> dict[str, float]:
        """One pass over the training slices; every sum stays on the device until the epoch has ended."""
        self.forward.train()
        weights = self.objective.weights(self.schedule, epoch)
        order = epoch_order(len(self.train), seed=self.args.seed, epoch=epoch)
        losses, counts = [], []
        for batch in batches(self.train, order, self.args.batch_size, self.device):
            logits = self.logits(batch.image)
            terms = self.objective.terms(logits, batch)
            loss = self.objective.weigh(terms, weights)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            losses.append(torch.stack((loss, *terms)).detach())
            counts.append(intersection_and_sizes(logits.detach().argmax(1), batch.label, self.num_classes))
            bar.update(len(batch.label))
        losses = torch.stack(losses).cpu()                                          # (steps, 3)
        self.check_finite(losses[:, 0], order, epoch)
        sizes = torch.tensor([len(part) for part in order.split(self.args.batch_size)])
        mean = (losses * sizes[:, None]).sum(0) / len(order)
        return {
            "region_weight": weights[0], "contour_weight": weights[1],
            "train_loss": float(mean[0]), "train_region": float(mean[1]), "train_contour": float(mean[2]),
            "train_dsc": slice_dsc(counts),
        }

    def check_finite(self, losses: Tensor, order: Tensor, epoch: int) -> None:
        """``StoppedError`` with epoch, step and slices of the first loss (steps,) that is not finite."""
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            step = int(bad[0])
            slices = ", ".join(self.train.names[i] for i in order.split(self.args.batch_size)[step])
            raise StoppedError(f"epoch {epoch}, step {step}: the loss is {losses[step]:g} on slices {slices}")

    @torch.no_grad()
    def validate(self, weights: tuple[float, float]) -> dict[str, float]:
        """Slice DSC, 3D DSC, 3D HD95 (mm) and loss from one forward pass over the validation slices."""
        self.forward.eval()
        losses, counts, predictions = [], [], []
        for batch in batches(self.val, torch.arange(len(self.val)), self.args.batch_size, self.device):
            logits = self.logits(batch.image)
            prediction = logits.argmax(1)                                           # (B, H, W)
            losses.append(self.objective.weigh(self.objective.terms(logits, batch), weights) * len(prediction))
            counts.append(intersection_and_sizes(prediction, batch.label, self.num_classes))
            predictions.append(prediction.byte())
        dsc_3d, hd95_3d = self.volume_metrics(counts, torch.cat(predictions).cpu().numpy())
        return {
            "val_loss": float(sum(losses)) / len(self.val), "val_dsc": slice_dsc(counts),
            "val_dsc_3d": dsc_3d, "val_hd95_3d_mm": hd95_3d,
        }

    def volume_metrics(self, counts: list[tuple[Tensor, ...]], predictions: np.ndarray) -> tuple[float, float]:
        """Mean 3D DSC and HD95 in mm over cases and foreground classes; predictions (N, H, W)."""
        intersection, n_pred, n_ref = (torch.cat(part).cpu() for part in zip(*counts, strict=True))    # (N, K)
        reference = self.val.label.cpu().numpy()
        dscs, distances = [], []
        for case, at in self.val.case_ranges():
            dsc = dsc_from_counts(intersection[at].sum(0), n_pred[at].sum(0), n_ref[at].sum(0))        # (K,)
            dscs.append(float(dsc[1:].mean()))
            spacing = (case.spacing[2], *case.spacing[:2])
            for k in range(1, self.num_classes):
                distances.append(hd95(predictions[at] == k, reference[at] == k, spacing))
        return float(np.mean(dscs)), float(np.mean(distances))

    def score(self, row: dict) -> float:
        """What chooses the best epoch and halves the learning rate."""
        return row["val_dsc_3d" if self.args.selection == "volume" else "val_dsc"]


class ReferenceRate:
    """The learning rate of the authors' code: halved wherever the epoch is a multiple of the best epoch + 20.

    That is after epoch 0 in any case. Stands where ``ReduceLROnPlateau`` may stand.
    """

    def __init__(self, optimiser: torch.optim.Optimizer):
        self.optimiser, self.epoch, self.best, self.best_epoch = optimiser, 0, -math.inf, 0

    def step(self, score: float) -> None:
        if score > self.best:
            self.best, self.best_epoch = score, self.epoch
        if self.epoch % (self.best_epoch + 20) == 0:
            for group in self.optimiser.param_groups:
                group["lr"] *= 0.5
        self.epoch += 1

    def state_dict(self) -> dict:
        return {"epoch": self.epoch, "best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: Mapping) -> None:
        self.epoch, self.best, self.best_epoch = state["epoch"], state["best"], state["best_epoch"]


RATES = {
    # torch lowers the rate after more than `patience` epochs without a better value: 19 makes it the 20th.
    "plateau": partial(ReduceLROnPlateau, mode="max", factor=0.5, patience=19, threshold=0.0),
    "reference": ReferenceRate,
}


def slice_dsc(counts: list[tuple[Tensor, ...]]) -> float:
    """Mean DSC over slices and foreground classes; counts per batch as ``intersection_and_sizes`` gives them."""
    merged = [torch.cat(part) for part in zip(*counts, strict=True)]                # 3 x (N, K)
    return float(dsc_from_counts(*merged)[:, 1:].mean())


def wanted_maps(args: argparse.Namespace, objective: Objective) -> str | None:
    """The map that the losses want beside the labels, as ``load_slices`` names it."""
    kinds = {loss.target_kind: loss for loss in (objective.region, objective.contour) if loss}
    if "phi" in kinds:
        return f"phi{args.maps}"
    if "region-wise" in kinds:
        return args.region_wise_map or kinds["region-wise"].map_kind
    return None


def build_trainer(args: argparse.Namespace, meta: Meta, device: torch.device) -> Trainer:
    seed_everything(args.seed)
    options = {"gdl": {"absent": args.gdl_absent}, "hausdorff": {"convention": args.hausdorff}}
    objective = Objective(args.region, args.contour, options)
    maps = wanted_maps(args, objective)
    parts = (load_slices(meta, part, maps=maps, convention=args.distance_map) for part in ("train", "val"))
    train, val = (part.to(device) for part in parts)
    num_classes = len(meta.class_names)
    network = NETWORKS[args.network](len(meta.modalities), num_classes, width=args.width)
    network = network.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=args.lr, fused=device.type == "cuda")
    schedule = schedules.build(args.alpha, start=args.alpha_start, step=args.alpha_step, epochs=args.epochs)
    return Trainer(
        args=args, device=device, network=network,
        forward=torch.compile(network) if args.compile and device.type == "cuda" else network,
        optimiser=optimiser, rate=RATES[args.lr_rule](optimiser), schedule=schedule, objective=objective,
        train=train, val=val, num_classes=num_classes, log=[],
    )


def restore(trainer: Trainer, path: Path) -> None:
    """Set the trainer to the end of the epoch that ``last.pt`` holds."""
    state = load_checkpoint(path, trainer.device)
    try:
        trainer.network.load_state_dict(state["model"])
        trainer.optimiser.load_state_dict(state["optimiser"])
        trainer.rate.load_state_dict(state["rate"])
        trainer.log = state["log"]
        restore_random_states(state["random"])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{path}: expected the state of this run, found another ({type(error).__name__})") from None
    if is_best(trainer):
        # The kill may have come between last.pt and best.pt.
        save_best(trainer, path.parent)


def run(trainer: Trainer, out: Path) -> None:
    """All epochs from where the log ends; after each, best.pt, log.csv and last.pt are whole."""
    args, done, slices = trainer.args, len(trainer.log), len(trainer.train)
    write_rows(out / "log.csv", trainer.log, LOG_COLUMNS)
    name = f"{out.parent.name} {out.name}"
    with progress(total=args.epochs * slices, initial=done * slices, unit="slice", desc=name) as bar:
        for epoch in range(done, args.epochs):
            start = time.perf_counter()
            row = {"epoch": epoch, **trainer.train_epoch(epoch, bar)}
            trained = time.perf_counter() - start
            row |= trainer.validate((row["region_weight"], row["contour_weight"]))
            row["lr"] = trainer.optimiser.param_groups[0]["lr"]
            row |= {"seconds": time.perf_counter() - start, "slices_per_second": slices / trained}
            trainer.rate.step(trainer.score(row))
            trainer.log.append(row)
            bar.set_postfix_str(
                f"epoch {epoch + 1}/{args.epochs} loss {row['train_loss']:.3f} val dsc {row['val_dsc_3d']:.3f} "
                f"hd95 {row['val_hd95_3d_mm']:.1f} mm"
            )
            save_epoch(trainer, out)


def is_best(trainer: Trainer) -> bool:
    """Whether the last epoch is the best so far."""
    *earlier, last = map(trainer.score, trainer.log)
    return last > max(earlier, default=-math.inf)


def save_best(trainer: Trainer, out: Path) -> None:
    row = trainer.log[-1]
    save_checkpoint(out / "best.pt", {"model": trainer.network.state_dict(), "epoch": row["epoch"], "log": row})


def save_epoch(trainer: Trainer, out: Path) -> None:
    """After a kill last.pt is what counts: the log is written from it, and best.pt where its epoch is the best."""
    save_checkpoint(out / "last.pt", {
        "model": trainer.network.state_dict(),
        "optimiser": trainer.optimiser.state_dict(),
        "rate": trainer.rate.state_dict(),
        "epoch": trainer.log[-1]["epoch"],
        "log": trainer.log,
        "random": random_states(),
    })
    write_rows(out / "log.csv", trainer.log, LOG_COLUMNS)
    if is_best(trainer):
        save_best(trainer, out)
