"""A run from epoch to epoch: its log, its checkpoints, and how it goes on after a kill or a stop."""

import math
import time
from pathlib import Path

import torch

from training.checkpoints import load_checkpoint, random_states, restore_random_states, save_checkpoint
from training.interrupts import StopTraining
from training.trainer import EpochSoFar, Trainer
from utils import InputError, progress, write_rows

LOG_COLUMNS = (
    "epoch", "region_weight", "contour_weight", "train_loss", "train_region", "train_contour", "train_dsc",
    "val_loss", "val_dsc", "val_dsc_3d", "val_hd95_3d_mm", "lr", "seconds", "slices_per_second",
)


def restore(trainer: Trainer, path: Path) -> None:
    """Set the trainer to what ``last.pt`` holds: the end of an epoch, or a step in the middle of one."""
    state = load_checkpoint(path, trainer.device)
    try:
        # Whether Adam is fused belongs to the device, not to the run that may have come from another.
        for group in state["optimiser"]["param_groups"]:
            group["fused"] = trainer.optimiser.defaults["fused"]
        trainer.network.load_state_dict(state["model"])
        trainer.optimiser.load_state_dict(state["optimiser"])
        trainer.rate.load_state_dict(state["rate"])
        trainer.log = state["log"]
        if state["so_far"]:
            trainer.so_far = EpochSoFar(**state["so_far"])
        restore_random_states(state["random"])
    except torch.OutOfMemoryError:
        raise
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{path}: expected the state of this run, found another ({type(error).__name__})") from None
    if not trainer.so_far.n_steps and is_best(trainer):
        # The kill may have come between last.pt and best.pt.
        save_best(trainer, path.parent)


def run(trainer: Trainer, out: Path) -> None:
    """All epochs from where the state stands; after each, best.pt, log.csv and last.pt are whole.

    ``KeyboardInterrupt`` after a stop request, when the step under way and the state are saved.
    """
    args, done, slices = trainer.args, len(trainer.log), len(trainer.train)
    write_rows(out / "log.csv", trainer.log, LOG_COLUMNS)
    name = f"{out.parent.name} {out.name}"
    seen = done * slices + trainer.so_far.n_slices
    with trainer.stop, progress(total=args.epochs * slices, initial=seen, unit="slice", desc=name) as bar:
        for epoch in range(done, args.epochs):
            try:
                row = run_epoch(trainer, epoch, bar)
            except StopTraining:
                stop(trainer, epoch, out)
            bar.set_postfix_str(
                f"epoch {epoch + 1}/{args.epochs} loss {row['train_loss']:.3f} val dsc {row['val_dsc_3d']:.3f} "
                f"hd95 {row['val_hd95_3d_mm']:.1f} mm"
            )
            save_epoch(trainer, out)
    if trainer.stop.received:
        raise KeyboardInterrupt(f"stopped after the last epoch, {args.epochs - 1}; the run is whole")


def run_epoch(trainer: Trainer, epoch: int, bar) -> dict[str, float]:
    """Train and validate one epoch, or what is left of it; returns its line of the log."""
    trainer.stop.check()
    start = time.perf_counter()
    try:
        row = {"epoch": epoch, **trainer.train_epoch(epoch, bar)}
    finally:
        trainer.so_far.seconds += time.perf_counter() - start
    trained, start = trainer.so_far.seconds, time.perf_counter()
    row |= trainer.validate((row["region_weight"], row["contour_weight"]))
    row["lr"] = trainer.optimiser.param_groups[0]["lr"]
    seconds = trained + time.perf_counter() - start
    row |= {"seconds": seconds, "slices_per_second": len(trainer.train) / trained}
    trainer.rate.step(trainer.score(row))
    trainer.log.append(row)
    trainer.new_epoch()
    return row


def stop(trainer: Trainer, epoch: int, out: Path) -> None:
    """Save the epoch under way, so that nothing but the rest of it is left to do; raises ``KeyboardInterrupt``."""
    steps = trainer.so_far.n_steps
    if steps:
        trainer.check_finite(epoch)
        save_state(trainer, epoch, out)
    raise KeyboardInterrupt(f"stopped at epoch {epoch}, step {steps}; --resume goes on from there")


def is_best(trainer: Trainer) -> bool:
    """Whether the last epoch is the best so far."""
    *earlier, last = map(trainer.score, trainer.log)
    return last > max(earlier, default=-math.inf)


def save_best(trainer: Trainer, out: Path) -> None:
    row = trainer.log[-1]
    save_checkpoint(out / "best.pt", {"model": trainer.network.state_dict(), "epoch": row["epoch"], "log": row})


def save_state(trainer: Trainer, epoch: int, out: Path) -> None:
    """Write last.pt, from which a run goes on: ``epoch`` is the one that ended last or is under way."""
    save_checkpoint(out / "last.pt", {
        "model": trainer.network.state_dict(),
        "optimiser": trainer.optimiser.state_dict(),
        "rate": trainer.rate.state_dict(),
        "epoch": epoch,
        "log": trainer.log,
        "so_far": trainer.so_far.state(),
        "random": random_states(),
    })


def save_epoch(trainer: Trainer, out: Path) -> None:
    """After a kill last.pt is what counts: the log is written from it, and best.pt where its epoch is the best."""
    save_state(trainer, trainer.log[-1]["epoch"], out)
    write_rows(out / "log.csv", trainer.log, LOG_COLUMNS)
    if is_best(trainer):
        save_best(trainer, out)
