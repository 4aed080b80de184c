"""Sliced data set -> batches, wherever the slices are kept: on the device, on the host, or on the disk."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from environment.memory import available_memory, free_memory
from sliced_data.maps import compute_maps
from sliced_data.meta import PARTS, Meta, part_files
from sliced_data.slices import PartFiles, SlicedCase, read_slice
from utils import InputError, progress

CHECK_SLICES = 8        # slices in memory at once while all files are read through


@dataclass(frozen=True)
class Batch:
    """Slices of one step, on one device: as they are stored, or ``prepared`` for the network and the losses."""

    image: Tensor       # (B, C, H, W) as normalised, float16, then float32
    label: Tensor       # (B, H, W) uint8, then int64
    maps: Tensor | None  # (B, K, H, W) float16 or float32, then float32
    spacing: Tensor     # (B, 2) float32, mm or px

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(*(t if t is None else change(t) for t in (self.image, self.label, self.maps, self.spacing)))

    def to(self, device: torch.device) -> "Batch":
        """On ``device``; pinned memory is copied while the host continues."""
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

    files: PartFiles

    @property
    def names(self) -> tuple[str, ...]:
        return self.files.names

    @property
    def cases(self) -> tuple[SlicedCase, ...]:
        return self.files.cases

    def case_ranges(self) -> Iterator[tuple[SlicedCase, slice]]:
        return self.files.case_ranges()

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Slices(Part):
    """All slices of one part (train or val) in contiguous tensors, in the order of the cases and their slices."""

    image: Tensor       # (N, C, H, W) float16
    label: Tensor       # (N, H, W) uint8
    maps: Tensor | None  # (N, K, H, W): signed distances in mm (float16), or a region-wise map (float32)
    spacing: Tensor     # (N, 2) float32, mm or px
    files: PartFiles

    def to(self, device: torch.device) -> "Slices":
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
            # One copy of the whole order, not one per step.
            parts = torch.cat(parts).to(device).split(len(parts[0]))
        return map(self.take, parts)


def load_slices(meta: Meta, part: str, *, maps: str | None = None, convention: str | None = None) -> Slices:
    """Read all slices of a part into memory; arguments as ``part_files`` takes them.

    ``InputError`` names a slice that is missing, damaged, of another dtype or shape, or not finite.
    """
    files = part_files(meta, part, maps=maps, convention=convention)
    arrays = {kind: np.empty((len(files.names), *shape), dtype) for kind, (shape, dtype) in files.stored.items()}
    for index in progress(range(len(files.names)), desc=f"reading {part}", unit="slice", leave=False):
        for kind, array in arrays.items():
            read_slice(files, kind, index, array[index])
    if files.computed:
        shape, dtype = files.computed
        arrays[maps] = np.empty((len(files.names), *shape), dtype)
        for case, at in progress(list(files.case_ranges()), desc="distance maps", unit="case", leave=False):
            compute_maps(files, case, arrays["label"][at], out=arrays[maps][at])
    tensors = {kind: torch.from_numpy(array) for kind, array in arrays.items()}
    return Slices(tensors["image"], tensors["label"], tensors.get(maps), torch.from_numpy(files.spacing()), files)


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


@dataclass(frozen=True)
class StreamedSlices(Part):
    """Slices of one part that stay on the disk; the same batches in the same order as ``Slices`` gives."""

    files: PartFiles
    spacing: Tensor         # (N, 2) float32, mm or px
    label: Tensor | None    # (N, H, W) uint8, of the validation part alone: its 3D metrics need it whole
    owners: tuple[SlicedCase, ...]    # the case of each slice

    def read(self, parts: Sequence[Tensor], device: torch.device) -> Iterator[Batch]:
        """One batch a part (B,) of an order, read ahead by threads."""
        return prefetched(lambda index: self.take(index, pin=device.type == "cuda"), parts)

    def take(self, index: Tensor, *, pin: bool = False) -> Batch:
        """The slices of ``index`` (B,) as they are stored; ``InputError`` names one that is damaged."""
        files, places = self.files, index.tolist()
        arrays = dict(files.stored)
        if files.computed:
            arrays[files.maps] = files.computed
        tensors = {
            kind: torch.empty((len(places), *shape), dtype=torch_dtype(dtype), pin_memory=pin)
            for kind, (shape, dtype) in arrays.items()
        }
        for kind in files.stored:
            out = tensors[kind].numpy()
            for row, place in enumerate(places):
                read_slice(files, kind, place, out[row])
        if files.computed:
            label, out = tensors["label"].numpy(), tensors[files.maps].numpy()
            for row, place in enumerate(places):
                one = slice(row, row + 1)
                compute_maps(files, self.owners[place], label[one], out=out[one])
        spacing = self.spacing[index]
        spacing = spacing.pin_memory() if pin else spacing
        return Batch(tensors["image"], tensors["label"], tensors.get(files.maps), spacing)


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def open_slices(meta: Meta, part: str, *, maps: str | None, convention: str | None) -> StreamedSlices:
    """The part as it lies on the disk, after every file was read once: ``InputError`` names a damaged one."""
    files = part_files(meta, part, maps=maps, convention=convention)
    if files.needs_volumes and maps != "phi3d":
        raise InputError(
            f"--resident stream: expected --maps 2d, found the region-wise map {maps}, which is made of whole volumes "
            "in memory"
        )
    if files.needs_volumes:
        raise InputError(
            f"--resident stream: expected {maps} of the convention {files.convention} in {meta.root}, found "
            f"{meta.convention}; slice again with preprocess.py --distance-map {files.convention}"
        )
    owners = tuple(case for case in files.cases for _ in range(case.n_slices))
    shape, dtype = files.stored["label"]
    label = torch.empty((len(files.names), *shape), dtype=torch_dtype(dtype)) if part == "val" else None
    spacing = torch.from_numpy(files.spacing())
    # Without the maps that are computed: they cannot be damaged.
    stored = StreamedSlices(replace(files, maps=None) if files.computed else files, spacing, None, owners)
    parts = torch.arange(len(stored)).split(CHECK_SLICES)
    found = stored.read(parts, torch.device("cpu"))
    with progress(total=len(stored), desc=f"checking {part}", unit="slice", leave=False) as bar:
        for places, batch in zip(parts, found, strict=True):
            if label is not None:
                label[places] = batch.label
            bar.update(len(places))
    return StreamedSlices(files, spacing, label, owners)


def choose_residence(size: int, device: torch.device) -> str:
    """Where ``size`` bytes of slices go: the device or else the host if they fill at most half of its free memory."""
    if device.type == "cuda" and size <= free_memory(device) / 2:
        return "device"
    return "host" if size <= available_memory() / 2 else "stream"


def open_parts(
    meta: Meta, parts: Sequence[str] = PARTS, *, maps: str | None = None, convention: str | None = None,
    resident: str = "auto", device: torch.device,
) -> tuple[Slices, ...] | tuple[StreamedSlices, ...]:
    """The slices of ``parts`` (train and val), kept where ``resident`` (auto, device, host or stream) says."""
    wanted = {"maps": maps, "convention": convention}
    # All, before the first is read: one may have no cases.
    size = sum(part_files(meta, part, **wanted).nbytes for part in parts)
    if resident == "auto":
        resident = choose_residence(size, device)
    if resident == "stream":
        return tuple(open_slices(meta, part, **wanted) for part in parts)
    loaded = (load_slices(meta, part, **wanted) for part in parts)
    return tuple(slices.to(device) if resident == "device" else slices for slices in loaded)
