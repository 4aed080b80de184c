"""Train a network with a regional loss, a contour loss and a schedule between them (Kervadec et al. 2021, Eq. 6)."""

from environment.startup import begin  # first, so that a stop is one line while the rest is imported, too

begin(__name__)

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from environment.command import Parser, device_name, run_command
from training.choices import CHOICES, FIXED_CHANNELS, RESIDENCES
from training.settings import PAPER, PROTOCOLS, Execution, Settings, flag, under_protocol
from utils import current_word


def add_setting(group: Any, name: str, help_text: str, **options: Any) -> None:
    """The flag of one setting; its default is the setting's own."""
    default = getattr(PAPER, name)
    if name in CHOICES:
        options = {"choices": list(CHOICES[name]), "type": current_word, **options}
    elif not options:
        options = {"type": type(default)}
    shown = f"{help_text} ({default})" if default is not None and default is not False else help_text
    group.add_argument(flag(name), default=argparse.SUPPRESS, help=shown, **options)


def build_parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="sliced data set, for instance data/isles")
    parser.add_argument("--out", type=Path, required=True, help="run folder to make")
    add_setting(parser, "network", "architecture")
    add_setting(parser, "width", "channels of the unet at full resolution", type=int)
    parser.add_argument("--encoder-weights", dest="encoder_file", type=Path, metavar="FILE",
                        help="state dict of torchvision's ResNet-34 that the encoder of resnet34-unet begins with")
    add_setting(parser, "epochs", "epochs")
    add_setting(parser, "batch_size", "slices per step")
    add_setting(parser, "optimiser", "how the weights are updated")
    add_setting(parser, "lr", "learning rate of the first epoch")
    add_setting(parser, "betas", "of Adam", type=float, nargs=2)
    add_setting(parser, "weight_decay", "of the optimiser, added to the gradient")
    add_setting(parser, "gradient_clip", "largest norm of the whole gradient (none)", type=float)
    add_setting(parser, "augment", "random flips and quarter turns of the training slices, their maps with them; "
                                   "affine: rotation and zoom besides, maps made anew")
    add_setting(parser, "order", "order of the training slices: another in each epoch, or fixed")
    add_setting(parser, "seed", "seed of the weights and of the order of the slices")
    add_setting(parser, "precision", "arithmetic of the network; auto is bf16 on a GPU that has it and on a CPU that "
                                     "was measured to be faster in it, else fp32")
    add_setting(parser, "compile", "torch.compile on CUDA, where it can", action=argparse.BooleanOptionalAction)
    add_setting(parser, "deterministic", "on CUDA, take only algorithms that give the same bits each time; slower",
                action="store_true")
    add_loss_flags(parser.add_argument_group("losses"))
    add_protocol_flags(parser.add_argument_group("protocol", "the text or the authors' code: docs/FIDELITY.md"))
    add_execution_flags(parser.add_argument_group("execution", "where and how; free to differ when a run resumes"))
    return parser


def add_loss_flags(group: Any) -> None:
    add_setting(group, "region", "regional loss")
    add_setting(group, "contour", "contour loss")
    add_setting(group, "maps", "signed distances or region-wise maps within the slice or the volume")
    add_setting(group, "region_wise_map", "map of a region-wise loss, where not its own")
    add_setting(group, "region_classes", "classes that the regional loss is computed over; own: its default")
    add_setting(group, "contour_classes", "classes that the contour loss is computed over; own: its default")
    add_setting(group, "alpha", "how the weight of the contour loss changes over the epochs")
    add_setting(group, "alpha_start", "alpha of the first epoch, or the constant one")
    add_setting(group, "alpha_step", "what alpha gains per epoch")
    add_setting(group, "alpha_epochs", "epochs that a schedule is spread over (all of the run)", type=int)


def add_protocol_flags(group: Any) -> None:
    group.add_argument("--protocol", choices=list(PROTOCOLS), type=current_word, default="paper",
                       help="sets the flags of this group that are left out, and --alpha, --betas, --order and "
                            "--precision; authors: those of the data set's paper, or the ones that are named")
    add_setting(group, "lr_rule", "how the learning rate falls")
    add_setting(group, "selection", "validation DSC that chooses the epoch, pooled over 16 slices each; or the last")
    add_setting(group, "distance_map", "signed distances; authors-region-wise: also region-wise maps, of each batch")
    add_setting(group, "hausdorff", "distances inside the Hausdorff loss")
    add_setting(group, "gdl_absent", "weight in the generalised Dice loss of a class that an image does not have")
    add_setting(group, "dice", "denominator of the Dice loss")
    add_setting(group, "cross_entropy_factor", "factor of the cross-entropy (ce)")
    add_setting(group, "cross_entropy", "logarithm and distances in the cross-entropies and the focal loss")
    add_setting(group, "contour_alone_weight", "weight of a contour loss without a regional one")


def add_execution_flags(group: Any) -> None:
    group.add_argument("--device", type=device_name, default="auto",
                       help="where to train: auto, cpu, cuda (of several GPUs the one with the fewest runs) or cuda:N")
    group.add_argument("--resident", choices=RESIDENCES, default="auto",
                       help="where the slices are kept; auto is the first of the others that has the room")
    group.add_argument("--detect-anomaly", action="store_true",
                       help="name the operation whose gradient is the first not finite; slow, without torch.compile")
    group.add_argument("--snapshot-epochs", type=int, nargs="+", default=(), metavar="N",
                       help="keep the weights after so many epochs, for eval.py gradients")
    group.add_argument("--resume", action="store_true", help="resume the run in --out if there is one")
    group.add_argument("--check", action="store_true",
                       help="train nothing: say whether --out holds a finished run of exactly these settings")


def read_flags(arguments: Sequence[str] | None) -> tuple[Settings, Execution]:
    """What the flags say, each of them by itself; ``parse`` finds out whether they go together."""
    args = vars(build_parser().parse_args(arguments))
    args["snapshot_epochs"] = tuple(sorted(set(args["snapshot_epochs"])))
    execution = Execution(**{field.name: args.pop(field.name) for field in fields(Execution)})
    if "betas" in args:
        args["betas"] = tuple(args["betas"])
    if "width" not in args and args.get("network") in FIXED_CHANNELS:
        args["width"] = None
    protocol = protocol_of(args.pop("protocol"), execution.data)
    return under_protocol(protocol, args), execution


def parse(arguments: Sequence[str] | None) -> tuple[Settings, Execution]:
    """What the flags ask for; ``InputError`` where no run can be had with them."""
    from training.checks import check_settings  # loads torch

    settings, execution = read_flags(arguments)
    return check_settings(settings), execution


def protocol_of(protocol: str, data: Path) -> str:
    """The protocol, for ``authors`` that of the authors of the data set's paper, as meta.json names the data set."""
    if protocol != "authors" or not (data / "meta.json").exists():
        return protocol     # slices that are missing are refused with everything else that is wrong with them
    from raw_data import dataset_of_facts
    from sliced_data.meta import read_meta

    return f"authors-{dataset_of_facts(read_meta(data).facts).authors}"


def main(arguments: Sequence[str] | None = None) -> None:
    settings, execution = read_flags(arguments)
    if execution.check:
        from training.finished import is_finished

        if is_finished(settings, execution):
            return
    # What loads torch, for which --help, a misspelt flag and a finished run do not wait.
    from training.checks import check_settings
    from training.session import run_session

    run_session(check_settings(settings), execution)


if __name__ == "__main__":
    sys.exit(run_command(main))
