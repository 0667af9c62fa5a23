"""A light vision transformer (Dosovitskiy et al., ICLR 2021), as the extractors paper sizes it.

Patches of 4x4 -> 192 numbers; a class token; a learned position embedding for the size it is built for; 12 pre-norm blocks of
12 heads and an MLP of 768 with GELU; LayerNorm; Linear on the class token. No dropout. Names: vit[_w{dim}][_d{blocks}]; the
MLP is always 4 times as wide as the tokens.

Stages: 0 the tokens, class token first, (n, 1 + patches, dim); then each block; last the normalised class token, (n, dim).

Differs from the paper: it does not say where its embedding is taken (the class token, here), nor how it initialises (PyTorch's
defaults; the class token and positions, which have none, from N(0, 0.02^2)).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dd.errors import ConfigError
from dd.networks._layers import Chain

NAME = r"vit(?:_w(?P<width>[1-9][0-9]*))?(?:_d(?P<depth>[1-9][0-9]*))?"
EXAMPLES = ["vit", "vit_w48_d4"]

PATCH = 4
HEADS = 12
MLP_RATIO = 4


class Tokens(nn.Module):
    """(n, c, h, w) -> (n, 1 + hw / 16, dim): patches by row, after a class token, plus their positions."""

    def __init__(self, channels: int, size: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(channels, dim, PATCH, stride=PATCH)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + size[0] // PATCH * (size[1] // PATCH), dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens."""
        patches = self.patch(x).flatten(2).transpose(1, 2)
        return torch.cat([self.class_token.expand(len(x), -1, -1), patches], 1) + self.position


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    On the CPU the fused attention has no second derivative: where one is needed (gradient matching, unrolled training), run
    the forward pass under `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, MLP_RATIO * dim), nn.GELU(), nn.Linear(MLP_RATIO * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, tokens, dim)."""
        n, tokens, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, tokens, 3, HEADS, dim // HEADS).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(h.transpose(1, 2).reshape(n, tokens, dim))
        return x + self.mlp(self.norm2(x))


class ClassToken(nn.Module):
    """(n, tokens, dim) -> (n, dim), the class token, normalised."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised class token."""
        token: Tensor = self.norm(x[:, 0])
        return token


def smallest(**_: object) -> int:
    """Return the side of one patch."""
    return PATCH


def build(channels: int, size: tuple[int, int], classes: int, width: int = 192, depth: int = 12) -> nn.Module:
    """Build a ViT; see `dd.networks.build`."""
    if width % HEADS:
        below = width // HEADS * HEADS
        near = " and ".join(str(value) for value in (below, below + HEADS) if value)
        raise ConfigError(f"width {width} must be a multiple of its {HEADS} heads; nearest allowed: {near}")
    if size[0] % PATCH or size[1] % PATCH or min(size) < PATCH:
        raise ConfigError(
            f"takes images whose sides are multiples of {PATCH} pixels, not {size[0]}x{size[1]}; "
            f"the smallest size it takes is {PATCH}x{PATCH}"
        )
    blocks = [Tokens(channels, size, width), *(Block(width) for _ in range(depth)), ClassToken(width)]
    return Chain(blocks, width, classes)
