"""One session of train.py: the run that was asked for is completed by what its data and device say, and trained."""

import warnings
from functools import partial

import torch

from environment.cores import use_threads
from environment.devices import claimed_device, use_deterministic_algorithms
from environment.locks import exclusive
from environment.memory import free_memory
from networks import NETWORKS, parameter_bytes
from sliced_data.meta import Meta, read_meta
from training.finished import check_wanted, with_facts
from training.interrupts import memory_advice
from training.precision import resolve_precision
from training.run_folder import begin_session, check_run_folder, former_sessions, read_settings
from training.settings import Execution, Settings
from training.snapshots import check_kept, check_snapshots
from training.trainer import Trainer
from utils import InputError, leftovers


def run_session(settings: Settings, execution: Execution) -> None:
    """Train what is missing of a run, or say with ``execution.check`` whether something is."""
    use_threads()
    if execution.detect_anomaly:
        # Where the operation was called, which torch says as a warning.
        warnings.filterwarnings("default", message="Error detected in")
    if settings.deterministic:
        use_deterministic_algorithms()
    meta = read_meta(execution.data)
    settings = complete(settings, execution, meta)
    check_snapshots(execution.snapshot_epochs, settings.epochs)
    if execution.check:
        check_wanted(settings, execution)
        return
    with claimed_device(execution.device) as device, memory_advice(memory_words(settings, device)):
        check_room(settings, meta, device)
        settings, measured = resolve_precision(settings, execution.out, meta, device)
        check_run_folder(execution.out, settings, resume=execution.resume)
        train(settings, execution, device, measured)


def complete(settings: Settings, execution: Execution, meta: Meta) -> Settings:
    """Settings with the facts of the data and of the encoder's file; ``InputError`` where they do not fit."""
    multiple = NETWORKS[settings.network].size_multiple
    if meta.size % multiple:
        size = f"a multiple of {multiple} pixels for {settings.network}, found {meta.size}"
        raise InputError(f"{execution.data}: expected slices of {size}")
    if execution.encoder_file is not None and settings.network != "resnet34-unet":
        raise InputError(f"--encoder-weights: expected --network resnet34-unet beside it, found {settings.network}")
    return with_facts(settings, execution, meta)


def memory_words(settings: Settings, device: torch.device) -> str:
    """Which flags make a run smaller."""
    place = "--resident host or stream" if device.type == "cuda" else "--resident stream"
    return f"take less than --batch-size {settings.batch_size} or --width {settings.width}, or {place}"


def check_room(settings: Settings, meta: Meta, device: torch.device) -> None:
    """``MemoryError`` where the device has no room for the weights, their gradients and the optimiser's moments."""
    weights = parameter_bytes(
        settings.network, len(meta.modalities), len(meta.class_names), width=settings.width
    )
    needed = weights * (4 if settings.optimiser == "adam" else 3)
    if needed > free_memory(device):
        raise MemoryError(f"cannot allocate {needed / 2**30:.1f} GiB for the network and its optimiser")


def train(
    settings: Settings, execution: Execution, device: torch.device, precision_seconds: dict[str, float] | None = None
) -> None:
    """Train what is missing of the run in ``execution.out``; ``precision_seconds`` per slice go into env.json."""
    out, meta = execution.out, read_meta(execution.data)
    trainer = Trainer(
        settings, meta, device, resident=execution.resident, detect_anomaly=execution.detect_anomaly,
        encoder_file=execution.encoder_file,
    )
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out):
        for leftover in leftovers(out):
            leftover.unlink()
        begin = partial(begin_session, out, settings, execution.data, device, precision_seconds)
        if check_run_folder(out, settings, resume=execution.resume):
            trainer.restore(out / "last.pt")
            # The snapshot of the state itself can still be made.
            passed = len(trainer.log) - (trainer.totals.n_steps == 0)
            check_kept(execution.snapshot_epochs, out, passed)
            epochs = read_settings(out).epochs
            if epochs < settings.epochs:
                print(f"{out}: going on from a run of {epochs} epochs to {settings.epochs}")
                # It stays a run of fewer epochs until more of it is saved.
                former_sessions(out)
                trainer.write_first = begin
        if len(trainer.log) < settings.epochs and trainer.write_first is None:
            begin()
        with torch.autograd.set_detect_anomaly(execution.detect_anomaly):
            trainer.fit(out, execution.snapshot_epochs)
    best = max(trainer.log, key=trainer.score)
    figures = f"DSC {best['val_dsc_3d']:.3f}, HD95 {best['val_hd95_3d_mm']:.2f} {meta.unit} (validation, 3D)"
    print(f"{out}: best epoch {best['epoch']} of {settings.epochs}: {figures}")
