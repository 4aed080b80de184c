"""Boundary loss in MONAI, maps cached: python docs/examples/monai_pipeline.py figure.png"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.networks.nets import DynUNet
from monai.transforms import Compose, RandFlipd

from boundary_loss import Boundary, GeneralizedDice, Rebalance, dsc
from boundary_loss.integrations.monai import MonaiLoss, SignedDistanceMapd

EPOCHS, AFFINE = 20, torch.diag(torch.tensor([0.8, 1.2, 1.0, 1.0]))             # mm per pixel: 0.8 x 1.2


def make_items(count: int, rng: np.random.Generator) -> list[dict]:
    """Noisy images (1, 32, 32) of a small disc each, and their labels, with spacing in their metadata."""
    y, x = np.mgrid[:32, :32]
    discs = zip(*rng.uniform(8, 24, (2, count)), rng.uniform(2, 5, count), strict=True)
    labels = [torch.tensor(np.hypot(y - cy, x - cx) <= radius)[None] for cy, cx, radius in discs]
    images = [label + torch.tensor(rng.normal(0, 0.4, label.shape)) for label in labels]
    return [{"image": MetaTensor(image.float(), affine=AFFINE), "label": MetaTensor(label.long(), affine=AFFINE)}
            for image, label in zip(images, labels, strict=True)]


def main(picture: str) -> float:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    keys = ("image", "label", "label_phi")
    flips = [RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in (0, 1)]   # anew each time; the map is cached
    transforms = Compose([SignedDistanceMapd("label", num_classes=2), *flips]).set_random_state(0)
    loader = DataLoader(CacheDataset(make_items(32, rng), transforms, progress=False), batch_size=8, shuffle=True)
    network = DynUNet(2, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[8, 16, 32, 32], deep_supervision=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    region, contour = MonaiLoss(GeneralizedDice()), MonaiLoss(Boundary())
    for epoch in range(EPOCHS):
        region_weight, contour_weight = Rebalance(start=0.01, step=1 / EPOCHS).weights(epoch)
        for batch in loader:
            logits = network(batch["image"])                                    # (B, heads, K, H, W)
            terms = region(logits, batch["label"]), contour(logits, batch["label_phi"])
            optimiser.zero_grad()
            (region_weight * terms[0] + contour_weight * terms[1]).backward()
            optimiser.step()
    new = make_items(4, rng)
    image, label = (torch.stack([item[key].as_tensor() for item in new]) for key in keys[:2])
    with torch.no_grad():
        prediction = network.eval()(image).argmax(1)                            # (B, H, W)
    figure, axes = plt.subplots(1, 2, figsize=(6.6, 3.4), layout="constrained")
    for axis, mask, title in zip(axes, (label[0, 0], prediction[0]), ("reference", "prediction"), strict=True):
        axis.imshow(image[0, 0], cmap="gray")
        axis.contour(mask, [0.5], colors="C1")
        axis.set(title=title, xticks=[], yticks=[])
    figure.savefig(picture, dpi=120)
    return dsc(prediction.flatten(0, 1), label[:, 0].flatten(0, 1))


if __name__ == "__main__":
    print(f"DSC on new images: {main(sys.argv[1]):.3f}")
