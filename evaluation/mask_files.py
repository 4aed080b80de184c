"""Label masks in files of any kind, paired by name: what ``eval.py score`` reads."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.outputs import ALL_ENDINGS, NIFTI_ENDINGS
from raw_data.dataset import Spacing
from raw_data.files import RawFile
from raw_data.images import PIXEL, PIXEL_ENDINGS, read_image
from raw_data.npy import read_header, value_bytes
from raw_data.orientation import check_orientation
from raw_data.volumes import check_grid, read_nifti
from utils import InputError, refuse_damage


@dataclass(frozen=True)
class MaskPair:
    """Two files of one case."""

    case_id: str
    prediction: RawFile
    reference: RawFile


@dataclass(frozen=True)
class LabelPair:
    """Labels (X, Y, Z) of a case on one grid, integers, its spacing and whether that is in mm or px."""

    prediction: np.ndarray
    reference: np.ndarray
    spacing: Spacing
    unit: str


def find_pairs(prediction: Path, reference: Path) -> tuple[list[MaskPair], list[str]]:
    """The masks of two files, or those of two folders that have one name but for the ending; and names left out.

    ``InputError`` where a reference has no prediction. Predictions without a reference are left out.
    """
    if prediction.is_file() and reference.is_file():
        for path in (prediction, reference):
            if ending(path) is None:
                raise InputError(f"{path}: expected a mask ({', '.join(ALL_ENDINGS)}), found another file")
        return [MaskPair(stem(reference), RawFile(prediction), RawFile(reference))], []
    predictions, references = masks_in(prediction), masks_in(reference)
    missing = [name for name in references if name not in predictions]
    if missing:
        found = f"none for {', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}"
        raise InputError(f"{prediction}: expected a mask for each of {reference}, found {found}")
    pairs = [MaskPair(name, predictions[name], references[name]) for name in sorted(references)]
    return pairs, sorted(set(predictions) - set(references))


def masks_in(folder: Path) -> dict[str, RawFile]:
    """The masks of a folder by name without ending; ``InputError`` for none, for two of one name, for no file."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise InputError(f"{folder}: expected two masks or two folders of masks, found {found}")
    masks: dict[str, RawFile] = {}
    for path in sorted(folder.iterdir()):
        if ending(Path(path.name.lower())) is None or path.name.startswith("."):
            continue
        check_is_file(path)
        if stem(path) in masks:
            raise InputError(f"{path}: expected one mask of each name, found {masks[stem(path)]} too")
        masks[stem(path)] = RawFile(path)
    if not masks:
        raise InputError(f"{folder}: expected masks ({', '.join(ALL_ENDINGS)}), found none")
    return masks


def check_is_file(path: Path) -> None:
    """``InputError`` where what is named like a mask is none that is read: no case may drop out in silence."""
    if path.is_file() and ending(path) is not None:
        return
    if path.is_file():
        found = "its ending in capitals"
    elif path.is_dir():
        found = "a folder"
    else:
        found = "no regular file" if path.exists() else "a link that leads to nothing"
    raise InputError(f"{path}: expected a mask ({', '.join(ALL_ENDINGS)}), found {found}")


def ending(path: Path) -> str | None:
    return next((ending for ending in ALL_ENDINGS if path.name.endswith(ending)), None)


def stem(path: Path) -> str:
    return path.name.removesuffix(ending(path) or "")


def read_pair(pair: MaskPair, spacing: Sequence[float] | None) -> LabelPair:
    """The labels of a case; ``spacing`` takes the place of the files' own.

    ``InputError`` where the two are not on one grid.
    """
    (labels, sizes), (expected_labels, expected) = (
        read_labels(pair.case_id, file) for file in (pair.prediction, pair.reference)
    )
    if sizes and expected:
        grid = (expected_labels.shape, expected)
        check_grid(pair.case_id, pair.prediction, shape=labels.shape, spacing=sizes, expected=grid)
        check_orientation(pair.case_id, [pair.reference, pair.prediction])
    elif labels.shape != expected_labels.shape:
        found = f"{labels.shape} in {pair.prediction}"
        raise InputError(f"{pair.case_id}: expected a mask of shape {expected_labels.shape}, found {found}")
    if spacing and len(spacing) == 2 and labels.shape[2] > 1:
        raise InputError(f"--spacing: expected 3 numbers for {pair.reference} of {labels.shape[2]} slices, found 2")
    own = (*spacing, 1.0)[:3] if spacing else expected or sizes
    return LabelPair(labels, expected_labels, own or PIXEL, "mm" if own else "px")


def read_labels(case_id: str, file: RawFile) -> tuple[np.ndarray, Spacing | None]:
    """Labels (X, Y, Z) of one file as integers, and its spacing in mm where it has one.

    An image is a volume of one slice; one of 0 and 255 alone is a mask of label 1.
    """
    if str(file).endswith(NIFTI_ENDINGS):
        voxels, spacing = read_nifti(case_id, file)
        return as_integers(case_id, file, voxels), spacing
    if str(file).endswith(PIXEL_ENDINGS):
        values = read_image(case_id, file)
        two_valued = values.max(initial=0) == 255 and not np.any((values > 0) & (values < 255))
        return (values > 0).astype(np.uint8) if two_valued else values, None
    return as_integers(case_id, file, read_npy(case_id, file)), None


def read_npy(case_id: str, file: RawFile) -> np.ndarray:
    """The array in a .npy file, (X, Y, Z) or (X, Y), which becomes a volume of one slice."""
    content = io.BytesIO(file.read())
    with refuse_damage(f"{case_id}: expected a whole .npy file", f" in {file}"):
        shape, fortran_order, dtype = read_header(content)
        wanted, found = value_bytes(shape, dtype), len(content.getvalue()) - content.tell()
        if len(shape) not in (2, 3) or not wanted or wanted != found:
            found = f"{dtype} {shape}, {found} bytes, in {file}"
            raise InputError(f"{case_id}: expected an array (X, Y) or (X, Y, Z) of labels, found {found}")
        values = np.frombuffer(content.getbuffer()[content.tell() :], dtype)
        return values.reshape((*shape, 1)[:3], order="F" if fortran_order else "C")


def as_integers(case_id: str, file: RawFile, voxels: np.ndarray) -> np.ndarray:
    """Whole numbers as the smallest integers that hold them; ``InputError`` for others."""
    if voxels.dtype.kind not in "buif":
        raise InputError(f"{case_id}: expected labels, found {voxels.dtype} in {file}")
    low, high = voxels.min(), voxels.max()
    if not (low >= 0 and high < 2**16):
        raise InputError(f"{case_id}: expected labels of 0 to {2**16 - 1}, found {low:g} to {high:g} in {file}")
    labels = voxels.astype(np.uint8 if high < 256 else np.uint16)
    if voxels.dtype.kind == "f" and not np.array_equal(labels, voxels):
        raise InputError(f"{case_id}: expected whole numbers, found others in {file}")
    return labels
