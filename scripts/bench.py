"""Speed and memory of slicing and of everything in training but the network, against plain baselines of the same run.

Absolute times depend on the machine; the ratios, measured in one process one after the other, are what to compare.
"""
import argparse
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import nn

import networks
import preprocess
from boundary_loss.losses import Boundary, GeneralizedDice
from environment.cores import core_count
from environment.provenance import package_version, processor
from sliced_data.meta import read_meta
from sliced_data.slices import SlicedCase
from training.settings import PAPER
from training.trainer import Trainer
from utils import progress

ROOT = Path(__file__).resolve().parent.parent


Clock = Callable[[], float]


def processor_clock() -> float:
    """Processor seconds of this process, its threads, and the processes that it has waited for."""
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


class PixelNetwork(nn.Module):
    """One 1x1 convolution: a network that costs next to nothing, so that the rest of a step can be timed."""

    def __init__(self, in_channels: int, num_classes: int, *, width: int = 1):
        super().__init__()
        self.head = nn.Conv2d(in_channels, num_classes, kernel_size=1)

    def forward(self, image):
        return self.head(image)


def make_raw(root: Path, cases: int, slices: int) -> Path:
    """Phantom scans in the WMH layout."""
    subprocess.run(
        [
            sys.executable,
            ROOT / "scripts" / "phantom.py",
            "wmh",
            "--out",
            root / "raw",
            "--cases",
            str(cases),
            "--slices",
            str(slices),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return root / "raw"


def make_data(root: Path, cases: int, slices: int) -> tuple[Path, float]:
    """Phantom scans in the WMH layout, sliced at 256 x 256; returns the folder and seconds per slice of slicing."""
    raw = make_raw(root, cases, slices)
    start = time.perf_counter()
    preprocess.main(["wmh", "--source", str(raw), "--dest", str(root / "data"), "--val", "1"])
    return root / "data", (time.perf_counter() - start) / (cases * slices)


def scipy_map(mask: np.ndarray, spacing) -> np.ndarray:
    if not mask.any() or mask.all():
        return np.zeros(mask.shape, np.float32)
    outside, inside = (ndimage.distance_transform_edt(m, sampling=spacing) for m in (~mask, mask))
    return (outside - inside).astype(np.float32)


class PlainDataset(torch.utils.data.Dataset):
    """The baseline's samples: one file a sample, SciPy's map at every access."""

    def __init__(self, folder: Path):
        self.names = sorted(path.name for path in (folder / "image").iterdir())
        self.folder = folder

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int):
        image, label = (np.load(self.folder / kind / self.names[index]) for kind in ("image", "label"))
        phi = np.stack([scipy_map(label == k, (1.0, 1.0)) for k in (0, 1)])
        return torch.from_numpy(image).float(), torch.from_numpy(label).long(), torch.from_numpy(phi)


def plain_epoch(folder: Path, batch_size: int, *, clock: Clock = time.perf_counter) -> float:
    """Seconds per slice of a plain epoch: DataLoader workers, online maps, metrics of each batch on the CPU."""
    loader = torch.utils.data.DataLoader(PlainDataset(folder), batch_size, shuffle=True, num_workers=core_count())
    network = PixelNetwork(2, 2)
    optimiser = torch.optim.Adam(network.parameters())
    region, contour = GeneralizedDice(), Boundary()
    start, scores = clock(), []
    for image, label, phi in loader:
        logits = network(image)
        loss = 0.99 * region(logits, label) + 0.01 * contour(logits, phi)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        prediction, reference = logits.argmax(1).numpy(), label.numpy()
        for p, r in zip(prediction == 1, reference == 1, strict=True):
            scores.append((loss.item(), 2 * (p & r).sum() / max(1, p.sum() + r.sum())))
    return (clock() - start) / len(loader.dataset)


def our_epoch(data: Path, batch_size: int, *, clock: Clock = time.perf_counter) -> tuple[float, float]:
    """Seconds per slice of our training epoch and of our validation, with the same network."""
    networks.NETWORKS["pixel"] = PixelNetwork
    settings = replace(PAPER, contour="boundary", network="pixel", batch_size=batch_size, precision="fp32")
    trainer = Trainer(settings, read_meta(data), torch.device("cpu"))
    with progress(total=0, leave=False) as bar:
        trainer.train_epoch(0, bar)
        trainer.new_epoch()
        start = clock()
        weights = trainer.train_epoch(1, bar)["region_weight"]
        trained = clock()
        trainer.validate((weights, 1 - weights))
    return (trained - start) / len(trainer.train), (clock() - trained) / len(trainer.val)


def memory(data: Path) -> tuple[float, float]:
    """Peak memory in GiB that loading the slices adds in a fresh process, and the size of what it then holds."""
    # Not ru_maxrss, which a process inherits from the one that started it.
    code = (
        "import sys; from pathlib import Path\n"
        "from dataloader import load_slices; from sliced_data.meta import read_meta\n"
        "def status(name):\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024\n"
        "before = status('VmRSS')\n"
        "s = load_slices(read_meta(Path(sys.argv[1])), 'train', maps='phi2d')\n"
        "size = sum(t.numel() * t.element_size() for t in (s.image, s.label, s.maps, s.spacing))\n"
        "print(status('VmHWM') - before, size)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(data)], check=True, capture_output=True, text=True)
    peak, size = map(float, out.stdout.split())
    return peak / 2**30, size / 2**30


def read_labels(data: Path, case: SlicedCase) -> np.ndarray:
    """The label (X, Y, Z) of a case, from its slices."""
    files = sorted((data / case.split / "label").glob(f"{case.case_id}_*.npy"))
    return np.stack([np.load(path) for path in files], axis=-1)


def scipy_slicing(data: Path, *, clock: Clock = time.perf_counter) -> float:
    """Seconds per slice of SciPy's 2D and 3D maps alone, on the same labels, in one process."""
    case = read_meta(data).cases[0]
    label = read_labels(data, case)
    start = clock()
    for k in (0, 1):
        scipy_map(label == k, case.spacing)
        for z in range(label.shape[2]):
            scipy_map(label[..., z] == k, case.spacing[:2])
    return (clock() - start) / label.shape[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=4, help="phantom scans")
    parser.add_argument("--slices", type=int, default=48, help="slices per scan")
    parser.add_argument("--batch-size", type=int, default=8, help="slices per step")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, slicing = make_data(Path(folder), args.cases, args.slices)
        maps = scipy_slicing(data)
        trained, validated = our_epoch(data, args.batch_size)
        plain = plain_epoch(data / "train", args.batch_size)
        peak, size = memory(data)
        on_disk = sum(path.stat().st_size for path in data.rglob("*.npy")) / (args.cases * args.slices) / 1e6
    print(f"{processor()}, {core_count()} cores, {platform.system()}, torch {package_version('torch')}")
    print(f"WMH phantom, {args.cases} x {args.slices} slices of 256 x 256, batch {args.batch_size}\n")
    rows = [
        ("slicing with both maps, ms per slice", slicing * 1e3, "SciPy's maps alone, one process", maps * 1e3),
        ("training outside the network, ms per slice and epoch", trained * 1e3, "files, online maps", plain * 1e3),
        ("peak memory of loading, MiB", peak * 1024, "resident set", size * 1024),
    ]
    print("| what | ours | beside it | beside it / ours |\n| --- | --- | --- | --- |")
    for what, ours, name, baseline in rows:
        print(f"| {what} | {ours:.2f} | {name}: {baseline:.2f} | {baseline / ours:.2f} |")
    print(f"| validation outside the network with 3D HD95, ms per slice | {validated * 1e3:.2f} | | |")
    print(f"| image, label and both maps on the disk, MB per slice | {on_disk:.2f} | | |")


if __name__ == "__main__":
    main()
