"""ResNet-18 (He et al., CVPR 2016) with the stem for small images, as the DC lineage has it.

Conv 3x3 of 64 channels, stride 1, no max-pooling -> norm -> ReLU; then 2 basic blocks each of 64, 128, 256 and 512 channels,
the last three groups starting with stride 2; mean over pixels; Linear. 11.17 M parameters for CIFAR-10. Names:
resnet18_{in|bn}[_w{width}], the width of the stem and of the first group (64); the others are 2, 4 and 8 times as wide.

Stages: 0 the stem; 1-2, 3-4, 5-6, 7-8 the basic blocks of the four groups, after their last ReLU; 9 the mean over pixels,
(n, 512). ELF splits after stage 7 ("conv5_2": the first block of 512 channels).

Differs from the paper: the stem; convolutions in shortcuts ("option B"); instance norm in the `in` form.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dd.networks._layers import Chain, GlobalPool, norm, refuse_below

NAME = r"resnet18_(?P<norm>in|bn)(?:_w(?P<width>[1-9][0-9]*))?"
EXAMPLES = ["resnet18_in", "resnet18_bn", "resnet18_in_w16", "resnet18_bn_w16"]


class BasicBlock(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)), with a 1x1 convolution as shortcut where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int, kind: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = norm(kind, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = norm(kind, width)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride=stride, bias=False), norm(kind, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, width, h / stride, w / stride), rounded up."""
        h = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(h)) + self.shortcut(x), inplace=True)


def smallest(norm: str, **_: object) -> int:
    """Return the smallest side: three strides of 2 leave at least 2 pixels, since instance norm of one pixel is zero."""
    return 9 if norm == "in" else 1


def build(channels: int, size: tuple[int, int], classes: int, norm: str, width: int = 64) -> nn.Module:
    """Build a ResNet-18; see `dd.networks.build`."""
    refuse_below(smallest(norm), size)
    return Chain([_stem(channels, width, norm), *groups(width, norm), GlobalPool()], width * 8, classes)


def groups(width: int, kind: str) -> list[nn.Module]:
    """Return the four groups of two blocks, from `width` channels to eight times as many."""
    blocks: list[nn.Module] = []
    inputs = width
    for group, stride in enumerate((1, 2, 2, 2)):
        outputs = width * 2**group
        blocks += [BasicBlock(inputs, outputs, stride, kind), BasicBlock(outputs, outputs, 1, kind)]
        inputs = outputs
    return blocks


def _stem(channels: int, width: int, kind: str) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), norm(kind, width), nn.ReLU(inplace=True))
