"""ResNet-18 with the stem for large images, with either norm, against a float64 version written from the formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from written_out import State, count, filled, normed, resnet18_parameters, shapes

from dd import networks
from dd.errors import ConfigError
from dd.rng import stream


@pytest.mark.parametrize("kind", ["in", "bn"])
def test_parameter_counts_and_stages(kind: str) -> None:
    for channels, classes, expected in ((3, 1000, 11_689_512), (3, 200, 11_279_112), (1, 10, None)):
        counted = count(f"resnet18_tv_{kind}", channels, 64, classes)
        assert counted == resnet18_parameters(channels, classes, 7)
        assert expected is None or counted == expected
    stages = shapes(f"resnet18_tv_{kind}", 1, 64)
    groups = [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    assert stages == [(64, 16, 16), *(group for group in groups for _ in range(2)), (512,)]
    assert stages[6] == (256, 4, 4)  # where ELF splits


@pytest.mark.parametrize(("side", "pixels"), [(32, 1), (33, 2), (64, 2), (65, 3)])
def test_instance_norm_is_refused_where_it_would_see_one_pixel(side: int, pixels: int) -> None:
    with torch.device("meta"):
        stages = networks.build("resnet18_tv_bn_w4", 3, (side, 200), 10).stages(torch.zeros(2, 3, side, 200))
    assert stages[8].shape[2] == pixels
    if pixels > 1:
        networks.build("resnet18_tv_in_w4", 3, (side, 200), 10, 0)
        return
    for size in ((side, 64), (64, side)):
        with pytest.raises(ConfigError, match=r"resnet18_tv_in_w4.*smallest size it takes is 33x33"):
            networks.build("resnet18_tv_in_w4", 3, size, 10)


def written_out(x: Tensor, s: State, kind: str, training: bool) -> Tensor:
    def norm(h: Tensor, name: str) -> Tensor:
        return normed(h, s, name, kind, training)

    h = norm(F.conv2d(x, s["blocks.0.0.weight"], stride=2, padding=3), "blocks.0.1").clamp(min=0)
    h = F.max_pool2d(h, 3, stride=2, padding=1)
    for number in range(1, 9):
        p, stride = f"blocks.{number}", 2 if number in (3, 5, 7) else 1
        r = norm(F.conv2d(h, s[f"{p}.conv1.weight"], stride=stride, padding=1), f"{p}.norm1").clamp(min=0)
        r = norm(F.conv2d(r, s[f"{p}.conv2.weight"], padding=1), f"{p}.norm2")
        if stride == 2:
            h = norm(F.conv2d(h, s[f"{p}.shortcut.0.weight"], stride=2), f"{p}.shortcut.1")
        h = (r + h).clamp(min=0)
    return h.flatten(2).mean(2) @ s["head.weight"].T + s["head.bias"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["in", "bn"])
@pytest.mark.parametrize("size", [(64, 64), (33, 70)])
def test_forward_equals_the_formulas(kind: str, training: bool, size: tuple[int, int]) -> None:
    net = networks.build(f"resnet18_tv_{kind}_w4", 3, size, 5, 0, "t").double()
    g = stream(0, kind, training)
    state = filled(net, g)
    x = torch.randn(3, 3, *size, dtype=torch.float64, generator=g)
    expected = written_out(x, state, kind, training)
    assert (expected - expected[0]).abs().max() > 1e-3
    torch.testing.assert_close(net.train(training)(x), expected, rtol=1e-9, atol=1e-9)
