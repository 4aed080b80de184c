"""The commands of eval.py that repeat the region-wise paper's analyses: their flags, and what they print."""

import argparse
from collections.abc import Callable
from pathlib import Path

from environment.atomic_outputs import written_together
from environment.command import device_name
from utils import InputError

# Each command imports what it needs, as in eval.py.


def draw_gradients(args: argparse.Namespace) -> None:
    from reporting.simplex import MAP_VALUES, losses_of, simplex_shares, write_simplex

    name, losses = args.name or args.command, losses_of(args.map_values or MAP_VALUES)
    text, paths = [], []
    with written_together():
        if args.rows:
            from environment.devices import select_device
            from reporting.gradient_signs import write_signs

            options = {"seeds": args.seeds, "device": select_device(args.device)}
            table, paths = write_signs(args.results, args.rows, name, **options)
            text = [table]
        paths = [*write_simplex(args.results, losses, name), *paths]
    print(*simplex_shares(losses), *text, *paths, sep="\n")


def show_convergence(args: argparse.Namespace) -> None:
    from reporting.convergence import write_convergence

    if not 0 < args.threshold <= 1:
        raise InputError(f"--threshold: expected a Dice above 0, at most 1, found {args.threshold:g}")
    text, paths = write_convergence(
        args.results, args.rows, args.name or args.command, baseline=args.baseline or args.rows[0],
        threshold=args.threshold, epochs=args.epochs and tuple(args.epochs), seeds=args.seeds,
    )
    print(text, *paths, sep="\n")


def add_analysis(
    commands: argparse._SubParsersAction, name: str, function: Callable, help_text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=help_text)
    command.add_argument("results", type=Path, help="folder of one data set's results, for instance results/acdc")
    command.add_argument("--seeds", type=int, nargs="+", help="runs to use (all there are)")
    command.add_argument("--name", help="name of the output files (that of the command)")
    command.set_defaults(function=function)
    return command


def add_gradients(commands: argparse._SubParsersAction) -> None:
    gradients = add_analysis(
        commands, "gradients", draw_gradients,
        "which gradient components are negative, over the softmax simplex of three classes and over the epochs of runs "
        "with snapshots: .png, .pdf, .csv, .md, .tex",
    )
    gradients.add_argument("--map-values", type=float, nargs="+", action="append", metavar="Z",
                           help="a pixel's three values of a region-wise map, the smallest its true class's; may be "
                                "repeated (12 4 -3, then 10 10 -3)")
    gradients.add_argument("--rows", nargs="+", help="rows with a region-wise loss, trained with --snapshot-epochs")
    gradients.add_argument("--device", type=device_name, default="auto",
                           help="where to predict: auto, cpu, cuda or cuda:N")


def add_convergence(commands: argparse._SubParsersAction) -> None:
    convergence = add_analysis(
        commands, "convergence", show_convergence,
        "distribution of the validation Dice over many seeds, and how it fluctuates over the epochs: .png, .pdf, .csv, "
        ".md, .tex",
    )
    convergence.add_argument("--rows", nargs="+", required=True, help="rows, in the order of the output")
    convergence.add_argument("--baseline", help="row that the others are tested against (the first)")
    convergence.add_argument("--threshold", type=float, default=0.6, help="Dice below which a run has not converged")
    convergence.add_argument("--epochs", type=int, nargs=2, metavar=("FIRST", "LAST"),
                             help="epochs that the fluctuations are measured over (a tenth to seven tenths)")
