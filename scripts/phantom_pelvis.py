"""Schematic prostates in nnU-Net's raw layout: two channels, a gland, a lesion, and voxels to be ignored.

Volumes are (X, Y, Z) float32, lengths are in mm.
"""
import json
from functools import partial

import numpy as np
from phantom_fields import Grid, draw_blob, ellipsoid, noise, smooth_field, soft
from phantom_files import Layout, nifti, write_folder

GLAND, LESION, IGNORE = 1, 2, 3
CHANNELS = ("T2", "ADC")
FOLDS = 5
FIELD_OF_VIEW_MM = 140.0


def pelvis_images(rng, grid, ignored):
    """T2, ADC and labels, each (X, Y, Z): lesions are dark on both, nodules and bleeding on T2 alone.

    Where something is `ignored`, the last slice was not labelled, and no one is sure of a spot beside the gland.
    """
    x, y, z = [axis + 2 * smooth_field(rng, grid, 25) for axis in grid.positions()]
    half = 0.42 * grid.shape[2] * grid.spacing[2]
    gland = ellipsoid((x, y, z), (26, 20, half)) + 1.2 * smooth_field(rng, grid, 9)
    inner = ellipsoid((x, y + 5, z), (17, 12, 0.8 * half))
    nodules = soft(6 * smooth_field(rng, grid, 5) - 3, 1.2) * soft(inner, 1.2)
    angle = rng.uniform(0, np.pi)
    place = [19 * np.cos(angle), 14 * np.sin(angle), rng.uniform(-0.3, 0.3) * half]
    lesion = np.minimum(draw_blob(rng, grid, place, rng.uniform(6, 10)), gland - 0.5)
    bleeding = np.minimum(draw_blob(rng, grid, [-place[0], *place[1:]], 5), gland)
    fat, bladder = soft(8 * smooth_field(rng, grid, 12), 2), ellipsoid((x, y + 42, z), (30, 18, 40))
    hips = soft(np.hypot(np.abs(x) - 62, y) - 18, 1.5)
    shares = [soft(level, 1.2) for level in (gland, inner, lesion, bleeding, bladder)]
    label = np.zeros(grid.shape, dtype=np.uint8)
    label[gland > 0] = GLAND
    label[lesion > 0] = LESION
    if ignored:
        label[..., -1] = IGNORE
        label[draw_blob(rng, grid, [-30, 5, 0], 5) > 0] = IGNORE
    t2 = layers((150 + 90 * fat) * hips + 40, shares, (230, 150, 85, 110, 330)) - 60 * nodules
    adc = layers((900 + 200 * fat) * hips + 200, shares, (1650, 1350, 750, 1500, 2600)) - 60 * nodules
    gain = rng.uniform(0.7, 1.5) * np.exp(0.1 * smooth_field(rng, grid, 60))
    return gain * np.maximum(t2 + noise(rng, grid, 14), 0), np.maximum(adc + noise(rng, grid, 130), 0), label


def layers(image, shares, values):
    """The image with one value over the other, each by its share of the voxel."""
    for share, value in zip(shares, values, strict=False):
        image = image * (1 - share) + value * share
    return image


def case_id(index):
    return f"pelvis_{index + 1:03d}"


def nnunet_scans(args):
    """The labelled cases, one case without labels, and the descriptions."""
    cases = [partial(nnunet_members, args, index, folder="Tr") for index in range(args.cases)]
    return [*cases, partial(nnunet_members, args, args.cases, folder="Ts"), partial(descriptions, args.cases)]


def nnunet_members(args, index, folder):
    """Channels and labels of one case; every third has voxels to be ignored."""
    rng = np.random.default_rng([args.seed, index, 8])
    step = FIELD_OF_VIEW_MM / args.in_plane
    slices = args.slices or int(rng.integers(8, 13))
    grid = Grid.around((args.in_plane, round(0.9 * args.in_plane), slices), (step, step, 3.6))
    *channels, label = pelvis_images(rng, grid, ignored=index % 3 == 2)
    affine = np.diag([-step, -step, 3.6, 1.0])
    for number, image in enumerate(channels):
        yield f"images{folder}/{case_id(index)}_{number:04d}.nii.gz", nifti(image, np.float32, affine)
    if folder == "Tr":
        yield f"labelsTr/{case_id(index)}.nii.gz", nifti(label, np.uint8, affine)


def descriptions(cases):
    """dataset.json of nnU-Net's version 2, and five folds."""
    described = {
        "channel_names": {str(number): name for number, name in enumerate(CHANNELS)},
        "labels": {"background": 0, "gland": GLAND, "lesion": LESION, "ignore": IGNORE},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    ids = [case_id(index) for index in range(cases)]
    folds = [{"train": [name for name in ids if name not in ids[fold::FOLDS]], "val": ids[fold::FOLDS]}
             for fold in range(FOLDS)]
    yield "dataset.json", json.dumps(described, indent=4).encode()
    yield "splits_final.json", json.dumps(folds, indent=4).encode()


def nnunet_tops(_):
    return ["dataset.json", "splits_final.json", "imagesTr", "imagesTs", "labelsTr"]


NNUNET = Layout(write_folder, nnunet_scans, nnunet_tops,
                {"cases": (FOLDS, 99), "slices": (4, 64), "in_plane": (48, 320), "seed": (0, 2**32)},
                {"cases": 10, "slices": None, "in_plane": 96})
