"""Maps of class evidence: shape, range, and whether they point where the class is."""

import pytest
import torch
from torch import nn

from dd import networks
from dd.analysis.cam import cam
from dd.errors import ConfigError
from dd.networks._layers import Chain, GlobalPool


class Corner(nn.Module):
    """Keeps one corner of the image, as 4x4 blocks' means: class 0 is bright there, class 1 dark."""

    def __init__(self, row, column):
        super().__init__()
        mask = torch.zeros(4, 4)
        mask[row, column] = 1.0
        self.register_buffer("mask", mask)

    def forward(self, x):
        small = nn.functional.avg_pool2d(x, 4) * self.mask
        return torch.cat([small.relu(), (-small).relu()], 1)


def looks_at(row, column):
    net = Chain([Corner(row, column), GlobalPool()], 2, 2)
    with torch.no_grad():
        net.head.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        net.head.bias.zero_()
    return net


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 3), (3, 0), (3, 3)])
def test_the_map_peaks_where_the_network_looks(row, column):
    net = looks_at(row, column)
    bright = torch.ones(1, 1, 16, 16)
    images = torch.cat([bright, -bright, bright])
    maps = cam(net, images, torch.tensor([0, 1, 1]))
    for peaked in maps[:2]:
        assert peaked.max() == 1
        where = (peaked == 1).nonzero()
        assert (where // 4).unique(dim=0).tolist() == [[row, column]]
        assert peaked[8 - 8 * (row // 3) : 16 - 8 * (row // 3)].sum() == 0  # nothing in the other half
    assert (maps[2] == 0).all()  # a bright corner is no evidence of class 1


def test_between_the_maps_pixels_it_is_interpolated_linearly():
    maps = cam(looks_at(1, 2), torch.ones(1, 1, 16, 16), torch.tensor([0]))[0].double()
    tent = lambda centre: [max(0.0, 1 - abs((i + 0.5) / 4 - 0.5 - centre)) for i in range(16)]  # noqa: E731
    expected = torch.tensor([[a * b for b in tent(2)] for a in tent(1)], dtype=torch.float64)
    torch.testing.assert_close(maps, expected / expected.max(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["resnet18_bn_w4", "convnet3_in_w8", "vgg11_in_w8_small"])
def test_shape_range_and_independence_of_chunks(name):
    size = (32, 24) if "convnet" in name else (32, 32)
    net = networks.build(name, 3, size, 5, 0)
    x = torch.randn(7, 3, *size, generator=torch.Generator().manual_seed(0))
    y = torch.arange(7) % 5
    before = {key: value.clone() for key, value in net.state_dict().items()}
    maps = cam(net, x, y)
    assert maps.shape == (7, *size) and not maps.requires_grad and maps.dtype == torch.float32
    assert maps.min() >= 0 and maps.max() == 1
    for each in maps:
        assert each.max() in (0, 1)
    torch.testing.assert_close(cam(net, x, y, chunk=2), maps, rtol=1e-4, atol=1e-5)
    assert net.training and all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_another_class_has_another_map():
    net = networks.build("resnet18_bn_w4", 1, (32, 32), 5, 0)
    x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)).expand(5, -1, -1, -1)
    maps = cam(net, x, torch.arange(5))
    assert len({tuple(each.flatten().tolist()) for each in maps}) > 1


def test_a_network_without_pixels_has_no_map():
    with pytest.raises(ConfigError, match="no stage with pixels"):
        cam(networks.build("mlp_w16", 1, (16, 16), 3, 0), torch.zeros(1, 1, 16, 16), torch.tensor([0]))
