"""ResNet-10 of the IDC lineage: a stem and four groups of one basic block each.

The form for CIFAR is narrow: Conv 3x3 of 32 channels, stride 1 -> norm -> ReLU; one basic block each of 32, 64, 128 and 256 channels,
the last three with stride 2; mean over pixels; Linear. The wide form, `_w64`, is what the same code takes for SVHN and MNIST: 64, 128,
256 and 512 channels. Names: resnet10_{in|bn}[_w{width}], the width of the stem and of the first group (32).

Convolutions start from a normal distribution with variance 2 / fan-out (kaiming), norms from weight 1 and bias 0.

Stages: 0 the stem; 1-4 the blocks, after their last ReLU; 5 the mean over pixels, (n, 8 * width).
"""

from __future__ import annotations

from torch import nn

from dd.networks._layers import Chain, GlobalPool, norm, refuse_below
from dd.networks.resnet import BasicBlock

NAME = r"resnet10_(?P<norm>in|bn)(?:_w(?P<width>[1-9][0-9]*))?"
EXAMPLES = ["resnet10_in", "resnet10_bn", "resnet10_bn_w64", "resnet10_in_w8"]


def smallest(norm: str, **_: object) -> int:
    """Return the smallest side: three strides of 2 leave at least 2 pixels, since instance norm of one pixel is zero."""
    return 9 if norm == "in" else 1


def build(channels: int, size: tuple[int, int], classes: int, norm: str, width: int = 32) -> nn.Module:
    """Build a ResNet-10; see `dd.networks.build`."""
    refuse_below(smallest(norm), size)
    blocks: list[nn.Module] = [_stem(channels, width, norm)]
    inputs = width
    for group, stride in enumerate((1, 2, 2, 2)):
        blocks.append(BasicBlock(inputs, width * 2**group, stride, norm))
        inputs = width * 2**group
    network = Chain([*blocks, GlobalPool()], inputs, classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _stem(channels: int, width: int, kind: str) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), norm(kind, width), nn.ReLU(inplace=True))
