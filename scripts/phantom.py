"""Schematic raw data in the layouts of real releases, their quirks included.

No patient's data: the modules `phantom_*.py` compute every image from smooth random fields. The same seed gives the
same bytes on one machine with one set of library versions.
"""

from environment.startup import begin  # first, so that a stop is one line while the rest is imported, too

begin(__name__)

import argparse
import os
import sys
from pathlib import Path

from phantom_abdomen import KITS
from phantom_brain_layouts import BRATS, ISLES, WMH
from phantom_heart import ACDC
from phantom_pelvis import NNUNET
from phantom_ultrasound import BUSI
from tqdm import tqdm

from environment.command import run_command

LAYOUTS = {"isles": ISLES, "wmh": WMH, "acdc": ACDC, "busi": BUSI, "brats": BRATS, "kits": KITS, "nnunet": NNUNET}
FLAGS = ("cases", "slices", "in_plane", "seed")


class BadRequest(Exception):
    """A request that cannot be met: one line for the user, exit code 2."""


def check(args):
    """Raise BadRequest on numbers that make no sense, files that exist, an `out` that is no folder."""
    limits = LAYOUTS[args.layout].limits
    for name in FLAGS:
        value, flag = getattr(args, name), "--" + name.replace("_", "-")
        if value is None:
            continue
        if name not in limits:
            raise BadRequest(f"{flag}: {args.layout} has no {name}: expected none, found {value}")
        low, high = limits[name]
        if not low <= value <= high:
            raise BadRequest(f"{flag}: expected {low} to {high} for {args.layout}, found {value}")


def check_out(args):
    """Raise BadRequest where something of the layout is there already, or `out` is no folder."""
    if args.out.exists() and not args.out.is_dir():
        raise BadRequest(f"--out: expected a folder, found the file {args.out}")
    for name in LAYOUTS[args.layout].tops(args):
        if os.path.lexists(args.out / name):
            raise BadRequest(f"{args.out / name} exists already: remove it, or choose another --out")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message):
        raise BadRequest(message)


def defaults_of(flag, varied):
    """The defaults of a flag by layout, in words."""
    known = {name: layout.defaults for name, layout in LAYOUTS.items() if flag in layout.defaults}
    return ", ".join(f"{name} {varied if values[flag] is None else values[flag]}" for name, values in known.items())


def parse(argv):
    """The command line; what is left out gets its layout's default."""
    parser = Parser(description="Generate small raw data that look like the real download.")
    parser.add_argument("layout", choices=list(LAYOUTS), help="the data set whose layout is imitated")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is downloaded")
    parser.add_argument("--cases", type=int, help="scans; acdc: patients, busi: images "
                        f"(default: {defaults_of('cases', '')})")
    parser.add_argument("--slices", type=int, help="slices of each scan; busi has none "
                        f"(default: {defaults_of('slices', 'varied')})")
    parser.add_argument("--in-plane", type=int, help="voxels across a typical image, same field of view: the real ones "
                        "have 256, busi 500, brats 240, kits 512, nnunet any "
                        f"(default: {defaults_of('in_plane', '')})")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files (default: 0)")
    args = parser.parse_args(argv)
    check(args)
    for name, value in LAYOUTS[args.layout].defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main(argv=None):
    """Write the files of one data set; 0 when done, 2 with one line on stderr when the request is refused."""
    try:
        args = parse(argv)
        check_out(args)
    except BadRequest as error:
        print(f"phantom.py: {error}", file=sys.stderr)
        return 2
    layout = LAYOUTS[args.layout]
    scans = layout.scans(args)
    total = sum(map(len, scans.values())) if isinstance(scans, dict) else len(scans)
    with tqdm(total=total, desc=f"{args.layout} phantom", unit="scan", disable=None) as progress:
        layout.write(args.out, scans, progress)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(lambda argv: sys.exit(main(argv))))
