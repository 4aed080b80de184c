"""Sliced data set -> memory-resident tensors -> batches."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distance import distance_maps, region_wise_map
from utils import InputError, progress, read_json, read_rows

FORMAT = 1
CASE_NUMBERS = {"n_slices": int, "spacing_x_mm": float, "spacing_y_mm": float, "spacing_z_mm": float}


@dataclass(frozen=True)
class Case:
    """One line of cases.csv that the loader needs; spacing of the sliced grid in mm, in array-axis order."""

    case_id: str
    split: str
    n_slices: int
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Meta:
    """What a sliced data set says of itself."""

    root: Path
    dataset: str
    size: int
    class_names: tuple[str, ...]
    modalities: tuple[str, ...]
    convention: str     # of the stored distance maps: "paper" or "reference"
    cases: tuple[Case, ...]
    fingerprint: str


@dataclass(frozen=True)
class Batch:
    """Slices of one step, on one device."""

    image: Tensor       # (B, C, H, W) float32 in [0, 1]
    label: Tensor       # (B, H, W) int64
    maps: Tensor | None  # (B, K, H, W) float32
    spacing: Tensor     # (B, 2) float32, mm

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(t if t is None else t.to(device) for t in (self.image, self.label, self.maps, self.spacing)))


@dataclass(frozen=True)
class Slices:
    """All slices of one part (train or val) in contiguous tensors, in the order of the cases and their slices."""

    image: Tensor       # (N, C, H, W) float16
    label: Tensor       # (N, H, W) uint8
    maps: Tensor | None  # (N, K, H, W): signed distances in mm (float16), or a region-wise map (float32)
    spacing: Tensor     # (N, 2) float32, mm
    cases: tuple[Case, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device) -> "Slices":
        """The slices on ``device``, or where they are if they would fill more than half of its free memory."""
        size = sum(t.numel() * t.element_size() for t in (self.image, self.label, self.maps) if t is not None)
        if device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] / 2:
            return self
        tensors = {name: getattr(self, name) for name in ("image", "label", "maps", "spacing")}
        return replace(self, **{name: t if t is None else t.to(device) for name, t in tensors.items()})

    def batch(self, index: Tensor) -> Batch:
        """The slices of ``index`` (B,), an int64 tensor on the slices' device."""
        return Batch(
            image=self.image[index].float().contiguous(memory_format=torch.channels_last),
            label=self.label[index].long(),
            maps=None if self.maps is None else self.maps[index].float(),
            spacing=self.spacing[index],
        )

    def case_ranges(self) -> Iterator[tuple[Case, slice]]:
        """Each case with its place along N."""
        start = 0
        for case in self.cases:
            yield case, slice(start, start + case.n_slices)
            start += case.n_slices


def read_meta(root: Path) -> Meta:
    """meta.json and cases.csv of a data set; ``InputError`` where one is missing, damaged or of another version."""
    if not root.is_dir():
        raise InputError(f"{root}: expected a sliced data set, found nothing; make it with preprocess.py")
    meta = read_json(root / "meta.json")
    if meta.get("format") != FORMAT:
        raise InputError(f"{root / 'meta.json'}: expected format {FORMAT}, found {meta.get('format')}; slice again")
    rows = read_rows(root / "cases.csv", ("case_id", "split", *CASE_NUMBERS))
    # What was sliced and how, not with which versions: the same slices made anew are the same data.
    described = json.dumps({key: value for key, value in meta.items() if key != "versions"}, sort_keys=True)
    digest = hashlib.sha256(described.encode() + (root / "cases.csv").read_bytes())
    try:
        return Meta(
            root=root,
            dataset=meta["dataset"],
            size=int(meta["size"]),
            class_names=tuple(meta["class_names"]),
            modalities=tuple(meta["modalities"]),
            convention=meta["distance_map"],
            cases=tuple(parse_case(row, root / "cases.csv") for row in rows),
            fingerprint=digest.hexdigest(),
        )
    except (KeyError, TypeError, ValueError) as error:
        expected = "dataset, size, class_names, modalities and distance_map"
        raise InputError(f"{root / 'meta.json'}: expected {expected}, found {error!r}") from None


def parse_case(row: dict[str, str], path: Path) -> Case:
    try:
        numbers = {name: kind(row[name]) for name, kind in CASE_NUMBERS.items()}
    except ValueError:
        expected = ", ".join(CASE_NUMBERS)
        raise InputError(f"{path}: {row['case_id']}: expected numbers in {expected}, found {row}") from None
    spacing = tuple(numbers[f"spacing_{axis}_mm"] for axis in "xyz")
    return Case(row["case_id"], row["split"], numbers["n_slices"], spacing)


def load_slices(meta: Meta, part: str, *, maps: str | None = None, convention: str | None = None) -> Slices:
    """Read all slices of ``part`` ("train" or "val") into memory.

    ``maps`` is "phi2d", "phi3d", one of the region-wise kinds ("rrw", "boundary", "ac", "cao"), or None. Signed
    distances of another ``convention`` than the stored ones are computed from the labels.
    ``InputError`` names a slice that is missing, damaged, of another dtype or shape, or not finite.
    """
    cases = tuple(case for case in meta.cases if case.split == part)
    names = tuple(f"{case.case_id}_{z:04d}" for case in cases for z in range(case.n_slices))
    if not names:
        raise InputError(f"{meta.root / 'cases.csv'}: expected cases for {part}, found none")
    count, classes, size = len(names), len(meta.class_names), meta.size
    kinds = {
        "image": ((len(meta.modalities), size, size), torch.float16),
        "label": ((size, size), torch.uint8),
    }
    stored = maps in ("phi2d", "phi3d") and convention in (None, meta.convention)
    if stored:
        kinds[maps] = ((classes, size, size), torch.float16)
    tensors = {kind: torch.empty((count, *shape), dtype=dtype) for kind, (shape, dtype) in kinds.items()}
    for index, name in enumerate(progress(names, desc=f"reading {part}", unit="slice", leave=False)):
        for kind, tensor in tensors.items():
            read_slice(meta.root / part / kind / f"{name}.npy", tensor[index].numpy())
    label = tensors["label"]
    if int(label.max()) >= classes:
        worst = names[int(label.flatten(1).amax(1).argmax())]
        found = f"{int(label.max())} in {meta.root / part / 'label'}"
        raise InputError(f"{worst}: expected classes 0 to {classes - 1}, found {found}")
    if maps and not stored:
        tensors[maps] = computed_maps(label, cases, classes, maps, convention)
    spacing = torch.tensor([case.spacing[:2] for case in cases for _ in range(case.n_slices)], dtype=torch.float32)
    return Slices(tensors["image"], label, tensors.get(maps), spacing, cases, names)


def computed_maps(label: Tensor, cases: tuple[Case, ...], classes: int, maps: str, convention: str | None) -> Tensor:
    """Maps (N, K, H, W) of labels (N, H, W) that are not on the disk: signed distances float16, others float32."""
    found, start = [], 0
    for case in progress(cases, desc="distance maps", unit="case", leave=False):
        volume = label[start : start + case.n_slices].numpy()                                       # (Z, H, W)
        start += case.n_slices
        if maps == "phi3d":
            spacing = (case.spacing[2], *case.spacing[:2])
            found.extend(distance_maps(volume, classes, spacing, convention=convention).swapaxes(0, 1))
        elif maps == "phi2d":
            found.extend(distance_maps(one, classes, case.spacing[:2], convention=convention) for one in volume)
        else:
            found.extend(region_wise_map(one, classes, maps, spacing=case.spacing[:2]) for one in volume)
    # Squared distances are beyond float16.
    return torch.from_numpy(np.stack(found).astype(np.float16 if maps.startswith("phi") else np.float32))


def read_slice(path: Path, out: np.ndarray) -> None:
    """Read one .npy file into ``out``, checked against its shape and dtype."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: expected a readable slice, found {error}") from None
    if not isinstance(array, np.ndarray) or (array.shape, array.dtype) != (out.shape, out.dtype):
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{path}: expected {out.dtype} of shape {out.shape}, found {found}")
    if array.dtype != np.uint8 and not np.isfinite(array).all():
        raise InputError(f"{path}: expected finite values, found NaN or infinity")
    out[...] = array


def epoch_order(count: int, *, seed: int, epoch: int) -> Tensor:
    """The order of the slices (N,) in one epoch; a function of seed and epoch alone, so that a resumed run keeps it."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)


def batches(slices: Slices, order: Tensor, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """The batches of one epoch on ``device``; the last one may be smaller."""
    # Splitting nothing would give one empty batch.
    for index in order.to(slices.label.device).split(batch_size) if len(order) else ():
        yield slices.batch(index).to(device)
