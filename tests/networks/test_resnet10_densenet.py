"""ResNet-10 and DenseNet-121 against functional versions written from the specification, and by count."""

import math

import pytest
import torch
from torch.nn import functional as F

from dd import networks
from dd.errors import ConfigError


def normed(x, state, name, kind, training):
    w, b = state[f"{name}.weight"], state[f"{name}.bias"]
    dims = (0, 2, 3) if kind == "bn" else (2, 3)
    if kind == "bn" and not training:
        mean, var = state[f"{name}.running_mean"].view(1, -1, 1, 1), state[f"{name}.running_var"].view(1, -1, 1, 1)
    else:
        mean, var = x.mean(dims, keepdim=True), x.var(dims, unbiased=False, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * w.view(1, -1, 1, 1) + b.view(1, -1, 1, 1)


def resnet10(x, s, kind, training):
    h = normed(F.conv2d(x, s["blocks.0.0.weight"], padding=1), s, "blocks.0.1", kind, training).relu()
    for block, stride in enumerate((1, 2, 2, 2), start=1):
        p = f"blocks.{block}"
        r = normed(F.conv2d(h, s[f"{p}.conv1.weight"], stride=stride, padding=1), s, f"{p}.norm1", kind, training).relu()
        r = normed(F.conv2d(r, s[f"{p}.conv2.weight"], padding=1), s, f"{p}.norm2", kind, training)
        if f"{p}.shortcut.0.weight" in s:
            h = normed(F.conv2d(h, s[f"{p}.shortcut.0.weight"], stride=stride), s, f"{p}.shortcut.1", kind, training)
        h = (r + h).relu()
    return h.mean((2, 3)) @ s["head.weight"].T + s["head.bias"]


def densenet(x, s, kind, training, layers):
    h = F.conv2d(x, s["blocks.0.weight"], padding=1)
    for block, count in enumerate(layers, start=1):
        for layer in range(count):
            p = f"blocks.{block}.{layer}"
            r = F.conv2d(normed(h, s, f"{p}.norm1", kind, training).relu(), s[f"{p}.conv1.weight"])
            r = F.conv2d(normed(r, s, f"{p}.norm2", kind, training).relu(), s[f"{p}.conv2.weight"], padding=1)
            h = torch.cat([h, r], 1)
        if block < 4:
            p = f"blocks.{block}.{count}"
            h = F.avg_pool2d(F.conv2d(normed(h, s, f"{p}.0", kind, training).relu(), s[f"{p}.2.weight"]), 2)
    return normed(h, s, "blocks.5.0", kind, training).relu().mean((2, 3)) @ s["head.weight"].T + s["head.bias"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["resnet10_bn_w8", "resnet10_in_w8", "densenet121_bn_w4_small", "densenet121_in_w4_small"])
def test_forward_equals_the_functional_version(name, training):
    net = networks.build(name, 3, (16, 16), 5, 0, "t").double()
    g = torch.Generator().manual_seed(0)
    for value in net.state_dict().values():  # no norm or statistic stays at its default
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=g, dtype=torch.float64) + 0.5)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=g)
    kind = name.split("_")[1]
    expected = resnet10(x, state, kind, training) if "resnet" in name else densenet(x, state, kind, training, (2, 2, 2, 2))
    torch.testing.assert_close(net.train(training)(x), expected, rtol=1e-9, atol=1e-9)


def count(name, channels=3, size=(32, 32), classes=10):
    with torch.device("meta"):
        return sum(p.numel() for p in networks.build(name, channels, size, classes).parameters())


def resnet10_parameters(w, channels, classes):
    total = 9 * channels * w + 2 * w  # stem and its norm
    inputs = w
    for outputs in (w, 2 * w, 4 * w, 8 * w):
        total += 9 * inputs * outputs + 9 * outputs**2 + 4 * outputs
        total += inputs * outputs + 2 * outputs if outputs != inputs else 0
        inputs = outputs
    return total + inputs * classes + classes


def densenet_parameters(growth, layers, channels, classes):
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
def test_resnet10_has_the_parameters_of_its_description(name, width):
    assert count(name) == resnet10_parameters(width, 3, 10)
    assert count(name, 1, (28, 28)) == resnet10_parameters(width, 1, 10)


def test_densenet_has_121_layers_and_the_parameters_of_its_description():
    expected, width = densenet_parameters(12, (6, 12, 24, 16), 3, 10)
    assert width == 384 and count("densenet121_bn") == expected
    with torch.device("meta"):
        net = networks.build("densenet121_bn", 3, (32, 32), 10)
    kinds = [type(module) for module in net.modules()]
    assert kinds.count(torch.nn.Conv2d) + kinds.count(torch.nn.Linear) == 121
    assert count("densenet121_bn_small") == densenet_parameters(12, (2, 2, 2, 2), 3, 10)[0]


def test_resnet10_starts_from_kaiming_fan_out():
    net = networks.build("resnet10_bn", 3, (32, 32), 10, 0, "t")
    for name, p in net.named_parameters():
        if p.ndim == 4:
            wanted = math.sqrt(2 / (p.shape[0] * p.shape[2] * p.shape[3]))
            assert abs(p.std().item() / wanted - 1) < 5 / math.sqrt(2 * p.numel()), name
        elif "norm" in name:
            assert (p == (0 if name.endswith("bias") else 1)).all(), name


@pytest.mark.parametrize("name", ["resnet10_bn", "densenet121_bn_w4_small"])
@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28), (1, 64), (1, 16)])
def test_they_take_the_papers_images(name, channels, side):
    net = networks.build(name, channels, (side, side), 10, 0, "t")
    assert net(torch.zeros(2, channels, side, side)).shape == (2, 10)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ConfigError, match="smallest size it takes is 9x9"):
        networks.build("resnet10_in", 3, (8, 8), 10)
    with pytest.raises(ConfigError, match="smallest size it takes is 8x8"):
        networks.build("densenet121_bn", 3, (7, 7), 10)


def test_convnet4_for_spectrograms_has_461448_parameters_and_2048_features():
    assert count("convnet4_in", 1, (64, 64), 8) == 461_448
    net = networks.build("convnet4_in", 1, (64, 64), 8, 0, "t")
    assert net.embed(torch.zeros(1, 1, 64, 64)).shape == (1, 2048)
