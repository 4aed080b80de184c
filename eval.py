"""Evaluate runs: metrics of one run, tables and tests over runs and seeds, figures, masks of new scans."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from environment.devices import select_device
from evaluation.prediction import load_model, segment
from evaluation.run_metrics import Options, measure_run
from evaluation.scans import NIFTI, find_scans, save_on_grid
from raw_data.dataset import Case
from reporting import comparison, figures, page, pictures, runs, tables
from reporting.statistics import PERMUTATIONS
from sliced_data.meta import read_meta
from training.interrupts import memory_advice
from utils import InputError, Parser, exclusive, progress, run_command


def evaluate_run(args: argparse.Namespace) -> None:
    if args.space == "sliced" and (args.source or args.ignore_label is not None):
        raise InputError("--source, --ignore-label: expected --space native beside it, found --space sliced")
    if not 0 <= args.tolerance < math.inf:
        raise InputError(f"--tolerance: expected at least 0 mm, found {args.tolerance}")
    model = load_model(args.run, args.checkpoint, select_device(args.device))
    meta = read_meta(args.data or model.data)
    if meta.fingerprint != model.fingerprint:
        raise InputError(
            f"{meta.root}: expected the data set that {args.run} was trained on, found another (--data names it)"
        )
    options = Options(args.checkpoint, args.space, args.source, args.tolerance, args.ignore_label)
    with exclusive(args.run), memory_advice("use --device cpu"):
        rows, empty = measure_run(args.run, model, meta, options)
    theirs = {name: runs.published_figures(name, "boundary", "slice")["published_dsc"] for name in ("isles", "wmh")}
    published = ", ".join(f"{share:.3f} on {name}" for name, share in theirs.items())
    print(f"{meta.root}: {empty:.3f} of the validation slices are empty; MIDL 2019, boundary loss alone: {published}")
    mean = {name: float(np.mean([row[name] for row in rows])) for name in ("dsc", "hd95_mm")}
    measured = f"DSC {mean['dsc']:.3f}, HD95 {mean['hd95_mm']:.2f} mm"
    print(f"{args.run}: {args.checkpoint} epoch {model.epoch}: {measured} over {len(rows)} volumes")


def predict_scans(args: argparse.Namespace) -> None:
    model = load_model(args.run, args.checkpoint, select_device(args.device))
    scans = find_scans(model.raw, args.case)
    masks = output_paths(args.out, scans, "--out")
    probabilities = output_paths(args.probabilities, scans, "--probabilities") if args.probabilities else {}
    check_outputs(scans, [*masks.values(), *probabilities.values()])
    for scan in progress(scans, desc="segmenting", unit="scan"):
        with memory_advice("use --device cpu"):
            classes, probs = segment(model, scan)
        save_on_grid(masks[scan.case_id], classes, scan.images[0])
        if probabilities:
            foreground = probs[..., 1] if probs.shape[-1] == 2 else probs[..., 1:]
            save_on_grid(probabilities[scan.case_id], np.ascontiguousarray(foreground), scan.images[0])
        voxels = ", ".join(f"{name} {(classes == k).sum()}" for k, name in list(enumerate(model.class_names))[1:])
        tqdm.write(f"{masks[scan.case_id]}: {scan.case_id}, voxels of {voxels}")


def output_paths(out: Path, scans: Sequence[Case], flag: str) -> dict[str, Path]:
    """case id -> file: ``out`` itself where it is named as one, else a file a scan in the folder ``out``."""
    if not out.name.endswith(NIFTI):
        if out.exists() and not out.is_dir():
            raise InputError(f"{flag}: expected a folder or a file named .nii or .nii.gz, found {out}")
        return {scan.case_id: out / f"{scan.case_id}.nii.gz" for scan in scans}
    if len(scans) > 1:
        raise InputError(f"{flag}: expected a folder for {len(scans)} scans, found {out}")
    if out.is_dir():
        raise InputError(f"{flag}: expected a file, found the folder {out}")
    return {scans[0].case_id: out}


def check_outputs(scans: Sequence[Case], outputs: Sequence[Path]) -> None:
    """``InputError`` where a file to write is one that is read, or one that is written already."""
    taken = {file.path.resolve() for scan in scans for file in scan.images}
    for path in outputs:
        if path.resolve() in taken:
            raise InputError(f"{path}: expected a file of its own for each output, found the scan's or another's")
        taken.add(path.resolve())


def make_table(args: argparse.Namespace) -> None:
    print(tables.write_table(args.results, args.rows, args.name, level=args.level, seeds=args.seeds))


def make_comparison(args: argparse.Namespace) -> None:
    if args.permutations < 1:
        raise InputError(f"--permutations: expected at least 1, found {args.permutations}")
    print(comparison.write_comparison(
        args.results, args.rows, args.name, baseline=args.baseline, metrics=args.metrics,
        level=args.level, seeds=args.seeds, permutations=args.permutations,
    ))


def make_curves(args: argparse.Namespace) -> None:
    if args.smooth < 1:
        raise InputError(f"--smooth: expected at least 1 epoch, found {args.smooth}")
    print(*figures.write_curves(args.results, args.rows, args.name, smooth=args.smooth), sep="\n")


def make_boxes(args: argparse.Namespace) -> None:
    print(*figures.write_boxes(args.results, args.rows, args.name), sep="\n")


def make_shares(args: argparse.Namespace) -> None:
    print(*figures.write_shares(args.results, args.rows, args.name), sep="\n")


def make_pictures(args: argparse.Namespace) -> None:
    options = {"seed": args.seed, "baseline": args.baseline}
    print(*pictures.write_pictures(args.results, args.rows, args.name, **options), sep="\n")


def make_maps(args: argparse.Namespace) -> None:
    print(*pictures.write_maps(args.results, args.rows, args.name), sep="\n")


def make_report(args: argparse.Namespace) -> None:
    written = page.write_report(args.results, args.rows, seed=args.seed, baseline=args.baseline)
    files = [path for path in written.parent.rglob("*") if path.is_file()]
    print(f"{written}: {len(files)} files, {sum(path.stat().st_size for path in files) / 2**20:.1f} MiB")


OUTPUTS = (
    ("table", "mean (sd) over seeds beside the published figure: .csv, .md, .tex", make_table),
    ("compare", "each row against a baseline, paired over cases: difference, interval, p", make_comparison),
    ("curves", "learning curves with a band over seeds: .png, .pdf", make_curves),
    ("boxes", "box plots of the cases' DSC and HD95: .png, .pdf", make_boxes),
    ("pictures", "validation slices with the contours of the reference and of each row: .png, .pdf", make_pictures),
    ("maps", "signed distance and region-wise maps of one slice: .png, .pdf", make_maps),
    ("shares", "how much of a slice the lesion takes, over the data set: .png, .pdf", make_shares),
    ("report", "a page of tables, curves and slices to leaf through: report/index.html", make_report),
)


def add_run(commands: argparse._SubParsersAction) -> None:
    run = commands.add_parser("run", help="metrics.csv of one run: a line a case and class, volumes stacked in 3D")
    add_model(run)
    run.add_argument("--data", type=Path, help="sliced data set, where it is no longer where the run found it")
    run.add_argument("--space", choices=list(tables.GRIDS), default="sliced",
                     help="grid to measure on: the sliced one, as the authors, or the scan's own")
    run.add_argument("--source", type=Path, help="raw data for --space native (where they were sliced from)")
    run.add_argument("--ignore-label", type=int,
                     help="raw label value whose voxels count in neither mask (WMH challenge: 2), with --space native")
    run.add_argument("--tolerance", type=float, default=2.0, help="of the surface Dice, in mm")
    run.set_defaults(function=evaluate_run)


def add_predict(commands: argparse._SubParsersAction) -> None:
    predict = commands.add_parser("predict", help="masks of new scans as NIfTI files on the scans' own grids")
    add_model(predict)
    predict.add_argument("--case", type=Path, nargs="+", required=True,
                         help="folders or zips of scans in the data set's layout, or the files of one scan")
    predict.add_argument("--out", type=Path, required=True, help="mask of one scan (.nii, .nii.gz), or a folder")
    predict.add_argument("--probabilities", type=Path, help="likewise for the foreground's softmax")
    predict.set_defaults(function=predict_scans)


def add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, help="run folder")
    command.add_argument("--checkpoint", choices=("best", "last"), default="best",
                         help="best epoch of validation, or last")
    command.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="where to predict")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    add_run(commands)
    for name, help_text, function in OUTPUTS:
        command = commands.add_parser(name, help=help_text)
        command.add_argument("results", type=Path, help="folder of one data set's results, for instance results/isles")
        command.add_argument("--rows", nargs="+", required=True, help="rows, in the order of the output")
        if name != "report":
            command.add_argument("--name", required=True, help="name of the output files")
        command.set_defaults(function=function)
        if name in ("table", "compare"):
            command.add_argument("--seeds", type=int, nargs="+", help="runs to use (all there are)")
            command.add_argument("--level", choices=list(tables.LEVELS), default="volume",
                                 help="metrics of volumes, as MedIA 2021 has them, or of slices, as MIDL 2019")
        if name in ("compare", "pictures", "report"):
            command.add_argument("--baseline", default="gdl", help="row that the others are compared with")
        if name == "compare":
            command.add_argument("--metrics", nargs="+", choices=list(comparison.COMPARED), default=[],
                                 help="metrics to compare (the table's)")
            command.add_argument("--permutations", type=int, default=PERMUTATIONS, help="of each test")
        if name == "curves":
            command.add_argument("--smooth", type=int, default=1, help="epochs of a moving average; the figure says so")
        if name == "pictures":
            command.add_argument("--seed", type=int, default=0, help="the run of each row to show")
        if name == "report":
            command.add_argument("--seed", type=int, help="the run of each row whose slices are shown (the first "
                                                          "seed that every row has)")
    add_predict(commands)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    if "rows" in args:
        args.rows = list(dict.fromkeys(args.rows))
    args.function(args)


if __name__ == "__main__":
    sys.exit(run_command(main))
