"""Sliced data sets of any number of slices for the benchmarks: a few slices on the disk, under many names."""

import json
import os
from pathlib import Path

import numpy as np
from scipy import ndimage

from boundary_loss.distance import distance_maps
from sliced_data.meta import FORMAT

SPACING = (0.9, 0.9, 3.0)
UNIQUE = 16


def lesions(count: int, size: int, share: float = 0.01) -> np.ndarray:
    """Random blobs that fill about ``share`` of each slice, (N, H, W) uint8."""
    noise = np.random.default_rng(0).standard_normal((count, size, size))
    smooth = np.stack([ndimage.gaussian_filter(one, size / 32) for one in noise])
    return (smooth > np.quantile(smooth, 1 - share)).astype(np.uint8)


def make_linked_data(
    root: Path, *, train: int, val: int, channels: int, size: int, slices_a_case: int = 40
) -> Path:
    """A data set of ``train`` + ``val`` slices of random images in ``root``; UNIQUE files, hard links of them else.

    The page cache holds little more than the unique files: what is timed is the program, not a disk.
    """
    generator = np.random.default_rng(1)
    labels = lesions(UNIQUE, size)
    store = root / "unique"
    store.mkdir(parents=True)
    for i, label in enumerate(labels):
        image = generator.random((channels, size, size)) * 0.5 + label * 0.4
        phi = distance_maps(label, 2, SPACING[:2]).astype(np.float16)
        for kind, array in (("image", image.astype(np.float16)), ("label", label), ("phi2d", phi), ("phi3d", phi)):
            np.save(store / f"{kind}_{i}.npy", array)
    lines = ["case_id,patient_id,split,n_slices,n_lesion_slices,spacing_x_mm,spacing_y_mm,spacing_z_mm,size_x,size_y,"
             "source"]
    for part, count in (("train", train), ("val", val)):
        for kind in ("image", "label", "phi2d", "phi3d"):
            (root / part / kind).mkdir(parents=True)
        for start in range(0, count, slices_a_case):
            case_id, here = f"{part}{start // slices_a_case:05d}", min(slices_a_case, count - start)
            spacing = ",".join(map(str, SPACING))
            lines.append(f"{case_id},{case_id},{part},{here},{here},{spacing},{size},{size},random")
            for z in range(here):
                for kind in ("image", "label", "phi2d", "phi3d"):
                    os.link(store / f"{kind}_{(start + z) % UNIQUE}.npy", root / part / kind / f"{case_id}_{z:04d}.npy")
    (root / "cases.csv").write_text("\n".join([*lines, ""]))
    modalities = ["CT", "CT_CBF", "CT_CBV", "CT_MTT", "CT_Tmax"] if channels == 5 else ["FLAIR", "T1"][:channels]
    (root / "meta.json").write_text(json.dumps({
        "format": FORMAT, "dataset": "isles" if channels == 5 else "wmh", "size": size,
        "class_names": ["background", "lesion"], "modalities": modalities, "distance_map": "paper", "content": "random",
    }))
    return root
