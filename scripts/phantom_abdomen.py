"""Schematic abdomens in the raw layout of KiTS19: CT in HU, a kidney with a tumour, slices first.

Volumes are (X, Y, Z) float32 until they are written as (Z, Y, X): x from the patient's right, y from the front, z from
above; lengths are in mm.
"""
from functools import partial

import numpy as np
from phantom_fields import Grid, draw_blob, ellipsoid, noise, smooth_field, soft
from phantom_files import Layout, nifti, write_folder

KIDNEY, TUMOUR = 1, 2
FIELD_OF_VIEW_MM = 400.0
WIDE_CASE = 3  # index of the case of 512 x 796 pixels, as case_00160
THICKNESSES_MM = (5.0, 4.0, 5.0, 3.0)


def kits_grid(args, index, rng):
    """Grid of a case, 512 pixels in plane where the release has them."""
    step = FIELD_OF_VIEW_MM / args.in_plane * rng.uniform(0.9, 1.05)
    width = round(args.in_plane * 796 / 512) if index == WIDE_CASE else args.in_plane
    slices = args.slices or int(rng.integers(14, 23))
    return Grid.around((width, args.in_plane, slices), (step, step, THICKNESSES_MM[index % 4]))


def draw_torso(rng, grid):
    """HU (X, Y, Z) of a torso without kidneys, and the level of the space that the organs share."""
    x, y, z = [axis + 4 * smooth_field(rng, grid, 45) for axis in grid.positions()]
    flat = 0 * z
    depth = ellipsoid((x, y, flat), (160 * rng.uniform(0.92, 1.05), 112, 1e3)) + 3 * smooth_field(rng, grid, 50)
    cavity = np.minimum(depth - rng.uniform(16, 26), 58 - y)
    texture = 6 * smooth_field(rng, grid, 6)
    image = -1000 + 895 * soft(depth)                                                    # air and fat
    wall = soft(depth - 14) * (1 - soft(cavity - 9))
    image = image * (1 - wall) + (52 + texture) * wall
    inside = soft(cavity - 9)
    image = image * (1 - inside) + (-95 + texture) * inside
    for side in (-1, 1):
        image = over(image, 17 - np.hypot(x - 36 * side, y - 58), 55 + texture)          # psoas
        image = over(image, ellipsoid((x - 36 * side, y - 86, flat), (30, 18, 1e3)), 52 + texture)
    bowel(rng, grid, image, np.minimum(cavity - 12, 20 - y))
    shape = 7 * smooth_field(rng, grid, 28)
    liver = ellipsoid((x + 82 + 0.35 * y, y + 14, z + 12), (62, 74, 95)) + shape
    image = over(image, np.minimum(liver, cavity - 11), 122 + texture)
    spleen = ellipsoid((x - 110 + 0.2 * y, y - 8, z + 15), (22, 42, 60)) + shape
    image = over(image, np.minimum(spleen, cavity - 11), 128 + texture)
    image = over(image, 11 - np.hypot(x - 8, y - 24), 175)                                     # aorta
    image = over(image, ellipsoid((x + 20, y - 26, flat), (13, 9, 1e3)), 135)                  # vena cava
    image = draw_vertebra(image, x, y, texture)
    table = soft(3 - np.abs(y - 124 + 0.001 * x ** 2), 1) * soft(170 - np.abs(x)) * (1 - soft(depth))
    return image + 750 * table, cavity


def draw_vertebra(image, x, y, texture):
    """The image with a vertebra at every height: body, canal and processes."""
    flat = 0 * x
    for level in (ellipsoid((np.abs(x) - 24, y - 78, flat), (22, 5, 1e3)), ellipsoid((x, y - 96, flat), (4, 17, 1e3)),
                  15 - np.hypot(x, y - 80)):
        image = over(image, level, 290)
    body = ellipsoid((x, y - 56, flat), (24, 18, 1e3))
    image = over(image, body, 290 + 4 * texture)
    image = over(image, body - 3.5, 165 + 4 * texture)
    return over(image, 8.5 - np.hypot(x, y - 80), 25)


def over(image, level, value):
    """The image with something of `value` where `level` is positive."""
    share = soft(level, 1.2)
    return image * (1 - share) + value * share


def bowel(rng, grid, image, level):
    """Draw loops of bowel with gas into the image where `level` is positive."""
    loops = soft(9 * smooth_field(rng, grid, 11) - 1, 1.5) * soft(level, 2)
    gas = soft(9 * smooth_field(rng, grid, 9) - 7, 1) * loops
    image += loops * (30 - image)
    image += gas * (-850 - image)


def draw_kidney(rng, grid, side, half_height):
    """Levels of a kidney's outline and of its hilum, and its centre; `side` is -1 for the patient's right."""
    centre = np.array([side * rng.uniform(66, 74), rng.uniform(34, 42), rng.uniform(-0.1, 0.1) * half_height])
    x, y, z = [axis - place for axis, place in zip(grid.positions(), centre, strict=False)]
    lean = 0.25 * side * z
    outline = ellipsoid((x - lean, y, z), (27, 31, half_height)) + 1.5 * smooth_field(rng, grid, 14)
    hilum = ellipsoid((x - lean + 20 * side, y + 6, z), (19, 12, 0.55 * half_height))
    return outline, hilum, centre


def kits_images(rng, grid, sick):
    """Image in HU and labels, each (X, Y, Z), of two kidneys that end before the first and the last slice.

    The kidney on the side `sick` (-1: the patient's right) has a tumour, the other one a cyst, which counts as kidney.
    """
    image, cavity = draw_torso(rng, grid)
    extent = grid.shape[2] * grid.spacing[2]
    half_height = min(55.0, 0.33 * extent)
    ends = extent / 2 - 1.5 * grid.spacing[2] - np.abs(grid.positions()[2])  # nothing to label in the outer slices
    label = np.zeros(grid.shape, dtype=np.uint8)
    columns = soft(8 * smooth_field(rng, grid, 5))
    for side in (-1, 1):
        outline, hilum, centre = draw_kidney(rng, grid, side, half_height)
        outline = np.minimum(outline, ends)
        cortex = soft(outline - 7, 1.5)
        image = over(image, outline, 195 - (70 * columns + 10) * cortex)
        image = over(image, np.minimum(hilum, outline + 4), -75)
        image = over(image, np.minimum(hilum - 5, outline + 4), 12)                            # pelvis
        label[(outline > 0) & (hilum <= 0)] = KIDNEY
        if side == sick:
            room = np.minimum(cavity - 9, ends)
            image, tumour = draw_tumour(rng, grid, image, centre, half_height, room)
            label[tumour > 0] = TUMOUR
        else:
            cyst = 6 - np.sqrt(sum((axis - place - shift) ** 2 for axis, place, shift in
                                   zip(grid.positions(), centre, (12 * side, 12, 0.2 * half_height), strict=False)))
            image = over(image, cyst, 6)
    return np.maximum(image + noise(rng, grid, 11), -1024), label


def draw_tumour(rng, grid, image, centre, half_height, room):
    """The image with a tumour that bulges from a kidney, and its level; its middle is necrotic.

    It lies where the level `room` is positive.
    """
    radius = rng.uniform(16, 26)
    angle = rng.uniform(np.pi, 2 * np.pi)  # to the front, where there is room
    place = [*centre, 21 * np.cos(angle), 24 * np.sin(angle), rng.uniform(-0.3, 0.3) * half_height]
    # Thick slices of a short kidney keep their share of the tumour.
    squeeze = half_height / 55
    low = grid._replace(spacing=(*grid.spacing[:2], grid.spacing[2] / squeeze))
    tumour = np.minimum(draw_blob(rng, low, [*place[:2], place[2] / squeeze], radius), room)
    image = over(image, tumour, rng.uniform(74, 86) + 6 * smooth_field(rng, grid, 6))
    return over(image, tumour - 0.65 * radius - 3 * smooth_field(rng, grid, 7), 30), tumour


def kits_scans(args):
    """case_00000, case_00001, ..."""
    return [partial(kits_members, args, index) for index in range(args.cases)]


def kits_members(args, index):
    """Image and labels of a case as (Z, Y, X); the affine turns the axes round, the zooms are (z, y, x)."""
    rng = np.random.default_rng([args.seed, index, 7])
    grid = kits_grid(args, index, rng)
    # Two right, two left: even and odd cases, which the paper parts, have both.
    image, label = kits_images(rng, grid, sick=-1 if index // 2 % 2 == 0 else 1)
    x_mm, y_mm, z_mm = grid.spacing
    affine = np.array([[0, 0, -x_mm, 0], [0, -y_mm, 0, 0], [-z_mm, 0, 0, 0], [0, 0, 0, 1.0]])
    folder, label_type = f"case_{index:05d}", np.uint16 if index % 5 == 4 else np.uint8
    yield f"{folder}/imaging.nii.gz", nifti(image.transpose(), np.int16, affine)
    yield f"{folder}/segmentation.nii.gz", nifti(label.transpose(), label_type, affine)


def kits_tops(args):
    return [f"case_{index:05d}" for index in range(args.cases)]


KITS = Layout(write_folder, kits_scans, kits_tops,
              {"cases": (2, 210), "slices": (8, 120), "in_plane": (64, 512), "seed": (0, 2**32)},
              {"cases": 20, "slices": None, "in_plane": 128})
