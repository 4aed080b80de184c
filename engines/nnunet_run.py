"""A row trained by nnU-Net v2: its trainer, resumed where a kill stopped it, and its log as every run has one."""

import math
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.nnunet_data import PLANS, Workplace, check_made, workplace_of
from engines.nnunet_results import measure
from engines.nnunet_settings import Asked, settings_of
from environment.atomic_outputs import written_together
from environment.cores import use_threads
from environment.locks import exclusive
from environment.provenance import package_version
from sliced_data.meta import Meta
from training.run_folder import (
    begin_session,
    check_finished,
    check_run_folder,
    holds_run,
    metric_files,
    read_settings,
    write_session,
)
from training.settings import Settings
from training.trainer import LOG_COLUMNS
from utils import InputError, read_json, write_rows

SAVE_EVERY = 10     # epochs; nnU-Net's own 50 are hours on a small machine


def check_installed() -> None:
    """``InputError`` where nnU-Net is not installed."""
    if package_version("nnunetv2") is None:
        raise InputError("nnunetv2: expected nnU-Net v2 in this environment, found none; make setup-nnunet installs it")


def run(meta: Meta, out: Path, asked: Asked, device: torch.device, *, check: bool, tolerance_mm: float) -> None:
    """Train what is missing of the run in ``out`` and measure it; or see with ``check`` whether it is finished."""
    place = workplace_of(meta.root, meta.dataset)
    plans = read_plans(meta, place, asked)
    settings = settings_of(
        asked, plans["configurations"][asked.configuration], dataset=meta.dataset, fingerprint=meta.fingerprint
    )
    settings = with_schedule_of(out, settings)
    if check:
        check_finished(out, settings)
        return
    check_run_folder(out, settings, resume=True)
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out):
        was_measured = (out / "metrics.csv").exists()
        if not was_measured:
            begin_session(out, settings, meta.root, device)
        use_threads()
        seed_everything(asked.seed)
        trainer = make_trainer(place, plans, asked, out, device)
        configure(trainer, settings)
        train(trainer)
        trainer.perform_actual_validation()
        # What a finished run holds stays until all of it is whole again.
        with written_together(removing=metric_files(out)) as beside:
            if was_measured:
                write_session(beside, out, settings, meta.root, device)
            write_rows(beside(out / "log.csv"), log_rows(trainer), LOG_COLUMNS)
            validation = Path(trainer.output_folder) / "validation"
            measure(beside, out, meta, validation, settings.epochs, tolerance_mm=tolerance_mm)


def with_schedule_of(out: Path, settings: Settings) -> Settings:
    """The settings with the alpha of a run of other epochs, so that messages name --epochs: alpha follows from them."""
    if not holds_run(out):
        return settings
    found = read_settings(out)
    if found.epochs == settings.epochs:
        return settings
    return replace(settings, alpha_start=found.alpha_start, alpha_step=found.alpha_step)


def read_plans(meta: Meta, place: Workplace, asked: Asked) -> dict[str, Any]:
    """nnU-Net's plans with the network of the command line; ``InputError`` where they are missing or do not fit."""
    found = check_made(meta, place)
    if asked.configuration not in found.get("configurations", ()):
        wanted = f"nnU-Net's data for {asked.configuration}"
        raise InputError(f"{place.root}: expected {wanted}, found none; make {meta.root.name}-nnunet-data makes them")
    path = place.preprocessed / f"{PLANS}.json"
    plans = read_json(path)
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict) or asked.configuration not in configurations:
        raise InputError(f"{path}: expected the configuration {asked.configuration}, found none")
    plan = configurations[asked.configuration]
    try:
        plan["batch_size"] = asked.batch_size or plan["batch_size"]
        options = plan["architecture"]["arch_kwargs"]
        widths = options["features_per_stage"]
        if asked.width is not None:
            options["features_per_stage"] = [max(1, width * asked.width // widths[0]) for width in widths]
    except (LookupError, TypeError, ZeroDivisionError) as error:
        wanted = f"the batch size and the network of {asked.configuration}"
        raise InputError(f"{path}: expected {wanted}, found {error!r:.80}") from None
    return plans


def make_trainer(place: Workplace, plans: dict, asked: Asked, out: Path, device: torch.device) -> Any:
    """The trainer, whose files are in ``out/nnunet``; nnU-Net is imported here, since it reads its folders then."""
    place.set_variables(out / "nnunet")
    if device.type == "cpu":    # in processes of its own only where a GPU would wait for it
        os.environ.setdefault("nnUNet_n_proc_DA", "0")
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from boundary_loss.integrations import nnunet, nnunet_command

    known = {name: getattr(nnunet, name) for name in nnunet_command.TRAINERS} | {"nnUNetTrainer": nnUNetTrainer}
    description = read_json(place.preprocessed / "dataset.json")
    plans = plans | {"continue_training": True}
    return known[asked.trainer](plans, asked.configuration, 0, description, device)


def configure(trainer: Any, settings: Settings) -> None:
    """The length of the run. Validation patches are a fifth of the training patches, as nnU-Net has it."""
    trainer.num_epochs = settings.epochs
    trainer.num_iterations_per_epoch = settings.iterations
    trainer.num_val_iterations_per_epoch = max(1, settings.iterations // 5)
    trainer.save_every = SAVE_EVERY


def train(trainer: Any) -> None:
    """All epochs that are missing, from nnU-Net's last checkpoint."""
    from nnunetv2.run.run_training import maybe_load_checkpoint

    trainer.initialize()
    maybe_load_checkpoint(trainer, continue_training=True, validation_only=False)
    if trainer.current_epoch < trainer.num_epochs:
        trainer.run_training()


def seed_everything(seed: int) -> None:
    """Of weights, patches and augmentation; nnU-Net's own processes for augmentation, on a GPU, have no seed."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def log_rows(trainer: Any) -> list[dict]:
    """The lines of log.csv; NaN for what nnU-Net does not log. Its validation DSC is over patches."""
    logged = {
        name: trainer.logger.get_value(key, step=None)
        for name, key in (
            ("train_loss", "train_losses"), ("val_loss", "val_losses"), ("val_dsc", "mean_fg_dice"), ("lr", "lrs"),
            ("begun", "epoch_start_timestamps"), ("ended", "epoch_end_timestamps"),
        )
    }
    rows = []
    for epoch in range(trainer.num_epochs):
        row = dict.fromkeys(LOG_COLUMNS, math.nan) | {"epoch": epoch}
        row |= {name: float(logged[name][epoch]) for name in ("train_loss", "val_loss", "val_dsc", "lr")}
        row["seconds"] = float(logged["ended"][epoch] - logged["begun"][epoch])
        patches = trainer.num_iterations_per_epoch * trainer.batch_size
        row["slices_per_second"] = patches / max(row["seconds"], 1e-9)
        rows.append(row)
    return rows
