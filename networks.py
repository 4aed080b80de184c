"""Networks; every one maps images (B, C, H, W) to logits (B, K, H, W)."""

import torch
from torch import Tensor, nn


def conv_block(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
    """3x3 convolution without bias, batch norm, PReLU with one slope."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.PReLU(),
    )


def conv_pair(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(conv_block(in_channels, out_channels, stride=stride), conv_block(out_channels, out_channels))


class Bridge(nn.Module):
    """The bottom of the UNet: a stride-2 block, a residual pair, a block."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.down = conv_block(in_channels, out_channels, stride=2)
        self.residual = nn.Sequential(
            conv_block(out_channels, out_channels),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
            nn.BatchNorm2d(out_channels),
        )
        self.activation = nn.LeakyReLU(0.2)
        self.out = conv_block(out_channels, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        features = self.down(features)
        return self.out(self.activation(features + self.residual(features)))


class Up(nn.Module):
    """Double the resolution, refine, join the encoder's features of that size, refine down to ``out_channels``."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int):
        super().__init__()
        self.refine = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv_pair(in_channels, in_channels))
        self.merge = conv_pair(in_channels + skip_channels, out_channels)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        return self.merge(torch.cat((self.refine(features), skip), dim=1))


class UNet(nn.Module):
    """The network of the paper's experiments (Kervadec et al. 2021, 3.5), as its authors built it.

    ``width`` is the number of channels at full resolution; they double at each of three stride-2 steps.
    At width 64 with 2 channels in and 2 classes out it has 18,703,127 parameters.
    H and W must be multiples of 8: ``ValueError`` otherwise.
    """

    def __init__(self, in_channels: int, num_classes: int, *, width: int = 64):
        super().__init__()
        if min(in_channels, num_classes, width) < 1:
            raise ValueError(
                f"UNet: expected at least 1 channel, class and width, got {in_channels}, {num_classes}, {width}"
            )
        w = width
        self.encoders = nn.ModuleList([
            conv_pair(in_channels, w),
            conv_pair(w, 2 * w, stride=2),
            conv_pair(2 * w, 4 * w, stride=2),
        ])
        self.bridge = Bridge(4 * w, 8 * w)
        self.decoders = nn.ModuleList([Up(8 * w, 4 * w, 4 * w), Up(4 * w, 2 * w, 2 * w), Up(2 * w, w, w)])
        self.head = nn.Conv2d(w, num_classes, kernel_size=1)
        self.apply(initialise)

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[-1] % 8 or image.shape[-2] % 8:
            raise ValueError(f"UNet: expected H and W to be multiples of 8, got {tuple(image.shape[-2:])}")
        skips = []
        features = image                                # (B, C, H, W)
        for encoder in self.encoders:
            features = encoder(features)                # (B, w, H, W), (B, 2w, H/2, W/2), (B, 4w, H/4, W/4)
            skips.append(features)
        features = self.bridge(features)                # (B, 8w, H/8, W/8)
        for decoder, skip in zip(self.decoders, reversed(skips), strict=True):
            features = decoder(features, skip)          # back up to (B, w, H, W)
        return self.head(features)                      # (B, K, H, W)


def initialise(module: nn.Module) -> None:
    """Xavier-normal convolutions; batch norm weights N(1, 0.02), biases 0 (the authors' initialisation)."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, mean=1.0, std=0.02)
        nn.init.zeros_(module.bias)


NETWORKS = {"unet": UNet}
