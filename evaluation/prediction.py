"""A trained run at work: its network, the classes of sliced images, the mask of a scan on the scan's own grid."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dataloader import Slices, batches
from networks import build_network
from raw_data import dataset_of_facts
from raw_data.dataset import Case, RawDataset
from sliced_data.facts import check_facts, check_size
from sliced_data.meta import state_facts
from slicing.choices import FITS, LABEL_RESIZES
from slicing.grid import Grid
from slicing.normalisation import CHOICES as NORMALISATIONS
from slicing.normalisation import CLIP, normalise
from slicing.resampling import to_native, to_sliced
from training.checkpoints import load_checkpoint
from training.checks import check_settings
from training.run_state import check_count, check_like
from training.settings import PAPER, Settings, settings_of_config
from utils import InputError, read_json, read_rows


@dataclass(frozen=True)
class Model:
    """A run's network at its best or last epoch, on its device, and what it was trained on."""

    network: nn.Module
    device: torch.device
    epoch: int
    raw: RawDataset
    grid: Grid
    normalise: str
    class_names: tuple[str, ...]
    modalities: tuple[str, ...]
    fingerprint: str
    data: Path
    intensities: list[list[float]] | None = None    # for the normalisation clip-zscore
    all_slices: bool = True


def load_model(folder: Path, checkpoint: str, device: torch.device) -> Model:
    """The model of a finished run, from its config.json and checkpoint alone.

    ``InputError`` where one is missing, damaged or does not fit the other, or where epochs are still to be trained.
    """
    settings, network, described = describe_run(folder / "config.json")
    path = folder / f"{checkpoint}.pt"
    state = load_checkpoint(path, device, settings.fingerprint)
    try:
        check_like(state["model"], network.state_dict(), "model")
        check_count(state["epoch"], "epoch", below=settings.epochs)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected the weights of its config.json, found others ({error!r:.200})") from None
    network.load_state_dict(state["model"], assign=True)
    check_finished(folder, settings.epochs)
    network = network.to(device, memory_format=torch.channels_last).eval()
    return Model(network=network, device=device, epoch=state["epoch"], **described)


def describe_run(path: Path) -> tuple[Settings, nn.Module, dict]:
    """Settings, network and the other parts of a ``Model``, from a run's config.json.

    ``InputError`` where it is missing, damaged, or has another kind of value.
    """
    config = read_json(path)
    settings = settings_of_config(config, path)
    if settings.engine != PAPER.engine:
        found = f"one of {settings.engine}, which is measured as it is trained; nnUNetv2_predict segments new scans"
        raise InputError(f"{path}: expected a run of the project's own training, found {found}")
    try:
        check_settings(settings)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    try:
        check_facts(config["meta"], path)
        meta = state_facts(config["meta"])
        check_normalisation(meta)
        with torch.device("meta"):      # the memory is that of the checkpoint's tensors, once they are found to fit
            network = build_network(
                settings.network, len(meta["modalities"]), len(meta["class_names"]), width=settings.width
            )
        return settings, network, {
            "grid": Grid(check_size(meta["size"]), meta["fit"], meta["spacing"], meta["resize_labels"]),
            "normalise": meta["normalise"], "class_names": tuple(meta["class_names"]),
            "modalities": tuple(meta["modalities"]), "fingerprint": settings.data_fingerprint,
            "data": Path(config["data"]), "intensities": meta["intensities"], "all_slices": meta["all_slices"],
            "raw": dataset_of_facts(meta),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected the settings of a run, found {error!r:.200}") from None


def check_normalisation(meta: Mapping) -> None:
    """``ValueError`` where slices were fitted or normalised in a way that this version does not know."""
    for name, known in (("fit", FITS), ("resize_labels", LABEL_RESIZES), ("normalise", NORMALISATIONS)):
        if meta[name] not in known:
            raise ValueError(f"{name} {meta[name]}")
    if meta["normalise"] == CLIP and len(meta["intensities"] or ()) != len(meta["modalities"]):
        raise ValueError(f"intensities of {len(meta['intensities'] or ())} channels")


def check_finished(folder: Path, epochs: int) -> None:
    """``InputError`` unless every epoch was trained: metrics.csv says to ``make`` that a run is finished."""
    done = len(read_rows(folder / "log.csv", ("epoch",)))
    if done != epochs:
        raise InputError(f"{folder}: expected a finished run of {epochs} epochs, found {done}; --resume it")


@torch.no_grad()
def predict_cases(model: Model, slices: Slices, batch_size: int = 8) -> Iterator[Tensor]:
    """Logits (Z, K, size, size) float32 of each case of ``slices``, in their order, on the model's device."""
    waiting: list[Tensor] = []
    found = batches(slices, torch.arange(len(slices)), batch_size, model.device)
    for case, _ in slices.case_ranges():
        while sum(map(len, waiting)) < case.n_slices:
            waiting.append(model.network(next(found).image).float())
        logits = torch.cat(waiting)
        waiting = [logits[case.n_slices :]]
        yield logits[: case.n_slices]


@torch.no_grad()
def segment(model: Model, scan: Case, batch_size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Classes (X, Y, Z) uint8 and probabilities (X, Y, Z, K) float32 of a scan, on its own grid.

    As in training: each volume normalised, slices fitted to the run's grid and rounded to float16.
    """
    image, spacing = model.raw.read_scan(scan)
    shape = image.shape[1:3]
    image = normalise(image, model.normalise, model.intensities)
    slices = torch.from_numpy(image).permute(3, 0, 1, 2)                                     # (Z, C, X, Y)
    probs = []
    for part in to_sliced(slices, model.grid, spacing).split(batch_size):
        part = part.half().to(model.device).float()                                         # (B, C, size, size)
        logits = model.network(part.contiguous(memory_format=torch.channels_last)).float()
        probs.append(to_native(logits.softmax(dim=1), model.grid, shape, spacing).cpu())      # (B, K, X, Y)
    found = torch.cat(probs).permute(2, 3, 0, 1)                                             # (X, Y, Z, K)
    return found.argmax(-1).byte().numpy(), found.numpy()
