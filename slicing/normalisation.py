"""Intensities that a network is trained on; each volume of an image (C, X, Y, Z) by itself."""

import numpy as np


def keep(image: np.ndarray) -> np.ndarray:
    """As it was read: 2D images are in [0, 1] already."""
    return image.astype(np.float32, copy=False)


def scale(image: np.ndarray) -> np.ndarray:
    """Scale each volume to [0, 1] by its own minimum and maximum."""
    low = image.min(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    high = image.max(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    return ((image - low) / (high - low)).astype(np.float32)


def standardise(image: np.ndarray) -> np.ndarray:
    """Give each volume the mean 0 and the standard deviation 1."""
    mean = image.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    sd = image.std(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    return ((image - mean) / sd).astype(np.float32)


NORMALISATIONS = {"none": keep, "minmax": scale, "zscore": standardise}
