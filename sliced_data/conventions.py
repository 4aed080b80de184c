"""How signed distances were computed: as the paper's text says, or as the authors' code does."""

from boundary_loss import distance

CONVENTIONS = ("paper", "authors")
OLD_NAMES = {"reference": "authors"}


def canonical_convention(name: str) -> str:
    """The convention of a name as older data sets, runs and command lines may spell it."""
    return OLD_NAMES.get(name, name)


def library_convention(name: str) -> str:
    """The convention as ``boundary_loss`` spells it."""
    return name if name in distance.CONVENTIONS else {new: old for old, new in OLD_NAMES.items()}[name]
