"""3D patches with maps of whole volumes, cropped with them: python docs/examples/patches_3d.py figure.png"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import torch

from boundary_loss import Boundary, DiceCrossEntropy, distance_maps, dsc

PATCH, SPACING, STEPS = (24, 24, 8), (1.0, 1.0, 3.0), 60                # voxels, mm


def make_volume(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A noisy volume (1, 40, 40, 12) with three balls, and its label (40, 40, 12)."""
    grid = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip((40, 40, 12), SPACING, strict=True)), indexing="ij"))
    label = np.zeros(grid.shape[1:], dtype=np.int64)
    for centre, radius in zip(rng.uniform(8, 30, (3, 3)), rng.uniform(4, 7, 3), strict=True):
        label[np.linalg.norm(grid - centre[:, None, None, None], axis=0) <= radius] = 1
    image = label + rng.normal(0, 0.4, label.shape)
    return torch.from_numpy(image[None]).float(), torch.from_numpy(label)


def main(picture: str) -> float:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(4):
        image, label = make_volume(rng)
        phi = distance_maps(label[None], num_classes=2, spacing=SPACING)[0]     # (K, X, Y, Z) in mm, once per case
        cases.append(torch.cat([image, label[None], phi]))                      # (1 + 1 + K, X, Y, Z): cropped as one
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 12, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv3d(12, 2, 1))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    region, contour = DiceCrossEntropy(), Boundary()
    for step in range(STEPS):
        patches = []
        for case in rng.integers(0, len(cases), 2):
            x, y, z = rng.integers(0, np.array(cases[case].shape[1:]) - PATCH + 1)
            patches.append(cases[case][:, x : x + PATCH[0], y : y + PATCH[1], z : z + PATCH[2]])
        batch = torch.stack(patches)                                            # (B, 1 + 1 + K, *PATCH)
        image, label, phi = batch[:, :1], batch[:, 1].long(), batch[:, 2:]
        logits = network(image)                                                 # (B, K, *PATCH)
        loss = region(logits, label) + 0.5 * step / STEPS * contour(logits, phi)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    new_image, new_label = make_volume(rng)
    with torch.no_grad():
        prediction = network(new_image[None]).argmax(1)[0]                      # (X, Y, Z)
    figure, axes = plt.subplots(1, 2, figsize=(6.6, 3.4), layout="constrained")
    for axis, mask, title in zip(axes, (new_label, prediction), ("reference", "prediction"), strict=True):
        axis.imshow(new_image[0, ..., 6], cmap="gray")
        axis.contour(mask[..., 6], [0.5], colors="C1")
        axis.set(title=f"{title}, slice 6", xticks=[], yticks=[])
    figure.savefig(picture, dpi=120)
    return dsc(prediction, new_label)


if __name__ == "__main__":
    print(f"DSC of a new volume: {main(sys.argv[1]):.3f}")
