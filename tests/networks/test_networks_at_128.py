"""The students of GLaD and H-PD at 128x128 and 256x256, by count and shape; VGG-11's adaptive pooling against a version by its windows."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dd import networks
from dd.errors import ConfigError
from dd.rng import stream

PLAN = [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]


def conv(inputs: int, outputs: int, kernel: int = 3, bias: bool = True) -> int:
    return inputs * outputs * kernel**2 + (outputs if bias else 0)


def convnet(depth: int, left: int) -> int:
    return conv(3, 128) + (depth - 1) * conv(128, 128) + depth * 256 + 128 * left**2 * 10 + 10


def vgg() -> int:
    widths = [3, *(item for item in PLAN if isinstance(item, int))]
    return sum(conv(i, o) + 2 * o for i, o in pairwise(widths)) + 25_088 * 10 + 10


def alexnet() -> int:
    return conv(3, 128, 5) + conv(128, 192, 5) + conv(192, 256) + conv(256, 192) + conv(192, 192) + 49_152 * 10 + 10


def resnet() -> int:
    total, inputs = conv(3, 64, bias=False) + 128, 64
    for outputs in (64, 128, 256, 512):
        total += conv(inputs, outputs, bias=False) + 3 * conv(outputs, outputs, bias=False) + 8 * outputs
        total += conv(inputs, outputs, 1, bias=False) + 2 * outputs if inputs != outputs else 0
        inputs = outputs
    return total + 512 * 10 + 10


@pytest.mark.parametrize(
    ("name", "side", "embed", "counted", "expected"),
    [
        ("convnet5_in", 128, 2_048, convnet(5, 4), 615_690),
        ("convnet6_in", 256, 2_048, convnet(6, 4), None),
        ("convnet3_in", 32, 2_048, convnet(3, 4), 320_010),
        ("alexnet", 128, 49_152, alexnet(), None),
        ("vgg11_in_pool7", 128, 25_088, vgg(), 9_476_874),
        ("resnet18_in", 128, 512, resnet(), 11_173_962),
        ("vit_p16_none_d10", 128, 512, None, 16_176_650),
    ],
)
def test_parameter_counts_and_embeddings(name: str, side: int, embed: int, counted: int | None, expected: int | None) -> None:
    with torch.device("meta"):
        net = networks.build(name, 3, (side, side), 10)
        assert net.embed(torch.zeros(2, 3, side, side)).shape == (2, embed)
    total = sum(p.numel() for p in net.parameters())
    assert counted in (None, total)
    assert expected in (None, total)


def test_stages_of_the_pool7_form() -> None:
    with torch.device("meta"):
        net = networks.build("vgg11_in_pool7", 3, (128, 128), 10)
        stages = [tuple(stage.shape[1:]) for stage in net.stages(torch.zeros(2, 3, 128, 128))]
    convolutions = [(64, 64, 64), (128, 32, 32), (256, 32, 32), (256, 16, 16), (512, 16, 16), (512, 8, 8), (512, 8, 8), (512, 4, 4)]
    assert stages == [*convolutions, (512, 7, 7)]


def windows(h: Tensor) -> Tensor:
    """Return 7x7 maxima; window i of a side of s pixels begins at floor(i s / 7) and ends before ceil((i + 1) s / 7)."""
    out = h.new_empty(*h.shape[:2], 7, 7)
    for i in range(7):
        for j in range(7):
            rows, columns = (slice(math.floor(k * s / 7), math.ceil((k + 1) * s / 7)) for k, s in ((i, h.shape[2]), (j, h.shape[3])))
            out[:, :, i, j] = h[:, :, rows, columns].amax((2, 3))
    return out


def naive(x: Tensor, s: dict[str, Tensor], kind: str, training: bool) -> Tensor:
    block, h = 0, x
    for item in PLAN:
        if item == "M":
            h = F.max_pool2d(h, 2)
            continue
        p = f"blocks.{block}"
        h = F.conv2d(h, s[f"{p}.0.weight"], s[f"{p}.0.bias"], padding=1)
        dims = (0, 2, 3) if kind == "bn" else (2, 3)
        mean, var = h.mean(dims, keepdim=True), h.var(dims, unbiased=False, keepdim=True)
        if kind == "bn" and not training:
            mean, var = s[f"{p}.1.running_mean"].view(1, -1, 1, 1), s[f"{p}.1.running_var"].view(1, -1, 1, 1)
        h = (h - mean) / (var + 1e-5).sqrt() * s[f"{p}.1.weight"].view(1, -1, 1, 1) + s[f"{p}.1.bias"].view(1, -1, 1, 1)
        h = h.clamp(min=0)
        block += 1
    return windows(h).flatten(1) @ s["head.weight"].T + s["head.bias"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("kind", "size"), [("in", (128, 128)), ("bn", (128, 64)), ("in", (32, 320))])
def test_the_pool7_form_equals_the_naive_version(kind: str, size: tuple[int, int], training: bool) -> None:
    net = networks.build(f"vgg11_{kind}_w2_pool7", 3, size, 5, 0, "t").double()
    g = stream(0, kind, size[1], training)
    for value in net.state_dict().values():  # no norm or statistic stays at its default
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=g, dtype=torch.float64) + 0.5)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    x = torch.randn(3, 3, *size, dtype=torch.float64, generator=g)
    expected = naive(x, state, kind, training)
    assert expected.std() > 1e-3
    torch.testing.assert_close(net.train(training)(x), expected, rtol=1e-9, atol=1e-9)


def test_what_is_too_small_for_the_pool7_form_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"vgg11_in_pool7.*31x64.*smallest size it takes is 32x32"):
        networks.build("vgg11_in_pool7", 3, (31, 64), 10)
