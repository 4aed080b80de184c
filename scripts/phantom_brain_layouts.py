"""Brains in the raw layouts of ISLES 2018 (one zip), WMH 2017 (three zips) and BraTS 2018 (two folders).

The images are those of `phantom_brain.py`. Volumes are (X, Y, Z), lengths are in mm.
"""
import json
from collections import namedtuple
from functools import partial

import nibabel as nib
import numpy as np
from phantom_brain import brats_images, draw_anatomy, isles_images, wmh_images
from phantom_fields import Grid
from phantom_files import Layout, nifti, to_dtype, write_folder, write_zips

ISLES_DTYPES = {"CT": np.int32, "CT_4DPWI": np.int16, "CT_CBF": np.uint16, "CT_CBV": np.uint16,
                "CT_MTT": np.float64, "CT_Tmax": np.float64, "OT": np.uint8}
ISLES_ZIP = "ISLES2018_Training.zip"
ISLES_PATIENTS = ((8,), (2, 2), (22,), (4, 4), (16,), (2, 2), (8,), (4, 4), (16,), (8, 8), (8,))  # slices
ISLES_THICKNESS_MM = {2: (10.0, 12.0), 4: (8.0, 10.0), 8: (5.0, 6.0), 16: (5.0, 6.0), 22: (4.0, 5.0)}
ISLES_LESION_FREE = 3  # case_3, where there are at least 4 cases
MACINTOSH_JUNK = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X" + bytes(66)


Site = namedtuple("Site", "archive folder case_ids shape spacing gain")  # in-plane shape, spacing in mm
WMH_SITES = (Site("Utrecht.zip", "Utrecht", range(0, 40, 2), (240, 240), (0.958, 0.958, 3.0), gain=1.0),
             Site("Singapore.zip", "Singapore", range(50, 70), (232, 256), (1.0, 1.0, 3.0), gain=1.6),
             Site("Amsterdam_GE3T.zip", "GE3T", range(100, 120), (132, 256), (1.20, 0.98, 3.0), gain=4.0))
WMH_TRANSPOSED = (50, 51)


def isles_archives(args):
    """Zip name -> its scans, functions that yield members. A patient has one slab or two that touch."""
    scans = []
    for patient in range(args.cases):
        slabs = ISLES_PATIENTS[patient % len(ISLES_PATIENTS)]
        rng = np.random.default_rng([args.seed, patient, 0])
        spacing = round(rng.uniform(0.82, 1.0), 3) * 256 / args.in_plane
        slices, middle = args.slices or slabs[0], rng.uniform(8, 20)
        thickness = min(rng.choice(ISLES_THICKNESS_MM[slabs[0]]), 110 / (len(slabs) * slices))  # in the head
        for slab, letter in zip(range(len(slabs)), "AB", strict=False):
            height = middle + (slab - (len(slabs) - 1) / 2) * slices * thickness
            grid = Grid((args.in_plane, args.in_plane, slices), (spacing, spacing, thickness), height)
            number = len(scans) + 1
            scans.append(partial(isles_members, args.seed, number, patient + 1, letter, grid,
                                 has_lesion=args.cases < 4 or number != ISLES_LESION_FREE))
    return {ISLES_ZIP: scans[:args.cases]}


def isles_members(seed, number, patient, slab, grid, has_lesion):
    """Members (name, bytes) of one scan, with the junk that a Macintosh adds."""
    anatomy = draw_anatomy(np.random.default_rng([seed, patient, 1]), grid)
    images = isles_images(np.random.default_rng([seed, number, 2]), grid, anatomy, has_lesion=has_lesion)
    images["CT_4DPWI"] = np.full((8, 8, grid.shape[2], 3), 30)
    yield f"TRAINING/case_{number}/", b""
    for index, (modality, dtype) in enumerate(ISLES_DTYPES.items()):
        stem = f"SMIR.Brain.XX.O.{modality}.{345000 + 10 * number + index}"
        path = f"TRAINING/case_{number}/{stem}/{stem}"
        about = {"name": stem, "description": f"ISLES 2018 - TRAIN - Train_{patient:02d}_{slab} - {modality}"}
        yield f"{path}.nii", isles_nifti(images[modality], dtype, grid.spacing)
        yield f"{path}.json", json.dumps(about, indent=1).encode()
        yield f"__MACOSX/TRAINING/case_{number}/{stem}/._{stem}.nii", MACINTOSH_JUNK


def isles_nifti(image, dtype, spacing):
    """Bytes of a .nii whose affine is the identity: the spacing stands in pixdim alone, as in real files."""
    header = nib.Nifti1Header()
    header.set_data_shape(image.shape)
    header.set_data_dtype(dtype)
    header.set_zooms(tuple(spacing) + (1.0,) * (image.ndim - 3))
    header.set_sform(np.eye(4), code="aligned")
    header["pixdim"][0] = -1
    return nib.Nifti1Image(to_dtype(image, dtype), None, header).to_bytes()


def wmh_archives(args):
    """Zip name -> its scans, each a function that yields members; the sites get the cases in turn."""
    archives = {site.archive: [] for site in WMH_SITES}
    for index in range(args.cases):
        site = WMH_SITES[index % 3]
        case_id = site.case_ids[index // 3]
        shape = site.shape[::-1] if case_id in WMH_TRANSPOSED else site.shape
        shape = (*tuple(round(n * args.in_plane / 256) for n in shape), args.slices)
        spacing = tuple(step * 256 / args.in_plane for step in site.spacing[:2]) + site.spacing[2:]
        grid = Grid(shape, spacing, height=14)
        archives[site.archive].append(partial(wmh_members, args.seed, site, case_id, grid))
    return archives


def wmh_members(seed, site, case_id, grid):
    """Members (name, bytes) of one scan. T1's header is 1.5e-5 mm off at Singapore; 3DT1 has its own grid."""
    rng = np.random.default_rng([seed, case_id, 3])
    images = wmh_images(rng, grid, site.gain, has_other=case_id % 4 == 0)
    t1_spacing = [grid.spacing[0] + (1.5e-5 if site.folder == "Singapore" else 0), *grid.spacing[1:]]
    own_grid = np.repeat(images["orig", "T1"][::2, ::2], 2, axis=2)
    own_spacing = [n * step / m for n, step, m in zip(grid.shape, grid.spacing, own_grid.shape, strict=False)]
    folder = f"{site.folder}/{case_id}"
    yield f"{folder}/", b""
    for stage in ("orig", "pre"):
        yield f"{folder}/{stage}/3DT1.nii.gz", nifti(own_grid, np.uint16, own_spacing)
        yield f"{folder}/{stage}/FLAIR.nii.gz", nifti(images[stage, "FLAIR"], np.float32, grid.spacing)
        yield f"{folder}/{stage}/T1.nii.gz", nifti(images[stage, "T1"], np.uint16, t1_spacing)
    yield f"{folder}/wmh.nii.gz", nifti(images["wmh"], np.float32, grid.spacing)


BRATS_DTYPES = {"t1": np.int16, "t1ce": np.int16, "t2": np.int16, "flair": np.int16, "seg": np.uint8}
BRATS_WITHOUT_ENHANCEMENT = 1  # index of the HGG case without label 4


def brats_id(grade, index):
    """Names of three sites, as in the release: sorted as strings, 2013_10 comes before 2013_2."""
    turn = index // 3
    return {0: f"Brats18_2013_{(2 if grade == 'HGG' else 1) + 8 * turn}_1",
            1: f"Brats18_CBICA_{'A' if grade == 'HGG' else 'B'}{chr(65 + turn // 26)}{chr(65 + turn % 26)}_1",
            2: f"Brats18_TCIA{1 + turn % 8:02d}_{(131 if grade == 'HGG' else 130) + 2 * turn}_1"}[index % 3]


def brats_grades(cases):
    """Grade of each case: one in five is of low grade, and at least one."""
    low = max(1, cases // 5)
    return ["HGG"] * (cases - low) + ["LGG"] * low


def brats_scans(args):
    """Scans of both grades: 240 x 240 x 155 at 1 mm, or the same field of view in fewer and larger voxels."""
    step = 240 / args.in_plane
    thickness = min(155 / args.slices, 5.0)
    grid = Grid((args.in_plane, args.in_plane, args.slices), (step, step, thickness), height=14)
    grades = brats_grades(args.cases)
    indices = [grades[:position].count(grade) for position, grade in enumerate(grades)]
    pairs = zip(grades, indices, strict=True)
    return [partial(brats_members, args.seed, grade, index, grid) for grade, index in pairs]


def brats_members(seed, grade, index, grid):
    """Members of one case; the y axis runs backwards, as the affine says. Low-grade tumours seldom enhance."""
    rng = np.random.default_rng([seed, index, 4 if grade == "HGG" else 5])
    enhances = index != BRATS_WITHOUT_ENHANCEMENT if grade == "HGG" else index % 3 == 2
    images = brats_images(rng, grid, enhances=enhances)
    affine = np.diag([-grid.spacing[0], -grid.spacing[1], grid.spacing[2], 1.0])
    affine[1, 3] = (grid.shape[1] - 1) * grid.spacing[1]
    case_id = brats_id(grade, index)
    for name, dtype in BRATS_DTYPES.items():
        yield f"{grade}/{case_id}/{case_id}_{name}.nii.gz", nifti(images[name][:, ::-1], dtype, affine)


def isles_tops(_):
    return [ISLES_ZIP]


def wmh_tops(_):
    return [site.archive for site in WMH_SITES]


def brats_tops(_):
    return ["HGG", "LGG"]


SEEDS = (0, 2**32)
ISLES = Layout(write_zips, isles_archives, isles_tops,
               {"cases": (1, 94), "slices": (2, 22), "in_plane": (32, 512), "seed": SEEDS},
               {"cases": 16, "slices": None, "in_plane": 256})
WMH = Layout(write_zips, wmh_archives, wmh_tops,
             {"cases": (3, 60), "slices": (2, 83), "in_plane": (32, 512), "seed": SEEDS},
             {"cases": 9, "slices": 12, "in_plane": 256})
BRATS = Layout(write_folder, brats_scans, brats_tops,
               {"cases": (3, 285), "slices": (4, 155), "in_plane": (48, 240), "seed": SEEDS},
               {"cases": 10, "slices": 16, "in_plane": 120})
