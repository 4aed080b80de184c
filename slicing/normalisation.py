"""Intensities that a network is trained on; each volume of an image (C, X, Y, Z) by itself."""

from collections.abc import Sequence

import numpy as np

CLIP = "clip-zscore"
PERCENTILES = (0.5, 99.5)
EVERY = 10      # of the foreground's voxels one is counted


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


def standardise_brain(image: np.ndarray) -> np.ndarray:
    """Give each volume the mean 0 and the standard deviation 1 over the brain: the voxels that are not 0 in one of the
    volumes at least. The rest is 0 (nnU-Net's rule for images that were cut out)."""
    brain = (image != 0).any(axis=0)
    result = np.zeros(image.shape, np.float32)
    for volume, out in zip(image, result, strict=True):
        values = volume[brain].astype(np.float64)
        out[brain] = (values - values.mean()) / (values.std() or 1.0)
    return result


def clip_and_standardise(image: np.ndarray, intensities: Sequence[Sequence[float]]) -> np.ndarray:
    """Clip each volume to the percentiles of the foreground of the training data, and standardise it by their mean and
    standard deviation (nnU-Net's rule for CT); intensities as ``foreground_intensities`` has them."""
    volumes = [(volume.clip(low, high).astype(np.float64) - mean) / sd
               for volume, (low, high, mean, sd) in zip(image, intensities, strict=True)]
    return np.stack(volumes).astype(np.float32)


NORMALISATIONS = {"none": keep, "minmax": scale, "zscore": standardise, "zscore-brain": standardise_brain}
CHOICES = (*NORMALISATIONS, CLIP)


def normalise(image: np.ndarray, how: str, intensities: Sequence[Sequence[float]] | None = None) -> np.ndarray:
    """Normalise an image (C, X, Y, Z) as ``how``, one of CHOICES, says; float32."""
    if how == CLIP:
        return clip_and_standardise(image, intensities or [])
    return NORMALISATIONS[how](image)


def sample_foreground(image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Every tenth foreground voxel of an image (C, X, Y, Z), as nnU-Net counts them: (C, N)."""
    return image[:, label][:, ::EVERY]


def foreground_intensities(samples: Sequence[np.ndarray]) -> list[list[float]]:
    """Per channel: 0.5 and 99.5 percentiles, mean and standard deviation of samples (C, N) of the training cases."""
    values = np.concatenate(samples, axis=1).astype(np.float64)
    low, high = np.percentile(values, PERCENTILES, axis=1)
    columns = low, high, values.mean(axis=1), values.std(axis=1)
    return [[float(number) for number in row] for row in zip(*columns, strict=True)]
