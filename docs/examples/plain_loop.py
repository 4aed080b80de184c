"""Boundary loss and generalised Dice in a plain loop: python docs/examples/plain_loop.py figure.png"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import torch

from boundary_loss import Boundary, GeneralizedDice, Rebalance, distance_maps, dsc

EPOCHS, SPACING = 30, (0.8, 0.8)                                        # mm per pixel


def make_images(count: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images (B, 1, 48, 48) of a small disc each, and their labels (B, 48, 48)."""
    y, x = np.mgrid[:48, :48]
    centres, radii = rng.uniform(12, 36, (count, 2)), rng.uniform(2, 5, count)
    label = np.stack([np.hypot(y - cy, x - cx) <= r for (cy, cx), r in zip(centres, radii, strict=True)])
    image = label + rng.normal(0, 0.4, label.shape)
    return torch.from_numpy(image[:, None]).float(), torch.from_numpy(label).long()


def main(picture: str) -> float:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    image, label = make_images(16, rng)                                 # (B, 1, H, W), (B, H, W)
    phi = distance_maps(label, num_classes=2, spacing=SPACING)          # (B, K, H, W) in mm, made once
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 5, padding=2), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 2, 1),
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    region, contour = GeneralizedDice(), Boundary()
    schedule = Rebalance(start=0.01, step=1 / EPOCHS)
    curve = []
    for epoch in range(EPOCHS):
        region_weight, contour_weight = schedule.weights(epoch)
        logits = network(image)                                         # (B, K, H, W), before the softmax
        terms = region(logits, label), contour(logits, phi)
        optimiser.zero_grad()
        (region_weight * terms[0] + contour_weight * terms[1]).backward()
        optimiser.step()
        curve.append([term.item() for term in terms])
    new_image, new_label = make_images(4, rng)
    with torch.no_grad():
        prediction = network(new_image).argmax(1)                       # (B, H, W)
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    axes[0].plot(curve, label=["generalised Dice", "boundary (mm)"])
    axes[0].set(xlabel="epoch", title="losses in training")
    axes[0].legend(frameon=False)
    for axis, mask, title in zip(axes[1:], (new_label, prediction), ("reference", "prediction"), strict=True):
        axis.imshow(new_image[0, 0], cmap="gray")
        axis.contour(mask[0], [0.5], colors="C1")
        axis.set(title=title, xticks=[], yticks=[])
    figure.savefig(picture, dpi=120)
    return dsc(prediction.flatten(0, 1), new_label.flatten(0, 1))


if __name__ == "__main__":
    print(f"DSC on new images: {main(sys.argv[1]):.3f}")
