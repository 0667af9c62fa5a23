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

from torch import Tensor, nn

from dd.networks._layers import Chain, Dropout
from dd.networks._vit import Block, ClassToken, Tokens, refuse_unfit

NAME = r"vit_p(?P<patch>[1-9][0-9]*)_(?P<norm>ln|none)_d(?P<depth>[1-9][0-9]*)(?:_w(?P<width>[1-9][0-9]*))?"
EXAMPLES = ["vit_p4_ln_d6_w32", "vit_p4_none_d2_w16", "vit_p16_none_d10_w32"]  # narrow; the papers' are 512 wide

HEADS = 8
DROPOUT = 0.1


class Dropped(Tokens):
    """Tokens with dropout."""

    def __init__(self, channels: int, size: tuple[int, int], patch: int, dim: int) -> None:
        super().__init__(channels, size, patch, dim, spread=1.0)
        self.dropout = Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens."""
        tokens: Tensor = self.dropout(super().forward(x))
        return tokens


def smallest(patch: int, **_: object) -> int:
    """Return the side of one patch."""
    return patch


def build(channels: int, size: tuple[int, int], classes: int, patch: int, norm: str, depth: int, width: int = 512) -> nn.Module:
    """Build a ViT; see `dd.networks.build`."""
    refuse_unfit(width, HEADS, size, patch)
    blocks = [Dropped(channels, size, patch, width), *(_block(width, norm) for _ in range(depth)), ClassToken(_norm(norm, width))]
    return Chain(blocks, width, classes)


def _block(dim: int, kind: str) -> Block:
    """Return a block whose norm is LayerNorm or nothing; its arguments are made in the order in which parameters are drawn."""
    return Block(
        HEADS,
        norm1=_norm(kind, dim),
        qkv=nn.Linear(dim, 3 * dim, bias=False),
        out=nn.Sequential(nn.Linear(dim, dim), Dropout(DROPOUT)),
        norm2=_norm(kind, dim),
        mlp=nn.Sequential(nn.Linear(dim, dim), nn.GELU(), Dropout(DROPOUT), nn.Linear(dim, dim), Dropout(DROPOUT)),
    )


def _norm(kind: str, dim: int) -> nn.Module:
    return nn.LayerNorm(dim) if kind == "ln" else nn.Identity()
