"""DenseNet-121 (Huang et al., CVPR 2017) as the IDC lineage has it for small images: four dense blocks, growth 12.

Conv 3x3 of 2 * growth channels; dense blocks of 6, 12, 24 and 16 layers, each norm -> ReLU -> conv 1x1 to 4 * growth -> norm -> ReLU ->
conv 3x3 to growth, whose output is appended to its input; between blocks norm -> ReLU -> conv 1x1 to half the channels -> 2x2 mean
pooling; at the end norm -> ReLU -> mean over pixels; Linear. Names: densenet121_{in|bn}[_w{width}][_small]; the width is the growth, 12.
The `_small` form has two layers in each block, for laptops and small images.

Stages: 0 the stem; 1-4 the dense blocks, the first three with the transition after them; 5 the last norm and ReLU and the mean over
pixels, (n, d). d is 32 * growth (384), in the `_small` form 4 * growth. The sides are halved rounding down: 28 -> 14 -> 7 -> 3.

Differs from the paper: growth 12 instead of 32, a 3x3 stem without pooling; in the `in` form, instance norm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dd.networks._layers import Chain, GlobalPool, norm, refuse_below

NAME = r"densenet121_(?P<norm>in|bn)(?:_w(?P<width>[1-9][0-9]*))?(?:_(?P<form>small))?"
EXAMPLES = ["densenet121_bn", "densenet121_bn_small", "densenet121_bn_w4_small", "densenet121_in_w4_small"]
LAYERS = {"full": (6, 12, 24, 16), "small": (2, 2, 2, 2)}


class Layer(nn.Module):
    """Append growth channels to the input."""

    def __init__(self, inputs: int, growth: int, kind: str) -> None:
        super().__init__()
        self.norm1 = norm(kind, inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = norm(kind, 4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, inputs + growth, h, w)."""
        h = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(h)))], 1)


def smallest(norm: str, **_: object) -> int:
    """Return the smallest side: three poolings leave a pixel, with instance norm two, since that of one pixel is zero."""
    return 16 if norm == "in" else 8


def build(channels: int, size: tuple[int, int], classes: int, norm: str, width: int = 12, form: str = "full") -> nn.Module:
    """Build a DenseNet-121; see `dd.networks.build`."""
    refuse_below(smallest(norm), size)
    growth, width = width, 2 * width
    blocks: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
    for number, count in enumerate(LAYERS[form]):
        parts: list[nn.Module] = []
        for _ in range(count):
            parts.append(Layer(width, growth, norm))
            width += growth
        if number < 3:
            parts.append(_transition(width, norm))
            width //= 2
        blocks.append(nn.Sequential(*parts))
    return Chain([*blocks, _end(width, norm)], width, classes)


def _transition(width: int, kind: str) -> nn.Module:
    return nn.Sequential(norm(kind, width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2))


def _end(width: int, kind: str) -> nn.Module:
    return nn.Sequential(norm(kind, width), nn.ReLU(), GlobalPool())
