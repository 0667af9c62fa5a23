"""The discriminator that generators of this folder are trained against; no family: nothing but the training uses it.

fromRGB 1x1; at each resolution from the images' side to 8 two 3x3 convolutions, the second of which doubles the channels, and an
average pooling; at 4x4 the spread of the mini-batch as one more channel, a convolution and a linear layer to h. The logit is
u(h) + <h, n(e_y)> / sqrt(d): a term without the label, and the projection on the label's normalised embedding (Miyato & Koyama, 2018),
so that a signal is left where the label's path is weak. Equalised learning rates everywhere; no normalisation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd.generators._layers import Conv, Linear, activate, unit, working_side

BACKGROUND = -1.0  # black, in GAN range
GROUP = 4  # images whose spread is one number


def widths(side: int, width: int) -> dict[int, int]:
    """Return the channels at each resolution from `side` down to 4: `width` at 4 and 8, and half at each doubling."""
    return {side >> i: max(1, min(width, width * 8 // (side >> i))) for i in range(side.bit_length() - 2)}


def spread(f: Tensor, group: int = GROUP) -> Tensor:
    """Return f (n, c, h, w) with one more channel: the mean over pixels and channels of the std over a group of images.

    Groups are as large as `group` allows and n is divisible by; image i is in group i modulo the number of groups.
    """
    n = len(f)
    size = max(k for k in range(1, min(group, n) + 1) if n % k == 0)
    grouped = f.reshape(size, n // size, *f.shape[1:])
    std = ((grouped - grouped.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3))
    return torch.cat([f, std.repeat(size)[:, None, None, None].expand(n, 1, *f.shape[2:])], 1)


class Discriminator(nn.Module):
    """Logits (n,) of images (n, c, h, w) in GAN range and their labels (n,).

    width: channels at 4x4, and the length of h; that of the generator. Images of 28x28 pixels are padded to 32x32 with -1, the
    background; real and generated alike, so that nothing in the border tells them apart.
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int, width: int) -> None:
        super().__init__()
        side = working_side(size)
        self.pad = (side - size[0]) // 2
        at = widths(side, width)
        self.first = Conv(channels, at[side], 1)
        blocks = []
        for here in [resolution for resolution in at if resolution > 4]:
            blocks.append(nn.ModuleList([Conv(at[here], at[here], 3), Conv(at[here], at[here // 2], 3)]))
        self.blocks = nn.ModuleList(blocks)
        self.last = Conv(at[4] + 1, at[4], 3)
        self.hidden = Linear(at[4] * 16, width)
        self.free = Linear(width, 1)
        self.embedding = nn.Parameter(torch.randn(classes, width))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return logits; above zero is "real"."""
        f = activate(self.first(F.pad(x, (self.pad,) * 4, value=BACKGROUND)))
        for pair in self.blocks:
            for conv in pair:  # type: ignore[attr-defined]
                f = activate(conv(f))
            f = F.avg_pool2d(f, 2)
        h = activate(self.hidden(activate(self.last(spread(f))).flatten(1)))
        return self.free(h).squeeze(1) + (h * unit(self.embedding[y])).sum(1) / math.sqrt(h.shape[1])
