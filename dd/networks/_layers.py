"""What families share: the normalisations, and the chain of stages that satisfies `dd.types.Network`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dd.errors import ConfigError


def norm(kind: str, channels: int) -> nn.Module:
    """Return the normalisation `kind`: in, bn or none.

    in: y = (x - mean) / sqrt(var + 1e-5) * weight + bias, mean and (biased) variance over the pixels of one channel of one
    image; nothing is remembered, so training and evaluation agree. Written as GroupNorm with one channel a group, as the
    papers' code has it. bn: BatchNorm2d with PyTorch's defaults.
    """
    if kind == "in":
        # On a CPU core (medians of interleaved runs, 8x8 to 32x32 pixels, 128 channels, torch 2.15) F.instance_norm takes
        # 2.2-3.7 times as long forward, 1.2-1.6 times with backward and 2.8-3.7 times with double backward.
        return nn.GroupNorm(channels, channels)
    return nn.BatchNorm2d(channels) if kind == "bn" else nn.Identity()


def refuse_below(least: int, size: tuple[int, int]) -> None:
    """Raise ConfigError if an image of `size` has a side below `least`."""
    if min(size) < least:
        shape = f"{size[0]}x{size[1]}"
        raise ConfigError(f"is too deep for images of {shape} pixels; the smallest size it takes is {least}x{least}")


class Chain(nn.Module):
    """Stages one after the other, and a linear head on the last one, flattened: a `dd.types.Network`."""

    def __init__(self, blocks: Iterable[nn.Module], width: int, classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(width, classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the output of every stage, in order; the last one, flattened, is `embed(x)`."""
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs

    def embed(self, x: Tensor) -> Tensor:
        """Return (n, d), the input of the head."""
        for block in self.blocks:
            x = block(x)
        return x.flatten(1)

    def rear(self, h: Tensor, after: int) -> Tensor:
        """Return (n, k) logits from the output `h` of stage `after`, counted from 0.

        Raises:
            ConfigError: there is no such stage.
        """
        if not 0 <= after < len(self.blocks):
            raise ConfigError(f"stage {after} does not exist; allowed: 0 to {len(self.blocks) - 1}")
        for block in list(self.blocks)[after + 1 :]:
            h = block(h)
        logits: Tensor = self.head(h.flatten(1))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, k) logits."""
        logits: Tensor = self.head(self.embed(x))
        return logits


class GlobalPool(nn.Module):
    """(n, c, h, w) -> (n, c), the mean over pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over pixels."""
        return torch.mean(x, (2, 3))
