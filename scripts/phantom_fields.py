"""What phantoms are made of: voxel grids, smooth random fields, soft shapes.

Volumes are (X, Y, Z) float32, lengths are in mm, `rng` is a numpy generator: the same state gives the same field.
A level is positive inside a shape and negative outside, roughly in mm.
"""
from collections import namedtuple

import numpy as np

REACH_MM = 130.0  # random fields span the whole head, so that two slabs of a patient show one brain


class Grid(namedtuple("Grid", "shape spacing height reach", defaults=(0.0, REACH_MM))):
    """Voxel grid: shape (X, Y, Z), spacing in mm, height of its middle above the centre of the body in mm.

    Random fields are defined up to `reach` mm from that centre.
    """

    @classmethod
    def around(cls, shape, spacing):
        """The grid around the centre of the body whose random fields end where it ends."""
        return cls(shape, spacing, reach=max(n * step for n, step in zip(shape, spacing, strict=False)) / 2)

    def positions(self):
        """Coordinates in mm that broadcast: (X, 1, 1), (1, Y, 1), (1, 1, Z), float32."""
        axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(self.shape, self.spacing, strict=False)]
        axes[2] += self.height
        return np.meshgrid(*[axis.astype(np.float32) for axis in axes], indexing="ij", sparse=True)


def smooth_field(rng, grid, scale):
    """Gaussian random field (X, Y, Z) of unit variance and correlation length `scale` mm."""
    centres = np.arange(-grid.reach, grid.reach + scale, scale, dtype=np.float32)
    steps = [np.abs(axis.reshape(-1, 1) - centres) / scale for axis in grid.positions()]
    bases = [np.where(step < 5, np.exp(-0.5 * step ** 2), 0) for step in steps]  # denormals would be slow
    along_x, along_y, along_z = [basis / np.linalg.norm(basis, axis=1, keepdims=True) for basis in bases]
    field = rng.standard_normal((centres.size,) * 3, dtype=np.float32)
    field = along_y @ (field @ along_z.T)
    field = along_x @ field.swapaxes(0, 1)  # many small products: one large one would wait for busy cores
    return np.ascontiguousarray(field.swapaxes(0, 1))


def noise(rng, grid, sd):
    """Noise (X, Y, Z): half smooth over some 3 mm, as reconstruction makes it, half from voxel to voxel."""
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    return np.float32(0.7 * sd) * (smooth_field(rng, grid, 3) + white)


def soft(level, width=0.8):
    """Smooth step from 0 (level far below 0) to 1, over some `width` mm: partial volume."""
    return np.float32(0.5) * (1 + np.tanh(level / np.float32(width)))


def ellipsoid(offsets, radii):
    """Level of an ellipsoid: the smallest radius at its centre."""
    square = sum((offset / np.float32(radius)) ** 2 for offset, radius in zip(offsets, radii, strict=False))
    return (1 - np.sqrt(square)) * np.float32(min(radii))


def draw_blob(rng, grid, centre, radius):
    """Level of an irregular blob around `centre` (mm)."""
    offsets = [axis - place for axis, place in zip(grid.positions(), centre, strict=False)]
    level = ellipsoid(offsets, radius * rng.uniform(0.75, 1.3, 3))
    return level + np.float32(0.3 * radius) * smooth_field(rng, grid, max(0.55 * radius, 2.5))


def pick_point(rng, grid, allowed):
    """Position in mm of a random voxel of the mask `allowed` (X, Y, Z)."""
    index = np.unravel_index(rng.choice(np.flatnonzero(allowed)), grid.shape)
    return [float(axis.ravel()[i]) for axis, i in zip(grid.positions(), index, strict=False)]
