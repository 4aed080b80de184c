"""Sliced data set -> memory-resident tensors -> batches."""

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slicefiles import Case, Layout, compute_maps, read_slice
from utils import InputError, progress, read_json, read_rows

FORMAT = 1
CASE_NUMBERS = {"n_slices": int, "spacing_x_mm": float, "spacing_y_mm": float, "spacing_z_mm": float}


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
    source: str | None  # where the raw data were


@dataclass(frozen=True)
class Batch:
    """Slices of one step, on one device: as they are stored, or ``prepared`` for the network and the losses."""

    image: Tensor       # (B, C, H, W) in [0, 1], float16, then float32
    label: Tensor       # (B, H, W) uint8, then int64
    maps: Tensor | None  # (B, K, H, W) float16 or float32, then float32
    spacing: Tensor     # (B, 2) float32, mm

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(*(t if t is None else change(t) for t in (self.image, self.label, self.maps, self.spacing)))

    def to(self, device: torch.device) -> "Batch":
        """On ``device``; pinned memory is copied while the host goes on."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def prepared(self) -> "Batch":
        return Batch(
            image=self.image.float().contiguous(memory_format=torch.channels_last),
            label=self.label.long(),
            maps=None if self.maps is None else self.maps.float(),
            spacing=self.spacing,
        )


class Part:
    """One part (train or val), wherever its slices are: their names, and whose they are."""

    layout: Layout

    @property
    def names(self) -> tuple[str, ...]:
        return self.layout.names

    @property
    def cases(self) -> tuple[Case, ...]:
        return self.layout.cases

    def case_ranges(self) -> Iterator[tuple[Case, slice]]:
        return self.layout.case_ranges()

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Slices(Part):
    """All slices of one part (train or val) in contiguous tensors, in the order of the cases and their slices."""

    image: Tensor       # (N, C, H, W) float16
    label: Tensor       # (N, H, W) uint8
    maps: Tensor | None  # (N, K, H, W): signed distances in mm (float16), or a region-wise map (float32)
    spacing: Tensor     # (N, 2) float32, mm
    layout: Layout

    def to(self, device: torch.device, room: float = 0.5) -> "Slices":
        """The slices on ``device``, or where they are if they would fill more than ``room`` of its free memory."""
        if device.type == "cuda" and self.layout.nbytes > torch.cuda.mem_get_info(device)[0] * room:
            return self
        tensors = {name: getattr(self, name) for name in ("image", "label", "maps", "spacing")}
        return replace(self, **{name: t if t is None else t.to(device) for name, t in tensors.items()})

    def take(self, index: Tensor) -> Batch:
        """The slices of ``index`` (B,), an int64 tensor on the slices' device, as they are stored."""
        maps = None if self.maps is None else self.maps[index]
        return Batch(self.image[index], self.label[index], maps, self.spacing[index])

    def read(self, parts: Sequence[Tensor], device: torch.device) -> Iterator[Batch]:
        """One batch a part (B,) of an order; gathered ahead in pinned memory where they are to go to another device."""
        if self.label.device.type != device.type:
            return prefetched(lambda index: self.take(index).each(Tensor.pin_memory), parts)
        if device.type == "cuda":
            # One copy of the whole order, not one a step.
            parts = torch.cat(parts).to(device).split(len(parts[0]))
        return map(self.take, parts)


def read_meta(root: Path) -> Meta:
    """meta.json and cases.csv of a data set; ``InputError`` where one is missing, damaged or of another version."""
    if not root.is_dir():
        raise InputError(f"{root}: expected a sliced data set, found nothing; make it with preprocess.py")
    meta = read_json(root / "meta.json")
    if meta.get("format") != FORMAT:
        raise InputError(f"{root / 'meta.json'}: expected format {FORMAT}, found {meta.get('format')}; slice again")
    rows = read_rows(root / "cases.csv", ("case_id", "split", *CASE_NUMBERS))
    # What was sliced and how, not from where or with which versions: the same slices made anew are the same data.
    described = json.dumps(
        {key: value for key, value in meta.items() if key not in ("source", "versions")}, sort_keys=True
    )
    digest = hashlib.sha256(described.encode() + (root / "cases.csv").read_bytes())
    check_cases(rows, root / "cases.csv")
    try:
        if int(meta["size"]) < 16 or int(meta["size"]) % 8:
            raise ValueError(f"size {meta['size']}")
        return Meta(
            root=root,
            dataset=meta["dataset"],
            size=int(meta["size"]),
            class_names=tuple(meta["class_names"]),
            modalities=tuple(meta["modalities"]),
            convention=meta["distance_map"],
            cases=tuple(parse_case(row, root / "cases.csv") for row in rows),
            fingerprint=digest.hexdigest(),
            source=meta.get("source"),
        )
    except (KeyError, TypeError, ValueError) as error:
        expected = "dataset, size, class_names, modalities and distance_map"
        raise InputError(f"{root / 'meta.json'}: expected {expected}, found {error!r}") from None


def check_cases(rows: list[dict[str, str]], path: Path) -> None:
    """``InputError`` where a case comes twice, or is in no part."""
    seen: set[str] = set()
    for row in rows:
        if row["split"] not in ("train", "val"):
            raise InputError(f"{path}: {row['case_id']}: expected the split train or val, found {row['split']}")
        if row["case_id"] in seen:
            raise InputError(f"{path}: expected each case once, found {row['case_id']} twice")
        seen.add(row["case_id"])


def parse_case(row: dict[str, str], path: Path) -> Case:
    try:
        numbers = {name: kind(row[name]) for name, kind in CASE_NUMBERS.items()}
    except ValueError:
        expected = ", ".join(CASE_NUMBERS)
        raise InputError(f"{path}: {row['case_id']}: expected numbers in {expected}, found {row}") from None
    if not all(0 < number < math.inf for number in numbers.values()):
        raise InputError(f"{path}: {row['case_id']}: expected positive numbers in {', '.join(numbers)}, found {row}")
    spacing = tuple(numbers[f"spacing_{axis}_mm"] for axis in "xyz")
    return Case(row["case_id"], row["split"], numbers["n_slices"], spacing)


def part_layout(meta: Meta, part: str, *, maps: str | None = None, convention: str | None = None) -> Layout:
    """What ``part`` ("train" or "val") consists of.

    ``maps`` is "phi2d", "phi3d", one of the region-wise kinds ("rrw", "boundary", "ac", "cao"), or None. Signed
    distances of another ``convention`` than the stored ones are computed from the labels.
    """
    cases = tuple(case for case in meta.cases if case.split == part)
    names = tuple(f"{case.case_id}_{z:04d}" for case in cases for z in range(case.n_slices))
    if not names:
        raise InputError(f"{meta.root / 'cases.csv'}: expected cases for {part}, found none")
    grid = (meta.size, meta.size)
    stored = {"image": ((len(meta.modalities), *grid), np.dtype(np.float16)), "label": (grid, np.dtype(np.uint8))}
    if maps in ("phi2d", "phi3d") and convention in (None, meta.convention):
        stored[maps] = ((len(meta.class_names), *grid), np.dtype(np.float16))
    return Layout(meta.root / part, cases, names, stored, maps, convention, len(meta.class_names))


def load_slices(meta: Meta, part: str, *, maps: str | None = None, convention: str | None = None) -> Slices:
    """Read all slices of a part into memory; arguments as ``part_layout`` takes them.

    ``InputError`` names a slice that is missing, damaged, of another dtype or shape, or not finite.
    """
    layout = part_layout(meta, part, maps=maps, convention=convention)
    arrays = {kind: np.empty((len(layout.names), *shape), dtype) for kind, (shape, dtype) in layout.stored.items()}
    for index in progress(range(len(layout.names)), desc=f"reading {part}", unit="slice", leave=False):
        for kind, array in arrays.items():
            read_slice(layout, kind, index, array[index])
    if layout.computed:
        shape, dtype = layout.computed
        arrays[maps] = np.empty((len(layout.names), *shape), dtype)
        for case, at in progress(list(layout.case_ranges()), desc="distance maps", unit="case", leave=False):
            compute_maps(layout, case, arrays["label"][at], out=arrays[maps][at])
    tensors = {kind: torch.from_numpy(array) for kind, array in arrays.items()}
    return Slices(tensors["image"], tensors["label"], tensors.get(maps), layout.spacing(), layout)


def epoch_order(count: int, *, seed: int, epoch: int) -> Tensor:
    """The order of the slices (N,) in one epoch; a function of seed and epoch alone, so that a resumed run keeps it."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)


def prefetched(fetch: Callable[[Tensor], Batch], parts: Sequence[Tensor], ahead: int = 4) -> Iterator[Batch]:
    """``fetch`` of each part in their order, at most ``ahead`` of them done or under way in threads."""
    pending: deque = deque()
    with ThreadPoolExecutor(ahead // 2) as pool:
        try:
            for part in parts:
                pending.append(pool.submit(fetch, part))
                if len(pending) == ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def batches(slices: Slices, order: Tensor, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """The batches of one epoch on ``device``; the last one may be smaller."""
    # Splitting nothing would give one empty batch.
    if len(order):
        for batch in slices.read(order.split(batch_size), device):
            yield batch.to(device).prepared()
