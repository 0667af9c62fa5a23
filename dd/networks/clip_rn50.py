"""The image encoder RN50 of CLIP (Radford et al., ICML 2021), a ResNet-50 with attention pooling; embeddings of 1024 numbers.

Stem: conv 3x3 of 32 channels, stride 2, conv 3x3 of 32, conv 3x3 of 64, each with batch norm and ReLU, then 2x2 mean pooling. Groups
of 3, 4, 6 and 3 bottlenecks of 256, 512, 1024 and 2048 channels; where the last three groups halve the image, a 2x2 mean before a
convolution of stride 1 does it, on the main branch before its third convolution and on the shortcut. At the end the mean over pixels
asks, with 32 heads, the pixels and itself, after a learned position was added to each. 38,316,896 parameters at 224x224, apart from the
head. Names: clip_rn50_bn[_w{width}], the output of the stem (64); all else is in proportion, and the width must be even.

Stages: 0 the stem; 1-16 the bottlenecks, after their last ReLU; 17 the attention pooling, (n, 1024), before CLIP's normalisation to
length 1. The head is no part of CLIP: a linear layer, since every network here has one. How CLIP's names become ours: `dd.teachers`.

Differs from the released code, which only takes images whose sides are multiples of 32: others are halved rounding up, so that small
images can be looked through in tests. First weights are PyTorch's default; weights from a file replace them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dd.errors import ConfigError
from dd.networks._layers import Chain, refuse_below
from dd.networks._layers import norm as normalisation

NAME = r"clip_rn50_(?P<norm>bn)(?:_w(?P<width>[1-9][0-9]*))?"
EXAMPLES = ["clip_rn50_bn_w8"]

BLOCKS = (3, 4, 6, 3)
EXPANSION = 4
HEAD_WIDTH = 64  # channels of a head of the attention
HALVINGS = 5


class Bottleneck(nn.Module):
    """relu(conv1x1(mean(conv3x3(conv1x1(x)))) + shortcut(x)), a norm after each convolution, ReLU after the first two."""

    def __init__(self, inputs: int, width: int, stride: int, kind: str) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.norm1 = normalisation(kind, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = normalisation(kind, width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.norm3 = normalisation(kind, outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), normalisation(kind, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, 4 * width, h / stride, w / stride), rounded up."""
        h = F.relu(self.norm1(self.conv1(x)))
        h = F.relu(self.norm2(self.conv2(h)))
        h = self.norm3(self.conv3(_shrink(h, self.stride)))
        return F.relu(h + self.shortcut(_shrink(x, self.stride)))


class AttentionPool(nn.Module):
    """(n, c, h, w) -> (n, outputs): attention over [mean, pixels...] + positions, asked by the first of them."""

    def __init__(self, size: tuple[int, int], channels: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.size = size
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(size[0] * size[1] + 1, channels) / channels**0.5)
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the embedding.

        Raises:
            ConfigError: an image of another size than the network was built for.
        """
        if x.shape[2:] != self.size:
            raise ConfigError(f"clip_rn50: has positions for a map of {self.size}, not {tuple(x.shape[2:])}: images of another size")
        pixels = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([pixels.mean(1, keepdim=True), pixels], 1) + self.positional_embedding
        q, k, v = (self._split(h) for h in (self.q_proj(tokens[:, :1]), self.k_proj(tokens), self.v_proj(tokens)))
        h: Tensor = self.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1))
        return h

    def _split(self, h: Tensor) -> Tensor:
        """(n, tokens, c) -> (n, heads, tokens, c / heads)."""
        return h.unflatten(2, (self.heads, -1)).transpose(1, 2)


def smallest(**_: object) -> int:
    """Return the smallest side: halving rounds up, so a pixel stays a pixel."""
    return 1


def build(channels: int, size: tuple[int, int], classes: int, norm: str, width: int = 64) -> nn.Module:
    """Build CLIP's RN50 image encoder, with a head; see `dd.networks.build`."""
    refuse_below(smallest(), size)
    if width % 2:
        raise ConfigError(f"width {width} must be even; nearest allowed: {width + 1}" + (f" and {width - 1}" if width > 1 else ""))
    blocks: list[nn.Module] = [_stem(channels, width, norm)]
    inputs = width
    for group, count in enumerate(BLOCKS):
        inner = width * 2**group
        for number in range(count):
            blocks.append(Bottleneck(inputs, inner, 2 if group and not number else 1, norm))
            inputs = EXPANSION * inner
    height, breadth = (-(-side // 2**HALVINGS) for side in size)  # rounded up; the same as rounding up after each halving
    blocks.append(AttentionPool((height, breadth), inputs, inputs // HEAD_WIDTH, 16 * width))
    return Chain(blocks, 16 * width, classes)


def _stem(channels: int, width: int, kind: str) -> nn.Module:
    parts: list[nn.Module] = []
    for inputs, outputs, stride in ((channels, width // 2, 2), (width // 2, width // 2, 1), (width // 2, width, 1)):
        parts += [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), normalisation(kind, outputs), nn.ReLU()]
    return nn.Sequential(*parts, nn.AvgPool2d(2, ceil_mode=True))


def _shrink(x: Tensor, stride: int) -> Tensor:
    return x if stride == 1 else F.avg_pool2d(x, stride, ceil_mode=True)
