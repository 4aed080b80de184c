"""The report page of finished runs: a folder with tables, curves and slices that a browser opens from the disk."""

import contextlib
import io
import re
import shutil
import string
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from dataloader import Slices, load_slices
from environment.atomic_outputs import MARK, signed_part
from environment.locks import exclusive
from raw_data.volumes import IGNORED
from reporting import comparison, page_html, tables
from reporting.figures import PANELS, data_of, read_log
from reporting.levels import VOLUME
from reporting.page_html import escape_html, finite, script_json
from reporting.pictures import crop, display_channel, read_prediction
from reporting.run_settings import differing_settings, settings_note
from reporting.runs import Run, evaluated_runs, first_run
from sliced_data.meta import Meta
from sliced_data.slices import SlicedCase
from utils import InputError, naming, progress, read_json

ASSETS = Path(__file__).resolve().parent / "page_assets"
COPIED = ("report.css", "tables.js", "curves.js", "viewer.js")
# All that a report consists of.
WRITTEN = rf"index\.html|data\.js|{'|'.join(map(re.escape, COPIED))}|slices|slices/\d+\.js|slices/\d+-\d+-\d+\.png"


def write_report(results: Path, rows: Sequence[str], *, seed: int | None = None, baseline: str = "gdl") -> Path:
    """Write RESULTS/report/index.html and what it needs; an older report stays until the new one is whole.

    The viewer shows one run of each row: that of ``seed``, or of the first seed that every row has. ``InputError``
    names a row without such a run, and a log, prediction, slice or data set that is missing, damaged or not the run's.
    """
    found = evaluated_runs(results, list(dict.fromkeys(rows)))
    shown = runs_of_seed(results, found, seed)
    logs = {row: [read_log(run) for run in runs] for row, runs in found.items()}
    curves = curve_data(logs, first_run(found).length_unit)
    first = next(iter(shown.values()))
    meta = data_of(first)
    check_cases(first, meta)
    slices = load_slices(meta, "val")
    sections = page_sections(found, shown, meta, slices.cases, baseline)
    with exclusive(results), replaced_folder(results / "report") as folder:
        # First, since its sign tells what a kill leaves from a folder of somebody else's.
        template = string.Template((ASSETS / "page.html").read_text(encoding="utf-8"))
        write(folder / "index.html", template.substitute(sections).encode())
        cases = write_cases(folder / "slices", slices, shown, len(meta.class_names))
        names = {"rows": list(found), "classes": meta.class_names[1:], "channels": meta.modalities}
        data = {**names, "curves": curves, "cases": cases}
        write(folder / "data.js", f"window.report = {script_json(data)};\n".encode())
        for name in COPIED:
            write(folder / name, (ASSETS / name).read_bytes())
    return results / "report" / "index.html"


def write(path: Path, content: bytes) -> None:
    """Write a file of the report; ``OSError`` names it."""
    with naming(path):
        path.write_bytes(content)


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty sibling to fill; it takes the place of ``folder`` only if the block succeeds."""
    partial, old = (folder.with_name(f".{folder.name}.{word}") for word in ("partial", "old"))
    for place in (folder, old):
        check_report(place)
    if not (partial.is_dir() and not partial.is_symlink() and not any(partial.iterdir())):
        check_report(partial)   # empty it is what a kill leaves that comes first
    if old.exists() and not folder.exists():
        old.rename(folder)      # a kill came between the two renames below
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    except OSError as error:
        raise OSError(str(error).replace(partial.name, folder.name)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def check_report(folder: Path) -> None:
    """``InputError`` unless ``folder`` is new, or a report with nothing of anyone else's in it."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder}: expected nothing or an older report, found a link or a file")
    if folder.exists() and MARK not in signed_part(folder / "index.html"):
        raise InputError(f"{folder}: expected nothing or an older report, found a folder without an index.html of one")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not re.fullmatch(WRITTEN, name):
            raise InputError(f"{folder}: expected nothing or an older report, found {name} in it; move it elsewhere")


def runs_of_seed(results: Path, found: dict[str, list[Run]], seed: int | None) -> dict[str, Run]:
    """One run of each row, all of the same seed: the one asked for, or the first that every row has."""
    if seed is None:
        common = set.intersection(*({run.seed for run in runs} for runs in found.values()))
        if not common:
            seeds = "; ".join(f"{row}: {', '.join(str(run.seed) for run in runs)}" for row, runs in found.items())
            raise InputError(f"{results}: expected a seed of which every row has a run, found {seeds}")
        seed = min(common)
    shown = {row: next((run for run in runs if run.seed == seed), None) for row, runs in found.items()}
    for row, run in shown.items():
        if run is None:
            raise InputError(f"{results / row}: expected an evaluated run of seed {seed}, found none; see --seed")
    return shown


def check_cases(run: Run, meta: Meta) -> None:
    """``InputError`` unless metrics.csv has the data set's validation cases (other runs agree with ``run``)."""
    differing = {case.case_id for case in meta.cases if case.split == "val"} ^ set(run.metrics["case_id"])
    if differing:
        raise InputError(
            f"{run.folder / 'metrics.csv'}: expected the validation cases of {meta.root}, "
            f"found {sorted(differing)[0]} in only one"
        )


def curve_data(logs: dict[str, list[pd.DataFrame]], length_unit: str) -> list[dict]:
    """One panel per column of log.csv: mean and sample sd over seeds of each row, epoch by epoch."""
    panels = []
    for panel in PANELS:
        series = []
        for seeds in logs.values():
            values = pd.concat([log[panel.column] for log in seeds], axis=1)                       # (epochs, seeds)
            sd = values.std(axis=1, ddof=1)
            series.append({"mean": [finite(v) for v in values.mean(axis=1)], "sd": [finite(v) for v in sd]})
        panels.append({"title": panel.title(length_unit), "bounded": panel.metric.bounded, "series": series})
    return panels


def write_cases(folder: Path, slices: Slices, runs: dict[str, Run], classes: int) -> list[dict]:
    """Write the pictures and masks of all cases; returns what the page needs to offer each of them."""
    folder.mkdir()
    cases = []
    for case, at in progress(list(slices.case_ranges()), desc="drawing", unit="case", leave=False):
        image, label = slices.image[at].numpy(), slices.label[at].numpy()               # (Z, C, H, W), (Z, H, W)
        shape = (*label.shape[1:], len(label))
        volumes = [read_prediction(run, case.case_id, shape, classes) for run in runs.values()]       # (H, W, Z)
        # Where nobody knows the class, nothing is right or wrong: nothing is drawn there.
        known = label != IGNORED
        label, *predictions = (np.where(known, mask, 0) for mask in (label, *(np.moveaxis(v, -1, 0) for v in volumes)))
        drawn = write_case(folder, len(cases), image, [label, *predictions], classes)
        numbers = [scores(run, case) for run in runs.values()]
        cases.append({"id": case.case_id, "spacing": case.spacing[:2], "scores": numbers, **drawn})
    return cases


def write_case(folder: Path, index: int, image: np.ndarray, masks: Sequence[np.ndarray], classes: int) -> dict:
    """Pictures of image (Z, C, H, W), and the masks (Z, H, W): the reference first, then each row's prediction.

    Files are named by numbers, since a case's id need not be a file name.
    """
    window = case_window(image, np.any(masks, axis=0))
    parts = [upright(mask[(slice(None), *window)]) for mask in masks]
    areas = np.count_nonzero(parts[0], axis=(1, 2))
    largest = int(areas.argmax())
    for channel in range(image.shape[1]):
        for z, grey in enumerate(upright(to_grey(image[(slice(None), channel, *window)]))):
            drawn = io.BytesIO()
            Image.fromarray(grey).save(drawn, "png", optimize=True)
            write(folder / f"{index}-{channel}-{z}.png", drawn.getvalue())
    lengths = [[[run_lengths(one == k) for k in range(1, classes)] for one in part] for part in parts]
    write(folder / f"{index}.js", f"window.report.receive({index}, {script_json(lengths)});\n".encode())
    return {
        "size": [parts[0].shape[2], parts[0].shape[1]],
        "areas": areas.tolist(),
        "box": lesion_box(parts[0]),
        "channel": display_channel(image[largest].astype(np.float32), masks[0][largest]),
    }


def case_window(image: np.ndarray, used: np.ndarray) -> tuple[slice, slice]:
    """One window for all slices of a case: all that is not background, and every mask. image (Z, C, H, W)."""
    mean = image.astype(np.float32).mean(axis=(0, 1))    # over slices and channels: noise outside the head averages out
    return crop(mean, used.any(axis=0) | (mean == mean.max()))


def upright(volume: np.ndarray) -> np.ndarray:
    """(Z, x, y) as rows of pictures (Z, down, right): x runs to the right and y up, as in the figures."""
    return np.ascontiguousarray(volume.swapaxes(1, 2)[:, ::-1])


def to_grey(volume: np.ndarray) -> np.ndarray:
    """8-bit grey with one window for all slices of a case, so that brightness does not jump between slices."""
    volume = volume.astype(np.float32)
    low, high = np.percentile(volume, (1, 99.5))
    return (np.clip((volume - low) / max(high - low, 1e-6), 0, 1) * 255).round().astype(np.uint8)


def run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of the runs outside, inside, outside, ... along the flattened rows of a mask; empty for an empty one."""
    changes = np.flatnonzero(np.diff(mask.ravel(), prepend=False, append=False))
    return np.diff(changes, prepend=0).tolist()


def lesion_box(label: np.ndarray) -> list[int] | None:
    """Left, top, right and bottom of a case's reference in pixels, of label (Z, rows, columns)."""
    rows, columns = (np.flatnonzero(label.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    return [int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)] if len(rows) else None


def scores(run: Run, case: SlicedCase) -> list[str]:
    """What is printed below a row's picture: the 3D metrics of the case, one line per class."""
    lines = run.metrics[run.metrics["case_id"] == case.case_id]
    several = len(lines) > 1
    texts = []
    for _, line in lines.iterrows():
        text = f"DSC {line['dsc']:.3f}, HD95 {line['hd95_mm']:.1f} {run.length_unit}"
        if line["n_ref"] > 0 and line["n_pred"] == 0:
            text += " (missed)"
        elif line["n_ref"] == 0:
            text += " (false alarm)" if line["n_pred"] > 0 else " (both empty)"
        texts.append(f"{line['class']}: {text}" if several else text)
    return texts


def tests_against(baseline: str, found: dict[str, list[Run]]) -> tuple[str, str]:
    """The table of paired tests and how they were made; against the first row where the baseline has no run."""
    if len(found) == 1:
        return "", "One row: nothing to compare."
    protocol = comparison.Protocol(baseline if baseline in found else next(iter(found)))
    compared = comparison.compare_rows(found, VOLUME.metrics, protocol)
    rule = comparison.comparison_rule(found, compared, protocol)
    return page_html.tests_table(compared, first_run(found).length_unit), rule


def page_sections(
    found: dict[str, list[Run]], shown: dict[str, Run], meta: Meta, cases: Sequence[SlicedCase], baseline: str
) -> dict[str, str]:
    """What the template has places for, as HTML."""
    first = first_run(found)
    seed = next(iter(shown.values())).seed
    runs = [(row, run) for row, runs in found.items() for run in runs]
    tests, rule = tests_against(baseline, found)
    differing = differing_settings(found)
    details = [page_html.run_details(row, run, read_json(run.folder / "env.json"), differing) for row, run in runs]
    summaries = tables.summarise_rows(found, VOLUME)
    counts = ", ".join(
        f"{count} {name}{'' if count == 1 else 's'}"
        for count, name in ((len(found), "row"), (len(runs), "run"), (len(cases), "validation case"))
    )
    return {
        "title": escape_html(f"Report: {first.settings.get('dataset', meta.dataset)}"),
        "made": escape_html(f"{counts}. Made on {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}."),
        "summary": page_html.summary_table(summaries, first.length_unit),
        "settings_line": page_html.marked_note(settings_note(found)),
        "footnote": escape_html(" ".join([VOLUME.footnote, *tables.published_remarks(summaries)])),
        "tests": tests,
        "tests_rule": escape_html(rule),
        "seed": escape_html(seed),
        "cases": page_html.case_table(found, [case.case_id for case in cases]),
        "settings": page_html.settings_table(found),
        "data": page_html.pairs("Data set (meta.json)", first.meta, ()),
        "runs": "\n".join(details),
    }
