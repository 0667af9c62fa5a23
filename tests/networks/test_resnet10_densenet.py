"""ResNet-10 and DenseNet-121 against functional versions written from the specification, and by count."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from written_out import State, count, embedding, filled, normed

from dd import networks
from dd.errors import ConfigError
from dd.rng import stream

LAYERS = (6, 12, 24, 16)


def resnet10(x: Tensor, s: State, kind: str, training: bool) -> Tensor:
    h = normed(F.conv2d(x, s["blocks.0.0.weight"], padding=1), s, "blocks.0.1", kind, training).relu()
    for block, stride in enumerate((1, 2, 2, 2), start=1):
        p = f"blocks.{block}"
        r = normed(F.conv2d(h, s[f"{p}.conv1.weight"], stride=stride, padding=1), s, f"{p}.norm1", kind, training).relu()
        r = normed(F.conv2d(r, s[f"{p}.conv2.weight"], padding=1), s, f"{p}.norm2", kind, training)
        assert (f"{p}.shortcut.0.weight" in s) == (stride == 2)  # the first block keeps its shape: nothing on the shortcut
        if stride == 2:
            h = normed(F.conv2d(h, s[f"{p}.shortcut.0.weight"], stride=stride), s, f"{p}.shortcut.1", kind, training)
        h = (r + h).relu()
    return h.mean((2, 3)) @ s["head.weight"].T + s["head.bias"]


def densenet(x: Tensor, s: State, kind: str, training: bool, layers: tuple[int, ...]) -> Tensor:
    h = F.conv2d(x, s["blocks.0.weight"], padding=1)
    for block, length in enumerate(layers, start=1):
        for layer in range(length):
            p = f"blocks.{block}.{layer}"
            r = F.conv2d(normed(h, s, f"{p}.norm1", kind, training).relu(), s[f"{p}.conv1.weight"])
            r = F.conv2d(normed(r, s, f"{p}.norm2", kind, training).relu(), s[f"{p}.conv2.weight"], padding=1)
            h = torch.cat([h, r], 1)
        if block < 4:
            p = f"blocks.{block}.{length}"
            h = F.avg_pool2d(F.conv2d(normed(h, s, f"{p}.0", kind, training).relu(), s[f"{p}.2.weight"]), 2)
    return normed(h, s, "blocks.5.0", kind, training).relu().mean((2, 3)) @ s["head.weight"].T + s["head.bias"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "name", ["resnet10_bn_w8", "resnet10_in_w8", "densenet121_bn_w4_small", "densenet121_in_w4_small", "densenet121_bn_w2"]
)
def test_forward_equals_the_functional_version(name: str, training: bool) -> None:
    net = networks.build(name, 3, (16, 16), 5, 0, "t").double()
    g = stream(0, name, training)
    state = filled(net, g)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=g)
    kind = name.split("_")[1]
    layers = (2, 2, 2, 2) if name.endswith("small") else LAYERS
    expected = resnet10(x, state, kind, training) if "resnet" in name else densenet(x, state, kind, training, layers)
    assert expected.std() > 1e-3
    torch.testing.assert_close(net.train(training)(x), expected, rtol=1e-9, atol=1e-9)


def resnet10_parameters(w: int, channels: int, classes: int) -> int:
    total = 9 * channels * w + 2 * w  # stem and its norm
    inputs = w
    for outputs in (w, 2 * w, 4 * w, 8 * w):
        total += 9 * inputs * outputs + 9 * outputs**2 + 4 * outputs
        total += inputs * outputs + 2 * outputs if outputs != inputs else 0
        inputs = outputs
    return total + inputs * classes + classes


def densenet_parameters(growth: int, layers: tuple[int, ...], channels: int, classes: int) -> tuple[int, int]:
    width = 2 * growth
    total = 9 * channels * width
    for number, n in enumerate(layers):
        for _ in range(n):
            total += 2 * width + 4 * growth * width + 8 * growth + 9 * 4 * growth * growth
            width += growth
        if number < 3:
            total += 2 * width + width * (width // 2)
            width //= 2
    return total + 2 * width + width * classes + classes, width


@pytest.mark.parametrize(("name", "width"), [("resnet10_bn", 32), ("resnet10_bn_w64", 64), ("resnet10_in", 32)])
def test_resnet10_has_the_parameters_of_its_description(name: str, width: int) -> None:
    assert count(name) == resnet10_parameters(width, 3, 10)
    assert count(name, 1, 28) == resnet10_parameters(width, 1, 10)


@pytest.mark.parametrize(
    ("name", "width"),
    [("resnet10_bn", 256), ("resnet10_bn_w64", 512), ("densenet121_bn", 384), ("densenet121_in", 384), ("densenet121_bn_small", 48)],
)
def test_widths_of_the_embeddings(name: str, width: int) -> None:
    assert embedding(name, 32) == (2, width)


def test_densenet_has_121_layers_and_the_parameters_of_its_description() -> None:
    expected, width = densenet_parameters(12, LAYERS, 3, 10)
    assert width == 384
    assert count("densenet121_bn") == count("densenet121_in") == expected
    assert count("densenet121_bn", 1, 28) == densenet_parameters(12, LAYERS, 1, 10)[0]
    with torch.device("meta"):
        net = networks.build("densenet121_bn", 3, (32, 32), 10)
    kinds = [type(module) for module in net.modules()]
    assert kinds.count(torch.nn.Conv2d) + kinds.count(torch.nn.Linear) == 121
    assert count("densenet121_bn_small") == densenet_parameters(12, (2, 2, 2, 2), 3, 10)[0]


@pytest.mark.parametrize("kind", ["bn", "in"])
def test_resnet10_starts_from_kaiming_normal_fan_out(kind: str) -> None:
    net = networks.build(f"resnet10_{kind}", 3, (32, 32), 10, 0, "t")
    convolutions = {name: p.detach() for name, p in net.named_parameters() if p.ndim == 4}
    assert len(convolutions) == 12  # the stem, two in each block, three shortcuts
    for name, p in convolutions.items():
        z = p * math.sqrt(p.shape[0] * p.shape[2] * p.shape[3] / 2)
        assert abs(z.mean().item()) < 5 / math.sqrt(z.numel()), name
        assert abs(z.std().item() - 1) < 5 / math.sqrt(2 * z.numel()), name
        assert abs((z**4).mean().item() - 3) < 5 * math.sqrt(96 / z.numel()), name  # 1.8 if it were uniform
    normal = [p for name, p in net.named_parameters() if p.ndim == 1 and not name.startswith("head")]
    assert len(normal) == 2 * 12
    for weight, bias in zip(normal[::2], normal[1::2], strict=True):
        assert (weight == 1).all()
        assert (bias == 0).all()
    assert net.head.weight.abs().max() <= 1 / math.sqrt(256)  # the linear layer keeps PyTorch's own


@pytest.mark.parametrize("name", ["resnet10_bn_w8", "resnet10_in_w8", "densenet121_bn_w4_small", "densenet121_in_w4_small"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [16, 28, 32, 64])
def test_shapes(name: str, channels: int, side: int) -> None:
    net = networks.build(name, channels, (side, side), 10, 0, "t")
    x = torch.randn(2, channels, side, side, generator=stream(0, channels, side))
    stages = [tuple(h.shape) for h in net.stages(x)]
    assert net(x).shape == (2, 10)
    if "resnet" in name:  # strides round up
        s2, s4, s8 = (math.ceil(side / by) for by in (2, 4, 8))
        assert stages == [(2, 8, side, side), (2, 8, side, side), (2, 16, s2, s2), (2, 32, s4, s4), (2, 64, s8, s8), (2, 64)]
    else:  # poolings round down; 8 + 2 * 4 channels, halved three times, and the last block keeps them all
        s2, s4, s8 = (side // by for by in (2, 4, 8))
        assert stages == [(2, 8, side, side), (2, 8, s2, s2), (2, 8, s4, s4), (2, 8, s8, s8), (2, 16, s8, s8), (2, 16)]


@pytest.mark.parametrize(
    ("name", "least"), [("resnet10_in", 9), ("densenet121_bn", 8), ("densenet121_in", 16), ("densenet121_bn_small", 8)]
)
def test_images_that_are_too_small_are_refused(name: str, least: int) -> None:
    for size in ((least - 1, least - 1), (32, least - 1), (least - 1, 32)):
        with pytest.raises(ConfigError, match=rf"{name}.*{size[0]}x{size[1]} pixels; the smallest size it takes is {least}x{least}"):
            networks.build(name, 3, size, 10)
    networks.build(name, 3, (least, least), 10)


def test_convnet4_for_spectrograms_has_461448_parameters_and_2048_features() -> None:
    assert count("convnet4_in", 1, 64, 8) == 461_448
    net = networks.build("convnet4_in", 1, (64, 64), 8, 0, "t")
    assert net.embed(torch.zeros(1, 1, 64, 64)).shape == (1, 2048)
