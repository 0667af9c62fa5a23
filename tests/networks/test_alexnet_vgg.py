"""AlexNet, VGG-11 and deep ConvNets by count and by shape, and the first two against functional versions written from the specification."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from written_out import PLAN, State, alexnet_parameters, convnet_parameters, count, embedding, filled, shapes, vgg_features, vgg_parameters

from dd import networks
from dd.errors import ConfigError
from dd.networks._layers import reseed
from dd.rng import stream


def test_parameter_counts() -> None:
    assert count("alexnet", 3, 32, 10) == alexnet_parameters(3, 10) == 1_872_202
    assert count("alexnet", 1, 28, 10) == alexnet_parameters(1, 10)
    assert count("alexnet", 3, 32, 100) == alexnet_parameters(3, 100)
    assert vgg_parameters(3, 10) == 9_231_114
    assert count("vgg11_in", 3, 32, 10) == count("vgg11_bn", 3, 32, 10) == 9_231_114
    assert count("vgg11_in_small", 3, 16, 10) == 9_231_114  # a pooling has no parameters
    assert count("vgg11_in", 1, 28, 10) == vgg_parameters(1, 10)
    for classes, expected in ((200, 35_219_400), (1000, 38_497_000)):
        assert vgg_parameters(3, classes, (2048, 4096, 4096)) == expected
        assert count("vgg11_in_imagenet", 3, 64, classes) == count("vgg11_bn_imagenet", 3, 64, classes) == expected


@pytest.mark.parametrize(
    ("name", "side", "parameters", "embed"),
    [
        ("convnet4_in", 32, convnet_parameters(4, 2), 512),
        ("convnet6_in", 224, 754_570, 1152),
    ],
)
def test_deep_convnets(name: str, side: int, parameters: int, embed: int) -> None:
    assert count(name, 3, side, 10) == parameters
    assert embedding(name, side) == (2, embed)


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28)])
def test_stages(channels: int, side: int) -> None:
    assert shapes("alexnet", channels, side) == [(128, 16, 16), (192, 8, 8), (256, 8, 8), (192, 8, 8), (192, 4, 4)]
    assert shapes("alexnet_w5", channels, side) == [(5, 16, 16), (7, 8, 8), (10, 8, 8), (7, 8, 8), (7, 4, 4)]
    expected = [(64, 16, 16), (128, 8, 8), (256, 8, 8), (256, 4, 4), (512, 4, 4), (512, 2, 2), (512, 2, 2), (512, 1, 1)]
    assert shapes("vgg11_in", channels, side) == expected
    assert shapes("vgg11_in_w8", channels, side) == [(width // 8, *sides) for width, *sides in expected]


def test_vgg_can_be_split_where_elf_does() -> None:
    assert shapes("vgg11_bn", 3, 32)[4] == (512, 4, 4)  # fifth convolution, after three poolings
    assert shapes("vgg11_bn", 3, 64)[5] == (512, 4, 4)  # sixth convolution and the pooling after it
    assert shapes("vgg11_bn", 3, 64)[-1] == (512, 2, 2)


def test_stages_of_the_imagenet_form() -> None:
    convolutions = [(64, 32, 32), (128, 16, 16), (256, 16, 16), (256, 8, 8), (512, 8, 8), (512, 4, 4), (512, 4, 4), (512, 2, 2)]
    assert shapes("vgg11_in_imagenet", 3, 64) == [*convolutions, (4096,), (4096,)]
    assert shapes("vgg11_bn_w8_imagenet", 3, 64) == [*((width // 8, *sides) for width, *sides in convolutions), (512,), (512,)]
    assert shapes("vgg11_in_imagenet", 3, 32)[-3:] == [(512, 1, 1), (4096,), (4096,)]


def test_the_small_form_takes_digits() -> None:
    expected = [(64, 8, 8), (128, 4, 4), (256, 4, 4), (256, 2, 2), (512, 2, 2), (512, 2, 2), (512, 2, 2), (512, 1, 1)]
    assert shapes("vgg11_in_small", 1, 16) == expected
    assert shapes("alexnet", 1, 16)[-1] == (192, 2, 2)


@pytest.mark.parametrize("kind", ["in", "bn", "in_w8_imagenet", "bn_w8_imagenet"])
def test_the_full_forms_take_32_and_say_so(kind: str) -> None:
    name = f"vgg11_{kind}" if "_" in kind else f"vgg11_{kind}_w8"
    net = networks.build(name, 3, (32, 32), 10, 0)
    reseed(net, 0)
    embedded = net.embed(torch.randn(4, 3, 32, 32, generator=stream(0)))
    assert (embedded - embedded[0]).abs().max() > 1e-3
    for side, channels in ((31, 3), (16, 1), (28, 3)):
        with pytest.raises(ConfigError, match=rf"{name}.*{side}x{side}.*smallest size it takes is 32x32"):
            networks.build(name, channels, (side, side), 10)


def alexnet(x: Tensor, s: State, padding: int) -> Tensor:
    h = F.conv2d(x, s["blocks.0.0.weight"], s["blocks.0.0.bias"], padding=padding).clamp(min=0)
    h = F.max_pool2d(h, 2)
    h = F.max_pool2d(F.conv2d(h, s["blocks.1.0.weight"], s["blocks.1.0.bias"], padding=2).clamp(min=0), 2)
    for block in (2, 3, 4):
        h = F.conv2d(h, s[f"blocks.{block}.0.weight"], s[f"blocks.{block}.0.bias"], padding=1).clamp(min=0)
    return F.max_pool2d(h, 2).flatten(1) @ s["head.weight"].T + s["head.bias"]


def vgg(x: Tensor, s: State, kind: str, training: bool, padding: int, plan: list[int | str], masks: list[Tensor] | None = None) -> Tensor:
    h = vgg_features(x, s, kind, training, padding, plan).flatten(1)
    if masks is not None:
        for number, mask in enumerate(masks, start=8):
            h = (h @ s[f"blocks.{number}.1.weight"].T + s[f"blocks.{number}.1.bias"]).clamp(min=0)
            h = torch.where(mask < 0.5, 0.0, 2 * h) if training else h
    return h @ s["head.weight"].T + s["head.bias"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("name", "channels", "side", "padding"),
    [
        ("alexnet_w6", 3, 16, 2),
        ("alexnet_w6", 1, 28, 4),
        ("vgg11_in_w4", 3, 32, 1),
        ("vgg11_bn_w4", 1, 28, 3),
        ("vgg11_in_w4_small", 1, 16, 1),
        ("vgg11_bn_w4_small", 3, 16, 1),
        ("vgg11_in_w4_imagenet", 3, 64, 1),
        ("vgg11_bn_w4_imagenet", 3, 64, 1),
        ("vgg11_bn_w4_imagenet", 1, 64, 3),
    ],
)
def test_forward_equals_the_functional_version(name: str, channels: int, side: int, padding: int, training: bool) -> None:
    net = networks.build(name, channels, (side, side), 5, 0, "t").double()
    g = stream(0, name, training)
    state = filled(net, g)
    x = torch.randn(4, channels, side, side, dtype=torch.float64, generator=g)
    if name.startswith("alexnet"):
        expected = alexnet(x, state, padding)
    else:
        plan = PLAN[:9] + PLAN[10:] if name.endswith("small") else PLAN
        masks = [torch.rand(4, 256, generator=stream(7, "e", "dropout", k)) for k in range(2)] if name.endswith("imagenet") else None
        expected = vgg(x, state, name.split("_")[1], training, padding, plan, masks)
    assert expected.std() > 1e-3
    net.train(training)
    reseed(net, 7, "e")
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9)
