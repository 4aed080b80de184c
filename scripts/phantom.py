"""Schematic brains in the raw layouts of ISLES 2018 (one zip) and WMH 2017 (three zips), quirks included.

No patient's data: `phantom_brain.py` computes every image from smooth random fields. The same seed gives the same
bytes on one machine with one set of library versions. Volumes are (X, Y, Z) float32 until written; lengths are in mm.
"""
import argparse
import gzip
import json
import os
import sys
import zipfile
from collections import namedtuple
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from phantom_brain import Grid, draw_anatomy, isles_images, wmh_images
from tqdm import tqdm

ISLES_DTYPES = {"CT": np.int32, "CT_4DPWI": np.int16, "CT_CBF": np.uint16, "CT_CBV": np.uint16,
                "CT_MTT": np.float64, "CT_Tmax": np.float64, "OT": np.uint8}
ISLES_PATIENTS = ((8,), (2, 2), (22,), (4, 4), (16,), (2, 2), (8,), (4, 4), (16,), (8, 8), (8,))  # slices
ISLES_THICKNESS_MM = {2: (10.0, 12.0), 4: (8.0, 10.0), 8: (5.0, 6.0), 16: (5.0, 6.0), 22: (4.0, 5.0)}
ISLES_LESION_FREE = 3  # case_3, where there are at least 4 cases
MACINTOSH_JUNK = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X" + bytes(66)

Site = namedtuple("Site", "archive folder case_ids shape spacing gain")  # in-plane shape, spacing in mm
WMH_SITES = (Site("Utrecht.zip", "Utrecht", range(0, 40, 2), (240, 240), (0.958, 0.958, 3.0), gain=1.0),
             Site("Singapore.zip", "Singapore", range(50, 70), (232, 256), (1.0, 1.0, 3.0), gain=1.6),
             Site("Amsterdam_GE3T.zip", "GE3T", range(100, 120), (132, 256), (1.20, 0.98, 3.0), gain=4.0))
WMH_TRANSPOSED = (50, 51)

LIMITS = {"isles": {"cases": (1, 94), "slices": (2, 22), "in_plane": (32, 512), "seed": (0, 2**32)},
          "wmh": {"cases": (3, 60), "slices": (2, 83), "in_plane": (32, 512), "seed": (0, 2**32)}}
ZIPS = {"isles": ["ISLES2018_Training.zip"], "wmh": [site.archive for site in WMH_SITES]}
DEFAULT_CASES = {"isles": 16, "wmh": 9}


class BadRequest(Exception):
    """A request that cannot be met: one line for the user, exit code 2."""


def isles_archives(args):
    """Zip name -> its scans, functions that yield members. A patient has one slab or two that touch."""
    scans = []
    for patient in range(args.cases):
        slabs = ISLES_PATIENTS[patient % len(ISLES_PATIENTS)]
        rng = np.random.default_rng([args.seed, patient, 0])
        spacing = round(rng.uniform(0.82, 1.0), 3) * 256 / args.in_plane
        slices, middle = args.slices or slabs[0], rng.uniform(8, 20)
        thickness = min(rng.choice(ISLES_THICKNESS_MM[slabs[0]]), 110 / (len(slabs) * slices))  # in the head
        for slab, letter in zip(range(len(slabs)), "AB"):
            height = middle + (slab - (len(slabs) - 1) / 2) * slices * thickness
            grid = Grid((args.in_plane, args.in_plane, slices), (spacing, spacing, thickness), height)
            number = len(scans) + 1
            scans.append(partial(isles_members, args.seed, number, patient + 1, letter, grid,
                                 has_lesion=args.cases < 4 or number != ISLES_LESION_FREE))
    return {ZIPS["isles"][0]: scans[:args.cases]}


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


def to_dtype(image, dtype):
    """The image in the type of its file: rounded to integers, or to 1/32 to compress well."""
    step = 1 if np.issubdtype(dtype, np.integer) else 32
    return (np.rint(image * step) / step).astype(dtype)


def wmh_archives(args):
    """Zip name -> its scans, each a function that yields members; the sites get the cases in turn."""
    archives = {site.archive: [] for site in WMH_SITES}
    for index in range(args.cases):
        site = WMH_SITES[index % 3]
        case_id = site.case_ids[index // 3]
        shape = site.shape[::-1] if case_id in WMH_TRANSPOSED else site.shape
        shape = tuple(round(n * args.in_plane / 256) for n in shape) + (args.slices or 12,)
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
    own_spacing = [n * step / m for n, step, m in zip(grid.shape, grid.spacing, own_grid.shape)]
    folder = f"{site.folder}/{case_id}"
    yield f"{folder}/", b""
    for stage in ("orig", "pre"):
        yield f"{folder}/{stage}/3DT1.nii.gz", wmh_nifti(own_grid, np.uint16, own_spacing)
        yield f"{folder}/{stage}/FLAIR.nii.gz", wmh_nifti(images[stage, "FLAIR"], np.float32, grid.spacing)
        yield f"{folder}/{stage}/T1.nii.gz", wmh_nifti(images[stage, "T1"], np.uint16, t1_spacing)
    yield f"{folder}/wmh.nii.gz", wmh_nifti(images["wmh"], np.float32, grid.spacing)


def wmh_nifti(image, dtype, spacing):
    """Bytes of a .nii.gz with an ordinary affine."""
    volume = nib.Nifti1Image(to_dtype(image, dtype), np.diag([*spacing, 1.0]))
    return gzip.compress(volume.to_bytes(), compresslevel=1, mtime=0)


def write_archives(out, archives, progress):
    """Write every zip under a temporary name beside its own, and rename them together once all are whole."""
    out.mkdir(parents=True, exist_ok=True)
    parts = {name: out / f".{name}.part" for name in archives}
    try:
        for name, scans in archives.items():
            with zipfile.ZipFile(parts[name], "w") as archive:
                for members in scans:
                    for member, content in members():
                        write_member(archive, member, content)
                    progress.update()
        for name, part in parts.items():
            os.replace(part, out / name)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def write_member(archive, name, content):
    """Add one file, or a folder where the name ends in a slash, with a fixed time."""
    info = zipfile.ZipInfo(name, date_time=(2018, 3, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, (0o755 if name.endswith("/") else 0o644) << 16
    info.compress_type = zipfile.ZIP_STORED if name.endswith((".gz", "/")) else zipfile.ZIP_DEFLATED
    archive.writestr(info, content, compresslevel=1)


def check(args):
    """Raise BadRequest on numbers that make no sense, a zip that exists, an `out` that is no folder."""
    for name, (low, high) in LIMITS[args.layout].items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            flag = "--" + name.replace("_", "-")
            raise BadRequest(f"{flag}: expected {low} to {high} for {args.layout}, found {value}")
    if args.out.exists() and not args.out.is_dir():
        raise BadRequest(f"--out: expected a folder, found the file {args.out}")
    for name in ZIPS[args.layout]:
        if (args.out / name).exists():
            raise BadRequest(f"{args.out / name} exists already: remove it, or choose another --out")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message):
        raise BadRequest(message)


def parse(argv):
    """The command line."""
    parser = Parser(description="Generate small raw data that look like the real download.")
    parser.add_argument("layout", choices=("isles", "wmh"), help="the data set whose layout is imitated")
    parser.add_argument("--out", type=Path, required=True, help="folder for the zip files")
    parser.add_argument("--cases", type=int, help="number of scans (default: isles 16, wmh 9)")
    parser.add_argument("--slices", type=int, help="slices of each scan (default: isles 2 to 22, wmh 12)")
    parser.add_argument("--in-plane", type=int, default=256,
                        help="voxels where the real images have 256, same field of view (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files (default: 0)")
    args = parser.parse_args(argv)
    args.cases = DEFAULT_CASES[args.layout] if args.cases is None else args.cases
    return args


def main(argv=None):
    """Write the zips of one data set; 0 when done, 2 with one line on stderr when the request is refused."""
    try:
        args = parse(argv)
        check(args)
    except BadRequest as error:
        print(f"phantom.py: {error}", file=sys.stderr)
        return 2
    archives = {"isles": isles_archives, "wmh": wmh_archives}[args.layout](args)
    with tqdm(total=args.cases, desc=f"{args.layout} phantom", unit="scan", disable=None) as progress:
        write_archives(args.out, archives, progress)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
