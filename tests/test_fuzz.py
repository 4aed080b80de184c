"""Every reader on damaged files: what is wrong is an InputError in one line that names the file, and nothing else.

Bits flipped, bytes overwritten, cut or repeated, fields of headers set to extremes, numbers made long. No more memory
is taken than a file that is no volume may have. FUZZ=50 tries fifty times as many inputs.
"""

import contextlib
import gzip
import io
import json
import os
import random
import re
import resource
import struct
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from raw_files import make_nnunet

from evaluation.mask_files import read_npy
from raw_data.files import RawFile, list_files
from raw_data.images import read_image
from raw_data.limits import MAX_OTHER_BYTES, SLACK
from raw_data.nifti import stored_voxels
from raw_data.nnunet import describe
from raw_data.orientation import check_orientation
from raw_data.volumes import read_nifti
from reporting.runs import read_metrics
from sliced_data.meta import part_files, read_meta
from sliced_data.slices import read_slice
from slicing.splits import split_by_file
from training.checkpoints import load_checkpoint
from training.run_state import check_like
from training.settings import settings_of_config
from utils import InputError, read_json

pytestmark = pytest.mark.filterwarnings("ignore")
ROUNDS = int(os.environ.get("FUZZ", "1"))
EXTREMES = [
    struct.pack(kind, value) for kind, values in (
        ("<h", (0, -1, 32767, -32768)), ("<i", (0, -1, 2**31 - 1, -(2**31))), ("<q", (-1, 2**63 - 1)),
        ("<f", (float("nan"), float("inf"), -1.0, 3e38, 1e-38)), ("<d", (float("nan"), float("inf"), 1e308)),
    ) for value in values
]
WORDS = (b"", b"-1", b"0", b"1e999", b"NaN", b"Infinity", b"1" * 5000, b"null", b"[1]", b'"x"', b"{}", b"true",
         b"\xff\xfe", b"\x00", b"../x", b'"\\ud800"', b"[" * 3000)


def damaged(content: bytes, generator: random.Random, *, is_text: bool = False) -> bytes:
    """One damaged version of a file; most damage is near its beginning, where headers are, or near its end."""
    content = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 4))):
        kind = generator.choice(("bit", "byte", "cut", "repeat", "extreme", "word"))
        region = generator.choice((len(content), min(len(content), 400), min(len(content), 120)))
        place = generator.randrange(region) if region else 0
        if generator.random() < 0.2:
            place = max(0, len(content) - 1 - place)
        if kind == "bit" and content:
            content[place] ^= 1 << generator.randrange(8)
        elif kind == "byte" and content:
            content[place] = generator.randrange(256)
        elif kind == "cut":
            del content[place : place + generator.choice((1, 4, 100, len(content)))]
        elif kind == "repeat":
            content[place:place] = content[place : place + generator.choice((1, 8, 200))]
        elif kind == "extreme":
            value = generator.choice(EXTREMES)
            content[place : place + len(value)] = value
        elif kind == "word" and is_text:
            numbers = [*re.finditer(rb'-?\d[\d.e+-]*|"[^"\n]*"|[a-z_]+', bytes(content))]
            if numbers:
                chosen = generator.choice(numbers)
                content[chosen.start() : chosen.end()] = generator.choice(WORDS)
    return bytes(content)


@contextlib.contextmanager
def limited_memory():
    """Let this process take no more memory than it has and one file may take: MemoryError otherwise."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    former = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MAX_OTHER_BYTES + 64 * SLACK, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, former)


def outcome(read) -> BaseException | None:
    """What reading a file raises, within the memory that it may take."""
    with limited_memory():
        try:
            read()
        except BaseException as error:
            return error
    return None


def attack(path: Path, read, count: int, *, seed: int = 0, is_text: bool = False, change=None) -> int:
    """``read`` damaged versions of a file, or what ``change`` makes of a generator; returns how many were refused."""
    whole, refused = path.read_bytes(), 0
    assert outcome(read) is None
    for number in range(count * ROUNDS):
        generator = random.Random(f"{seed} {path.name} {number}")
        content = change(generator) if change else damaged(whole, generator, is_text=is_text)
        path.write_bytes(content)
        error = outcome(read)
        refused += error is not None
        said = f"{path.name}, number {number}: {type(error).__name__}: {error}"
        assert error is None or (type(error) is InputError and path.name in str(error)), said
    path.write_bytes(whole)
    return refused


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti(tmp_path, name):
    path = tmp_path / name
    values = np.random.default_rng(0).integers(0, 100, (6, 5, 4)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([0.9, 0.8, 5, 1])), path)
    file = RawFile(path)

    def read():
        check_orientation("a", [file, file])
        read_nifti("a", file)
        stored_voxels("a", file)

    assert attack(path, read, 600, seed=1) > 100


def test_nifti_below_gzip(tmp_path):
    path = tmp_path / "a.nii.gz"
    content = nib.Nifti1Image(np.ones((6, 5, 4), np.float32), np.eye(4)).to_bytes()
    path.write_bytes(gzip.compress(content))

    def change(generator):
        return gzip.compress(damaged(content, generator), compresslevel=1)

    assert attack(path, lambda: read_nifti("a", RawFile(path)), 400, change=change) > 50


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip(tmp_path, method):
    path = tmp_path / f"a{method}.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in ("a.nii", "b/c.json", "d.txt"):
            archive.writestr(name, np.random.default_rng(0).integers(0, 9, 300).astype(np.uint8).tobytes())

    def read():
        for file in list_files(path).values():
            file.read()

    assert attack(path, read, 250, seed=2) > 100


def test_slices(tmp_path, sliced):
    files = part_files(read_meta(sliced), "train")
    whole = files.path("image", 0).read_bytes()
    path = tmp_path / "image" / f"{files.names[0]}.npy"
    path.parent.mkdir()
    path.write_bytes(whole)
    files = type(files)(**{**vars(files), "folder": tmp_path, "sums": None})
    out = np.empty(*files.stored["image"])
    assert attack(path, lambda: read_slice(files, "image", 0, out), 600, seed=3) > 300


def test_masks_as_npy(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(8, dtype=np.int64))
    assert attack(tmp_path / "a.npy", lambda: read_npy("a", RawFile(tmp_path / "a.npy")), 600, seed=4) > 200


@pytest.mark.parametrize("options", [{"suffix": ".png"}, {"suffix": ".tif"}, {"suffix": ".tif", "pages": 3},
                                     {"suffix": ".tif", "compression": "tiff_lzw"}])
def test_images(tmp_path, options):
    path = tmp_path / f"a{options['suffix']}"
    pages = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (20, 24), np.uint8)) for n in range(3)]
    more = {"save_all": True, "append_images": pages[1:]} if "pages" in options else {}
    pages[0].save(path, **more, **({"compression": options["compression"]} if "compression" in options else {}))
    assert attack(path, lambda: read_image("a", RawFile(path)), 250, seed=5) > 50


@pytest.mark.parametrize("name", ["meta.json", "cases.csv", "checksums.txt"])
def test_sliced_data(tmp_path, sliced, name):
    for other in ("meta.json", "cases.csv", "checksums.txt"):
        (tmp_path / other).write_bytes((sliced / other).read_bytes())

    def read():
        meta = read_meta(tmp_path)
        for part in ("train", "val"):
            part_files(meta, part).spacing()

    def refused():
        try:
            read()
        except InputError as error:
            if name == "checksums.txt" or tmp_path.name in str(error):
                raise InputError(f"{name}: {error}") from None
            raise

    assert attack(tmp_path / name, refused, 400, seed=6, is_text=True) > 100


@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "metrics_2d.csv"])
def test_runs(tmp_path, results, name):
    path = tmp_path / name
    path.write_bytes((results / "gdl" / "seed0" / name).read_bytes())
    readers = {
        "config.json": lambda: settings_of_config(read_json(path), path),
        "metrics.csv": lambda: read_metrics(path, ("n_ref", "n_pred")),
        "metrics_2d.csv": lambda: read_metrics(path, ("n_slices",)),
    }
    assert attack(path, readers[name], 300, seed=7, is_text=True) > 50


@pytest.mark.parametrize("name", ["split.json", "split.csv"])
def test_splits(tmp_path, name):
    texts = {"split.json": json.dumps([{"train": ["a"], "val": ["b", "c"]}] * 2),
             "split.csv": "case_id,split\na,train\nb,val\nc,val\n"}
    (tmp_path / name).write_text(texts[name])
    assert attack(tmp_path / name, lambda: split_by_file({"a", "b", "c"}, tmp_path / name), 300, seed=8,
                  is_text=True) > 100


def test_descriptions_of_nnunet(tmp_path):
    root = make_nnunet(tmp_path / "raw", cases=("a_1", "b_2"))
    assert attack(root / "dataset.json", lambda: describe("mine", root).find_cases(root), 200, seed=9,
                  is_text=True) > 50


def test_checkpoints(tmp_path, results):
    whole = torch.load(results / "gdl" / "seed0" / "best.pt", weights_only=True)
    path = tmp_path / "best.pt"
    small = dict(list(whole["model"].items())[:6])
    torch.save({**whole, "model": small}, path)

    def read():
        state = load_checkpoint(path, torch.device("cpu"))
        try:
            check_like(state["model"], small, "model")
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{path}: {error}") from None

    assert attack(path, read, 300, seed=10) > 100


def test_checkpoints_whose_sums_are_right(tmp_path):
    """Damage in the pickle itself, below the checksums."""
    path = tmp_path / "best.pt"
    torch.save({"model": {"weight": torch.arange(6.0)}, "epoch": 3}, path)
    with zipfile.ZipFile(path) as source:
        parts = {member.filename: source.read(member) for member in source.infolist()}

    def change(generator):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, damaged(part, generator) if name.endswith("data.pkl") else part)
        return content.getvalue()

    assert attack(path, lambda: load_checkpoint(path, torch.device("cpu")), 300, change=change) > 50
