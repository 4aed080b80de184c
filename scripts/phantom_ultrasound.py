"""Schematic breast ultrasound in the raw layout of BUSI: PNG images of many sizes with one mask per tumour.

Images are (H, W), depth downwards. Levels of tissue are in dB, lengths in shares of the image's width.
"""
from collections import namedtuple
from functools import partial

import numpy as np
from phantom_files import Layout, png, write_folder
from scipy.ndimage import gaussian_filter

ROOT = "Dataset_BUSI_with_GT"
# Numbers of the benign images that have a quirk of the release.
TWO_TUMOURS, COLOURED, THREE_TUMOURS = 2, 3, 4

Plane = namedtuple("Plane", "x y")  # (1, W) and (H, 1), in widths


def plane_of(shape):
    """Coordinates of an image (H, W): x from its middle, y from the skin."""
    height, width = shape
    return Plane(((np.arange(width) + 0.5) / width - 0.5)[None], ((np.arange(height) + 0.5) / width)[:, None])


def smooth(rng, shape, along_y, along_x):
    """Gaussian random field (H, W) of unit variance and the given correlation lengths in widths."""
    width = shape[1]
    field = gaussian_filter(rng.standard_normal(shape), (along_y * width, along_x * width), mode="nearest", truncate=3)
    return field / field.std()


def smooth_line(rng, width, scale):
    """Gaussian random line (1, W) of unit variance and correlation length `scale` in widths."""
    line = gaussian_filter(rng.standard_normal(width), scale * width, mode="nearest", truncate=3)
    return (line / line.std())[None]


def step(level, width=0.004):
    """Smooth step from 0 to 1 over some `width`."""
    return 0.5 * (1 + np.tanh(level / width))


def draw_tissue(rng, shape):
    """Echo of a breast without tumours in dB (H, W): skin, fat with septa, gland, muscle, then ribs and shadow."""
    _x, y = plane_of(shape)
    bottom = shape[0] / shape[1]
    waves = [0.05 * smooth_line(rng, shape[1], 0.15) for _ in range(3)]
    depths = zip((0.22, 0.55, 0.74), waves, strict=True)
    fat_end, gland_end, muscle_end = [share * bottom + wave for share, wave in depths]
    gland, muscle, deep = step(y - fat_end, 0.01), step(y - gland_end, 0.01), step(y - muscle_end, 0.02)
    septa = np.exp(-(smooth(rng, shape, 0.03, 0.11) / 0.12) ** 2)
    streaks = np.exp(-(smooth(rng, shape, 0.008, 0.06) / 0.35) ** 2)
    lobules = step(smooth(rng, shape, 0.035, 0.065) - 1.3, 0.15)  # of fat: dark and round, as tumours are
    levels = [-15 + 9 * septa, -9 + 6 * streaks + 2.5 * smooth(rng, shape, 0.04, 0.06) - 12 * lobules,
              -15 + 8 * streaks, -24 + 3 * smooth(rng, shape, 0.05, 0.05)]
    echo = levels[0]
    for share, level in zip((gland, muscle, deep), levels[1:], strict=False):
        echo = echo * (1 - share) + level * share
    skin = step(0.025 - y, 0.004)
    fascia = np.exp(-((y - gland_end) / 0.008) ** 2) + 0.7 * np.exp(-((y - fat_end) / 0.006) ** 2)
    ligaments = np.minimum(smooth_line(rng, shape[1], 0.03) + 1.6, 0) * 6 * step(y - fat_end, 0.05)
    return echo + 10 * skin + 6 * fascia + ligaments - 16 * np.maximum(y / bottom - 0.5, 0)


class Tumour(namedtuple("Tumour", "x y width height tilt waves malignant")):
    """A tumour: centre, half axes and tilt, and the waves of its outline: (count, share of the radius, phase)."""

    def level(self, plane):
        """Positive inside, in widths."""
        x, y = plane.x - self.x, plane.y - self.y
        u = (np.cos(self.tilt) * x + np.sin(self.tilt) * y) / self.width
        v = (np.cos(self.tilt) * y - np.sin(self.tilt) * x) / self.height
        turn = np.arctan2(v, u)
        radius = 1 + sum(share * np.cos(count * turn + phase) for count, share, phase in self.waves)
        return (radius - np.hypot(u, v)) * min(self.width, self.height)


def draw_tumour(rng, shape, malignant, share, x=None):
    """A tumour that takes about `share` of the image: benign ones are wide and smooth, malignant ones spiculated."""
    bottom = shape[0] / shape[1]
    flat = rng.uniform(1.0, 1.3) if malignant else rng.uniform(1.3, 2.0)
    height = min(np.sqrt(share * bottom / np.pi / flat), 0.33 * bottom)
    counts, size = (range(2, 22), 0.13) if malignant else (range(2, 5), 0.06)
    waves = [(count, size * rng.normal() / count ** 0.8, rng.uniform(0, 2 * np.pi)) for count in counts]
    x = rng.uniform(-0.25, 0.25) if x is None else x
    y = bottom * rng.uniform(0.3, 0.52)
    return Tumour(x, max(y, height + 0.06), flat * height, height, rng.uniform(-0.3, 0.3), waves, malignant)


def add_tumour(rng, echo, tumour):
    """The echo with a tumour: dark, with a capsule and brighter tissue below, or with a halo and a shadow."""
    plane = plane_of(echo.shape)
    level = tumour.level(plane)
    inside = step(level, 0.008 if tumour.malignant else 0.004)
    body = (-20 if tumour.malignant else -23) + rng.normal(0, 2) + 3 * smooth(rng, echo.shape, 0.02, 0.03)
    if tumour.malignant:
        body = body + 14 * step(smooth(rng, echo.shape, 0.004, 0.004) - 2.6, 0.1)  # calcifications
        echo = echo + 4 * np.exp(-((level + 0.02) / 0.02) ** 2)
    else:
        echo = echo + 5 * np.exp(-((level + 0.004) / 0.005) ** 2)
    below = step(tumour.width * 0.8 - np.abs(plane.x - tumour.x), 0.02) * step(plane.y - tumour.y, 0.02) * (1 - inside)
    return (echo + (-8 if tumour.malignant else 4) * below) * (1 - inside) + body * inside


def scan(rng, echo):
    """Grey image (H, W) uint8 of an echo in dB: speckle whose grain widens with depth, on a logarithmic scale."""
    waves = [rng.standard_normal(echo.shape) for _ in range(4)]
    fine = [gaussian_filter(wave, (0.7, 1.1)) for wave in waves[:2]]
    coarse = [gaussian_filter(wave, (0.9, 2.2)) for wave in waves[2:]]
    depth = plane_of(echo.shape).y / (echo.shape[0] / echo.shape[1])
    parts = [(1 - depth) * a / a.std() + depth * b / b.std() for a, b in zip(fine, coarse, strict=False)]
    speckle = 10 * np.log10(sum(part ** 2 for part in parts) + 0.05)
    grey = 255 * (echo + 0.6 * speckle + rng.uniform(34, 38)) / 46
    return np.clip(gaussian_filter(grey, 0.5), 0, 255).astype(np.uint8)


def colour(image, tumour):
    """The image (H, W, 3) as colour Doppler: red and blue flow in a box around the tumour."""
    x, y = plane_of(image.shape)
    coloured = np.repeat(image[..., None], 3, axis=2)
    level = tumour.level(Plane(x, y))
    flow = np.sin(60 * x + 25 * y) * np.sin(45 * y - 20 * x)
    near = np.abs(level + 0.015) < 0.022
    coloured[near & (flow > 0.45)] = (200, 40, 20)
    coloured[near & (flow < -0.45)] = (30, 60, 210)
    frame = np.maximum(np.abs(x - tumour.x) / 1.5 / tumour.width, np.abs(y - tumour.y) / 1.6 / tumour.height)
    coloured[np.abs(frame - 1) < 0.02] = (230, 220, 60)
    return coloured


def callipers(image, tumour):
    """The image with a white cross at either end of the tumour's long axis."""
    height, width = image.shape
    image = image.copy()
    for end in (-1, 1):
        row = round((tumour.y + end * np.sin(tumour.tilt) * tumour.width) * width)
        column = round((tumour.x + end * np.cos(tumour.tilt) * tumour.width + 0.5) * width)
        arm = max(2, width // 60)
        if arm <= row < height - arm and arm <= column < width - arm:
            image[row - arm:row + arm + 1, column] = image[row, column - arm:column + arm + 1] = 245
    return image


def busi_counts(cases):
    """Images by class, in the release's shares."""
    malignant, normal = max(2, round(cases * 210 / 780)), max(1, round(cases * 133 / 780))
    return {"benign": cases - malignant - normal, "malignant": malignant, "normal": normal}


def busi_scans(args):
    """Every image of the three classes."""
    counts = busi_counts(args.cases)
    return [partial(busi_members, args, kind, number) for kind in counts for number in range(1, counts[kind] + 1)]


def busi_members(args, kind, number):
    """An image and its masks. The last benign image equals the last malignant one; its mask was drawn by another."""
    counts = busi_counts(args.cases)
    is_copy = kind == "benign" and number == counts[kind]
    source = ("malignant", counts["malignant"]) if is_copy else (kind, number)
    image, tumours = busi_image(args, *source)
    path = f"{ROOT}/{kind}/{kind} ({number})"
    if kind == "benign" and number == COLOURED:
        yield f"{path}.png", png(colour(image, tumours[0]), "RGB")
    else:
        # Callipers measure every sixth tumour, except that of the pair.
        measured = kind != "normal" and number % 6 == 0 and source != ("malignant", counts["malignant"])
        yield f"{path}.png", png(callipers(image, tumours[0]) if measured else image, "RGB")
    plane = plane_of(image.shape)
    if not tumours:
        yield f"{path}_mask.png", png(np.zeros(image.shape, dtype=bool), "RGB")
    for index, tumour in enumerate(tumours):
        mask = tumour.level(plane) > (0.006 if is_copy else 0)
        is_rgba = kind == "benign" and number == TWO_TUMOURS and index == 1
        yield f"{path}_mask{f'_{index}' if index else ''}.png", png(mask, "RGBA" if is_rgba else "1")


def busi_image(args, kind, number):
    """Grey image (H, W) uint8 of any size, and its tumours."""
    rng = np.random.default_rng([args.seed, ("benign", "malignant", "normal").index(kind), number, 9])
    width = round(args.in_plane * rng.uniform(0.65, 1.4))
    shape = (round(width * rng.uniform(0.62, 0.95)), width)
    echo = draw_tissue(rng, shape)
    several = {TWO_TUMOURS: 2, THREE_TUMOURS: 3}.get(number, 1) if kind == "benign" else 1
    places = [None] if several == 1 else np.linspace(-0.3, 0.3, several)
    tumours = []
    for x in places if kind != "normal" else ():
        share = float(np.clip(0.05 * np.exp(rng.normal(0.25 if kind == "malignant" else 0, 0.6)), 0.012, 0.25))
        share = share if x is None else min(share, 0.06 / several ** 2)
        tumours.append(draw_tumour(rng, shape, kind == "malignant", share, x=x))
        echo = add_tumour(rng, echo, tumours[-1])
    return scan(rng, echo), tumours


def busi_tops(_):
    return [ROOT]


BUSI = Layout(write_folder, busi_scans, busi_tops,
              {"cases": (8, 780), "in_plane": (64, 1000), "seed": (0, 2**32)},
              {"cases": 60, "in_plane": 200})
