"""The grid of the slices: of how many pixels, and which part of the scan they show."""

from collections.abc import Sequence
from dataclasses import dataclass

from raw_data.volumes import Spacing
from utils import InputError

MAX_RESAMPLED = 2**14   # pixels of a slice's side before it is cropped


@dataclass(frozen=True)
class Grid:
    """Slices of ``size`` x ``size`` pixels.

    fit="resize": the whole field of view. fit="centre": in-plane ``spacing`` (mm; None: the scan's own), then
    cropped, or padded with the image's minimum, around the centre. resize_labels: by which rule a pixel gets its class.
    """

    size: int
    fit: str = "resize"
    spacing: float | None = None
    resize_labels: str = "nearest"

    def resampled(self, shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, int]:
        """In-plane shape that slices of ``shape`` pixels are resampled to, before any crop."""
        if self.fit == "resize":
            return self.size, self.size
        if self.spacing is None:
            return shape[0], shape[1]
        width, height = (max(1, round(n * mm / self.spacing)) for n, mm in zip(shape[:2], spacing[:2], strict=True))
        if max(width, height) > MAX_RESAMPLED:
            found = f"{width} x {height} pixels of {self.spacing:g} mm"
            raise InputError(f"--spacing: expected slices of at most {MAX_RESAMPLED} pixels a side, found {found}")
        return width, height

    def spacing_of(self, shape: Sequence[int], spacing: Spacing) -> Spacing:
        """Spacing of the sliced grid of a scan of ``shape`` voxels."""
        width, height = self.resampled(shape, spacing)
        dx, dy, dz = spacing
        return dx * shape[0] / width, dy * shape[1] / height, dz
