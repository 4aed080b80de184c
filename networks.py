"""Networks; every one maps images (B, C, H, W) to logits (B, K, H, W)."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils import InputError, refuse_damage


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


class Network(nn.Module):
    """What maps images (B, C, H, W) to logits (B, K, H, W); H and W are multiples of ``size_multiple``."""

    size_multiple = 1

    def check_size(self, image: Tensor) -> None:
        if image.shape[-1] % self.size_multiple or image.shape[-2] % self.size_multiple:
            size, name = tuple(image.shape[-2:]), type(self).__name__
            raise ValueError(f"{name}: expected H and W to be multiples of {self.size_multiple}, got {size}")


class UNet(Network):
    """The network of the paper's experiments (Kervadec et al. 2021, 3.5), as its authors built it.

    ``width`` is the number of channels at full resolution; they double at each of three stride-2 steps.
    At width 64 with 2 channels in and 2 classes out it has 18,703,127 parameters.
    H and W must be multiples of 8: ``ValueError`` otherwise.
    """

    size_multiple = 8

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
        self.check_size(image)
        skips = []
        features = image                                # (B, C, H, W)
        for encoder in self.encoders:
            features = encoder(features)                # (B, w, H, W), (B, 2w, H/2, W/2), (B, 4w, H/4, W/4)
            skips.append(features)
        features = self.bridge(features)                # (B, 8w, H/8, W/8)
        for decoder, skip in zip(self.decoders, reversed(skips), strict=True):
            features = decoder(features, skip)          # back up to (B, w, H, W)
        return self.head(features)                      # (B, K, H, W)


def fill(parameter: Tensor, initialise: Callable[..., Tensor], **options: Any) -> None:
    """Draw the values of a parameter that has memory for them; on ``meta`` torch would import its compiler for nothing,
    at a second per command."""
    if not parameter.is_meta:
        initialise(parameter, **options)


def initialise(module: nn.Module) -> None:
    """Xavier-normal convolutions; batch norm weights N(1, 0.02), biases 0 (the authors' initialisation)."""
    if isinstance(module, nn.Conv2d):
        fill(module.weight, nn.init.xavier_normal_)
    elif isinstance(module, nn.BatchNorm2d):
        fill(module.weight, nn.init.normal_, mean=1.0, std=0.02)
        nn.init.zeros_(module.bias)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016); the parameters have torchvision's names."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Identity() if stride == 1 else nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(features)))
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual + self.downsample(features))


def residual_stage(in_channels: int, out_channels: int, *, blocks: int, stride: int = 2) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride=stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, stride=1) for _ in range(blocks - 1)))


class ResNet34(nn.Module):
    """ResNet-34 without its classifier (He et al. 2016), initialised as torchvision's.

    Returns the features of its five scales, the largest first.
    """

    def __init__(self, in_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = residual_stage(64, 64, blocks=3, stride=1)
        self.layer2 = residual_stage(64, 128, blocks=4)
        self.layer3 = residual_stage(128, 256, blocks=6)
        self.layer4 = residual_stage(256, 512, blocks=3)
        for module in self.modules():
            # segmentation_models_pytorch leaves torch's own initialisation where the images are not RGB.
            if isinstance(module, nn.Conv2d) and (module is not self.conv1 or in_channels == 3):
                fill(module.weight, nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> list[Tensor]:
        scales = [F.relu(self.bn1(self.conv1(image)))]                          # (B, 64, H/2, W/2)
        features = F.max_pool2d(scales[0], kernel_size=3, stride=2, padding=1)  # (B, 64, H/4, W/4)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = layer(features)
            scales.append(features)             # (B, 64, H/4, W/4), (B, 128, H/8, W/8), ..., (B, 512, H/32, W/32)
        return scales


class DecoderBlock(nn.Module):
    """Double the resolution, append the encoder's features of that size, two 3x3 convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = conv_relu(in_channels + skip_channels, out_channels)
        self.conv2 = conv_relu(out_channels, out_channels)

    def forward(self, features: Tensor, skip: Tensor | None) -> Tensor:
        features = F.interpolate(features, scale_factor=2, mode="nearest")
        if skip is not None:
            features = torch.cat((features, skip), dim=1)
        return self.conv2(self.conv1(features))


def conv_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 convolution without bias, batch norm, ReLU; Kaiming-uniform."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    fill(convolution.weight, nn.init.kaiming_uniform_, nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


class Decoder(nn.Module):
    """Five blocks from the features of a ``ResNet34`` up to 16 channels at the size of the image."""

    def __init__(self) -> None:
        super().__init__()
        channels = ((512, 256, 256), (256, 128, 128), (128, 64, 64), (64, 64, 32), (32, 0, 16))     # in, skip, out
        self.blocks = nn.ModuleList(DecoderBlock(*numbers) for numbers in channels)

    def forward(self, scales: list[Tensor]) -> Tensor:
        *skips, features = scales                       # (B, 512, H/32, W/32)
        for block, skip in zip(self.blocks, (*reversed(skips), None), strict=True):
            features = block(features, skip)            # (B, 256, H/16, W/16), ..., (B, 32, H/2, W/2), (B, 16, H, W)
        return features


class ResNet34UNet(Network):
    """UNet with a ResNet-34 as encoder, as segmentation_models_pytorch 0.6.0 builds ``Unet("resnet34")``.

    Its state dict has the names of that library; those below ``encoder`` are torchvision's. With 1 channel in and
    2 classes out it has 24,430,242 parameters. H and W must be multiples of 32: ``ValueError`` otherwise.
    """

    size_multiple = 32

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        if min(in_channels, num_classes) < 1:
            raise ValueError(f"ResNet34UNet: expected at least 1 channel and class, got {in_channels}, {num_classes}")
        self.encoder = ResNet34(in_channels)
        self.decoder = Decoder()
        head = nn.Conv2d(16, num_classes, kernel_size=3, padding=1)
        fill(head.weight, nn.init.xavier_uniform_)
        nn.init.zeros_(head.bias)
        self.segmentation_head = nn.Sequential(head)

    def forward(self, image: Tensor) -> Tensor:
        self.check_size(image)
        return self.segmentation_head(self.decoder(self.encoder(image)))        # (B, K, H, W)


def load_encoder_weights(network: nn.Module, path: Path) -> None:
    """Give the encoder of a ``ResNet34UNet`` the weights in a state dict of torchvision's ResNet-34, ``fc.*`` left out.

    The first convolution is fitted to the images as segmentation_models_pytorch does: summed over RGB for one
    channel; for other numbers RGB is repeated and scaled by 3 / channels. ``InputError``, with the network as it was,
    where the network is another one, or the file is missing, no state dict, or one with other names or shapes.
    """
    if not isinstance(network, ResNet34UNet):
        found = type(network).__name__
        raise InputError(f"{path}: expected the network resnet34-unet for these weights, found {found}")
    own = network.encoder.state_dict()
    weights = {name: value for name, value in read_state_dict(path).items() if not name.startswith("fc.")}
    check_weights(path, weights, {**own, "conv1.weight": torch.empty(64, 3, 7, 7)})
    rgb, channels = weights["conv1.weight"], network.encoder.conv1.in_channels
    if channels == 1:
        weights["conv1.weight"] = rgb.sum(dim=1, keepdim=True)
    else:
        weights["conv1.weight"] = rgb[:, torch.arange(channels) % 3] * (3 / channels)
    network.encoder.load_state_dict({**own, **weights})


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """Tensors by name, on the CPU; ``InputError`` where the file is missing or holds anything else."""
    if not path.is_file():
        raise InputError(f"{path}: expected a state dict, found {'a folder' if path.is_dir() else 'nothing'}")
    with refuse_damage(f"{path}: expected a state dict", in_words=False):
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping):
        raise InputError(f"{path}: expected a state dict, found {type(state).__name__}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{path}: expected a state dict, found {type(value).__name__} as its {name}")
    return state


def check_weights(path: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """``InputError`` where ``weights`` have other names or shapes than ``expected``, or NaN or infinity."""
    for name in expected:
        # Files made by old versions of torch lack these counts.
        if name not in weights and not name.endswith("num_batches_tracked"):
            raise InputError(f"{path}: expected the weights of torchvision's ResNet-34, found no {name}")
    for name, value in weights.items():
        if name not in expected:
            raise InputError(f"{path}: expected the weights of torchvision's ResNet-34, found also {name}")
        if value.shape != expected[name].shape:
            shapes = tuple(expected[name].shape), tuple(value.shape)
            raise InputError(f"{path}: expected {name} of shape {shapes[0]}, found {shapes[1]}")
        if not value.isfinite().all():
            raise InputError(f"{path}: expected finite weights, found NaN or infinity in {name}")


# The keyword arguments of a network are its settings.
NETWORKS: dict[str, type[Network]] = {"unet": UNet, "resnet34-unet": ResNet34UNet}


def network_settings(name: str) -> dict[str, int]:
    """The settings of a network and their defaults: ``{"width": 64}`` for ``unet``, none for ``resnet34-unet``."""
    parameters = inspect.signature(NETWORKS[name]).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def parameter_bytes(name: str, in_channels: int, num_classes: int, *, width: int | None = None) -> int:
    """Memory that the parameters of a network take, of which none is taken to know it."""
    with torch.device("meta"):
        network = build_network(name, in_channels, num_classes, width=width)
    return sum(parameter.nbytes for parameter in network.parameters())


def build_network(name: str, in_channels: int, num_classes: int, *, width: int | None = None) -> Network:
    """A network by its name; ``width`` None is the network's own.

    ``ValueError`` where a network without that setting is given one, or a number is below 1.
    """
    if width is None:
        return NETWORKS[name](in_channels, num_classes)
    if "width" not in network_settings(name):
        raise ValueError(f"{name}: expected no width, since its channels are fixed, found {width}")
    return NETWORKS[name](in_channels, num_classes, width=width)
