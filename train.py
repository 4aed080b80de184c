"""Train a network with a regional loss, a contour loss and a schedule between them (Kervadec et al. 2021, Eq. 6)."""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch

from boundary_loss import schedules
from boundary_loss.distance import CONVENTIONS, REGION_WISE_KINDS
from dataloader import RESIDENCES
from environment.cores import use_threads
from environment.devices import fastest_precision, select_device, use_deterministic_algorithms
from environment.provenance import provenance
from losses import CONTOUR_LOSSES, REGION_LOSSES
from networks import NETWORKS, network_settings
from sliced_data.meta import Meta, read_meta
from training.interrupts import memory_advice
from training.lr_rules import RATES
from training.session import restore, run
from training.trainer import build_trainer
from utils import InputError, Parser, exclusive, leftovers, read_json, run_command, write_json

# Where a run happens, not what it computes: free to differ when a run goes on, as long as the precision stays.
NOT_SETTINGS = ("data", "out", "device", "resident", "detect_anomaly", "resume", "protocol")


# What the text says and what the authors' code does (docs/FIDELITY.md); each can be chosen alone by its own flag.
PROTOCOLS = {
    "paper": {
        "alpha": "rebalance",
        "lr_rule": "plateau",
        "selection": "volume",
        "distance_map": "paper",
        "hausdorff": "paper",
        "gdl_absent": "largest",
    },
    "reference": {
        "alpha": "reference",
        "lr_rule": "reference",
        "selection": "slice",
        "distance_map": "reference",
        "hausdorff": "reference",
        "gdl_absent": "reference",
    },
}


def resolve_protocol(args: argparse.Namespace) -> None:
    """Give every flag that was left out its protocol's value."""
    if args.protocol == "reference":
        # Its Hausdorff baseline has a fixed weight (R9), and its target named "increase" rebalances (R2).
        if args.contour == "hausdorff" and args.alpha is None:
            args.alpha, args.alpha_start = "constant", 0.1 if args.alpha_start is None else args.alpha_start
        if args.alpha == "increase":
            args.alpha = "reference"
    for name, value in {**PROTOCOLS[args.protocol], "alpha_start": 0.01}.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def resolve_width(args: argparse.Namespace) -> None:
    """Give a width that was left out its network's value, None where that has no such setting."""
    settings = network_settings(args.network)
    if args.width is None:
        args.width = settings.get("width")
    elif "width" not in settings:
        raise InputError(f"--width: expected none, since the channels of {args.network} are fixed, found {args.width}")
    elif args.width < 1:
        raise InputError(f"--width: expected at least 1, found {args.width}")


def settings_of(args: argparse.Namespace, meta: Meta) -> dict:
    """What defines a run: every flag but where it happens, and the data."""
    flags = {name: value for name, value in sorted(vars(args).items()) if name not in NOT_SETTINGS}
    return {**flags, "data_fingerprint": meta.fingerprint, "dataset": meta.dataset}


def check_run_folder(args: argparse.Namespace, settings: dict) -> bool:
    """True where there is a run to go on with; ``InputError`` where it has other settings or was not asked for."""
    config = args.out / "config.json"
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"{args.out}: expected a new folder or a run, found a file")
    # A kill may have left an unfinished write.
    if not args.out.exists() or not set(args.out.iterdir()) - set(leftovers(args.out)):
        return False
    if not config.exists():
        raise InputError(f"{args.out}: expected a new or empty folder or a run, found neither")
    found = read_json(config).get("settings", {})
    for name in sorted(settings.keys() | found.keys()):
        if settings.get(name) != found.get(name) and not (name == "epochs" and args.resume and raised(settings, found)):
            raise InputError(
                f"{args.out}: expected a run with {name} {settings.get(name)}, found one with {found.get(name)}; "
                "choose another --out or remove it"
            )
    if not args.resume:
        raise InputError(
            f"{args.out}: expected a new folder, found a run of the same settings; --resume goes on with it"
        )
    return (args.out / "last.pt").exists()


def raised(settings: dict, found: dict) -> bool:
    """Whether a run may go on to more epochs; not where the schedule is spread over all of them."""
    is_spread = "epochs" in {field.name for field in fields(schedules.SCHEDULES[settings["alpha"]])}
    return not is_spread and isinstance(found.get("epochs"), int) and settings["epochs"] > found["epochs"]


def build_parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="sliced data set, for instance data/isles")
    parser.add_argument("--out", type=Path, required=True, help="run folder to make")
    parser.add_argument("--network", choices=list(NETWORKS), default="unet", help="architecture")
    width = network_settings("unet")["width"]
    parser.add_argument("--width", type=int, help=f"channels of the unet at full resolution (default: {width})")
    parser.add_argument("--epochs", type=int, default=100, help="epochs")
    parser.add_argument("--batch-size", type=int, default=8, help="slices a step")
    parser.add_argument("--lr", type=float, default=0.001, help="learning rate, halved after 20 epochs without gain")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the order of the slices")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="where to train")
    resident_help = "where the slices are kept; auto is the first of the others that has the room"
    parser.add_argument("--resident", choices=RESIDENCES, default="auto", help=resident_help)
    precision_help = "arithmetic of the network; auto is bf16 on a GPU that has it and fp32 elsewhere"
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help=precision_help)
    compile_help = "torch.compile on CUDA, where it can"
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help=compile_help)
    deterministic_help = "on CUDA, take only algorithms that give the same bits each time; slower"
    parser.add_argument("--deterministic", action="store_true", help=deterministic_help)
    anomaly_help = "name the operation whose gradient is the first not finite; slow, and without torch.compile"
    parser.add_argument("--detect-anomaly", action="store_true", help=anomaly_help)
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out if there is one")
    add_loss_flags(parser.add_argument_group("losses"))
    add_protocol_flags(parser.add_argument_group("protocol", "the text or the authors' code: docs/FIDELITY.md"))
    return parser


def add_loss_flags(group) -> None:
    group.add_argument("--region", choices=[*REGION_LOSSES, "none"], default="gdl", help="regional loss")
    group.add_argument("--contour", choices=[*CONTOUR_LOSSES, "none"], default="none", help="contour loss")
    group.add_argument("--maps", choices=("2d", "3d"), default="2d", help="signed distances in the slice or the volume")
    map_help = "map of a region-wise loss, where not its own"
    group.add_argument("--region-wise-map", choices=REGION_WISE_KINDS, help=map_help)
    alpha_help = "how the weight of the contour loss changes over the epochs (rebalance)"
    group.add_argument("--alpha", choices=list(schedules.SCHEDULES), help=alpha_help)
    group.add_argument("--alpha-start", type=float, help="alpha of the first epoch, or the constant one (0.01)")
    group.add_argument("--alpha-step", type=float, default=0.01, help="what alpha gains an epoch")


def add_protocol_flags(group) -> None:
    protocol_help = "sets the flags of this group that are left out, and --alpha"
    group.add_argument("--protocol", choices=list(PROTOCOLS), default="paper", help=protocol_help)
    group.add_argument("--lr-rule", choices=list(RATES), help="when the learning rate is halved")
    group.add_argument("--selection", choices=("volume", "slice"), help="validation DSC that chooses the epoch")
    group.add_argument("--distance-map", choices=CONVENTIONS, help="signed distances")
    group.add_argument("--hausdorff", choices=CONVENTIONS, help="distances inside the Hausdorff loss")
    absent_help = "weight in the generalised Dice loss of a class that an image does not have"
    group.add_argument("--gdl-absent", choices=("largest", "reference"), help=absent_help)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    args = build_parser().parse_args(arguments)
    resolve_protocol(args)
    resolve_width(args)
    for name, low in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
        if getattr(args, name) < low:
            raise InputError(f"--{name.replace('_', '-')}: expected at least {low}, found {getattr(args, name)}")
    if args.seed >= 2**32:
        raise InputError(f"--seed: expected less than 2^32, found {args.seed}")
    if not 0 < args.lr < math.inf:
        raise InputError(f"--lr: expected a positive number, found {args.lr}")
    if args.region == args.contour == "none":
        raise InputError("--region none --contour none: expected at least one loss, found none")
    kinds = {REGION_LOSSES[args.region].target_kind} if args.region != "none" else set()
    kinds |= {CONTOUR_LOSSES[args.contour].target_kind} if args.contour != "none" else set()
    if args.maps == "3d" and "phi" not in kinds:
        raise InputError("--maps 3d: expected a loss of signed distances (--contour boundary), found none")
    if args.region_wise_map and "region-wise" not in kinds:
        raise InputError("--region-wise-map: expected a region-wise loss, found none")
    try:
        schedules.build(args.alpha, start=args.alpha_start, step=args.alpha_step, epochs=args.epochs)
    except ValueError as error:
        raise InputError(f"--alpha {args.alpha}: {error}") from None
    return args


def start_session(args: argparse.Namespace, settings: dict, device: torch.device) -> None:
    """Write what this process is about to do; metrics of fewer epochs would no longer be true."""
    for name in ("metrics.csv", "metrics_2d.csv"):
        (args.out / name).unlink(missing_ok=True)
    meta = read_json(args.data / "meta.json")
    write_json(args.out / "config.json", {"settings": settings, "data": str(args.data), "meta": meta})
    environment = provenance(device)
    if (args.out / "env.json").exists():
        former = read_json(args.out / "env.json")
        environment["earlier_sessions"] = [*former.pop("earlier_sessions", []), former]
    write_json(args.out / "env.json", environment)


def say_if_longer(args: argparse.Namespace) -> None:
    epochs = read_json(args.out / "config.json")["settings"]["epochs"]
    if epochs < args.epochs:
        print(f"{args.out}: going on from a run of {epochs} epochs to {args.epochs}")


def room_for(args: argparse.Namespace, device: torch.device) -> str:
    """Which flags make a run smaller."""
    place = "--resident host or stream" if device.type == "cuda" else "--resident stream"
    width = f" or --width {args.width}" if args.width else ""
    return f"take less than --batch-size {args.batch_size}{width}, or {place}"


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    use_threads()
    if args.deterministic:
        use_deterministic_algorithms()
    device = select_device(args.device)
    if args.precision == "auto":
        args.precision = fastest_precision(device)
    meta = read_meta(args.data)
    multiple = NETWORKS[args.network].size_multiple
    if meta.size % multiple:
        size = f"a multiple of {multiple} pixels for {args.network}, found {meta.size}"
        raise InputError(f"{args.data}: expected slices of {size}")
    settings = settings_of(args, meta)
    check_run_folder(args, settings)
    with memory_advice(room_for(args, device)):
        trainer = build_trainer(args, meta, device)
        args.out.mkdir(parents=True, exist_ok=True)
        with exclusive(args.out):
            for leftover in leftovers(args.out):
                leftover.unlink()
            if check_run_folder(args, settings):
                restore(trainer, args.out / "last.pt")
                say_if_longer(args)
            if len(trainer.log) < args.epochs:
                start_session(args, settings, device)
            with torch.autograd.set_detect_anomaly(args.detect_anomaly):
                run(trainer, args.out)
    best = max(trainer.log, key=trainer.score)
    figures = f"DSC {best['val_dsc_3d']:.3f}, HD95 {best['val_hd95_3d_mm']:.2f} mm (validation, 3D)"
    print(f"{args.out}: best epoch {best['epoch']} of {args.epochs}: {figures}")


if __name__ == "__main__":
    sys.exit(run_command(main))
