"""Where a run keeps its slices: on the device, on the host, or on the disk, from which each batch is read anew."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dataloader import Batch, Meta, Part, Slices, load_slices, part_layout, prefetched
from hardware import available_memory, free_memory
from slicefiles import Case, Layout, compute_maps, read_slice
from utils import InputError, progress

RESIDENCES = ("auto", "device", "host", "stream")
CHECK_SLICES = 8        # slices in memory at once while all files are read through


@dataclass(frozen=True)
class StreamedSlices(Part):
    """Slices of one part that stay on the disk; the same batches in the same order as ``Slices`` gives."""

    layout: Layout
    spacing: Tensor         # (N, 2) float32, mm
    label: Tensor | None    # (N, H, W) uint8, of the validation part alone: its 3D metrics need it whole
    owners: tuple[Case, ...]    # the case of each slice

    def read(self, parts: Sequence[Tensor], device: torch.device) -> Iterator[Batch]:
        """One batch a part (B,) of an order, read ahead by threads."""
        return prefetched(lambda index: self.take(index, pin=device.type == "cuda"), parts)

    def take(self, index: Tensor, *, pin: bool = False) -> Batch:
        """The slices of ``index`` (B,) as they are stored; ``InputError`` names one that is damaged."""
        layout, places = self.layout, index.tolist()
        arrays = dict(layout.stored)
        if layout.computed:
            arrays[layout.maps] = layout.computed
        tensors = {
            kind: torch.empty((len(places), *shape), dtype=torch_dtype(dtype), pin_memory=pin)
            for kind, (shape, dtype) in arrays.items()
        }
        for kind in layout.stored:
            out = tensors[kind].numpy()
            for row, place in enumerate(places):
                read_slice(layout, kind, place, out[row])
        if layout.computed:
            label, out = tensors["label"].numpy(), tensors[layout.maps].numpy()
            for row, place in enumerate(places):
                one = slice(row, row + 1)
                compute_maps(layout, self.owners[place], label[one], out=out[one])
        spacing = self.spacing[index]
        spacing = spacing.pin_memory() if pin else spacing
        return Batch(tensors["image"], tensors["label"], tensors.get(layout.maps), spacing)


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def open_slices(meta: Meta, part: str, *, maps: str | None, convention: str | None) -> StreamedSlices:
    """The part as it lies on the disk, after every file was read once: ``InputError`` names a damaged one."""
    layout = part_layout(meta, part, maps=maps, convention=convention)
    if layout.computed and maps == "phi3d":
        raise InputError(
            f"--resident stream: expected {maps} of the convention {convention} in {meta.root}, found "
            f"{meta.convention}; slice again with preprocess.py --distance-map {convention}"
        )
    owners = tuple(case for case in layout.cases for _ in range(case.n_slices))
    shape, dtype = layout.stored["label"]
    label = torch.empty((len(layout.names), *shape), dtype=torch_dtype(dtype)) if part == "val" else None
    # Without the maps that are computed: they cannot be damaged.
    stored = StreamedSlices(replace(layout, maps=None) if layout.computed else layout, layout.spacing(), None, owners)
    parts = torch.arange(len(stored)).split(CHECK_SLICES)
    found = stored.read(parts, torch.device("cpu"))
    with progress(total=len(stored), desc=f"checking {part}", unit="slice", leave=False) as bar:
        for places, batch in zip(parts, found, strict=True):
            if label is not None:
                label[places] = batch.label
            bar.update(len(places))
    return StreamedSlices(layout, layout.spacing(), label, owners)


def choose_residence(size: int, device: torch.device) -> str:
    """Where ``size`` bytes of slices go: the device or else the host if they fill at most half of its free memory."""
    if device.type == "cuda" and size <= free_memory(device) / 2:
        return "device"
    return "host" if size <= available_memory() / 2 else "stream"


def open_parts(
    meta: Meta, *, maps: str | None, convention: str | None, resident: str, device: torch.device
) -> tuple[Slices, Slices] | tuple[StreamedSlices, StreamedSlices]:
    """Training and validation slices, kept where ``resident`` (one of RESIDENCES) says."""
    wanted = {"maps": maps, "convention": convention}
    # Both, before the first is read: one may have no cases.
    size = sum(part_layout(meta, part, **wanted).nbytes for part in ("train", "val"))
    if resident == "auto":
        resident = choose_residence(size, device)
    if resident == "stream":
        return tuple(open_slices(meta, part, **wanted) for part in ("train", "val"))
    parts = (load_slices(meta, part, **wanted) for part in ("train", "val"))
    return tuple(part.to(device, room=math.inf) if resident == "device" else part for part in parts)
