"""Schematic heads as images: anatomy, lesions, tumours and what looks like them, from smooth random fields.

Volumes are (X, Y, Z) float32, lengths are in mm, `rng` is a numpy generator: the same state gives the same head.
"""
from collections import namedtuple

import numpy as np
from phantom_fields import draw_blob, ellipsoid, noise, pick_point, smooth_field, soft


class Anatomy(namedtuple("Anatomy", "tissues depth from_ventricle across")):
    """Shares by tissue; mm under the scalp, from the ventricles and from the midline; all (X, Y, Z)."""

    def mix(self, **values):
        """Image that has the given value in each tissue."""
        return sum(np.float32(value) * self.tissues[name] for name, value in values.items())


def draw_anatomy(rng, grid):
    """A head of two warped hemispheres with folded cortex, deep grey matter and ventricles."""
    x, y, z = position = [axis + 3 * smooth_field(rng, grid, 40) for axis in grid.positions()]
    depth = ellipsoid(position, np.array([74, 93, 90]) * rng.uniform(0.95, 1.03, 3))
    side, widen, top = np.abs(x), rng.uniform(0.8, 1.5), rng.uniform(8, 14)
    lateral = (side - 8 - 0.004 * (y + 4) ** 2, y + 4, z - top - 0.004 * y ** 2)
    ventricle = np.maximum(ellipsoid(lateral, (6 * widen, 38, 12 * widen)),
                           ellipsoid((x, y + 5, z - 2), (2 * widen, 13, 12)))
    fold = 7.1 * np.abs(smooth_field(rng, grid, 5))  # mm from the nearest sulcus
    deep_grey = np.maximum(ellipsoid((side - 12, y + 12, z - 4), (8, 13, 10)),
                           ellipsoid((side - 27, y - 4, z - 4), (5, 17, 11)))
    sulcus = soft(1.0 - fold) * soft(29 - depth, 4)
    fissure = soft(1.3 - side) * soft(44 - depth, 4)
    fluid = np.maximum.reduce([soft(ventricle), fissure, sulcus, soft(14.5 - depth)])
    grey = np.maximum.reduce([soft(3.6 - fold) * soft(31 - depth, 4), soft(17.5 - depth), soft(deep_grey)])
    inside, under_scalp = soft(depth - 12), soft(depth - 6)
    brain = inside * (1 - fluid)
    tissues = {"scalp": soft(depth) * (1 - under_scalp), "skull": under_scalp * (1 - inside),
               "fluid": inside * fluid, "grey": brain * grey, "white": brain * (1 - grey)}
    return Anatomy(tissues, depth, from_ventricle=-ventricle, across=x)


def draw_vessels(rng, grid, anatomy):
    """Share of vessel (X, Y, Z): tubes near the surface, where two random sheets meet, and a sinus behind."""
    tubes = 6 * np.hypot(smooth_field(rng, grid, 9), smooth_field(rng, grid, 9))
    x, y, _ = grid.positions()
    tubes = soft(1.8 - tubes) * soft(40 - anatomy.depth, 4) * soft(anatomy.depth - 13)
    return np.maximum(tubes, soft(4 - np.hypot(x, y + 76)))


def draw_reference(rng, grid, level, allowed, fraction, jitter_mm):
    """Lesion level shifted to be positive inside, and the reference mask, the threshold of a jittered level.

    Both keep `fraction` of all voxels, those with the highest level in the mask `allowed` (X, Y, Z).
    """
    count = max(1, round(fraction * level.size))
    judged = level + np.float32(jitter_mm) * smooth_field(rng, grid, 4)
    cuts = [np.partition(values[allowed], -count)[-count] for values in (level, judged)]
    return level - cuts[0], allowed & (judged >= cuts[1])


def isles_images(rng, grid, anatomy, has_lesion):
    """The maps of one scan by modality, each (X, Y, Z): an infarct core inside a larger penumbra."""
    brain = anatomy.tissues["grey"] + anatomy.tissues["white"]
    allowed = (brain > 0.5) & (anatomy.depth > 16)
    core_seat = allowed & (anatomy.depth > 22) & (anatomy.depth < 48) & (anatomy.from_ventricle > 4)
    start = pick_point(rng, grid, core_seat)
    across = anatomy.across * np.sign(start[0])  # positive in the hemisphere of the infarct
    allowed &= across > 1
    fraction = 0.001 * 25 ** rng.uniform()  # of the volume: 0.1 to 2.5 %
    radius = (fraction * np.prod(grid.shape) * np.prod(grid.spacing) * 0.75 / np.pi) ** (1 / 3)
    beside = [place + rng.normal(0, 1.3 * radius) for place in start[:2]] + start[2:]
    level = np.maximum(draw_blob(rng, grid, start, radius), draw_blob(rng, grid, beside, 0.4 * radius))
    level, reference = draw_reference(rng, grid, level, allowed, fraction, jitter_mm=1.0)
    outward = [place * rng.uniform(1, 1.25) for place in start]
    around = draw_blob(rng, grid, outward, radius + rng.uniform(8, 20))
    penumbra = np.maximum(soft(around, 5), soft(level + 3, 5)) * soft(across, 3)
    old_infarct, artefact = [soft(draw_blob(rng, grid, pick_point(rng, grid, brain > 0.5), radius), 4)
                             for radius in rng.uniform(4, 9, 2)]
    images = perfusion(rng, grid, anatomy, soft(level, 4) * has_lesion, penumbra, old_infarct, artefact)
    return images | {"OT": reference & has_lesion}


def perfusion(rng, grid, anatomy, core, penumbra, old_infarct, artefact):
    """CT in HU and the four perfusion maps, each (X, Y, Z).

    The core lacks flow and blood volume, the penumbra only flow; an old infarct is dark but on time, an
    artefact is late on Tmax alone; fluid has as little flow as the core.
    """
    vessels = draw_vessels(rng, grid, anatomy)
    brain = anatomy.tissues["grey"] + anatomy.tissues["white"]
    supply = (1 - 0.55 * core) * (1 - 0.7 * old_infarct)
    flow = (anatomy.mix(grey=55, white=26, fluid=4) + 70 * vessels) * (1 - 0.35 * penumbra) * supply
    volume = (anatomy.mix(grey=42, white=25, fluid=4) + 55 * vessels) * supply
    transit = anatomy.mix(grey=4.5, white=5.5, fluid=5) + 3.5 * penumbra + 1.5 * core
    delay = anatomy.mix(grey=1.6, white=2.2, fluid=2.5) + 4 * penumbra + 2 * core + 4 * artefact
    density = anatomy.mix(scalp=60, skull=1000, fluid=6, grey=37, white=29) + 12 * vessels
    density += brain * (-5 * core - 16 * old_infarct) - 1000 * (1 - sum(anatomy.tissues.values()))
    images = {"CT": density + noise(rng, grid, 3)}
    for name, values, sd in (("CT_CBF", 10 * flow, 70), ("CT_CBV", 10 * volume, 50),
                             ("CT_MTT", transit, 1.0), ("CT_Tmax", delay, 0.9)):
        shade = 1 + 0.1 * smooth_field(rng, grid, 40)
        images[name] = np.maximum(values * shade + noise(rng, grid, sd), 0) * (anatomy.depth > 13)
    return images


def wmh_images(rng, grid, gain, has_other):
    """FLAIR and T1 before ("orig") and after ("pre") bias correction, labels 0, 1, 2; each (X, Y, Z)."""
    anatomy = draw_anatomy(rng, grid)
    allowed = (anatomy.tissues["white"] > 0.6) & (anatomy.depth > 19)
    near = np.exp(-np.maximum(anatomy.from_ventricle, 0) / 5)
    level = 4 * (0.6 * smooth_field(rng, grid, 3.2) + 0.9 * smooth_field(rng, grid, 8) + 2.2 * near)
    fraction = 0.0025 * 8 ** rng.uniform()  # of the volume: 0.25 to 2 %
    level, reference = draw_reference(rng, grid, level, allowed, fraction, jitter_mm=0.5)
    label = reference.astype(np.float32)
    lesion = soft(level, 2.5) * anatomy.tissues["white"]
    if has_other:
        seat = (anatomy.depth > 20) & (anatomy.depth < 32) & (anatomy.from_ventricle > 8)
        other = draw_blob(rng, grid, pick_point(rng, grid, seat), radius=7)
        other -= np.maximum(15 - anatomy.depth, 0)
        label[(other > 0) & ~reference] = 2
        lesion = np.maximum(lesion, soft(other, 2.5))
    return wmh_contrasts(rng, grid, anatomy, lesion, gain) | {"wmh": label}


def wmh_contrasts(rng, grid, anatomy, lesion, gain):
    """FLAIR and T1 by stage: lesions are bright on FLAIR, and so are scalp, cortex spots, choroid, rims."""
    white, from_ventricle = anatomy.tissues["white"], anatomy.from_ventricle
    cortex = anatomy.tissues["grey"] * soft(3 * smooth_field(rng, grid, 3.5) - 3)
    choroid = soft(-from_ventricle - 1.5) * soft(2 * smooth_field(rng, grid, 4) - 2)
    ependyma = soft(1.2 - np.abs(from_ventricle - 0.8)) * white
    spaces = soft(2 * smooth_field(rng, grid, 2.5) - 4.4) * white  # dark on T1 only
    flair = anatomy.mix(scalp=125, skull=22, fluid=18, grey=92, white=76)
    flair += 54 * lesion + 32 * cortex + 70 * choroid + 14 * ependyma
    t1 = anatomy.mix(scalp=330, skull=40, fluid=60, grey=190, white=265) - 50 * lesion - 60 * spaces
    images = {}
    for name, image, sd in (("FLAIR", flair, 5), ("T1", t1, 12)):
        shade, noisy = smooth_field(rng, grid, 55), gain * (image + noise(rng, grid, sd))
        for stage, strength in (("orig", 0.25), ("pre", 0.05)):
            images[stage, name] = np.maximum(noisy * np.exp(strength * shade), 0)
    return images


def brats_images(rng, grid, enhances):
    """Four contrasts of a brain without its skull, exactly 0 around it, and labels 0, 1, 2, 4; each (X, Y, Z).

    A core inside an oedema: necrosis (1) with an enhancing rim (4) where it `enhances`, necrosis alone elsewhere.
    """
    anatomy = draw_anatomy(rng, grid)
    brain = anatomy.depth > 13.5
    tissue = anatomy.tissues["grey"] + anatomy.tissues["white"]
    seat = (anatomy.tissues["white"] > 0.6) & (anatomy.depth > 28) & (anatomy.from_ventricle > 4)
    seat[..., :grid.shape[2] // 4] = seat[..., -(grid.shape[2] // 4):] = False
    centre, radius = pick_point(rng, grid, seat), rng.uniform(14, 21)
    beside = [place + rng.normal(0, 0.7 * radius) for place in centre]
    core = np.maximum(draw_blob(rng, grid, centre, radius), draw_blob(rng, grid, beside, 0.6 * radius))
    necrosis = core - rng.uniform(4, 7) - 1.5 * smooth_field(rng, grid, 6)
    around = draw_blob(rng, grid, beside, radius + rng.uniform(9, 18))
    # Fluid spreads along the white matter and spares the cortex and the ventricles.
    oedema = np.minimum(around + 8 * (anatomy.tissues["white"] - 0.6), 12 * (tissue - 0.5))
    label = np.zeros(grid.shape, dtype=np.uint8)
    label[(oedema > 0) & brain] = 2
    label[(core > 0) & brain] = 4 if enhances else 1
    label[(core > 0) & (necrosis > 0) & brain] = 1
    shares = {"oedema": soft(oedema, 2) * (1 - soft(core, 1.5)), "necrosis": soft(core, 1.5) * soft(necrosis, 1.5)}
    shares["rim"] = soft(core, 1.5) - shares["necrosis"]
    images = brats_contrasts(rng, grid, anatomy, shares, rim_gain=1.0 if enhances else 0.0)
    gains = dict(zip(images, rng.uniform(0.6, 1.8, len(images)), strict=False))  # scanners have no common unit
    images = {name: np.maximum(gains[name] * image, 1) * brain for name, image in images.items()}
    return images | {"seg": label}


def brats_contrasts(rng, grid, anatomy, shares, rim_gain):
    """T1, T1 with contrast agent, T2 and FLAIR of tissues and tumour.

    Vessels and choroid plexus take up contrast agent as the rim does; caps of the ventricles and spots of the cortex
    are bright on FLAIR as oedema is.
    """
    vessels = draw_vessels(rng, grid, anatomy)
    choroid = soft(-anatomy.from_ventricle - 1.5) * soft(2 * smooth_field(rng, grid, 4) - 2)
    caps = soft(3 * smooth_field(rng, grid, 8) - 1 - anatomy.from_ventricle, 2) * anatomy.tissues["white"]
    cortex = anatomy.tissues["grey"] * soft(3 * smooth_field(rng, grid, 3.5) - 3)
    values = {"t1": ({"fluid": 90, "grey": 290, "white": 370}, (-55, -110, -60), 0, 14),
              "t1ce": ({"fluid": 90, "grey": 290, "white": 370}, (-55, -120, -60 + 330 * rim_gain), 230, 14),
              "t2": ({"fluid": 560, "grey": 260, "white": 200}, (150, 240, 130), -60, 16),
              "flair": ({"fluid": 60, "grey": 235, "white": 195}, (140, 10, 95), 0, 14)}
    images = {}
    for name, (tissues, (oedema, necrosis, rim), uptake, sd) in values.items():
        healthy = anatomy.mix(**tissues) + uptake * (vessels + choroid)
        if name == "flair":
            healthy += 90 * caps + 60 * cortex
        # The tumour's own tissue is white matter, altered.
        share = sum(shares.values())
        altered = oedema * shares["oedema"] + necrosis * shares["necrosis"] + rim * shares["rim"]
        image = healthy * (1 - share) + tissues["white"] * share + altered
        images[name] = image * np.exp(0.08 * smooth_field(rng, grid, 45)) + noise(rng, grid, sd)
    return images
