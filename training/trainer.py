"""The training loop: one epoch of training and one pass of validation, with what an epoch has gathered so far."""

import argparse
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from boundary_loss import schedules
from boundary_loss.metrics import dsc_from_counts, hd95, intersection_and_sizes
from dataloader import Batch, Slices, StreamedSlices, batches, epoch_order, open_parts
from environment.cores import core_count
from losses import Objective, wanted_maps
from networks import build_network
from sliced_data.meta import Meta
from training.checkpoints import seed_everything
from training.compilation import Compiled
from training.interrupts import StopRequest
from training.lr_rules import RATES, ReferenceRate
from utils import StoppedError

STEP_VALUES = ("loss", "region", "contour", "gradient norm")


@dataclass
class EpochSoFar:
    """What the epoch under way has gathered, on the device; allocated whole, so that memory does not grow by step."""

    steps: Tensor       # (S, 4) float32: STEP_VALUES of each step
    counts: Tensor      # (3, N, K) int64: intersection, prediction, reference of each slice
    n_steps: int = 0
    n_slices: int = 0
    seconds: float = 0.0    # of training

    @staticmethod
    def empty(n_slices: int, batch_size: int, num_classes: int, device: torch.device) -> "EpochSoFar":
        steps = torch.zeros((math.ceil(n_slices / batch_size), len(STEP_VALUES)), device=device)
        return EpochSoFar(steps, torch.zeros((3, n_slices, num_classes), dtype=torch.int64, device=device))

    def add(self, values: Sequence[Tensor], counts: Sequence[Tensor]) -> None:
        """The values () and counts (B, K) of one step."""
        end = self.n_slices + len(counts[0])
        self.steps[self.n_steps] = torch.stack([value.detach().float() for value in values])
        self.counts[:, self.n_slices : end] = torch.stack(tuple(counts))
        self.n_steps, self.n_slices = self.n_steps + 1, end

    def means(self, batch_size: int) -> Tensor:
        """Means of STEP_VALUES over the slices, (4,), on the host."""
        sizes = torch.tensor([len(part) for part in torch.arange(self.n_slices).split(batch_size)])
        return (self.steps.cpu() * sizes[:, None]).sum(0) / self.n_slices

    def state(self) -> dict | None:
        """The same as tensors and plain values, for a checkpoint; None between epochs."""
        return vars(self).copy() if self.n_steps else None


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
    train: Slices | StreamedSlices
    val: Slices | StreamedSlices
    num_classes: int
    log: list[dict] = field(default_factory=list)
    so_far: EpochSoFar = field(init=False)
    stop: StopRequest = field(default_factory=StopRequest)

    def __post_init__(self):
        self.new_epoch()

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
        for batch in batches(self.train, self.order(epoch)[self.so_far.n_slices :], self.args.batch_size, self.device):
            self.step(batch, epoch, weights)
            bar.update(len(batch.label))
            self.stop.check()
        self.check_finite(epoch)
        mean = self.so_far.means(self.args.batch_size)
        return {
            "region_weight": weights[0], "contour_weight": weights[1],
            "train_loss": float(mean[0]), "train_region": float(mean[1]), "train_contour": float(mean[2]),
            "train_dsc": slice_dsc(self.so_far.counts),
        }

    def step(self, batch: Batch, epoch: int, weights: tuple[float, float]) -> None:
        """One step of the optimiser; nothing in it waits for the device."""
        logits = self.logits(batch.image)
        terms = self.objective.terms(logits, batch.label, batch.maps, batch.spacing)
        loss = self.objective.weigh(terms, weights)
        self.optimiser.zero_grad(set_to_none=True)
        try:
            loss.backward()
        except RuntimeError as error:
            # What --detect-anomaly raises.
            if "returned nan values" not in str(error):
                raise
            raise StoppedError(f"{self.place(epoch, self.so_far.n_steps)}: {error}") from None
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        self.optimiser.step()
        counts = intersection_and_sizes(logits.detach().argmax(1), batch.label, self.num_classes)
        self.so_far.add((loss, *terms, norm), counts)

    def order(self, epoch: int) -> Tensor:
        return epoch_order(len(self.train), seed=self.args.seed, epoch=epoch)

    def check_finite(self, epoch: int) -> None:
        """``StoppedError`` with place and values of the first step whose loss or gradient is not finite."""
        steps = self.so_far.steps[: self.so_far.n_steps].cpu()
        bad = (~torch.isfinite(steps[:, [0, 3]])).any(1).nonzero()
        if len(bad):
            step = int(bad[0])
            losses = (True, self.objective.region, self.objective.contour, True)
            found = zip(STEP_VALUES, steps[step].tolist(), losses, strict=True)
            values = ", ".join(f"{name} {value:g}" for name, value, is_there in found if is_there)
            advice = "" if self.args.detect_anomaly else "; --detect-anomaly names the operation"
            raise StoppedError(f"{self.place(epoch, step)}: expected finite values, found {values}{advice}")

    def place(self, epoch: int, step: int) -> str:
        """Epoch, step and slices in words."""
        slices = self.order(epoch).split(self.args.batch_size)[step]
        return f"epoch {epoch}, step {step}, slices {', '.join(self.train.names[i] for i in slices)}"

    def new_epoch(self) -> None:
        size = (len(self.train), self.args.batch_size, self.num_classes)
        self.so_far = EpochSoFar.empty(*size, device=self.device)

    @torch.no_grad()
    def validate(self, weights: tuple[float, float]) -> dict[str, float]:
        """Slice DSC, 3D DSC, 3D HD95 (mm) and loss from one forward pass over the validation slices.

        ``StopTraining`` between two batches after a stop request.
        """
        self.forward.eval()
        so_far = EpochSoFar.empty(len(self.val), self.args.batch_size, self.num_classes, self.device)
        predictions = torch.empty(self.val.label.shape, dtype=torch.uint8, device=self.device)     # (N, H, W)
        for batch in batches(self.val, torch.arange(len(self.val)), self.args.batch_size, self.device):
            logits = self.logits(batch.image)
            prediction = logits.argmax(1)                                           # (B, H, W)
            predictions[so_far.n_slices : so_far.n_slices + len(prediction)] = prediction
            terms = self.objective.terms(logits, batch.label, batch.maps, batch.spacing)
            values = (self.objective.weigh(terms, weights), *terms, logits.new_zeros(()))
            so_far.add(values, intersection_and_sizes(prediction, batch.label, self.num_classes))
            self.stop.check()
        dsc_3d, hd95_3d = self.volume_metrics(so_far.counts.cpu(), predictions)
        return {
            "val_loss": float(so_far.means(self.args.batch_size)[0]), "val_dsc": slice_dsc(so_far.counts),
            "val_dsc_3d": dsc_3d, "val_hd95_3d_mm": hd95_3d,
        }

    def volume_metrics(self, counts: Tensor, predictions: Tensor) -> tuple[float, float]:
        """Mean 3D DSC and HD95 in mm over cases and foreground classes; counts (3, N, K), predictions (N, H, W).

        Distances are measured where the predictions are; on the CPU by a thread a core, in compiled code.
        """
        dscs, masks = [], []
        for case, at in self.val.case_ranges():
            dsc = dsc_from_counts(*counts[:, at].sum(1))                            # (K,)
            dscs.append(float(dsc[1:].mean()))
            spacing = (case.spacing[2], *case.spacing[:2])
            reference = self.val.label[at].to(predictions.device)                   # (Z, H, W)
            masks += [(predictions[at] == k, reference == k, spacing) for k in range(1, self.num_classes)]
        with ThreadPoolExecutor(1 if predictions.is_cuda else core_count()) as pool:
            distances = list(pool.map(lambda parts: hd95(*parts), masks))
        return float(np.mean(dscs)), float(np.mean(distances))

    def score(self, row: dict) -> float:
        """What chooses the best epoch and halves the learning rate."""
        return row["val_dsc_3d" if self.args.selection == "volume" else "val_dsc"]


def slice_dsc(counts: Tensor) -> float:
    """Mean DSC over slices and foreground classes; counts (3, N, K) as ``intersection_and_sizes`` gives them."""
    return float(dsc_from_counts(*counts)[:, 1:].mean())


def build_trainer(args: argparse.Namespace, meta: Meta, device: torch.device) -> Trainer:
    seed_everything(args.seed)
    options = {"gdl": {"absent": args.gdl_absent}, "hausdorff": {"convention": args.hausdorff}}
    objective = Objective(args.region, args.contour, options)
    maps = wanted_maps(args, objective)
    train, val = open_parts(
        meta, maps=maps, convention=args.distance_map, resident=args.resident, device=device
    )
    num_classes = len(meta.class_names)
    network = build_network(args.network, len(meta.modalities), num_classes, width=args.width)
    network = network.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=args.lr, fused=device.type == "cuda")
    schedule = schedules.build(args.alpha, start=args.alpha_start, step=args.alpha_step, epochs=args.epochs)
    return Trainer(
        args=args, device=device, network=network,
        forward=Compiled(network) if args.compile and not args.detect_anomaly and device.type == "cuda" else network,
        optimiser=optimiser, rate=RATES[args.lr_rule](optimiser), schedule=schedule, objective=objective,
        train=train, val=val, num_classes=num_classes,
    )
