"""What defines a sliced data set: the flags of preprocess.py, filled up with its data set's defaults."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from raw_data import dataset_of_facts, find_dataset
from raw_data.dataset import RawDataset
from raw_data.nnunet import NNUNET
from sliced_data.facts import MAX_SIZE
from sliced_data.meta import read_meta
from slicing.grid import Grid
from utils import InputError, check_file_name

# Splits without a seed.
FIXED_RULES = {"parity": "the parity of its patients' numbers", "alternate": "turns in the order of its cases"}


@dataclass(frozen=True)
class SplitOptions:
    """How cases are split: by a file, by the parity of numbers, by turns, or at random by scan, patient or image."""

    rule: str                   # "file", "parity", "alternate", "scan", "patient" or "image"
    file: Path | None = None
    seed: int = 0
    val: int | None = None      # cases for validation; None: a fifth of them


@dataclass(frozen=True)
class Options:
    """What is sliced and how; ``raw`` reads it."""

    raw: RawDataset
    source: Path
    dataset: str
    layout: str | None
    grid: Grid
    normalise: str
    max_share: float | None
    classes: tuple[str, ...] | None     # of the whole image or scan; None: all
    all_slices: bool                    # or only those with a label
    distance_map: str
    split: SplitOptions

    def facts(self) -> dict:
        """The part of meta.json that the flags decide; ``choose_split`` writes the rest."""
        return {
            "dataset": self.dataset, "layout": self.layout, "size": self.grid.size, "normalise": self.normalise,
            "fit": self.grid.fit, "spacing": self.grid.spacing, "max_share": self.max_share,
            "classes": None if self.classes is None else list(self.classes), "all_slices": self.all_slices,
            "distance_map": self.distance_map, "resize_labels": self.grid.resize_labels,
        }


def resolve(args: argparse.Namespace) -> Options:
    """The flags with the data set's defaults; ``InputError`` names one that it cannot honour."""
    raw = resolve_raw(args)
    if args.protocol == "authors":
        raw = replace(raw, recipe=replace(raw.recipe, **raw.authors_recipe))
    recipe = raw.recipe
    check_flags(args, raw)
    return Options(
        raw=raw, source=args.source, dataset=args.dataset, layout=args.layout, grid=resolve_grid(args, raw),
        normalise=args.normalise or recipe.normalise,
        max_share=recipe.max_share if args.max_share is None else args.max_share,
        classes=resolve_classes(args, raw), all_slices=args.all_slices or recipe.all_slices,
        distance_map=args.distance_map or recipe.distance_map, split=resolve_split(args, raw),
    )


def resolve_raw(args: argparse.Namespace) -> RawDataset:
    """The data set of the command line; to hold slices against their options needs no raw data.

    ``InputError`` where its name is none that a folder can have, as nnU-Net's has.
    """
    check_file_name(args.dataset, "name of the data set")
    if args.check and args.layout == NNUNET:
        meta = read_meta(args.dest)
        if meta.facts["layout"] == NNUNET:
            return dataset_of_facts(meta.facts)
    return find_dataset(args.dataset, args.layout, args.source)


def check_flags(args: argparse.Namespace, raw: RawDataset) -> None:
    size = raw.recipe.size if args.size is None else args.size
    if size < 16 or size % 8:
        raise InputError(f"--size: expected a multiple of 8, at least 16, found {size}")
    if size > MAX_SIZE:
        raise InputError(f"--size: expected at most {MAX_SIZE}, found {size}")
    if args.max_share is not None and not 0 < args.max_share <= 1:
        raise InputError(f"--max-share: expected a share above 0, at most 1, found {args.max_share}")
    for flag, value, there in (
        ("--max-share", args.max_share, raw.is_2d), ("--classes", args.classes, raw.image_classes),
    ):
        if value is not None and not there:
            raise InputError(f"{flag}: expected a data set of 2D images with classes, found {args.dataset}")
    if args.group == "image" and not raw.is_2d:
        raise InputError(f"--group image: expected a data set of 2D images with classes, found {args.dataset}")
    if args.split and (args.val is not None or args.group is not None):
        raise InputError("--split: expected no --val and no --group beside it, since the file says who validates")


def resolve_grid(args: argparse.Namespace, raw: RawDataset) -> Grid:
    """``--fit`` without ``--spacing`` keeps the spacing of the scans."""
    recipe = raw.recipe
    fit, spacing = (recipe.fit, recipe.spacing) if args.fit is None else (args.fit, None)
    if args.spacing is not None:
        if fit != "centre":
            raise InputError("--spacing: expected --fit centre beside it, since resized slices get another spacing")
        if raw.unit != "mm":
            raise InputError(f"--spacing: expected a data set with a spacing in mm, found {args.dataset}")
        if not 0.01 <= args.spacing <= 100:
            raise InputError(f"--spacing: expected 0.01 to 100 mm, found {args.spacing:g}")
        spacing = args.spacing
    resize_labels = args.resize_labels or recipe.resize_labels
    if resize_labels == "bicubic" and raw.has_ignored:
        raise InputError(f"--resize-labels bicubic: expected labels without ignored voxels, found {args.dataset}")
    size = recipe.size if args.size is None else args.size
    return Grid(size=size, fit=fit, spacing=spacing, resize_labels=resize_labels)


def resolve_classes(args: argparse.Namespace, raw: RawDataset) -> tuple[str, ...] | None:
    if args.classes is None:
        return raw.recipe.classes
    unknown = [name for name in args.classes if name not in raw.image_classes]
    if unknown:
        raise InputError(f"--classes: expected some of {', '.join(raw.image_classes)}, found {unknown[0]}")
    chosen = tuple(name for name in raw.image_classes if name in args.classes)
    return None if chosen == raw.image_classes else chosen


def resolve_split(args: argparse.Namespace, raw: RawDataset) -> SplitOptions:
    if args.split:
        return SplitOptions("file", file=args.split)
    if raw.recipe.split in FIXED_RULES and args.val is None and args.group is None:
        if args.split_seed is not None:
            raise InputError(
                f"--split-seed: expected --val or --group beside it, since {args.dataset} is split by "
                f"{FIXED_RULES[raw.recipe.split]}"
            )
        return SplitOptions(raw.recipe.split)
    val = raw.recipe.val if args.val is None else args.val
    if val is not None and val < 1:
        raise InputError(f"--val: expected at least 1 case, found {val}")
    return SplitOptions(args.group or "scan", seed=args.split_seed or 0, val=val)
