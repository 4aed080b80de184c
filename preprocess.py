"""Slice raw volumes into 2D .npy files with 2D and 3D signed distance maps (Kervadec et al. 2021, 3.3 and 3.5)."""

from environment.startup import begin  # first, so that a stop is one line while the rest is imported, too

begin(__name__)

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from environment.command import Parser, run_command
from environment.cores import core_count
from raw_data import DATASETS, LAYOUT_NAMES
from slicing.choices import CONVENTIONS, FITS, LABEL_RESIZES
from slicing.normalisation import CHOICES as NORMALISATIONS
from utils import InputError, current_word


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("dataset", help=f"{', '.join(sorted(DATASETS))}, or a name of your own beside --layout")
    parser.add_argument("--layout", choices=LAYOUT_NAMES, help="how the raw data are kept (as the data set's own)")
    parser.add_argument("--source", type=Path, required=True, help="folder (or zip) with the raw data as downloaded")
    parser.add_argument("--dest", type=Path, required=True, help="folder to make, for instance data/isles")
    parser.add_argument("--check", action="store_true",
                        help="make nothing: exit with 0 if --dest was made with these options, else with 2")
    add_slices(parser)
    add_split(parser)
    parser.add_argument("--jobs", type=int, default=core_count(), help="processes")
    args = parser.parse_args(arguments)
    if args.jobs < 1:
        raise InputError(f"--jobs: expected at least 1, found {args.jobs}")
    return args


def add_slices(parser: argparse.ArgumentParser) -> None:
    """What a flag leaves out is what the data set's paper does, or the code of its authors."""
    parser.add_argument("--protocol", type=current_word, choices=CONVENTIONS, default="paper",
                        help="whose way of slicing fills in the flags that are left out: the data set's paper or the "
                             "code of its authors (docs/FIDELITY.md)")
    parser.add_argument("--size", type=int, help="slices become SIZE x SIZE pixels, a multiple of 8 (256)")
    parser.add_argument("--normalise", choices=NORMALISATIONS,
                        help="intensities, per volume; clip-zscore: by the training data's foreground (the data set's)")
    parser.add_argument("--fit", choices=FITS,
                        help="resize slices, or crop and pad them around their centre (the data set's)")
    parser.add_argument("--spacing", type=float, metavar="MM",
                        help="in-plane spacing that slices are resampled to before --fit centre crops them")
    parser.add_argument("--max-share", type=float, metavar="S",
                        help="leave out images whose foreground takes S of the image or more (busi 0.05)")
    parser.add_argument("--classes", nargs="+",
                        help="classes of the whole image or scan to keep (busi: all, brats: HGG)")
    parser.add_argument("--all-slices", action="store_true",
                        help="keep the slices without a label (kits leaves them out, the others keep them)")
    parser.add_argument("--resize-labels", choices=LABEL_RESIZES,
                        help="a pixel's class: the nearest voxel's, the one with the largest share when classes are "
                             "resized linearly, or class numbers after Pillow's bicubic filter (nearest)")
    parser.add_argument("--distance-map", type=current_word, choices=CONVENTIONS,
                        help="signed distance as the text says, or as the authors' code computes it: beside "
                             "--resize-labels linear of the pixels that are wholly of a class (paper)")


def add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--val", type=int,
                        help="cases for validation (isles 20, wmh 10, acdc and kits: odd numbers, brats: every second, "
                             "others: a fifth)")
    parser.add_argument("--split", type=Path,
                        help="lists of case ids: .json (of nnU-Net's splits_final.json fold 0), .csv, or one "
                             "validation case per line")
    parser.add_argument("--split-seed", type=int, help="seed of the random split (0)")
    parser.add_argument("--group", choices=("scan", "patient", "image"),
                        help="split by scan, as the authors did, or without leakage: by patient, or with equal images "
                             "on one side")


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    # What takes time to load, for which --help and a misspelt flag do not wait, nor --check for torch.
    from slicing.options import resolve

    options = resolve(args)
    if args.check:
        from slicing.check import check_sliced

        check_sliced(args.dest, options)
        return
    from slicing.slicer import slice_dataset
    from training.interrupts import memory_advice

    with memory_advice("take a smaller --size, a larger --spacing or fewer --jobs"):
        print(f"{args.dest}: {slice_dataset(options, args.dest, jobs=args.jobs)}")


if __name__ == "__main__":
    sys.exit(run_command(main))
