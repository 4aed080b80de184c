import pytest
import torch

from networks import UNet


@pytest.mark.parametrize(
    ("channels", "classes", "expected"), [(2, 2, 18_703_127), (5, 2, 18_704_855), (1, 4, 18_702_681)]
)
def test_parameter_counts_of_the_reference(channels, classes, expected):
    assert sum(p.numel() for p in UNet(channels, classes).parameters()) == expected


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
    count = sum(p.numel() for p in UNet(3, 4, width=width).parameters())
    assert count == parameters_by_hand(3, 4, width)


def test_logits_have_the_image_size_and_depend_on_far_pixels():
    torch.manual_seed(0)
    network = UNet(1, 2, width=4).eval()
    image = torch.rand(1, 1, 48, 32, requires_grad=True)
    logits = network(image)
    assert logits.shape == (1, 2, 48, 32)
    logits[0, 1, 24, 16].backward()
    reached = image.grad[0, 0].abs() > 0
    assert reached[0, 16] and reached[47, 16]  # the bridge sees the whole image


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"multiples of 8, got \(36, 32\)"):
        UNet(1, 2, width=4)(torch.zeros(1, 1, 36, 32))
    with pytest.raises(ValueError, match="at least 1"):
        UNet(1, 2, width=0)


def test_initialisation_is_that_of_the_authors():
    torch.manual_seed(0)
    network = UNet(2, 2)
    norms = torch.cat([m.weight.detach() for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert abs(float(norms.mean()) - 1) < 0.005 and abs(float(norms.std()) - 0.02) < 0.002
    convolution = network.bridge.out[0].weight.detach()  # Xavier: variance 2 / (fan in + fan out)
    assert float(convolution.var()) == pytest.approx(2 / (9 * 512 + 9 * 512), rel=0.02)
