"""A lesion and its core, classes that overlap: python docs/examples/overlapping_classes.py figure.png"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import torch

from boundary_loss import Boundary, Dice, distance_maps, dsc

SPACING, STEPS = (1.0, 1.0), 40                                         # mm


def make_images(count: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images (B, 1, 48, 48), and their one-hot labels (B, 2, 48, 48): lesion, and the core inside it."""
    y, x = np.mgrid[:48, :48]
    masks = []
    for (cy, cx), radius in zip(rng.uniform(14, 34, (count, 2)), rng.uniform(5, 10, count), strict=True):
        distance = np.hypot(y - cy, x - cx)
        masks.append([distance <= radius, distance <= radius / 2])
    label = np.array(masks)                                             # (B, 2, H, W)
    image = label.sum(axis=1) + rng.normal(0, 0.4, (count, 48, 48))
    return torch.from_numpy(image[:, None]).float(), torch.from_numpy(label)


def main(picture: str) -> list[float]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    image, label = make_images(16, rng)
    # Each channel is a mask against the rest: its map is that of a label of two classes.
    maps = [distance_maps(label[:, k].long(), num_classes=2, spacing=SPACING)[:, 1] for k in range(2)]
    phi = torch.stack(maps, dim=1)                                      # (B, 2, H, W) in mm
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 5, padding=2), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 2, 1),
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    region, contour = Dice(activation="sigmoid"), Boundary(activation="sigmoid")
    for step in range(STEPS):
        logits = network(image)                                         # (B, 2, H, W), before the sigmoid
        loss = region(logits, label) + 0.1 * step / STEPS * contour(logits, phi)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    new_image, new_label = make_images(4, rng)
    with torch.no_grad():
        prediction = network(new_image) > 0                             # (B, 2, H, W)
    figure, axes = plt.subplots(1, 2, figsize=(6.6, 3.4), layout="constrained")
    for axis, masks, title in zip(axes, (new_label, prediction), ("reference", "prediction"), strict=True):
        axis.imshow(new_image[0, 0], cmap="gray")
        for k, colour in enumerate(("C1", "C0")):
            axis.contour(masks[0, k], [0.5], colors=colour)
        axis.set(title=f"{title}: lesion, core", xticks=[], yticks=[])
    figure.savefig(picture, dpi=120)
    return [dsc(prediction[:, k].flatten(0, 1), new_label[:, k].flatten(0, 1)) for k in range(2)]


if __name__ == "__main__":
    print("DSC of lesion and core on new images: {:.3f}, {:.3f}".format(*main(sys.argv[1])))
