"""Evaluate runs: metrics of one run, tables and tests over runs and seeds, figures, masks of new scans, scores."""

from environment.startup import begin  # first, so that a stop is one line while the rest is imported, too

begin(__name__)

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from environment.atomic_outputs import written_together
from environment.command import Parser, device_name, run_command
from evaluation.measuring import GRIDS, MeasuringOptions, check_measured
from evaluation.metric_catalogue import METRICS
from published import published_empty_share
from reporting.analyses import add_convergence, add_gradients
from reporting.levels import LEVELS
from reporting.statistics import PERMUTATIONS
from utils import InputError, check_file_name

# Each command imports what it needs: to check a run loads no network, and to make a table no GPU library.


def evaluate_run(args: argparse.Namespace) -> None:
    options = MeasuringOptions(args.checkpoint, args.space, args.source, args.tolerance, args.ignore_label)
    if args.check:
        check_measured(args.run, options)
        return
    from environment.devices import claimed_device
    from evaluation import run_metrics

    with claimed_device(args.device) as device:
        found = run_metrics.evaluate_run(args.run, options, args.data, device)
    theirs = published_empty_share(found.dataset)
    beside = "" if theirs is None else f"; MIDL 2019, boundary loss alone: {theirs:.3f} on {found.dataset}"
    print(f"{found.data}: {found.empty_slices:.3f} of the validation slices are empty{beside}")
    print(f"{args.run}: {args.checkpoint} {found}")


def predict_scans(args: argparse.Namespace) -> None:
    from environment.devices import claimed_device
    from evaluation.prediction import load_model
    from evaluation.segmentation import segment_scans

    with claimed_device(args.device) as device:
        segment_scans(load_model(args.run, args.checkpoint, device), args.case, args.out, args.probabilities)


def score_masks(args: argparse.Namespace) -> None:
    from environment.cores import core_count
    from evaluation.scoring import ScoreOptions, check_outputs, score, write_scores

    options = ScoreOptions(
        labels=tuple(dict.fromkeys(args.labels)) if args.labels else None, ignore_label=args.ignore_label,
        tolerance_mm=args.tolerance, spacing=tuple(args.spacing) if args.spacing else None,
        per_lesion=args.lesions is not None,
    )
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs: expected at least 1, found {args.jobs}")
    check_outputs(args.out, args.lesions)
    scores = score(args.prediction, args.reference, options, jobs=args.jobs or core_count())
    write_scores(scores, args.out, args.lesions)
    print(scores.summary())


def make_table(args: argparse.Namespace) -> None:
    from reporting.tables import write_table

    print(write_table(args.results, args.rows, args.name, level=args.level, seeds=args.seeds))


def make_comparison(args: argparse.Namespace) -> None:
    from reporting.comparison import Protocol, write_comparison

    if not 1 <= args.permutations <= 10**8:
        raise InputError(f"--permutations: expected 1 to {10**8}, found {args.permutations}")
    protocol = Protocol(args.baseline, args.level, args.permutations)
    print(write_comparison(
        args.results, args.rows, args.name, protocol=protocol, metrics=args.metrics, seeds=args.seeds,
    ))


def make_curves(args: argparse.Namespace) -> None:
    from reporting.figures import write_curves

    check_smooth(args)
    draw_chosen(args, args.seeds, lambda rows, name: write_curves(
        args.results, rows, name, smooth=args.smooth, seeds=args.seeds,
    ))


def make_boxes(args: argparse.Namespace) -> None:
    from reporting.figures import write_boxes

    draw_chosen(args, args.seeds, lambda rows, name: write_boxes(args.results, rows, name, seeds=args.seeds))


def make_pictures(args: argparse.Namespace) -> None:
    from reporting.pictures import write_pictures

    check_baseline(args)
    draw_chosen(args, [args.seed], lambda rows, name: write_pictures(
        args.results, rows, name, seed=args.seed, baseline=args.baseline,
    ))


def make_maps(args: argparse.Namespace) -> None:
    from reporting.pictures import write_maps

    print(*write_maps(args.results, chosen_rows(args), args.name or args.command), sep="\n")


def make_shares(args: argparse.Namespace) -> None:
    from reporting.figures import write_shares

    print(*write_shares(args.results, chosen_rows(args), args.name or args.command), sep="\n")


def make_figures(args: argparse.Namespace) -> None:
    from reporting.figure_set import write_figures

    check_baseline(args)
    check_smooth(args)
    seed = (args.seeds or [0])[0] if args.seed is None else args.seed
    options = {"seeds": args.seeds, "seed": seed, "baseline": args.baseline, "smooth": args.smooth}
    print(*write_figures(args.results, tables_of(args), **options), sep="\n")


def make_report(args: argparse.Namespace) -> None:
    from reporting.page import write_report

    check_baseline(args)
    written = write_report(args.results, chosen_rows(args), seed=args.seed, baseline=args.baseline)
    files = [path for path in written.parent.rglob("*") if path.is_file()]
    print(f"{written}: {len(files)} files, {sum(path.stat().st_size for path in files) / 2**20:.1f} MiB")


def check_smooth(args: argparse.Namespace) -> None:
    if args.smooth < 1:
        raise InputError(f"--smooth: expected at least 1 epoch, found {args.smooth}")
    if args.smooth > 10**6:
        raise InputError(f"--smooth: expected at most {10**6} epochs, found {args.smooth}")


def tables_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """Table -> its rows, of --table."""
    tables = args.table or []
    for name, *rows in tables:
        if not rows:
            raise InputError(f"--table {name}: expected the name of a table and its rows, found no row")
    return {name: rows for name, *rows in tables}


def check_baseline(args: argparse.Namespace) -> None:
    """``InputError`` where a baseline is a row that nobody knows; one that has no run yet is none."""
    from published import ENGINE_PREFIX, published_rows

    rows = {*(getattr(args, "rows", None) or ()), *(row for rows in tables_of(args).values() for row in rows)}
    known = args.baseline in rows or args.baseline.removeprefix(ENGINE_PREFIX) in published_rows()
    if not known and not (args.results / args.baseline).is_dir():
        raise InputError(f"--baseline: expected a row of {args.results}, found {args.baseline}")


def chosen_figures(args: argparse.Namespace, seeds: Sequence[int] | None) -> dict[str, list[str]]:
    """Name of a figure -> its rows: those of --rows, or every row with a finished run."""
    from reporting.figure_set import choose_figures

    name = args.name or args.command
    return {name: args.rows} if args.rows else choose_figures(args.results, name, tables_of(args), seeds)


def draw_chosen(
    args: argparse.Namespace, seeds: Sequence[int] | None, draw: Callable[[list[str], str], list[Path]]
) -> None:
    """Draw the chosen figures, each of its rows and under its name; they are there when the last of them is whole."""
    with written_together():
        paths = [path for name, rows in chosen_figures(args, seeds).items() for path in draw(rows, name)]
    print(*paths, sep="\n")


def chosen_rows(args: argparse.Namespace) -> list[str]:
    """Those of --rows, or every row with a finished run."""
    from reporting.runs import finished_rows

    return args.rows or finished_rows(args.results, tables_of(args))


TABLES = (
    ("table", "mean (sd) over seeds beside the published figure: .csv, .md, .tex", make_table),
    ("compare", "each row against a baseline, paired over cases: difference, interval, p", make_comparison),
)
FIGURES = (
    ("curves", "learning curves with a band over seeds: .png, .pdf", make_curves),
    ("boxes", "box plots of the cases' DSC and HD95: .png, .pdf", make_boxes),
    ("pictures", "validation slices with the contours of the reference and of each row: .png, .pdf", make_pictures),
    ("maps", "signed distance and region-wise maps of one slice: .png, .pdf", make_maps),
    ("shares", "how much of a slice the lesion takes, over the data set: .png, .pdf", make_shares),
    ("figures", "all of these figures, of every row with a finished run", make_figures),
    ("report", "a page of tables, curves and validation slices: report/index.html", make_report),
)


def add_run(commands: argparse._SubParsersAction) -> None:
    run = commands.add_parser("run", help="metrics.csv of one run: one line per case and class, volumes in 3D")
    add_model(run)
    run.add_argument("--data", type=Path, help="sliced data set, where it is no longer where the run found it")
    run.add_argument("--space", choices=list(GRIDS), default="sliced",
                     help="grid to measure on: the sliced one, as the authors, or the scan's own")
    run.add_argument("--source", type=Path, help="raw data for --space native (where they were sliced from)")
    run.add_argument("--ignore-label", type=int,
                     help="raw label value whose voxels count in neither mask (WMH challenge: 2), with --space native")
    run.add_argument("--tolerance", type=float, default=2.0, help="of the surface Dice, in mm")
    run.add_argument("--check", action="store_true",
                     help="measure nothing: only see whether metrics.csv was measured with these options")
    run.set_defaults(function=evaluate_run)


def add_predict(commands: argparse._SubParsersAction) -> None:
    predict = commands.add_parser("predict", help="masks of new scans on their own grids, in files of their kind")
    add_model(predict)
    predict.add_argument("--case", type=Path, nargs="+", required=True,
                         help="folders or zips of scans in the data set's layout, or the files of one scan")
    predict.add_argument("--out", type=Path, required=True,
                         help="mask of one scan (.nii.gz, .nii; of an image .png or .tif as it is, two classes as 0 "
                              "and 255), or a folder")
    predict.add_argument("--probabilities", type=Path,
                         help="likewise for the foreground's softmax (of an image .npy, or 8 bits as the mask)")
    predict.set_defaults(function=predict_scans)


def add_score(commands: argparse._SubParsersAction) -> None:
    score = commands.add_parser("score", help="metrics of any two masks, or of two folders of masks paired by name")
    score.add_argument("prediction", type=Path, help="mask, or folder of masks: .nii.gz, .nii, .png, .tif, .npy")
    score.add_argument("reference", type=Path, help="likewise; every reference needs a prediction of its name")
    score.add_argument("--out", type=Path, help="CSV of the metrics of each case and label")
    score.add_argument("--lesions", type=Path, help="CSV of each lesion's DSC and HD95; lesions are matched by overlap")
    score.add_argument("--labels", type=int, nargs="+", help="label values to score (all that occur but 0)")
    score.add_argument("--ignore-label", type=int,
                       help="label value of the reference whose voxels count in neither mask")
    score.add_argument("--tolerance", type=float, default=2.0, help="of the surface Dice, in mm")
    score.add_argument("--spacing", type=float, nargs="+", metavar="MM",
                       help="size of a voxel, x y z (that of the NIfTI files; without one, lengths are in px)")
    score.add_argument("--jobs", type=int, help="processes (all cores)")
    score.set_defaults(function=score_masks)


def add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, help="run folder")
    command.add_argument("--checkpoint", choices=("best", "last"), default="best",
                         help="best epoch of validation, or last")
    command.add_argument("--device", type=device_name, default="auto",
                         help="where to predict: auto, cpu, cuda (of several the GPU with the fewest runs), cuda:N")


def add_tables(commands: argparse._SubParsersAction) -> None:
    for name, help_text, function in TABLES:
        command = add_results(commands, name, help_text, function)
        command.add_argument("--rows", nargs="+", required=True, help="rows, in the order of the output")
        command.add_argument("--name", required=True, help="name of the output files")
        command.add_argument("--seeds", type=int, nargs="+", help="runs to use (all there are)")
        levels = [level for level in LEVELS if name == "table" or level != "pooled"]
        command.add_argument("--level", choices=levels, default="volume",
                             help="metrics of volumes, as MedIA 2021 has them, of slices, as MIDL 2019, or pooled over "
                                  "batches of 16 cases, as the breast-ultrasound study")
        if name == "compare":
            add_baseline(command)
            command.add_argument("--metrics", nargs="+", choices=list(METRICS), default=[],
                                 help="metrics to compare (the table's)")
            command.add_argument("--permutations", type=int, default=PERMUTATIONS, help="of each test")


def add_figures(commands: argparse._SubParsersAction) -> None:
    for name, help_text, function in FIGURES:
        command = add_results(commands, name, help_text, function)
        tables = {"action": "append", "nargs": "+", "metavar": ("NAME", "ROW")}
        table_help = ("a table and its rows: every row with a finished run is shown, in the order of the tables given, "
                      "with one figure per table where one figure cannot tell them apart")
        if name == "figures":
            command.add_argument("--table", **tables, help=table_help)
        else:
            choice = command.add_mutually_exclusive_group()
            choice.add_argument("--rows", nargs="+", help="rows, in the order of the output (all with a finished run)")
            choice.add_argument("--table", **tables, help=table_help)
        if name not in ("figures", "report"):
            command.add_argument("--name", help="name of the output files (that of the command)")
        if name in ("curves", "boxes", "figures"):
            command.add_argument("--seeds", type=int, nargs="+", help="runs to use (all there are)")
        if name in ("curves", "figures"):
            command.add_argument("--smooth", type=int, default=1, help="epochs of a moving average; the figure says so")
        if name in ("pictures", "figures", "report"):
            add_baseline(command)
        if name == "pictures":
            command.add_argument("--seed", type=int, default=0, help="the run of each row to show")
        if name == "figures":
            command.add_argument("--seed", type=int, help="the run of each row in the pictures (the first of --seeds)")
        if name == "report":
            command.add_argument("--seed", type=int, help="the run of each row whose slices are shown (the first "
                                                          "seed that every row has)")


def add_results(
    commands: argparse._SubParsersAction, name: str, help_text: str, function
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=help_text)
    command.add_argument("results", type=Path, help="folder of one data set's results, for instance results/isles")
    command.set_defaults(function=function)
    return command


def add_baseline(command: argparse.ArgumentParser) -> None:
    command.add_argument("--baseline", default="gdl", help="row that the others are compared with")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    add_run(commands)
    add_tables(commands)
    add_figures(commands)
    add_gradients(commands)
    add_convergence(commands)
    add_predict(commands)
    add_score(commands)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    if getattr(args, "rows", None):
        args.rows = list(dict.fromkeys(args.rows))
    check_names(args)
    args.function(args)


def check_names(args: argparse.Namespace) -> None:
    """``InputError`` where the name of an output or of a row is no plain one: ./gdl would be gdl once more."""
    given = vars(args)
    names = {
        "--name": [given.get("name")], "--rows": given.get("rows") or [], "--baseline": [given.get("baseline")],
        "--table": [word for words in given.get("table") or [] for word in words],
    }
    for flag, found in names.items():
        for name in found:
            if name is not None:
                check_file_name(name, flag, foreign="")


if __name__ == "__main__":
    sys.exit(run_command(main))
