"""The students of GLaD and H-PD at 128x128 and 256x256, by count and shape; VGG-11's adaptive pooling against a version by its windows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from written_out import (
    alexnet_parameters,
    convnet_parameters,
    count,
    embedding,
    filled,
    resnet18_parameters,
    shapes,
    vgg_features,
    vgg_parameters,
)

from dd import networks
from dd.errors import ConfigError
from dd.rng import stream


@pytest.mark.parametrize(
    ("name", "side", "embed", "counted", "expected"),
    [
        ("convnet5_in", 128, 2_048, convnet_parameters(5, 4), 615_690),
        ("convnet6_in", 256, 2_048, convnet_parameters(6, 4), None),
        ("convnet3_in", 32, 2_048, convnet_parameters(3, 4), 320_010),
        ("alexnet", 128, 49_152, alexnet_parameters(3, 10, 16), None),
        ("vgg11_in_pool7", 128, 25_088, vgg_parameters(3, 10, (25_088,)), 9_476_874),
        ("resnet18_in", 128, 512, resnet18_parameters(3, 10, 3), 11_173_962),
        ("vit_p16_none_d10", 128, 512, None, 16_176_650),
    ],
)
def test_parameter_counts_and_embeddings(name: str, side: int, embed: int, counted: int | None, expected: int | None) -> None:
    assert embedding(name, side) == (2, embed)
    total = count(name, 3, side)
    assert counted in (None, total)
    assert expected in (None, total)


def test_stages_of_the_pool7_form() -> None:
    convolutions = [(64, 64, 64), (128, 32, 32), (256, 32, 32), (256, 16, 16), (512, 16, 16), (512, 8, 8), (512, 8, 8), (512, 4, 4)]
    assert shapes("vgg11_in_pool7", 3, 128) == [*convolutions, (512, 7, 7)]


def windows(h: Tensor) -> Tensor:
    """Return 7x7 maxima; window i of a side of s pixels begins at floor(i s / 7) and ends before ceil((i + 1) s / 7)."""
    out = h.new_empty(*h.shape[:2], 7, 7)
    for i in range(7):
        for j in range(7):
            rows, columns = (slice(math.floor(k * s / 7), math.ceil((k + 1) * s / 7)) for k, s in ((i, h.shape[2]), (j, h.shape[3])))
            out[:, :, i, j] = h[:, :, rows, columns].amax((2, 3))
    return out


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("kind", "size"), [("in", (128, 128)), ("bn", (128, 64)), ("in", (32, 320))])
def test_the_pool7_form_equals_the_naive_version(kind: str, size: tuple[int, int], training: bool) -> None:
    net = networks.build(f"vgg11_{kind}_w2_pool7", 3, size, 5, 0, "t").double()
    g = stream(0, kind, size[1], training)
    state = filled(net, g)
    x = torch.randn(3, 3, *size, dtype=torch.float64, generator=g)
    expected = windows(vgg_features(x, state, kind, training)).flatten(1) @ state["head.weight"].T + state["head.bias"]
    assert expected.std() > 1e-3
    torch.testing.assert_close(net.train(training)(x), expected, rtol=1e-9, atol=1e-9)


def test_what_is_too_small_for_the_pool7_form_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"vgg11_in_pool7.*31x64.*smallest size it takes is 32x32"):
        networks.build("vgg11_in_pool7", 3, (31, 64), 10)
