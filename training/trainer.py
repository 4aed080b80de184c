"""The training loop: one run from epoch to epoch, its log, its checkpoints, and how it resumes."""

import math
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from boundary_loss.metrics import intersection_and_sizes
from dataloader import Batch, batches, epoch_order, open_parts
from networks import build_network, load_encoder_weights
from raw_data.volumes import IGNORED
from sliced_data.meta import Meta
from training.augmentation import augment
from training.checkpoints import (
    load_checkpoint,
    random_states,
    restore_random_states,
    save_checkpoint,
    seed_everything,
)
from training.checks import check_settings
from training.compilation import Compiled
from training.epoch_totals import STEP_VALUES, EpochTotals
from training.interrupts import StopRequest, StopTraining
from training.lr_rules import LR_RULES
from training.objective import BatchMaps, build_objective
from training.optimisers import build_optimiser
from training.run_folder import Files
from training.run_state import check_state
from training.settings import Settings
from training.snapshots import snapshot_name
from training.volume_metrics import volume_metrics
from utils import InputError, StoppedError, progress, write_rows

LOG_COLUMNS = (
    "epoch", "region_weight", "contour_weight", "train_loss", "train_region", "train_contour", "train_dsc",
    "val_loss", "val_dsc", "val_dsc_3d", "val_hd95_3d_mm", "lr", "seconds", "slices_per_second",
)
# The column of the log that a selection goes by.
SCORES = {"volume": "val_dsc_3d", "slice": "val_dsc", "pooled": "val_dsc_pooled", "last": "epoch"}


class Trainer:
    """One run. ``Trainer(settings, meta, device).fit(folder)`` trains what is missing and leaves the folder whole.

    ``log`` has a dictionary of ``log_columns`` for each finished epoch, ``totals`` the epoch under way. Nothing in a
    training step waits for the device.
    """

    def __init__(
        self, settings: Settings, meta: Meta, device: torch.device, *, resident: str = "auto",
        detect_anomaly: bool = False, encoder_file: Path | None = None,
    ):
        check_settings(settings)
        seed_everything(settings.seed)
        self.settings, self.device, self.detect_anomaly = settings, device, detect_anomaly
        self.has_ignored = meta.has_ignored
        self.class_names, self.num_classes, self.unit = meta.class_names, len(meta.class_names), meta.unit
        self.objective = build_objective(settings, self.num_classes, ignore_index=IGNORED if meta.has_ignored else None)
        self.schedule = settings.schedule()
        self.maps = BatchMaps(settings, self.objective, self.num_classes)
        self.train, self.val = open_parts(
            meta, maps=self.maps.loaded, convention=settings.distance_map, resident=resident, device=device
        )
        network = build_network(settings.network, len(meta.modalities), self.num_classes, width=settings.width)
        if encoder_file is not None:
            load_encoder_weights(network, encoder_file)
        self.network = network.to(device, memory_format=torch.channels_last)
        compiled = settings.compile and not detect_anomaly and device.type == "cuda"
        self.forward = Compiled(self.network) if compiled else self.network
        self.optimiser = build_optimiser(settings, self.network)
        self.lr_rule = LR_RULES[settings.lr_rule](self.optimiser, settings.epochs)
        self.log: list[dict] = []
        self.stop = StopRequest()
        # Writes the first files that are saved, where more than they changes with them.
        self.write_first: Callable[[Files], None] | None = None
        self.new_epoch()

    # A run -----------------------------------------------------------------------------------------------

    def fit(self, out: Path, snapshots: Collection[int] = ()) -> None:
        """All epochs from where the state is; after each, last.pt, log.csv and best.pt in ``out`` are whole.

        The weights after each of ``snapshots`` epochs are kept besides.
        ``KeyboardInterrupt`` after a stop request, once the step under way and the state are saved.
        """
        epochs, slices, done = self.settings.epochs, len(self.train), len(self.log)
        write_rows(out / "log.csv", self.log, self.log_columns)
        if self.log and not self.totals.n_steps:
            # The kill may have come between last.pt and the weights.
            self.save_weights(out, snapshots)
        seen = done * slices + self.totals.n_slices
        name = f"{out.parent.name} {out.name}"
        with self.stop, progress(total=epochs * slices, initial=seen, unit="slice", desc=name) as bar:
            for epoch in range(done, epochs):
                try:
                    row = self.run_epoch(epoch, bar)
                except StopTraining:
                    self.save_and_stop(epoch, out)
                bar.set_postfix_str(
                    f"epoch {epoch + 1}/{epochs} loss {row['train_loss']:.3f} val dsc {row['val_dsc_3d']:.3f} "
                    f"hd95 {row['val_hd95_3d_mm']:.1f} {self.unit}"
                )
                self.save_epoch(out, snapshots)
        if self.stop.received:
            raise KeyboardInterrupt(f"stopped after the last epoch, {epochs - 1}; the run is whole")

    def run_epoch(self, epoch: int, bar: tqdm) -> dict[str, float]:
        """Train and validate one epoch, or what is left of it; appends its row to the log and returns it."""
        self.stop.check()
        start = time.perf_counter()
        try:
            row = {"epoch": epoch, **self.train_epoch(epoch, bar)}
        finally:
            self.totals.seconds += time.perf_counter() - start
        trained, start = self.totals.seconds, time.perf_counter()
        row |= self.validate((row["region_weight"], row["contour_weight"]))
        row["lr"] = self.optimiser.param_groups[0]["lr"]
        seconds = trained + time.perf_counter() - start
        row |= {"seconds": seconds, "slices_per_second": len(self.train) / trained}
        self.lr_rule.step(self.score(row))
        self.log.append(row)
        self.new_epoch()
        return row

    @property
    def log_columns(self) -> tuple[str, ...]:
        """LOG_COLUMNS, the pooled DSC where it chooses the epoch, the 3D DSC of each of several foreground classes."""
        classes = self.class_names[1:] if self.num_classes > 2 else ()
        pooled = ("val_dsc_pooled",) if self.settings.selection == "pooled" else ()
        return (*LOG_COLUMNS, *pooled, *(f"val_dsc_3d_{name}" for name in classes))

    def score(self, row: dict) -> float:
        """What chooses the best epoch and lowers the learning rate: a validation DSC, or that it is the last."""
        return row[SCORES[self.settings.selection]]

    # An epoch of training --------------------------------------------------------------------------------

    def train_epoch(self, epoch: int, bar: tqdm) -> dict[str, float]:
        """What is left of a pass over the training slices; every sum stays on the device until the epoch has ended.

        ``StopTraining`` between two steps after a stop request; ``totals`` then holds the steps that were done.
        """
        self.forward.train()
        weights = self.objective.weights(self.schedule, epoch)
        order = self.order(epoch)[self.totals.n_slices :]
        for batch in batches(self.train, order, self.settings.batch_size, self.device):
            place = {"seed": self.settings.seed, "epoch": epoch, "step": self.totals.n_steps}
            self.step(self.maps.add_to(augment(batch, self.settings.augment, **place)), epoch, weights)
            bar.update(len(batch.label))
            self.stop.check()
        self.check_finite(epoch)
        mean = self.totals.means(self.settings.batch_size)
        return {
            "region_weight": weights[0], "contour_weight": weights[1],
            "train_loss": float(mean[0]), "train_region": float(mean[1]), "train_contour": float(mean[2]),
            "train_dsc": self.totals.slice_dsc(),
        }

    def order(self, epoch: int) -> Tensor:
        """The training slices of an epoch; a fixed order is that of the first one."""
        shuffles = self.settings.order == "shuffled"
        return epoch_order(len(self.train), seed=self.settings.seed, epoch=epoch if shuffles else 0)

    def step(self, batch: Batch, epoch: int, weights: tuple[float, float]) -> None:
        """One step of the optimiser."""
        logits = self.logits(batch.image)                                           # (B, K, H, W)
        terms = self.objective.terms(logits, batch.label, batch.maps, batch.spacing)
        loss = self.objective.weigh(terms, weights)
        self.optimiser.zero_grad(set_to_none=True)
        self.backward(loss, epoch)
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        if self.settings.gradient_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.settings.gradient_clip, norm)
        self.optimiser.step()
        prediction = self.predict(logits.detach(), batch.label)                     # (B, H, W)
        counts = intersection_and_sizes(prediction, batch.label, self.num_classes)
        self.totals.add((loss, *terms, norm), counts)

    def logits(self, image: Tensor) -> Tensor:
        use_bf16 = self.settings.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if use_bf16 else nullcontext():
            return self.forward(image)                                              # (B, K, H, W)

    def predict(self, logits: Tensor, label: Tensor) -> Tensor:
        """Classes (B, H, W); of no class, and so in no metric, where the label is ignored."""
        prediction = logits.argmax(1)
        return torch.where(label == IGNORED, IGNORED, prediction) if self.has_ignored else prediction

    def backward(self, loss: Tensor, epoch: int) -> None:
        try:
            loss.backward()
        except RuntimeError as error:
            # What --detect-anomaly raises.
            if "returned nan values" not in str(error):
                raise
            raise StoppedError(f"{self.place(epoch, self.totals.n_steps)}: {error}") from None

    def check_finite(self, epoch: int) -> None:
        """``StoppedError`` with place and values of the first step whose loss or gradient is not finite."""
        steps = self.totals.steps[: self.totals.n_steps].cpu()
        bad = (~torch.isfinite(steps[:, [0, 3]])).any(1).nonzero()
        if len(bad):
            step = int(bad[0])
            losses = (True, self.objective.region, self.objective.contour, True)
            found = zip(STEP_VALUES, steps[step].tolist(), losses, strict=True)
            values = ", ".join(f"{name} {value:g}" for name, value, is_there in found if is_there)
            advice = "" if self.detect_anomaly else "; --detect-anomaly names the operation"
            raise StoppedError(f"{self.place(epoch, step)}: expected finite values, found {values}{advice}")

    def place(self, epoch: int, step: int) -> str:
        """Epoch, step and slices in words."""
        slices = self.order(epoch).split(self.settings.batch_size)[step]
        return f"epoch {epoch}, step {step}, slices {', '.join(self.train.names[i] for i in slices)}"

    def new_epoch(self) -> None:
        self.totals = self.empty_totals(len(self.train))

    def empty_totals(self, n_slices: int) -> EpochTotals:
        return EpochTotals.empty(n_slices, self.settings.batch_size, self.num_classes, self.device)

    # Validation ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self, weights: tuple[float, float]) -> dict[str, float]:
        """Slice DSC, 3D DSC, 3D HD95 (mm) and loss from one forward pass over the validation slices.

        ``StopTraining`` between two batches after a stop request.
        """
        self.forward.eval()
        totals = self.empty_totals(len(self.val))
        predictions = torch.empty(self.val.label.shape, dtype=torch.uint8, device=self.device)     # (N, H, W)
        for batch in batches(self.val, torch.arange(len(self.val)), self.settings.batch_size, self.device):
            logits = self.logits(batch.image)                                       # (B, K, H, W)
            prediction = self.predict(logits, batch.label)                          # (B, H, W)
            predictions[totals.n_slices : totals.n_slices + len(prediction)] = prediction
            maps = self.maps.add_to(batch).maps
            terms = self.objective.terms(logits, batch.label, maps, batch.spacing)
            values = (self.objective.weigh(terms, weights), *terms, logits.new_zeros(()))
            totals.add(values, intersection_and_sizes(prediction, batch.label, self.num_classes))
            self.stop.check()
        return {
            "val_loss": float(totals.means(self.settings.batch_size)[0]), "val_dsc": totals.slice_dsc(),
            **({"val_dsc_pooled": totals.pooled_dsc()} if self.settings.selection == "pooled" else {}),
            **volume_metrics(self.val, totals.counts.cpu(), predictions, self.class_names),
        }

    # Checkpoints -----------------------------------------------------------------------------------------

    def restore(self, path: Path) -> None:
        """Continue from ``last.pt``: the end of an epoch, or a step in the middle of one."""
        state = load_checkpoint(path, self.device, self.settings.fingerprint)
        try:
            check_state(state, self)
            self.network.load_state_dict(state["model"])
            # All but rate and moments belongs to settings and device, which may be another than that of the run so far.
            own = self.optimiser.state_dict()
            own["param_groups"][0]["lr"] = state["optimiser"]["param_groups"][0]["lr"]
            self.optimiser.load_state_dict({**own, "state": state["optimiser"]["state"]})
            self.lr_rule.load_state_dict({name: state["rate"][name] for name in self.lr_rule.state_dict()})
            self.log = state["log"]
            if state["so_far"]:
                self.totals = EpochTotals(**state["so_far"])
            restore_random_states(state["random"])
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, LookupError, OverflowError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{path}: expected the state of this run, found another ({error!r:.200})") from None

    def save_and_stop(self, epoch: int, out: Path) -> None:
        """Save the epoch under way, so that only the rest of it is left to do; raises ``KeyboardInterrupt``."""
        steps = self.totals.n_steps
        if steps:
            self.check_finite(epoch)
            self.write({out / "last.pt": partial(save_checkpoint, state=self.state(epoch))})
        raise KeyboardInterrupt(f"stopped at epoch {epoch}, step {steps}; --resume goes on from there")

    def save_epoch(self, out: Path, snapshots: Collection[int]) -> None:
        """After a kill last.pt is what counts: the log is written from it, and the weights of its epoch."""
        self.write({
            out / "last.pt": partial(save_checkpoint, state=self.state(self.log[-1]["epoch"])),
            out / "log.csv": partial(write_rows, rows=self.log, columns=self.log_columns),
        })
        self.save_weights(out, snapshots)

    def save_weights(self, out: Path, snapshots: Collection[int]) -> None:
        """Write best.pt where the last epoch is the best so far, and its snapshot where one is wanted."""
        row = self.log[-1]
        state = {"model": self.network.state_dict(), "epoch": row["epoch"], "log": row}
        names = [name for name, wanted in (
            ("best", self.is_best()), (snapshot_name(len(self.log)), len(self.log) in snapshots),
        ) if wanted]
        for name in names:
            save_checkpoint(out / f"{name}.pt", {**state, "fingerprint": self.settings.fingerprint})

    def is_best(self) -> bool:
        """Whether the last epoch is the best so far."""
        *earlier, last = map(self.score, self.log)
        return last > max(earlier, default=-math.inf)

    def write(self, files: Files) -> None:
        first, self.write_first = self.write_first, None
        if first:
            first(files)
            return
        for path, write in files.items():
            write(path)

    def state(self, epoch: int) -> dict[str, Any]:
        """What a run resumes from: ``epoch`` is the one that ended last or is under way."""
        return {
            "model": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rate": self.lr_rule.state_dict(),
            "epoch": epoch,
            "log": self.log,
            "so_far": self.totals.state(),
            "random": random_states(),
            "fingerprint": self.settings.fingerprint,
        }
