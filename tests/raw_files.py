"""Small raw data in the real layouts, made by hand, and calls of the commands as a user makes them."""

import json
import logging
import signal
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from environment.command import run_command
from environment.stops import STOPS

# The width of a sliced pixel in cases.csv: half of the 0.9 mm that a header keeps in float32.
SLICED_X = str(float(np.float32(0.9)) / 2)
ISLES_DTYPES = {"CT": np.int32, "CT_CBF": np.uint16, "CT_CBV": np.uint16, "CT_MTT": np.float64, "CT_Tmax": np.float64}


def call(module, *arguments, monkeypatch) -> int:
    """The exit code of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments)])
    handlers = [(number, signal.getsignal(number)) for number in STOPS]
    try:
        return run_command(module.main)
    finally:
        # A command is the last of its process, and leaves it deaf and dumb; this one goes on.
        for number, handler in handlers:
            signal.signal(number, handler)
        logging.disable(logging.NOTSET)


def save_nifti(path: Path, voxels: np.ndarray, spacing, *, identity_affine: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, np.eye(4) if identity_affine else np.diag([*spacing, 1.0]))
    image.header.set_zooms((*spacing, 1.0)[: voxels.ndim])
    nib.save(image, path)


def lesion(shape, rng: np.random.Generator) -> np.ndarray:
    """A box of ones, away from the first slice."""
    label = np.zeros(shape, dtype=np.uint8)
    x, y = (int(rng.integers(2, n - 6)) for n in shape[:2])
    label[x : x + 4, y : y + 3, 1:] = 1
    return label


def isles_path(root: Path, case: str, modality: str) -> Path:
    """Where the ISLES layout keeps one modality of one case."""
    stem = f"SMIR.Brain.XX.O.{modality}.{1000 + int(case.split('_')[1])}"
    return root / "TRAINING" / case / stem / f"{stem}.nii"


def make_isles(root: Path, cases=("case_1", "case_2", "case_10"), shape=(16, 20, 3), spacing=(0.9, 0.8, 5.0)) -> Path:
    for number, case in enumerate(cases):
        rng = np.random.default_rng(number)
        label = lesion(shape, rng)
        for modality, dtype in ISLES_DTYPES.items():
            image = rng.integers(0, 100, shape) + 100 * label
            save_nifti(isles_path(root, case, modality), image.astype(dtype), spacing, identity_affine=True)
        save_nifti(isles_path(root, case, "OT"), label, spacing, identity_affine=True)
        # The first two scans are two slabs of one patient.
        patient = f"Train_{max(number, 1):02d}_{'AB'[number % 2]}"
        sidecar = isles_path(root, case, "OT").with_suffix(".json")
        sidecar.write_text(json.dumps({"description": f"ISLES 2018 - TRAIN - {patient} - OT"}))
    return root


def make_wmh(
    root: Path, cases=("Utrecht/0", "Singapore/50", "GE3T/100"), shape=(16, 24, 3), spacing=(1.2, 0.98, 3.0)
) -> Path:
    for number, case in enumerate(cases):
        rng = np.random.default_rng(number)
        label = lesion(shape, rng).astype(np.float32)
        label[0, 0, 0] = 2
        for modality, dtype in (("FLAIR", np.float32), ("T1", np.uint16)):
            save_nifti(
                root / case / "pre" / f"{modality}.nii.gz",
                (rng.integers(0, 100, shape) + 100 * label).astype(dtype),
                spacing,
            )
        save_nifti(root / case / "wmh.nii.gz", label, spacing)
    return root


def make_acdc(
    root: Path, patients=(1, 2, 3, 4), shape=(20, 26, 3), spacing=(1.5625, 1.5625, 10.0), folder="training"
) -> Path:
    """Frames 4 (end-diastole) and 11 (end-systole), and a 4D file that nothing reads."""
    for number in patients:
        rng, name = np.random.default_rng(number), f"patient{number:03d}"
        for frame in (4, 11):
            label = np.zeros(shape, np.uint8)
            label[5:15, 8:18] = 2
            label[8:12, 11:15] = 3
            label[2:5, 8:18, 1:] = 1
            image = rng.integers(0, 100, shape) + 50 * label + frame
            stem = root / folder / name / f"{name}_frame{frame:02d}"
            save_nifti(stem.with_name(f"{stem.name}.nii.gz"), image.astype(np.int16), spacing)
            save_nifti(stem.with_name(f"{stem.name}_gt.nii.gz"), label, spacing)
        (stem.parent / f"{name}_4d.nii.gz").write_bytes(b"large")
        (stem.parent / "Info.cfg").write_text("ED: 4\nES: 11\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\n")
    return root


def make_busi(root: Path) -> Path:
    """Seven images: one coloured, one with two masks of which one is RGBA, one without tumour, two that are equal."""
    sizes = {"benign (1)": (30, 20), "benign (2)": (24, 24), "benign (3)": (26, 22), "malignant (1)": (24, 24),
             "malignant (2)": (40, 30), "normal (1)": (32, 20), "normal (2)": (20, 20)}
    for number, (case, (width, height)) in enumerate(sizes.items()):
        rng = np.random.default_rng(0 if case in ("benign (2)", "malignant (1)") else number + 1)
        pixels = rng.integers(0, 256, (height, width), dtype=np.uint8)
        mask = np.zeros((height, width), bool)
        if not case.startswith("normal"):
            mask[3:6, 5 : 7 + 3 * (case == "malignant (2)")] = True
        image = Image.fromarray(pixels)
        if case == "benign (1)":
            image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        save_png(root, case, image)
        save_png(root, f"{case}_mask", Image.fromarray(mask))
        if case == "malignant (2)":
            second = np.zeros((height, width, 4), np.uint8)
            second[..., 3] = 255
            second[20:25, 5:10, :3] = 255
            save_png(root, f"{case}_mask_1", Image.fromarray(second))
    return root


def save_png(root: Path, name: str, image: Image.Image) -> Path:
    path = root / "Dataset_BUSI_with_GT" / name.split()[0] / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def unseal(data: Path) -> Path:
    """A sliced data set as one of before there was a seal: what it says of itself may be changed."""
    path = data / "meta.json"
    meta = json.loads(path.read_text())
    del meta["seal"]
    path.write_text(json.dumps(meta))
    return data


def tree(root: Path) -> set[str]:
    """Every path below ``root``."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


BRATS_NAMES = (("HGG", "Brats18_2013_10_1"), ("HGG", "Brats18_2013_2_1"), ("HGG", "Brats18_TCIA01_131_1"),
               ("LGG", "Brats18_CBICA_AAB_1"))


def make_brats(root: Path, names=BRATS_NAMES, shape=(20, 24, 3), ending=".nii.gz") -> Path:
    """Tumours of three kinds in a brain that is cut out: 0 around it."""
    for number, (grade, name) in enumerate(names):
        rng = np.random.default_rng(number)
        label = np.zeros(shape, np.uint8)
        label[6:14, 8:16] = 2
        label[8:12, 10:14] = 4
        label[9:11, 11:13, 1:] = 1
        for modality in ("t1", "t1ce", "t2", "flair"):
            image = np.zeros(shape, np.int16)
            image[3:17, 4:20] = rng.integers(1, 900, (14, 16, shape[2]))
            save_nifti(root / grade / name / f"{name}_{modality}{ending}", image, (1.0, 1.0, 1.0))
        save_nifti(root / grade / name / f"{name}_seg{ending}", label, (1.0, 1.0, 1.0))
    return root


def make_kits(root: Path, cases=(0, 1, 2, 3), shape=(5, 20, 24), spacing=(3.0, 0.8, 0.7)) -> Path:
    """Axes slices, rows, columns; the first slice and the last have no label."""
    for number in cases:
        rng = np.random.default_rng(number)
        label = np.zeros(shape, np.uint8)
        label[1:-1, 4:12, 6:18] = 1
        label[1:-2, 6:10, 8:13] = 2
        image = rng.integers(-900, 1200, shape) + 100 * label
        folder = root / f"case_{number:05d}"
        save_nifti(folder / "imaging.nii.gz", image.astype(np.int16), spacing)
        save_nifti(folder / "segmentation.nii.gz", label, spacing)
    return root


def make_nnunet(
    root: Path, ending=".nii.gz", cases=("a_1", "b_2", "c_3", "d_4", "e_5"), channels=("T2", "ADC"), ignore=3,
    shape=(20, 24, 3),
) -> Path:
    """Labels 0, 1 and 2, and of every second case voxels of the label ``ignore``; dataset.json of version 2."""
    for number, case in enumerate(cases):
        rng = np.random.default_rng(number)
        label = np.zeros(shape, np.uint8)
        label[4:14, 5:15] = 1
        label[6:10, 8:13, 1:] = 2
        if number % 2:
            label[0:6, 0:8] = ignore
        for channel in range(len(channels)):
            image = rng.integers(1, 200, shape).astype(np.uint8) + np.uint8(20) * (label == 1)
            save_voxels(root / "imagesTr" / f"{case}_{channel:04d}{ending}", image.astype(np.uint8))
        save_voxels(root / "labelsTr" / f"{case}{ending}", label)
    labels = {"background": 0, "gland": 1, "lesion": 2, "ignore": ignore}
    named = {str(number): name for number, name in enumerate(channels)}
    write_description(root, channel_names=named, labels=labels, numTraining=len(cases), file_ending=ending)
    return root


def save_voxels(path: Path, voxels: np.ndarray) -> None:
    """(X, Y, Z) as NIfTI, or as an image whose rows run downwards, one page per slice."""
    if path.name.endswith(".nii.gz"):
        save_nifti(path, voxels, (0.5, 0.6, 3.0))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = [Image.fromarray(np.rot90(voxels[..., z])) for z in range(voxels.shape[2])]
    pages[0].save(path, **({"save_all": True, "append_images": pages[1:]} if len(pages) > 1 else {}))


def write_description(root: Path, **content) -> None:
    (root / "dataset.json").write_text(json.dumps(content))
