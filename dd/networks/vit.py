"""A light vision transformer (Dosovitskiy et al., ICLR 2021), as the extractors paper sizes it.

Patches of 4x4 -> 192 numbers; a class token; a learned position embedding for the size it is built for; 12 pre-norm blocks of
12 heads and an MLP of 768 with GELU; LayerNorm; Linear on the class token. No dropout. Names: vit[_w{dim}][_d{blocks}]; the
MLP is always 4 times as wide as the tokens.

Stages: 0 the tokens, class token first, (n, 1 + patches, dim); then each block; last the normalised class token, (n, dim).

Differs from the paper: it does not say where its embedding is taken (the class token, here), nor how it initialises (PyTorch's
defaults; the class token and positions, which have none, from N(0, 0.02^2)).
"""

from __future__ import annotations

from torch import nn

from dd.networks._layers import Chain
from dd.networks._vit import Block, ClassToken, Tokens, refuse_unfit

NAME = r"vit(?:_w(?P<width>[1-9][0-9]*))?(?:_d(?P<depth>[1-9][0-9]*))?"
EXAMPLES = ["vit", "vit_w48_d4"]

PATCH = 4
HEADS = 12
MLP_RATIO = 4


def smallest(**_: object) -> int:
    """Return the side of one patch."""
    return PATCH


def build(channels: int, size: tuple[int, int], classes: int, width: int = 192, depth: int = 12) -> nn.Module:
    """Build a ViT; see `dd.networks.build`."""
    refuse_unfit(width, HEADS, size, PATCH)
    blocks = [Tokens(channels, size, PATCH, width, spread=0.02), *(_block(width) for _ in range(depth)), ClassToken(nn.LayerNorm(width))]
    return Chain(blocks, width, classes)


def _block(dim: int) -> Block:
    """Return a block; its arguments are made in the order in which parameters are drawn."""
    return Block(
        HEADS,
        norm1=nn.LayerNorm(dim),
        qkv=nn.Linear(dim, 3 * dim),
        out=nn.Linear(dim, dim),
        norm2=nn.LayerNorm(dim),
        mlp=nn.Sequential(nn.Linear(dim, MLP_RATIO * dim), nn.GELU(), nn.Linear(MLP_RATIO * dim, dim)),
    )
