"""What vision transformers share: tokens, blocks, and which widths and images they refuse."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dd.errors import ConfigError


class Tokens(nn.Module):
    """(n, c, h, w) -> (n, 1 + hw / p^2, dim): patches of p x p pixels by row, after a class token, plus their positions.

    size: (h, w) in pixels. spread: class token and positions are from N(0, spread^2) at the start.
    """

    def __init__(self, channels: int, size: tuple[int, int], patch: int, dim: int, spread: float) -> None:
        super().__init__()
        # A convolution is Linear on flattened patches, also in how it is initialised; its inputs only stand in another order.
        self.patch = nn.Conv2d(channels, dim, patch, stride=patch)
        self.class_token = nn.Parameter(spread * torch.randn(1, 1, dim))
        self.position = nn.Parameter(spread * torch.randn(1, 1 + size[0] // patch * (size[1] // patch), dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens."""
        patches = self.patch(x).flatten(2).transpose(1, 2)
        return torch.cat([self.class_token.expand(len(x), -1, -1), patches], 1) + self.position


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)).

    On the CPU the fused attention has no second derivative: where one is needed (gradient matching, unrolled training), run
    the forward pass under `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.

    qkv: from dim to 3 dim numbers: queries, keys and values of all heads. out: what the attention's output goes through.
    """

    def __init__(self, heads: int, norm1: nn.Module, qkv: nn.Module, out: nn.Module, norm2: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.out, self.norm2, self.mlp = norm1, qkv, out, norm2, mlp

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, tokens, dim)."""
        n, tokens, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(h.transpose(1, 2).reshape(n, tokens, dim))
        return x + self.mlp(self.norm2(x))


class ClassToken(nn.Module):
    """(n, tokens, dim) -> (n, dim), the class token through a norm."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Return the class token."""
        token: Tensor = self.norm(x[:, 0])
        return token


def refuse_unfit(width: int, heads: int, size: tuple[int, int], patch: int) -> None:
    """Raise ConfigError if tokens of `width` numbers cannot be cut into `heads`, or images of `size` pixels into patches."""
    if width % heads:
        below = width // heads * heads
        near = " and ".join(str(value) for value in (below, below + heads) if value)
        raise ConfigError(f"width {width} must be a multiple of its {heads} heads; nearest allowed: {near}")
    if size[0] % patch or size[1] % patch or min(size) < patch:
        raise ConfigError(
            f"takes images whose sides are multiples of {patch} pixels, not {size[0]}x{size[1]}; "
            f"the smallest size it takes is {patch}x{patch}"
        )
