"""Networks against counts, hand-written forward passes and segmentation_models_pytorch, where that is installed."""

import importlib
import importlib.util
import math
from collections import OrderedDict

import pytest
import torch
from torch.nn import functional as F

from networks import NETWORKS, ResNet34UNet, UNet, build_network, load_encoder_weights, network_settings
from utils import InputError


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("channels", "classes", "expected"), [(2, 2, 18_703_127), (5, 2, 18_704_855), (1, 4, 18_702_681)]
)
def test_parameter_counts_of_the_reference(channels, classes, expected):
    assert count_parameters(UNet(channels, classes)) == expected


def parameters_by_hand(c, k, w):
    """Count layer by layer from the description of the network."""

    def block(i, o):
        return 9 * i * o + 2 * o + 1  # convolution, batch norm, one PReLU slope

    encoder = (
        block(c, w) + block(w, w) + block(w, 2 * w) + block(2 * w, 2 * w) + block(2 * w, 4 * w) + block(4 * w, 4 * w)
    )
    residual = block(8 * w, 8 * w) + 9 * 64 * w * w + 8 * w + 16 * w
    bridge = block(4 * w, 8 * w) + residual + block(8 * w, 8 * w)
    decoder = sum(
        2 * block(i, i) + block(i + o, o) + block(o, o) for i, o in ((8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w))
    )
    return encoder + bridge + decoder + w * k + k


@pytest.mark.parametrize("width", [1, 5, 16])
def test_parameter_counts_at_any_width(width):
    assert count_parameters(UNet(3, 4, width=width)) == parameters_by_hand(3, 4, width)


@pytest.mark.parametrize("network", [UNet(1, 2, width=4), ResNet34UNet(1, 2)], ids=["unet", "resnet34-unet"])
def test_logits_have_the_image_size_and_depend_on_far_pixels(network):
    image = torch.rand(1, 1, 96, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    logits = network.eval()(image)
    assert logits.shape == (1, 2, 96, 64)
    logits[0, 1, 48, 32].backward()
    reached = image.grad[0, 0].abs() > 0
    assert reached[0, 32] and reached[95, 32]  # the lowest scale sees the whole image


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"multiples of 8, got \(36, 32\)"):
        UNet(1, 2, width=4)(torch.zeros(1, 1, 36, 32))
    with pytest.raises(ValueError, match="at least 1"):
        UNet(1, 2, width=0)
    with pytest.raises(ValueError, match=r"multiples of 32, got \(64, 72\)"):
        ResNet34UNet(1, 2)(torch.zeros(1, 1, 64, 72))
    with pytest.raises(ValueError, match="at least 1 channel and class, got 1, 0"):
        ResNet34UNet(1, 0)


@pytest.mark.parametrize("network", [UNet(1, 2, width=1), ResNet34UNet(1, 2)], ids=["unet", "resnet34-unet"])
def test_the_size_multiple_is_the_smallest_size_that_passes(network):
    step = network.size_multiple
    assert network.eval()(torch.zeros(1, 1, step, step)).shape == (1, 2, step, step)
    with pytest.raises(ValueError, match=f"multiples of {step}"):
        network(torch.zeros(1, 1, step // 2, step // 2))


def test_initialisation_is_that_of_the_authors():
    torch.manual_seed(0)
    network = UNet(2, 2)
    norms = torch.cat([m.weight.detach() for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert abs(float(norms.mean()) - 1) < 0.005 and abs(float(norms.std()) - 0.02) < 0.002
    convolution = network.bridge.out[0].weight.detach()  # Xavier: variance 2 / (fan in + fan out)
    assert float(convolution.var()) == pytest.approx(2 / (9 * 512 + 9 * 512), rel=0.02)


# The ResNet-34 UNet.


@pytest.mark.parametrize(
    ("channels", "classes", "expected"), [(3, 1, 24_436_369), (1, 1, 24_430_097), (1, 2, 24_430_242)]
)
def test_parameter_counts_of_segmentation_models_pytorch(channels, classes, expected):
    assert count_parameters(ResNet34UNet(channels, classes)) == expected


def normalise(state, name, features):
    mean, variance = features.mean(dim=(0, 2, 3), keepdim=True), features.var(dim=(0, 2, 3), correction=0, keepdim=True)
    weight, bias = (state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
    return (features - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def resnet34_unet_by_hand(state, image):
    """Logits in training mode, from the names of the weights and the description of the network."""

    def conv_norm(features, conv, norm, *, stride=1):
        weight = state[f"{conv}.weight"]
        return normalise(state, norm, F.conv2d(features, weight, stride=stride, padding=weight.shape[-1] // 2))

    features = conv_norm(image, "encoder.conv1", "encoder.bn1", stride=2).clamp(min=0)
    skips = [features]
    features = F.max_pool2d(features, 3, 2, 1)
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            name, stride = f"encoder.layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            branch = conv_norm(features, f"{name}.conv1", f"{name}.bn1", stride=stride).clamp(min=0)
            branch = conv_norm(branch, f"{name}.conv2", f"{name}.bn2")
            if stride == 2:
                features = conv_norm(features, f"{name}.downsample.0", f"{name}.downsample.1", stride=2)
            features = (features + branch).clamp(min=0)
        skips.append(features)
    for block, skip in enumerate((*skips[-2::-1], None)):
        features = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        features = features if skip is None else torch.cat((features, skip), dim=1)
        for conv in ("conv1", "conv2"):
            name = f"decoder.blocks.{block}.{conv}"
            features = conv_norm(features, f"{name}.0", f"{name}.1").clamp(min=0)
    return F.conv2d(features, state["segmentation_head.0.weight"], state["segmentation_head.0.bias"], padding=1)


def test_the_resnet_unet_is_its_description():
    torch.manual_seed(0)
    network = ResNet34UNet(2, 3).double()
    image = torch.randn(2, 2, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)  # batch norm and bias that are not neutral
        expected = resnet34_unet_by_hand(network.state_dict(), image)
        assert torch.allclose(network(image), expected, rtol=0, atol=1e-9)


def unet_by_hand(state, image):
    """Logits in training mode, from the names of the weights and the authors' description of the network."""

    def blocks(features, name, numbers="01", stride=1):
        for number in numbers:
            at = f"{name}.{number}" if number else name
            features = F.conv2d(features, state[f"{at}.0.weight"], stride=stride, padding=1)
            features, slope, stride = normalise(state, f"{at}.1", features), state[f"{at}.2.weight"], 1
            features = torch.where(features > 0, features, slope * features)
        return features

    skips = [blocks(image, "encoders.0")]
    for n in (1, 2):
        skips.append(blocks(skips[-1], f"encoders.{n}", stride=2))
    features = blocks(skips[-1], "bridge.down", [""], stride=2)
    branch, last = blocks(features, "bridge.residual", "0"), "bridge.residual.1"
    branch = F.conv2d(branch, state[f"{last}.weight"], state[f"{last}.bias"], padding=1)
    features = features + normalise(state, "bridge.residual.2", branch)
    features = blocks(torch.where(features > 0, features, 0.2 * features), "bridge.out", [""])
    for n in range(3):
        features = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        features = torch.cat((blocks(features, f"decoders.{n}.refine.1"), skips[2 - n]), dim=1)
        features = blocks(features, f"decoders.{n}.merge")
    return F.conv2d(features, state["head.weight"], state["head.bias"])


def test_the_unet_is_its_description():
    torch.manual_seed(0)
    network = UNet(2, 3, width=3).double()
    image = torch.randn(2, 2, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)  # batch norm, slopes and biases that are not neutral
        assert torch.allclose(network(image), unet_by_hand(network.state_dict(), image), rtol=0, atol=1e-9)


def test_every_weight_of_the_resnet_unet_gets_a_gradient():
    torch.manual_seed(0)
    network = ResNet34UNet(1, 2)
    network(torch.randn(2, 1, 64, 64)).square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


def test_initialisation_is_that_of_segmentation_models_pytorch():
    torch.manual_seed(0)
    state = ResNet34UNet(3, 2).state_dict()
    for name in ("encoder.conv1.weight", "encoder.layer3.1.conv2.weight", "encoder.layer4.0.downsample.0.weight"):
        outputs = state[name].shape[0] * state[name].shape[2] * state[name].shape[3]
        assert float(state[name].var()) == pytest.approx(2 / outputs, rel=0.05)  # Kaiming normal by fan out
        assert state[name].abs().max() > 3.3 * state[name].std()  # so it is not uniform
    for name in ("decoder.blocks.0.conv1.0.weight", "decoder.blocks.4.conv2.0.weight"):
        bound = math.sqrt(6 / state[name][0].numel())  # Kaiming uniform by fan in
        assert 0.99 * bound < state[name].abs().max() <= bound
    head = state["segmentation_head.0.weight"]
    bound = math.sqrt(6 / (9 * 16 + 9 * 2))  # Xavier uniform
    assert 0.98 * bound < head.abs().max() <= bound
    norms = [name.removesuffix(".running_mean") for name in state if name.endswith("running_mean")]
    assert len(norms) == 46
    assert all((state[f"{name}.weight"] == 1).all() and (state[f"{name}.bias"] == 0).all() for name in norms)
    assert (state["segmentation_head.0.bias"] == 0).all()


def test_the_first_convolution_of_other_than_rgb_has_the_initialisation_of_torch():
    torch.manual_seed(0)
    encoder = ResNet34UNet(1, 2).encoder
    weight = encoder.conv1.weight.detach()
    bound = 1 / math.sqrt(49)
    assert 0.99 * bound < weight.abs().max() <= bound
    assert float(encoder.layer3[1].conv2.weight.var()) == pytest.approx(2 / (256 * 9), rel=0.05)    # as beside RGB


def import_smp():
    """segmentation_models_pytorch, or a skipped test."""
    if not importlib.util.find_spec("segmentation_models_pytorch"):
        pytest.skip("segmentation_models_pytorch is not installed")
    try:
        return importlib.import_module("segmentation_models_pytorch")
    except RuntimeError:  # a CPU build of torch lacks operators that torchvision describes when it is imported
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module("segmentation_models_pytorch")


@pytest.mark.parametrize(("channels", "classes"), [(3, 1), (1, 2), (4, 4)])
def test_equal_to_segmentation_models_pytorch_at_every_scale(channels, classes):
    theirs = import_smp().Unet("resnet34", encoder_weights=None, in_channels=channels, classes=classes)
    ours = ResNet34UNet(channels, classes)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, channels, 64, 96, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        scales, expected = ours.train(training).encoder(image), theirs.train(training).encoder(image)[1:]
        assert all(torch.equal(one, other) for one, other in zip(scales, expected, strict=True))
        assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_encoder_weights_are_fitted_as_segmentation_models_pytorch_fits_them(tmp_path, channels):
    theirs = import_smp().Unet("resnet34", encoder_weights=None, in_channels=3).encoder
    weights = torchvision_weights()
    theirs.load_state_dict(dict(weights))
    theirs.set_in_channels(channels, pretrained=True)
    ours = load(ResNet34UNet(channels, 2), weights, tmp_path)
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.encoder.state_dict().items())


# Weights of the encoder, from a file.

STAGES = (("layer1", 3, 64, 64), ("layer2", 4, 64, 128), ("layer3", 6, 128, 256), ("layer4", 3, 256, 512))


def torchvision_shapes():
    """Names and shapes of torchvision's ResNet-34, written out: 36 convolutions with batch norm, a classifier."""
    shapes = {"conv1.weight": (64, 3, 7, 7), "bn1": 64}
    for stage, blocks, before, channels in STAGES:
        for block in range(blocks):
            inputs = before if block == 0 else channels
            shapes[f"{stage}.{block}.conv1.weight"] = (channels, inputs, 3, 3)
            shapes[f"{stage}.{block}.bn1"] = channels
            shapes[f"{stage}.{block}.conv2.weight"] = (channels, channels, 3, 3)
            shapes[f"{stage}.{block}.bn2"] = channels
            if inputs != channels:
                shapes[f"{stage}.{block}.downsample.0.weight"] = (channels, inputs, 1, 1)
                shapes[f"{stage}.{block}.downsample.1"] = channels
    return {**shapes, "fc.weight": (1000, 512), "fc.bias": (1000,)}


def torchvision_weights(seed=0):
    """A random state dict in torchvision's names."""
    generator = torch.Generator().manual_seed(seed)
    weights = OrderedDict()
    for name, shape in torchvision_shapes().items():
        if isinstance(shape, tuple):
            weights[name] = torch.randn(shape, generator=generator)
            continue
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{name}.{part}"] = torch.rand(shape, generator=generator) + 0.5
        weights[f"{name}.num_batches_tracked"] = torch.tensor(7)
    return weights


def load(network, weights, folder):
    path = folder / "resnet34.pth"
    torch.save(weights, path)
    load_encoder_weights(network, path)
    return network


def test_an_rgb_encoder_takes_every_weight_as_it_is(tmp_path):
    weights = torchvision_weights()
    network = ResNet34UNet(3, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    after = load(network, weights, tmp_path).state_dict()
    assert {f"encoder.{name}" for name in weights if not name.startswith("fc.")} == {
        name for name in after if name.startswith("encoder.")
    }
    for name, value in after.items():
        expected = weights[name.removeprefix("encoder.")] if name.startswith("encoder.") else before[name]
        assert torch.equal(value, expected), name


def test_one_channel_sums_rgb_and_other_numbers_repeat_it(tmp_path):
    rgb = torchvision_weights()["conv1.weight"]
    grey = load(ResNet34UNet(1, 2), torchvision_weights(), tmp_path).encoder.conv1.weight.detach()
    assert torch.allclose(grey[:, 0], rgb[:, 0] + rgb[:, 1] + rgb[:, 2])
    five = load(ResNet34UNet(5, 2), torchvision_weights(), tmp_path).encoder.conv1.weight.detach()
    red, green, blue = rgb.unbind(dim=1)
    assert torch.allclose(five, torch.stack((red, green, blue, red, green), dim=1) * 3 / 5)


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_equal_channels_answer_as_the_rgb_image_of_the_same_value(tmp_path, channels):
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    rgb, other = (load(ResNet34UNet(n, 2), torchvision_weights(), tmp_path).encoder.conv1 for n in (3, channels))
    expected, found = rgb(image.expand(-1, 3, -1, -1)), other(image.expand(-1, channels, -1, -1))
    assert torch.allclose(found, expected, atol=1e-4)


def test_weights_without_counts_of_batches_are_taken(tmp_path):
    weights = {name: value for name, value in torchvision_weights().items() if "num_batches" not in name}
    network = load(ResNet34UNet(1, 2), weights, tmp_path)
    assert torch.equal(network.encoder.bn1.running_mean, weights["bn1.running_mean"])


def without(name):
    return {key: value for key, value in torchvision_weights().items() if key != name}


BAD_WEIGHTS = {
    "missing": (lambda: without("layer3.5.bn2.running_var"), "found no layer3.5.bn2.running_var"),
    "unexpected": (
        lambda: {**torchvision_weights(), "layer1.0.conv3.weight": torch.ones(1)}, "found also layer1.0.conv3.weight"
    ),
    "other shape": (
        lambda: {**torchvision_weights(), "layer1.0.conv1.weight": torch.ones(64, 64, 1, 1)},
        "expected layer1.0.conv1.weight of shape (64, 64, 3, 3), found (64, 64, 1, 1)",
    ),
    "grey": (
        lambda: {**torchvision_weights(), "conv1.weight": torch.ones(64, 1, 7, 7)},
        "expected conv1.weight of shape (64, 3, 7, 7), found (64, 1, 7, 7)",
    ),
    "not finite": (
        lambda: {**torchvision_weights(), "bn1.bias": torch.full((64,), math.nan)}, "NaN or infinity in bn1.bias"
    ),
    "wrapped": (lambda: {"state_dict": torchvision_weights()}, "found OrderedDict as its state_dict"),
    "numbered": (lambda: {1: torch.ones(1)}, "found Tensor as its 1"),
    "a tensor": (lambda: torch.ones(3), "expected a state dict, found Tensor"),
    "a whole model": (lambda: torch.nn.Conv2d(1, 1, 1), "expected a state dict, found UnpicklingError"),
}


@pytest.mark.parametrize(("make", "expected"), BAD_WEIGHTS.values(), ids=list(BAD_WEIGHTS))
def test_wrong_weights_are_refused_and_change_nothing(tmp_path, make, expected):
    network = ResNet34UNet(1, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError) as error:
        load(network, make(), tmp_path)
    assert expected in str(error.value) and str(tmp_path / "resnet34.pth") in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    text = tmp_path / "weights.pth"
    text.write_text("<html>404</html>")
    for path, found in ((tmp_path / "none.pth", "found nothing"), (tmp_path, "found a folder"), (text, "found Unpick")):
        with pytest.raises(InputError, match=found):
            load_encoder_weights(ResNet34UNet(1, 2), path)
    with pytest.raises(InputError, match="expected the network resnet34-unet for these weights, found UNet"):
        load_encoder_weights(UNet(1, 2, width=1), text)


# The registry.


def test_networks_by_name_and_their_settings():
    assert {name: network_settings(name) for name in NETWORKS} == {"unet": {"width": 64}, "resnet34-unet": {}}
    assert count_parameters(build_network("unet", 2, 2)) == 18_703_127
    assert count_parameters(build_network("unet", 3, 4, width=5)) == parameters_by_hand(3, 4, 5)
    assert count_parameters(NETWORKS["unet"](3, 4, width=5)) == parameters_by_hand(3, 4, 5)
    assert count_parameters(build_network("resnet34-unet", 1, 2)) == 24_430_242
    with pytest.raises(ValueError, match="resnet34-unet: expected no width, since its channels are fixed, found 16"):
        build_network("resnet34-unet", 1, 2, width=16)
