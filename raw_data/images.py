"""Images: volumes of one slice per page, x to the right and y up, so that they are shown upright like a scan."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence
from PIL.PngImagePlugin import PngInfo

from raw_data.files import RawFile
from raw_data.limits import check_pixels
from utils import InputError, refuse_damage

MODES = ("1", "L", "LA", "RGB", "RGBA")
# The spacing of images that have none.
PIXEL = (1.0, 1.0, 1.0)
PIXEL_ENDINGS = (".png", ".tif", ".tiff")


@contextlib.contextmanager
def opened(case_id: str, file: RawFile) -> Iterator[Iterator[Image.Image]]:
    """Pages of an 8-bit image; ``InputError`` names a file that is damaged, no image, or of 16 bits or a palette."""
    content = file.read()
    with refuse_damage(f"{case_id}: expected a whole image", f" in {file}"):
        # Other formats, which Pillow would know by their first bytes, may start programs.
        with Image.open(io.BytesIO(content), formats=("PNG", "TIFF")) as image:
            yield checked_pages(case_id, file, image, content)


def checked_pages(case_id: str, file: RawFile, image: Image.Image, content: bytes) -> Iterator[Image.Image]:
    """Each page once its mode and size are known to be ones that are read; no pixel is decoded yet."""
    sizes: list[tuple[int, int]] = []
    for page in ImageSequence.Iterator(image):
        if page.mode not in MODES:
            raise InputError(f"{case_id}: expected an 8-bit grey or RGB image, found mode {page.mode} in {file}")
        sizes.append(page.size)
        check_pixels(case_id, sizes, content, str(file))
        yield page


def pages_of(case_id: str, file: RawFile, mode: str) -> list[np.ndarray]:
    """The pages (rows, columns[, 3]) uint8 of an image, in one of Pillow's modes; ``InputError`` as ``opened``."""
    with opened(case_id, file) as pages:
        return [np.asarray(page.convert(mode)) for page in pages]


def image_shape(case_id: str, file: RawFile) -> tuple[int, int, int]:
    """(X, Y, Z) of an image; ``InputError`` as ``read_image``."""
    with opened(case_id, file) as pages:
        sizes = [page.size for page in pages]
    return (*sizes[0], len(sizes))


def read_image(case_id: str, file: RawFile) -> np.ndarray:
    """Grey values (X, Y, Z) uint8 of an 8-bit image; colours as Pillow weighs them, transparency is left out.

    ``InputError`` names a file that is damaged, no image, or of 16 bits or a palette.
    """
    return to_volume(case_id, file, pages_of(case_id, file, "L"))


def read_colours(case_id: str, file: RawFile) -> np.ndarray:
    """Red, green and blue (3, X, Y, Z) uint8 of an 8-bit image; ``InputError`` as ``read_image``."""
    pages = pages_of(case_id, file, "RGB")
    return np.stack([to_volume(case_id, file, [page[..., colour] for page in pages]) for colour in range(3)])


def to_volume(case_id: str, file: RawFile, pages: list[np.ndarray]) -> np.ndarray:
    """Pages (rows, columns) as (X, Y, Z)."""
    for page in pages:
        if page.shape != pages[0].shape:
            found = f"{pages[0].shape} and {page.shape} in {file}"
            raise InputError(f"{case_id}: expected pages of one size, found {found}")
    return np.ascontiguousarray(np.stack([page[::-1].T for page in pages], axis=-1))


def write_image(path: Path, volume: np.ndarray, *, description: str) -> None:
    """Write (X, Y, Z) uint8 as a grey image, one page per slice, with a ``description`` among its first bytes."""
    pages = [Image.fromarray(np.ascontiguousarray(page.T[::-1])) for page in np.moveaxis(volume, 2, 0)]
    several = {"save_all": True, "append_images": pages[1:]} if len(pages) > 1 else {}
    text = PngInfo()
    text.add_text("Description", description)
    pages[0].save(path, pnginfo=text, description=description, **several)   # the one is of PNG, the other of TIFF
