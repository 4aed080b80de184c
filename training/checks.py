"""Which values each setting may have; a run is refused before it begins where one is out of range."""

import math

from losses import CONTOUR_LOSSES, REGION_LOSSES
from networks import NETWORKS, network_settings
from training.batch_maps import MADE_OF_BATCHES
from training.choices import CHOICES
from training.settings import Settings, flag
from utils import InputError

MINIMA = {"epochs": 1, "batch_size": 1, "seed": 0}
# Beyond what anybody trains with; a number that no tensor can hold ends in a library's own words.
MAXIMA = {
    "epochs": 10**6, "batch_size": 2**16, "width": 2**12, "alpha_epochs": 10**6,
    **dict.fromkeys(("lr", "weight_decay", "gradient_clip", "alpha_start", "alpha_step", "contour_alone_weight"), 1e30),
}


def check_settings(settings: Settings) -> Settings:
    """The settings, if every value is one that it may have; ``InputError`` names the flag of the first that is not."""
    # The registry itself, to which a benchmark adds a network of its own.
    for name, choices in {**CHOICES, "network": NETWORKS}.items():
        value = getattr(settings, name)
        if value not in choices and not (value is None and name == "region_wise_map"):
            raise InputError(f"{flag(name)}: expected one of {', '.join(choices)}, found {value}")
    for name, low in MINIMA.items():
        if getattr(settings, name) < low:
            raise InputError(f"{flag(name)}: expected at least {low}, found {getattr(settings, name)}")
    for name, high in MAXIMA.items():
        value = getattr(settings, name)
        if value is not None and high < value < math.inf:
            raise InputError(f"{flag(name)}: expected at most {high}, found {value}")
    check_network(settings)
    if settings.seed >= 2**32:
        raise InputError(f"--seed: expected less than 2^32, found {settings.seed}")
    if not 0 < settings.lr < math.inf:
        raise InputError(f"--lr: expected a positive number, found {settings.lr}")
    if not 0 < settings.contour_alone_weight < math.inf:
        raise InputError(
            f"--contour-alone-weight: expected a positive number, found {settings.contour_alone_weight}"
        )
    if not 0 < settings.cross_entropy_factor < math.inf:
        raise InputError(
            f"--cross-entropy-factor: expected a positive number, found {settings.cross_entropy_factor}"
        )
    if not all(0 <= beta < 1 for beta in settings.betas):
        raise InputError(f"--betas: expected two numbers from 0 to below 1, found {settings.betas}")
    if not 0 <= settings.weight_decay < math.inf:
        raise InputError(f"--weight-decay: expected a number of at least 0, found {settings.weight_decay}")
    if settings.gradient_clip is not None and not 0 < settings.gradient_clip < math.inf:
        raise InputError(f"--gradient-clip: expected a positive number, found {settings.gradient_clip}")
    check_losses(settings)
    return settings


def check_network(settings: Settings) -> None:
    has_width = "width" in network_settings(settings.network)
    if not has_width and settings.width is not None:
        found = settings.width
        raise InputError(f"--width: expected none, since the channels of {settings.network} are fixed, found {found}")
    if has_width and (settings.width is None or settings.width < 1):
        raise InputError(f"--width: expected at least 1, found {settings.width}")


def check_losses(settings: Settings) -> None:
    if settings.region == settings.contour == "none":
        raise InputError("--region none --contour none: expected at least one loss, found none")
    kinds = {REGION_LOSSES[settings.region].target_kind} if settings.region != "none" else set()
    kinds |= {CONTOUR_LOSSES[settings.contour].target_kind} if settings.contour != "none" else set()
    if settings.maps == "3d" and not kinds & {"phi", "region-wise"}:
        raise InputError("--maps 3d: expected a loss of signed distances (--contour boundary), found none")
    if settings.maps == "3d" and settings.distance_map == MADE_OF_BATCHES:
        raise InputError(f"--maps 3d: expected --maps 2d beside --distance-map {MADE_OF_BATCHES}, found 3d")
    if settings.maps == "3d" and settings.augment == "affine":
        raise InputError(
            "--augment affine: expected --maps 2d beside it, since a slice does not hold what its 3D map is made of, "
            "found --maps 3d"
        )
    if settings.region_wise_map and "region-wise" not in kinds:
        raise InputError("--region-wise-map: expected a region-wise loss, found none")
    try:
        settings.schedule()
    except ValueError as error:
        raise InputError(f"--alpha {settings.alpha}: {error}") from None
