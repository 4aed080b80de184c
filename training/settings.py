"""Settings: what defines a run, and what only says where and how it is carried out."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils import InputError, current_word

if TYPE_CHECKING:
    from boundary_loss.schedules import Schedule

# Learning-rate rules that are spread over all epochs of a run.
SPREAD_RULES = ("poly",)
# Over how many validation images at once the breast-ultrasound study computes a DSC.
POOLED_CASES = 16


@dataclass(frozen=True)
class Settings:
    """What defines a run: equal settings on the same slices are the same run.

    The defaults are the text of Kervadec et al. 2021. A setting that is added later has a default under which the
    runs that were made without it keep their meaning. ``training.checks`` says which values there are. Reading
    settings loads no torch, so that tables of finished runs are made at once.
    """

    region: str = "gdl"
    contour: str = "none"
    maps: str = "2d"                        # signed distances within the slice or the volume
    region_wise_map: str | None = None      # None: the loss's own
    region_classes: str = "own"             # classes that a loss is computed over; own: the loss's default
    contour_classes: str = "own"
    alpha: str = "rebalance"
    alpha_start: float = 0.01
    alpha_step: float = 0.01
    alpha_epochs: int | None = None         # of schedules that are spread over epochs; None: all epochs of the run
    contour_alone_weight: float = 1.0       # of a contour loss without a regional one
    engine: str = "own"                     # whose training loop: the project's, or nnU-Net's
    network: str = "unet"
    width: int | None = 64                  # channels of the unet at full resolution; None: the network has none
    encoder_weights: str | None = None      # digest of the file that the encoder began with
    epochs: int = 100
    iterations: int | None = None           # steps of an epoch; None: as many as there are batches
    batch_size: int = 8
    optimiser: str = "adam"
    lr: float = 0.001
    betas: tuple[float, float] = (0.9, 0.999)   # of Adam
    weight_decay: float = 0.0
    gradient_clip: float | None = None      # largest norm of the whole gradient
    lr_rule: str = "plateau"
    augment: str = "none"
    order: str = "shuffled"                 # of the training slices: anew in each epoch, or fixed
    selection: str = "volume"               # the validation DSC that chooses the epoch, or the last one
    distance_map: str = "paper"
    hausdorff: str = "paper"
    gdl_absent: str = "largest"
    dice: str = "paper"
    cross_entropy: str = "paper"            # of ce, focal and unet-ce
    cross_entropy_factor: float = 1.0       # of ce
    precision: str = "auto"                 # of a run that has begun: bf16 or fp32
    compile: bool = True
    deterministic: bool = False
    seed: int = 0
    dataset: str = ""
    data_fingerprint: str = ""

    def schedule(self) -> "Schedule":
        """The weights of the two losses over the epochs; ``ValueError`` for values out of the schedule's range."""
        from boundary_loss import schedules  # here, because it loads torch, which no reader of settings needs

        epochs = self.epochs if self.alpha_epochs is None else self.alpha_epochs
        return schedules.build(self.alpha, start=self.alpha_start, step=self.alpha_step, epochs=epochs)

    @property
    def is_spread(self) -> bool:
        """Whether schedule or learning rate are spread over all epochs, so that more epochs are another run."""
        schedule_is = self.alpha_epochs is None and "epochs" in {field.name for field in fields(self.schedule())}
        return self.lr_rule in SPREAD_RULES or schedule_is

    @property
    def fingerprint(self) -> str:
        """A digest of what makes two runs different, but for the epochs, since a run may be trained longer.

        Of the settings that are not the defaults, so that one that is added later changes none.
        """
        defaults = {field.name: field.default for field in fields(self)}
        chosen = {name: value for name, value in asdict(self).items() if value != defaults[name] and name != "epochs"}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


PAPER = Settings()
# What the authors' code does where it departs from the text: docs/FIDELITY.md. First that of the boundary loss.
AUTHORS = replace(
    PAPER, alpha="authors", contour_alone_weight=0.1, betas=(0.9, 0.99), lr_rule="authors", selection="slice",
    distance_map="authors", hausdorff="authors", gdl_absent="authors", cross_entropy="authors", precision="fp32",
)
AUTHORS_BUSI = replace(
    PAPER, cross_entropy_factor=50.5, order="fixed", selection="pooled", distance_map="authors", precision="fp32"
)
AUTHORS_REGION_WISE = replace(
    PAPER, distance_map="authors-region-wise", dice="authors", cross_entropy="authors-region-wise", selection="last"
)
PROTOCOLS = {
    "paper": PAPER,
    "authors": AUTHORS,     # of a data set whose own authors are not known: protocol_of
    "authors-boundary": AUTHORS,
    "authors-busi": AUTHORS_BUSI,
    "authors-region-wise": AUTHORS_REGION_WISE,
}


@dataclass(frozen=True)
class Execution:
    """Where and how a run is carried out; free to differ when it resumes, since the result is the same."""

    data: Path
    out: Path
    device: str
    resident: str
    detect_anomaly: bool
    snapshot_epochs: tuple[int, ...]    # after how many epochs the weights are kept
    resume: bool
    check: bool
    encoder_file: Path | None


def flag(name: str) -> str:
    """The flag of a setting: ``--batch-size``."""
    return f"--{name.replace('_', '-')}"


def under_protocol(protocol: str, chosen: Mapping[str, Any]) -> Settings:
    """The settings of a protocol with those that were ``chosen`` beside it."""
    chosen = dict(chosen)
    if PROTOCOLS[protocol] is AUTHORS_BUSI and chosen.get("alpha") in ("busi-linear", "busi-rebalance"):
        chosen["alpha"] += "-authors"
    if PROTOCOLS[protocol] is AUTHORS:
        # Its Hausdorff baseline has a fixed weight (R9), and its target named "increase" rebalances (R2).
        if chosen.get("contour") == "hausdorff" and "alpha" not in chosen:
            chosen = {"alpha_start": 0.1, **chosen, "alpha": "constant"}
        if chosen.get("alpha") == "increase":
            chosen["alpha"] = "authors"
    return replace(PROTOCOLS[protocol], **chosen)


RENAMED_SETTINGS = ("alpha", "lr_rule", "distance_map", "hausdorff", "gdl_absent")


def settings_of_config(config: Mapping[str, Any], path: Path) -> Settings:
    """The settings in a run's config.json, of this version or an earlier one.

    ``InputError`` names ``path`` where there are none, or where one is unknown or of the wrong type.
    """
    found = config.get("settings")
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: expected the settings of a run, found {type(found).__name__}")
    known = {field.name: field for field in fields(Settings)}
    for name, value in found.items():
        if name not in known:
            raise InputError(f"{path}: expected settings that this version knows, found {name}")
        if not has_type(value, known[name].type):
            raise InputError(f"{path}: expected {name} to be {known[name].type}, found {value!r}")
    renamed: dict[str, Any] = {name: current_word(found[name]) for name in RENAMED_SETTINGS if name in found}
    if "betas" in found:
        renamed["betas"] = tuple(found["betas"])
    return Settings(**{**found, **renamed})


def has_type(value: object, annotation: object) -> bool:
    """Whether a value from JSON fits a field's annotation."""
    if annotation == tuple[float, float]:
        return isinstance(value, Sequence) and len(value) == 2 and all(has_type(part, float) for part in value)
    if annotation in (float, float | None):
        if value is None:
            return annotation == float | None
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation in (int, int | None):
        if value is None:
            return annotation == int | None
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)  # type: ignore[arg-type]


def first_difference(asked: Settings, found: Settings) -> str | None:
    """The name of the first setting in which two runs differ."""
    names = [field.name for field in fields(Settings)]
    return next((name for name in names if getattr(asked, name) != getattr(found, name)), None)
