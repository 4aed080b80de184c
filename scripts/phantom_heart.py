"""Schematic hearts in the raw layout of ACDC 2017: short-axis cine MR of the chest, end diastole and end systole.

Volumes are (X, Y, Z) float32, the base of the heart first, the right ventricle at low x; lengths are in mm.
"""
from collections import namedtuple
from functools import partial

import numpy as np
from phantom_fields import Grid, ellipsoid, noise, smooth_field, soft
from phantom_files import Layout, nifti, write_folder

RV, MYO, LV = 1, 2, 3
SHAPES = ((216, 256), (232, 256), (256, 216))  # in-plane, as in the release
SPACINGS_MM = (1.5625, 1.5, 1.3672)
THICKNESS_MM = 10.0
LATE_PATIENT = 5  # every fifth patient's end diastole is frame 4, as patient090's

# Radius of the left ventricle and thickness of its wall at end diastole in mm, the share of the radius left at end
# systole, and the size of the right ventricle, by the groups of the challenge.
Group = namedtuple("Group", "name radius wall left right")
GROUPS = (Group("NOR", 24, 8, 0.62, 1.0), Group("DCM", 31, 7.5, 0.85, 1.0), Group("HCM", 21, 14, 0.55, 0.9),
          Group("MINF", 28, 7.5, 0.8, 1.0), Group("RV", 23, 8, 0.65, 1.3))


class Heart(namedtuple("Heart", "grid x y top apex radius wall angle right rv_top wobble")):
    """One phase of a heart: axis (x, y), where base and apex lie along z, radius and wall of the left ventricle.

    The right ventricle lies beside it in the direction `angle`; `wobble` (X, Y, Z) makes outlines irregular.
    """

    def levels(self):
        """Levels of the cavities and of the left ventricle with its wall: name -> (X, Y, Z), positive inside."""
        x, y, z = self.grid.positions()
        x, y = x - self.x, y - self.y
        outer = self.radius + self.wall
        height = self.apex - self.top
        along = (z - self.top) / height
        distance = np.hypot(x, y) + self.wobble
        lv = self.radius * taper(along) - distance
        epicardium = outer * taper(along * height / (height + 0.7 * self.wall)) - distance
        towards = np.cos(self.angle) * x + np.sin(self.angle) * y
        across = np.cos(self.angle) * y - np.sin(self.angle) * x
        size = self.right * outer * taper((along - self.rv_top) / (0.93 - self.rv_top))
        oval = size - np.hypot((towards - 0.8 * outer) / 0.95, across / 1.3) + 1.5 * self.wobble
        return {"lv": lv, "epicardium": epicardium, "rv": np.minimum(oval, -epicardium - 1)}


def taper(along):
    """Share of the radius left from the base (0) to the apex (1) of half an ellipsoid; -1 beyond either end."""
    within = np.clip(along, 0, 1)
    return np.where(along == within, np.sqrt(1 - within ** 2.6), -1)


def draw_label(levels):
    """Labels (X, Y, Z): papillary muscles count as cavity; the wall is closed before the cavity ends."""
    label = np.zeros(levels["lv"].shape, dtype=np.uint8)
    label[levels["rv"] > 0] = RV
    label[levels["epicardium"] > 0] = MYO
    label[levels["lv"] > 0] = LV
    return label


def draw_chest(rng, grid):
    """What lies around the heart, (X, Y, Z) without noise: fat, muscle, ribs, lungs, organs and bright vessels."""
    x, y, z = [axis + 5 * smooth_field(rng, grid, 45) for axis in grid.positions()]
    depth = ellipsoid((x, y, 0 * z), (118, 158, 1e3)) + 4 * smooth_field(rng, grid, 30)
    fat = soft(rng.uniform(12, 22) - depth, 2)
    image = 75 + 130 * fat + 12 * smooth_field(rng, grid, 9)
    ribs = soft(3 * smooth_field(rng, grid, 7) - 3, 1) * soft(32 - depth, 3) * (1 - fat)
    image = image * (1 - ribs) + 25 * ribs
    lungs = np.maximum(ellipsoid((x - 10, y + 42, 0 * z), (78, 72, 1e3)), ellipsoid((x - 62, y - 5, z), (38, 60, 1e3)))
    lung = soft(lungs, 3) * soft(depth - 30, 3)
    vessels = soft(4 * smooth_field(rng, grid, 4.5) - 9.5, 1)
    image = image * (1 - lung) + (14 + 170 * vessels) * lung
    abdomen = soft(y - 48 - 8 * smooth_field(rng, grid, 40), 3) * soft(depth - 24, 3)
    organs = 70 + 35 * soft(10 * smooth_field(rng, grid, 22)) + 110 * soft(4 * smooth_field(rng, grid, 9) - 4.5, 1)
    image = image * (1 - abdomen) + organs * abdomen
    aorta = soft(11 - np.hypot(x - 38, y - 52), 1)
    return (image * (1 - aorta) + 190 * aorta) * soft(depth, 1.5)


def draw_frame(rng, heart, chest):
    """Image (X, Y, Z) of a phase: blood bright, its wall dark, both flowing into what lies around them."""
    grid, levels = heart.grid, heart.levels()
    x, y, z = grid.positions()
    along = (z - heart.top) / (heart.apex - heart.top)
    edge = np.maximum(levels["epicardium"], levels["rv"])
    pad = soft(edge + 7 + 3 * smooth_field(rng, grid, 8), 2)  # fat and pericardium
    image = chest * (1 - pad) + pad * (120 + 50 * smooth_field(rng, grid, 9))
    # Beyond the base: the left atrium and the aorta's root, as bright as the ventricles and without a label.
    beyond = soft(-along * 40, 2) * soft(0.8 * heart.radius - np.hypot(x - heart.x + 4, y - heart.y), 1.5)
    image = image * (1 - beyond) + 200 * beyond
    wall = soft(levels["epicardium"], 1.2)
    image = image * (1 - wall) + (58 + 8 * smooth_field(rng, grid, 6)) * wall
    trabeculae = soft(3 * smooth_field(rng, grid, 4.5) - 3.2, 1)
    for name, blood in (("rv", 190), ("lv", 205)):
        share = soft(levels[name], 1.2)
        image = image * (1 - share) + (blood - 110 * trabeculae) * share
    for turn in (0.7, 2.3):  # papillary muscles
        px, py = heart.x + 0.55 * heart.radius * np.cos(turn), heart.y + 0.55 * heart.radius * np.sin(turn)
        papillary = soft(0.17 * heart.radius - np.hypot(x - px, y - py)) * soft(levels["lv"], 1.2)
        image = image - 130 * papillary * soft(10 * (along - 0.2)) * soft(10 * (0.75 - along))
    return np.maximum(image + noise(rng, grid, 8), 0)


def acdc_scans(args):
    """Patients 1, 2, ..., of 6 to 10 slices."""
    return [partial(acdc_members, args, patient) for patient in range(1, args.cases + 1)]


def acdc_members(args, patient):
    """Members of a patient: Info.cfg, a tiny file in place of the cine, image and labels of both phases."""
    rng = np.random.default_rng([args.seed, patient, 6])
    shape, spacing = SHAPES[patient % 3], SPACINGS_MM[patient % 3] * 256 / args.in_plane
    slices = args.slices or int(rng.integers(6, 11))
    in_plane = tuple(round(n * args.in_plane / 256) for n in shape)
    grid = Grid.around((*in_plane, slices), (spacing, spacing, THICKNESS_MM))
    group = GROUPS[patient % len(GROUPS)]
    frames = {"ED": 4 if patient % LATE_PATIENT == 0 else 1, "ES": int(rng.integers(9, 15))}
    name = f"patient{patient:03d}"
    info = {**frames, "Group": group.name, "Height": 150.0 + patient % 40, "NbFrame": 30, "Weight": 60.0 + patient % 30}
    yield f"training/{name}/Info.cfg", "".join(f"{key}: {value}\n" for key, value in info.items()).encode()
    cine = np.full((8, 8, slices, 30), 60)
    yield f"training/{name}/{name}_4d.nii.gz", nifti(cine, np.int16, grid.spacing)
    for phase, image, label in acdc_phases(rng, grid, group):
        stem = f"training/{name}/{name}_frame{frames[phase]:02d}"
        yield f"{stem}.nii.gz", nifti(image, np.int16, grid.spacing)
        yield f"{stem}_gt.nii.gz", nifti(label, np.uint8, grid.spacing)


def acdc_phases(rng, grid, group):
    """(phase, image, label) of both phases; the first and the last slice of some patients are beyond the heart.

    From end diastole to end systole the ventricles shrink, the wall thickens and the base moves to the apex.
    """
    reach = grid.shape[2] * grid.spacing[2] / 2
    top, apex = -reach + rng.choice([1.0, 9.0]), reach - rng.choice([1.0, 8.0])
    diastole = Heart(
        grid, *rng.uniform(-8, 8, 2), top, apex, group.radius * rng.uniform(0.92, 1.08),
        group.wall * rng.uniform(0.92, 1.1), np.pi + rng.uniform(-0.5, 0.5), group.right * rng.uniform(0.9, 1.1),
        rng.choice([0.0, 0.08]), 1.3 * smooth_field(rng, grid, 13))
    systole = diastole._replace(top=top + 0.12 * (apex - top), radius=group.left * diastole.radius,
                                wall=1.3 * diastole.wall, right=0.95 * diastole.right)
    chest = draw_chest(rng, grid)
    x, y, _ = grid.positions()
    gain = rng.uniform(0.7, 2.0)
    coil = gain * np.exp(0.25 * smooth_field(rng, grid, 80) - 0.0025 * (y + 0.4 * x))  # bright near the coil
    for phase, heart in (("ED", diastole), ("ES", systole)):
        yield phase, coil * draw_frame(rng, heart, chest), draw_label(heart.levels())


def acdc_tops(_):
    return ["training"]


ACDC = Layout(write_folder, acdc_scans, acdc_tops,
              {"cases": (2, 150), "slices": (4, 20), "in_plane": (64, 512), "seed": (0, 2**32)},
              {"cases": 10, "slices": None, "in_plane": 256})
