"""The vision transformers (Dosovitskiy et al., ICLR 2021) that GLaD, H-PD and DC-BENCH train students with.

Patches of p x p pixels -> Linear to 512 numbers; a class token; a learned position embedding for the size it is built for; dropout 0.1;
blocks of 8 heads of 64 numbers, queries, keys and values without a bias, and an MLP of 512 with GELU; Linear on the class token. Dropout
0.1 after the attention's output and after both layers of the MLP; none on the attention's weights. Names:
vit_p{patch}_{ln|none}_d{blocks}[_w{dim}]; the MLP is as wide as the tokens, and a head an eighth of that.

vit_p4_ln_d6, DC-BENCH's and GLaD's for 32x32: LayerNorm before the attention, before the MLP and before the head; 9,523,722 parameters for
CIFAR-10. vit_p16_none_d10, GLaD's and H-PD's for 128x128: no norm anywhere, which is why the papers' numbers of this network are low;
16,176,650 parameters for 10 classes.

Stages: 0 the tokens after their dropout, class token first, (n, 1 + patches, dim); then each block; last the class token, normalised in
the `ln` form, (n, dim).

In training mode they need a random stream for their dropout, see `dd.networks._layers.reseed`: they can be trained and evaluated; methods
cannot look through them in training mode.

Differs from the paper: class token and positions from N(0, 1), the rest with PyTorch's defaults; MLP of 1 instead of 4 widths; no biases
of queries, keys and values; no norms in the `none` form. Narrow forms, with heads of fewer than 64 numbers, are ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dd.errors import ConfigError
from dd.networks._layers import Chain, Dropout

NAME = r"vit_p(?P<patch>[1-9][0-9]*)_(?P<norm>ln|none)_d(?P<depth>[1-9][0-9]*)(?:_w(?P<width>[1-9][0-9]*))?"
EXAMPLES = ["vit_p4_ln_d6_w32", "vit_p4_none_d2_w16", "vit_p16_none_d10_w32"]  # narrow; the papers' are 512 wide

HEADS = 8
DROPOUT = 0.1


class Tokens(nn.Module):
    """(n, c, h, w) -> (n, 1 + hw / p^2, dim): patches by row, after a class token, plus their positions, with dropout."""

    def __init__(self, channels: int, size: tuple[int, int], patch: int, dim: int) -> None:
        super().__init__()
        # A convolution is Linear on flattened patches, also in how it is initialised; its inputs only stand in another order.
        self.patch = nn.Conv2d(channels, dim, patch, stride=patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, dim))
        self.position = nn.Parameter(torch.randn(1, 1 + size[0] // patch * (size[1] // patch), dim))
        self.dropout = Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens."""
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens: Tensor = self.dropout(torch.cat([self.class_token.expand(len(x), -1, -1), patches], 1) + self.position)
        return tokens


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); norm is LayerNorm or nothing."""

    def __init__(self, dim: int, kind: str) -> None:
        super().__init__()
        self.norm1 = _norm(kind, dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Sequential(nn.Linear(dim, dim), Dropout(DROPOUT))
        self.norm2 = _norm(kind, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), Dropout(DROPOUT), nn.Linear(dim, dim), Dropout(DROPOUT))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, tokens, dim)."""
        n, tokens, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, tokens, 3, HEADS, dim // HEADS).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(h.transpose(1, 2).reshape(n, tokens, dim))
        return x + self.mlp(self.norm2(x))


class ClassToken(nn.Module):
    """(n, tokens, dim) -> (n, dim), the class token, normalised or not."""

    def __init__(self, dim: int, kind: str) -> None:
        super().__init__()
        self.norm = _norm(kind, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class token."""
        token: Tensor = self.norm(x[:, 0])
        return token


def smallest(patch: int, **_: object) -> int:
    """Return the side of one patch."""
    return patch


def build(channels: int, size: tuple[int, int], classes: int, patch: int, norm: str, depth: int, width: int = 512) -> nn.Module:
    """Build a ViT; see `dd.networks.build`."""
    if width % HEADS:
        below = width // HEADS * HEADS
        near = " and ".join(str(value) for value in (below, below + HEADS) if value)
        raise ConfigError(f"width {width} must be a multiple of its {HEADS} heads; nearest allowed: {near}")
    if size[0] % patch or size[1] % patch or min(size) < patch:
        raise ConfigError(
            f"takes images whose sides are multiples of {patch} pixels, not {size[0]}x{size[1]}; "
            f"the smallest size it takes is {patch}x{patch}"
        )
    blocks = [Tokens(channels, size, patch, width), *(Block(width, norm) for _ in range(depth)), ClassToken(width, norm)]
    return Chain(blocks, width, classes)


def _norm(kind: str, dim: int) -> nn.Module:
    return nn.LayerNorm(dim) if kind == "ln" else nn.Identity()
