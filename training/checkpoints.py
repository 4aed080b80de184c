"""Checkpoints: seeds, the state of every random generator, and files that a kill leaves whole."""

import os
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils import InputError, atomic_path, open_file, refuse_damage


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def save_checkpoint(path: Path, state: Mapping) -> None:
    """Write tensors and plain values; whatever was at ``path`` stays until the new file is whole.

    ``OSError`` names ``path`` where it cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:
            # torch's word for a write that failed.
            raise OSError(f"is the disk full? ({str(error).splitlines()[0]})") from None


def load_checkpoint(path: Path, device: torch.device, fingerprint: str | None = None) -> dict:
    """The state in a checkpoint, its tensors on ``device``.

    ``InputError`` where it is missing or damaged, or is of a run of other settings than those of ``fingerprint``
    (checkpoints of earlier versions do not say of which they are).
    """
    if not path.exists():
        raise InputError(f"{path}: expected a checkpoint, found nothing; train the run first")
    state = read_checkpoint(path, device)
    if not isinstance(state, dict):
        raise InputError(f"{path}: expected a whole checkpoint, found {type(state).__name__}")
    if fingerprint is not None and state.get("fingerprint", fingerprint) != fingerprint:
        raise InputError(f"{path}: expected a checkpoint of this run, found one of a run of other settings or data")
    return state


def read_checkpoint(path: Path, device: torch.device) -> object:
    """What a file holds, once the sums of all its parts are right, which torch does not look at."""
    with refuse_damage(f"{path}: expected a whole checkpoint"):
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            members, length = archive.infolist(), file.seek(0, os.SEEK_END)
            # torch compresses none: what would take more memory than the file has bytes was made by somebody else.
            if any(member.compress_type for member in members) or sum(m.file_size for m in members) > length:
                raise ValueError(f"more than its {length} bytes")
            damaged = archive.testzip()
            if damaged is not None:
                raise InputError(f"{path}: expected a whole checkpoint, found {damaged} damaged")
    with refuse_damage(f"{path}: expected a whole checkpoint", in_words=False):
        return torch.load(path, map_location=device, weights_only=True)


def random_states() -> dict:
    """The state of every generator, as tensors and plain values."""
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: Mapping) -> None:
    """Set every generator to what ``random_states`` gave, on whatever device a checkpoint was loaded since."""
    states = {name: to_cpu(value) for name, value in states.items()}
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def to_cpu(value):
    """Generator states live on the host, whatever device a checkpoint was mapped to."""
    if isinstance(value, (list, tuple)):
        return type(value)(to_cpu(item) for item in value)
    return value.cpu() if isinstance(value, Tensor) else value
