"""Train and measure a row with nnU-Net v2 as the engine, on the raw data of a sliced data set and its split."""

from environment.startup import begin  # first, so that a stop is one line while the rest is imported, too

begin(__name__)

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engines.nnunet_data import CONFIGURATIONS, prepare, workplace_of
from engines.nnunet_run import check_installed, run
from engines.nnunet_settings import TRAINERS, Asked
from environment import stops
from environment.command import Parser, device_name, run_command
from environment.devices import claimed_device
from sliced_data.meta import read_meta


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="sliced data set, whose raw cases and split are used")
    parser.add_argument("--configuration", choices=CONFIGURATIONS, default="2d", help="of nnU-Net's plans")
    parser.add_argument("--prepare", action="store_true", help="export, plan and preprocess only")
    parser.add_argument("--out", type=Path, help="run folder to make, or to resume")
    parser.add_argument("--trainer", choices=list(TRAINERS), help="of nnU-Net or of boundary_loss.integrations.nnunet")
    parser.add_argument("--seed", type=int, default=0, help="of weights, patches and augmentation (on a CPU)")
    parser.add_argument("--epochs", type=int, help="epochs (the trainer's)")
    parser.add_argument("--iterations", type=int, help="steps of an epoch (250)")
    parser.add_argument("--batch-size", type=int, help="patches per step (that of the plans)")
    parser.add_argument("--width", type=int, help="channels at full resolution (those of the plans)")
    parser.add_argument("--tolerance", type=float, default=2.0, help="of the surface Dice, in mm")
    parser.add_argument("--device", type=device_name, default="auto",
                        help="where to train: auto, cpu, cuda (of several the GPU with the fewest runs), cuda:N")
    parser.add_argument("--check", action="store_true",
                        help="train nothing: say whether --out holds a finished run of exactly these settings")
    args = parser.parse_args(arguments)
    if not args.prepare and (args.out is None or args.trainer is None):
        parser.error("expected --out and --trainer, or --prepare, found neither")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    check_installed()
    stops.leave_children_alone()
    meta = read_meta(args.data)
    if args.prepare:
        prepare(meta, workplace_of(meta.root, meta.dataset), args.configuration)
        return
    names = ("trainer", "configuration", "seed", "epochs", "iterations", "batch_size", "width")
    asked = Asked(**{name: getattr(args, name) for name in names})
    with claimed_device(args.device) as device:
        run(meta, args.out, asked, device, check=args.check, tolerance_mm=args.tolerance)


if __name__ == "__main__":
    sys.exit(run_command(main))
