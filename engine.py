"""The training loop: one epoch of training and one pass of validation, with what an epoch has gathered so far."""

import argparse
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

import schedules
from checkpoint import seed_everything
from dataloader import Batch, Meta, Slices, batches, epoch_order, load_slices
from guards import StopRequest
from metrics import dsc_from_counts, hd95, intersection_and_sizes
from networks import NETWORKS
from objective import Objective, wanted_maps
from rates import RATES, ReferenceRate
from utils import StoppedError

Counts = tuple[Tensor, Tensor, Tensor]      # of a batch: intersection, prediction, reference, each (B, K)


@dataclass
class EpochSoFar:
    """What the epoch under way has gathered, on the device; empty between epochs."""

    steps: list[Tensor] = field(default_factory=list)   # a step: loss, regional and contour term, (3,)
    counts: list[Counts] = field(default_factory=list)
    seconds: float = 0.0                                # of training

    def state(self) -> dict | None:
        """The same as a few tensors and plain values, for a checkpoint; None between epochs."""
        if not self.steps:
            return None
        return {"steps": torch.stack(self.steps), "counts": merge(self.counts), "seconds": self.seconds}

    @staticmethod
    def from_state(state: Mapping | None) -> "EpochSoFar":
        if state is None:
            return EpochSoFar()
        return EpochSoFar(list(state["steps"]), [tuple(state["counts"])], state["seconds"])


@dataclass
class Trainer:
    """Everything that one run needs from epoch to epoch."""

    args: argparse.Namespace
    device: torch.device
    network: nn.Module
    forward: nn.Module
    optimiser: torch.optim.Optimizer
    rate: ReduceLROnPlateau | ReferenceRate
    schedule: object
    objective: Objective
    train: Slices
    val: Slices
    num_classes: int
    log: list[dict] = field(default_factory=list)
    so_far: EpochSoFar = field(default_factory=EpochSoFar)
    stop: StopRequest = field(default_factory=StopRequest)

    def logits(self, image: Tensor) -> Tensor:
        use_bf16 = self.args.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if use_bf16 else nullcontext():
            return self.forward(image)                                              # (B, K, H, W)

    def train_epoch(self, epoch: int, bar) -> dict[str, float]:
        """What is left of a pass over the training slices; every sum stays on the device until the epoch has ended.

        ``StopTraining`` between two steps after a stop request; ``so_far`` then holds the steps that were done.
        """
        self.forward.train()
        weights = self.objective.weights(self.schedule, epoch)
        order = self.order(epoch)[len(self.so_far.steps) * self.args.batch_size :]
        for batch in batches(self.train, order, self.args.batch_size, self.device):
            self.step(batch, weights)
            bar.update(len(batch.label))
            self.stop.check()
        losses = self.check_finite(epoch)                                           # (steps, 3)
        sizes = torch.tensor([len(part) for part in self.order(epoch).split(self.args.batch_size)])
        mean = (losses * sizes[:, None]).sum(0) / len(self.train)
        return {
            "region_weight": weights[0], "contour_weight": weights[1],
            "train_loss": float(mean[0]), "train_region": float(mean[1]), "train_contour": float(mean[2]),
            "train_dsc": slice_dsc(self.so_far.counts),
        }

    def step(self, batch: Batch, weights: tuple[float, float]) -> None:
        """One step of the optimiser; nothing in it waits for the device."""
        logits = self.logits(batch.image)
        terms = self.objective.terms(logits, batch)
        loss = self.objective.weigh(terms, weights)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.so_far.steps.append(torch.stack((loss, *terms)).detach())
        counts = intersection_and_sizes(logits.detach().argmax(1), batch.label, self.num_classes)
        self.so_far.counts.append(counts)

    def order(self, epoch: int) -> Tensor:
        return epoch_order(len(self.train), seed=self.args.seed, epoch=epoch)

    def check_finite(self, epoch: int) -> Tensor:
        """The steps so far on the host; ``StoppedError`` names epoch, step and slices of the first not finite."""
        steps = torch.stack(self.so_far.steps).cpu()
        bad = (~torch.isfinite(steps[:, 0])).nonzero()
        if len(bad):
            step = int(bad[0])
            slices = ", ".join(self.train.names[i] for i in self.order(epoch).split(self.args.batch_size)[step])
            raise StoppedError(f"epoch {epoch}, step {step}: the loss is {steps[step, 0]:g} on slices {slices}")
        return steps

    @torch.no_grad()
    def validate(self, weights: tuple[float, float]) -> dict[str, float]:
        """Slice DSC, 3D DSC, 3D HD95 (mm) and loss from one forward pass over the validation slices.

        ``StopTraining`` between two batches after a stop request.
        """
        self.forward.eval()
        losses, counts, predictions = [], [], []
        for batch in batches(self.val, torch.arange(len(self.val)), self.args.batch_size, self.device):
            logits = self.logits(batch.image)
            prediction = logits.argmax(1)                                           # (B, H, W)
            losses.append(self.objective.weigh(self.objective.terms(logits, batch), weights) * len(prediction))
            counts.append(intersection_and_sizes(prediction, batch.label, self.num_classes))
            predictions.append(prediction.byte())
            self.stop.check()
        dsc_3d, hd95_3d = self.volume_metrics(counts, torch.cat(predictions).cpu().numpy())
        return {
            "val_loss": float(sum(losses)) / len(self.val), "val_dsc": slice_dsc(counts),
            "val_dsc_3d": dsc_3d, "val_hd95_3d_mm": hd95_3d,
        }

    def volume_metrics(self, counts: list[Counts], predictions: np.ndarray) -> tuple[float, float]:
        """Mean 3D DSC and HD95 in mm over cases and foreground classes; predictions (N, H, W)."""
        intersection, n_pred, n_ref = (part.cpu() for part in merge(counts))                          # (N, K)
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


def slice_dsc(counts: list[Counts]) -> float:
    """Mean DSC over slices and foreground classes; counts per batch as ``intersection_and_sizes`` gives them."""
    return float(dsc_from_counts(*merge(counts))[:, 1:].mean())


def merge(counts: list[Counts]) -> Counts:
    """Counts of many batches as those of one, (N, K) each."""
    return tuple(torch.cat(part) for part in zip(*counts, strict=True))


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
        train=train, val=val, num_classes=num_classes,
    )
