"""Evaluate runs: metrics of one run, tables over runs and seeds, learning curves, pictures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn

import figures
import tables
from checkpoint import load_checkpoint
from dataloader import Case, Meta, Slices, batches, load_slices, read_meta
from metrics import dsc, lesion_detection, surface_metrics, volume_difference
from networks import NETWORKS
from utils import (
    InputError,
    Parser,
    atomic_path,
    exclusive,
    progress,
    read_json,
    read_rows,
    run_command,
    select_device,
    write_rows,
)

METRIC_COLUMNS = (
    "case_id", "class", "dsc", "hd95_mm", "hd_mm", "n_ref", "n_pred", "outcome", "hd95_max_mm", "assd_mm",
    "volume_difference_mm3", "avd_percent", "lesion_recall", "lesion_precision", "lesion_f1", "lesion_count_difference",
    "class_index", "checkpoint", "epoch",
)
SLICE_COLUMNS = ("case_id", "class", "n_slices", "n_empty_slices", "dsc", "hd95_mm", "hd_mm", "class_index")


def load_run(folder: Path, checkpoint: str, data: Path | None, device: torch.device) -> tuple[nn.Module, Meta, int]:
    """The network of a run at its best or last epoch, the data set it was trained on, and that epoch."""
    config = read_json(folder / "config.json")
    try:
        settings, root = config["settings"], data or Path(config["data"])
        network_of, width, fingerprint = NETWORKS[settings["network"]], settings["width"], settings["data_fingerprint"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / 'config.json'}: expected the settings of a run, found no {error}") from None
    meta = read_meta(root)
    if meta.fingerprint != fingerprint:
        raise InputError(f"{root}: expected the data set that {folder} was trained on, found another (--data names it)")
    state = load_checkpoint(folder / f"{checkpoint}.pt", device)
    network = network_of(len(meta.modalities), len(meta.class_names), width=width)
    try:
        network.load_state_dict(state["model"])
    except (KeyError, RuntimeError):
        raise InputError(f"{folder / checkpoint}.pt: expected the weights of its config.json, found others") from None
    return network.to(device, memory_format=torch.channels_last).eval(), meta, int(state["epoch"])


@torch.no_grad()
def predict(network: nn.Module, slices: Slices, device: torch.device, batch_size: int = 8) -> np.ndarray:
    """Classes (N, H, W) uint8 of all slices."""
    predictions: list[Tensor] = []
    with progress(total=len(slices), desc="predicting", unit="slice", leave=False) as bar:
        for batch in batches(slices, torch.arange(len(slices)), batch_size, device):
            predictions.append(network(batch.image).argmax(1).byte())
            bar.update(len(batch.label))
    return torch.cat(predictions).cpu().numpy()


def mask_row(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> dict:
    """DSC, surface distances in mm and sizes of one class; masks (X, Y) or (X, Y, Z), spacing in mm."""
    sizes = {"n_ref": int(reference.sum()), "n_pred": int(prediction.sum())}
    return {"dsc": dsc(prediction, reference), **surface_metrics(prediction, reference, spacing), **sizes}


def volume_row(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> dict:
    """3D metrics of one class, with the WMH challenge's volume and lesion metrics; masks (X, Y, Z), spacing in mm."""
    row = mask_row(prediction, reference, spacing)
    row |= volume_difference(prediction, reference, spacing) | lesion_detection(prediction, reference)
    return {name: value for name, value in row.items() if name in METRIC_COLUMNS}


def slice_row(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> dict:
    """Means of the 2D metrics over the slices of one volume; a slice empty in both counts as DSC 1 and 0 mm."""
    rows = [mask_row(prediction[..., z], reference[..., z], spacing[:2]) for z in range(reference.shape[2])]
    empty = sum(row["n_ref"] == 0 for row in rows)
    means = {name: float(np.mean([row[name] for row in rows])) for name in ("dsc", "hd95_mm", "hd_mm")}
    return {"n_slices": len(rows), "n_empty_slices": empty, **means}


def save_prediction(path: Path, prediction: np.ndarray, case: Case) -> None:
    """NIfTI of one case on its sliced grid; prediction (X, Y, Z) uint8."""
    image = nib.Nifti1Image(prediction, np.diag([*case.spacing, 1.0]))
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def check_finished(folder: Path) -> None:
    """``InputError`` unless every epoch was trained: metrics.csv says to ``make`` that a run is finished."""
    epochs = read_json(folder / "config.json").get("settings", {}).get("epochs")
    done = len(read_rows(folder / "log.csv", ("epoch",)))
    if done != epochs:
        raise InputError(f"{folder}: expected a finished run of {epochs} epochs, found {done}; --resume it")


def evaluate_run(args: argparse.Namespace) -> None:
    device = select_device(args.device)
    network, meta, epoch = load_run(args.run, args.checkpoint, args.data, device)
    check_finished(args.run)
    with exclusive(args.run):
        (args.run / "metrics.csv").unlink(missing_ok=True)
        measure_run(args, network, meta, epoch, device)


def measure_run(args: argparse.Namespace, network: nn.Module, meta: Meta, epoch: int, device: torch.device) -> None:
    """Write the predictions and metrics of all validation cases."""
    val = load_slices(meta, "val").to(device)
    predictions, references = predict(network, val, device), val.label.cpu().numpy()                     # (N, H, W)
    rows, slice_rows = [], []
    for case, at in progress(list(val.case_ranges()), desc="measuring", unit="case", leave=False):
        prediction, reference = (np.moveaxis(part[at], 0, -1) for part in (predictions, references))   # (X, Y, Z)
        save_prediction(args.run / "predictions" / f"{case.case_id}.nii.gz", prediction, case)
        for k, name in list(enumerate(meta.class_names))[1:]:
            masks = prediction == k, reference == k
            key = {"case_id": case.case_id, "class": name, "class_index": k}
            rows.append({**key, "checkpoint": args.checkpoint, "epoch": epoch, **volume_row(*masks, case.spacing)})
            slice_rows.append({**key, **slice_row(*masks, case.spacing)})
    write_rows(args.run / "metrics_2d.csv", slice_rows, SLICE_COLUMNS)
    # Last: its presence says that the run is evaluated.
    write_rows(args.run / "metrics.csv", rows, METRIC_COLUMNS)
    print_fingerprint(meta, references)
    mean = {name: float(np.mean([row[name] for row in rows])) for name in ("dsc", "hd95_mm")}
    figures_text = f"DSC {mean['dsc']:.3f}, HD95 {mean['hd95_mm']:.2f} mm"
    print(f"{args.run}: {args.checkpoint} epoch {epoch}: {figures_text} over {len(rows)} volumes")


def print_fingerprint(meta: Meta, references: np.ndarray) -> None:
    """The share of empty validation slices, which MIDL's Table 1 has for the collapsed boundary loss."""
    share = float((~references.any(axis=(1, 2))).mean())
    theirs = {name: tables.published_figures(name, "boundary", "slice")["published_dsc"] for name in ("isles", "wmh")}
    published = ", ".join(f"{dsc:.3f} on {name}" for name, dsc in theirs.items())
    print(f"{meta.root}: {share:.3f} of the validation slices are empty; MIDL 2019, boundary loss alone: {published}")


def make_table(args: argparse.Namespace) -> None:
    print(tables.write_table(args.results, args.rows, args.name, level=args.level, seeds=args.seeds))


def make_curves(args: argparse.Namespace) -> None:
    print(*figures.write_curves(args.results, args.rows, args.name), sep="\n")


def make_pictures(args: argparse.Namespace) -> None:
    print(*figures.write_pictures(args.results, args.rows, args.name, seed=args.seed), sep="\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    run = commands.add_parser("run", help="metrics.csv of one run: a line a case and class, volumes stacked in 3D")
    run.add_argument("run", type=Path, help="run folder")
    run.add_argument("--checkpoint", choices=("best", "last"), default="best", help="best epoch of validation, or last")
    run.add_argument("--data", type=Path, help="sliced data set, where it is no longer where the run found it")
    run.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="where to predict")
    run.set_defaults(function=evaluate_run)
    outputs = (
        ("table", "mean (sd) over seeds beside the published figure: .csv, .md, .tex", make_table),
        ("curves", "learning curves with a band over seeds: .png, .pdf", make_curves),
        ("pictures", "validation slices with the contours of the reference and of each row: .png, .pdf", make_pictures),
    )
    for name, help_text, function in outputs:
        command = commands.add_parser(name, help=help_text)
        command.add_argument("results", type=Path, help="folder of one data set's results, for instance results/isles")
        command.add_argument("--rows", nargs="+", required=True, help="rows, in the order of the output")
        command.add_argument("--name", required=True, help="name of the output files")
        command.set_defaults(function=function)
        if name == "table":
            command.add_argument("--seeds", type=int, nargs="+", help="runs to use (all there are)")
            command.add_argument("--level", choices=list(tables.LEVELS), default="volume",
                                 help="metrics of volumes, as MedIA 2021 has them, or of slices, as MIDL 2019")
        if name == "pictures":
            command.add_argument("--seed", type=int, default=0, help="the run of each row to show")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    args.function(args)


if __name__ == "__main__":
    sys.exit(run_command(main))
