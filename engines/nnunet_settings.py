"""What an nnU-Net run of each trainer is, in the settings that config.json and the tables have of every run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from training.settings import Settings
from utils import InputError

ENGINE = "nnU-Net"
REGION_WISE = Settings(
    engine=ENGINE, network="nnunet", width=None, epochs=300, iterations=250, lr=1e-4, weight_decay=3e-5,
    gradient_clip=12.0, lr_rule="poly", augment=ENGINE, order="random", selection="last", precision="fp32",
)
# nnU-Net's own training, and that of its trainers here which keep it.
OWN = replace(REGION_WISE, epochs=1000, lr=1e-2, optimiser="sgd")
AUTHORS = {"distance_map": "authors-region-wise", "dice": "authors", "cross_entropy": "authors-region-wise"}
DICE_BOUNDARY = {"region": "dice", "contour": "boundary", "contour_classes": "all", "alpha": "gradual"}
RRW = {"region": "none", "contour": "region-wise"}

TRAINERS: dict[str, Settings] = {
    "nnUNetTrainer": replace(OWN, region="dice-ce"),
    "nnUNetTrainerBoundary": replace(OWN, region="gdl", contour="boundary"),
    "nnUNetTrainerRRW": replace(REGION_WISE, **RRW),
    "nnUNetTrainerRRW_authors": replace(REGION_WISE, **RRW, **AUTHORS),
    "nnUNetTrainerRRWVolume": replace(REGION_WISE, **RRW, maps="3d"),
    "nnUNetTrainerRRWCrossEntropy": replace(REGION_WISE, region="none", contour="rrw-ce"),
    "nnUNetTrainerDice": replace(REGION_WISE, region="dice"),
    "nnUNetTrainerDice_authors": replace(REGION_WISE, region="dice", **AUTHORS),
    "nnUNetTrainerFocal": replace(REGION_WISE, region="focal"),
    "nnUNetTrainerFocal_authors": replace(REGION_WISE, region="focal", **AUTHORS),
    "nnUNetTrainerDiceBoundary": replace(REGION_WISE, **DICE_BOUNDARY),
    "nnUNetTrainerDiceBoundary_authors": replace(REGION_WISE, **DICE_BOUNDARY, **AUTHORS),
}


@dataclass(frozen=True)
class Asked:
    """What a command line asks of nnU-Net; None: what the trainer or the plans have."""

    trainer: str
    configuration: str = "2d"
    seed: int = 0
    epochs: int | None = None
    iterations: int | None = None
    batch_size: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        if self.trainer not in TRAINERS:
            raise InputError(f"--trainer: expected one of {', '.join(TRAINERS)}, found {self.trainer}")
        for name in ("epochs", "iterations", "batch_size", "width"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 10**6:
                raise InputError(f"--{name.replace('_', '-')}: expected 1 to {10**6}, found {value}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed: expected 0 to 2^32 - 1, found {self.seed}")


def settings_of(asked: Asked, plan: Mapping[str, Any], *, dataset: str, fingerprint: str) -> Settings:
    """The settings of a run; ``plan`` is its configuration in nnU-Net's plans."""
    settings = TRAINERS[asked.trainer]
    chosen = {name: getattr(asked, name) for name in ("epochs", "iterations") if getattr(asked, name) is not None}
    settings = replace(settings, **chosen)
    if settings.contour == "boundary" and settings.alpha == "rebalance":    # over the trainer's own epochs
        settings = replace(settings, alpha_start=1 / settings.epochs, alpha_step=1 / settings.epochs)
    # The papers' is the 2D network of the plans.
    whole = asked.configuration == "2d" and asked.width is None
    network = "nnunet" if whole else f"nnunet {asked.configuration}"
    return replace(
        settings, network=network, width=asked.width, seed=asked.seed, dataset=dataset,
        batch_size=asked.batch_size or plan["batch_size"], data_fingerprint=fingerprint,
    )
