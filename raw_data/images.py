"""2D images: read as volumes of one slice, x to the right and y up, so that they are shown upright like a scan."""

import io

import numpy as np
from PIL import Image

from raw_data.files import UNREADABLE, RawFile
from utils import InputError

MODES = ("1", "L", "LA", "RGB", "RGBA")


def read_image(case_id: str, file: RawFile) -> np.ndarray:
    """Grey values (X, Y, 1) uint8 of an 8-bit image; colours as Pillow weighs them, transparency is left out.

    ``InputError`` names a file that is damaged, no image, or of 16 bits or a palette.
    """
    content = file.read()
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode not in MODES:
                raise InputError(f"{case_id}: expected an 8-bit grey or RGB image, found mode {image.mode} in {file}")
            grey = np.asarray(image.convert("L"))                                    # (rows, columns)
    except (*UNREADABLE, Image.DecompressionBombError, SyntaxError) as error:
        raise InputError(f"{case_id}: expected a whole image, found {error} in {file}") from None
    return to_volume(grey)


def to_volume(pixels: np.ndarray) -> np.ndarray:
    """Pixels (rows, columns) as (X, Y, 1)."""
    return np.ascontiguousarray(pixels[::-1].T[..., None])


def to_pixels(volume: np.ndarray) -> np.ndarray:
    """Undo ``to_volume``: (X, Y, 1) as (rows, columns)."""
    return np.ascontiguousarray(volume[..., 0].T[::-1])
