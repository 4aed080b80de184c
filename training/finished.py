"""Whether a run folder holds what --check asks for, known without torch where it does."""

import contextlib
import hashlib
from dataclasses import replace

from sliced_data.meta import Meta, read_meta
from training.run_folder import check_finished, keep_precision
from training.settings import Execution, Settings
from training.snapshots import check_kept, check_snapshots
from utils import InputError, open_file


def is_finished(settings: Settings, execution: Execution) -> bool:
    """Whether ``execution.out`` holds a finished run of exactly these settings, which are then ones that can be had.

    False also where anything is wrong: the session says what, of checked settings.
    """
    with contextlib.suppress(InputError):
        check_snapshots(execution.snapshot_epochs, settings.epochs)
        check_wanted(with_facts(settings, execution, read_meta(execution.data)), execution)
        return True
    return False


def check_wanted(settings: Settings, execution: Execution) -> None:
    """``InputError`` unless ``execution.out`` holds a finished run of these settings with the snapshots wanted."""
    check_finished(execution.out, keep_precision(settings, execution.out))
    check_kept(execution.snapshot_epochs, execution.out, settings.epochs)


def with_facts(settings: Settings, execution: Execution, meta: Meta) -> Settings:
    """Settings with what the data set and the encoder's file are."""
    settings = replace(settings, dataset=meta.dataset, data_fingerprint=meta.fingerprint)
    if execution.encoder_file is None:
        return settings
    try:
        with open_file(execution.encoder_file) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{execution.encoder_file}: expected a readable state dict, found {error}") from None
    return replace(settings, encoder_weights=f"sha256 {digest}")
