"""ResNet-18 (He et al., CVPR 2016) for large images, as torchvision has it: the form that published ImageNet weights fit.

Conv 7x7 of 64 channels, stride 2 -> norm -> ReLU -> 3x3 max-pooling, stride 2; then 2 basic blocks each of 64, 128, 256 and 512
channels, the last three groups starting with stride 2; mean over pixels; Linear. With either norm 11,689,512 parameters for ImageNet,
11,279,112 for Tiny ImageNet. Names: resnet18_tv_{in|bn}[_w{width}], the width of the stem and of the first group (64); the others are
2, 4 and 8 times as wide.

Stages: 0 the stem; 1-8 the basic blocks, after their last ReLU; 9 the mean over pixels, (n, 512). Sides are halved five times, rounding
up: 64 -> 32 -> 16 in the stem, then 16, 8, 4 and 2. ELF splits after stage 6 at 64x64 ("conv4_4": (256, 4, 4), the end of the group of
256 channels). How torchvision's names become ours: `dd.teachers`.

Differs from torchvision: the convolutions' first weights are PyTorch's default, which weights from a file replace; instance norm in the
`in` form, which fits no published weights.
"""

from __future__ import annotations

from torch import nn

from dd.networks._layers import Chain, GlobalPool, refuse_below
from dd.networks._layers import norm as normalisation
from dd.networks.resnet import groups

NAME = r"resnet18_tv_(?P<norm>in|bn)(?:_w(?P<width>[1-9][0-9]*))?"
EXAMPLES = ["resnet18_tv_in", "resnet18_tv_bn", "resnet18_tv_in_w8", "resnet18_tv_bn_w8"]


def smallest(norm: str, **_: object) -> int:
    """Return the smallest side: five halvings, rounding up, leave 2 pixels of 33, since instance norm of one pixel is zero; else one."""
    return 33 if norm == "in" else 1


def build(channels: int, size: tuple[int, int], classes: int, norm: str, width: int = 64) -> nn.Module:
    """Build a ResNet-18 with the stem for large images; see `dd.networks.build`."""
    refuse_below(smallest(norm), size)
    stem = nn.Sequential(
        nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False),
        normalisation(norm, width),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
    return Chain([stem, *groups(width, norm), GlobalPool()], width * 8, classes)
