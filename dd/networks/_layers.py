"""What families share: normalisations, dropout, and the chain of stages that satisfies `dd.types.Network`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

import torch
from torch import Tensor, nn

from dd import fast
from dd.errors import ConfigError
from dd.networks._instance_norm import InstanceNorm
from dd.rng import stream


def norm(kind: str, channels: int) -> nn.Module:
    """Return the normalisation `kind`: in, bn or none.

    in: y = (x - mean) / sqrt(var + 1e-5) * weight + bias, mean and (biased) variance over the pixels of one channel of one
    image; nothing is remembered, so training and evaluation agree. It is GroupNorm with one channel a group, as in the
    papers' code. bn: BatchNorm2d with PyTorch's defaults.
    """
    if kind == "in":
        return InstanceNorm(channels)
    return nn.BatchNorm2d(channels) if kind == "bn" else nn.Identity()


def refuse_below(least: int, size: tuple[int, int]) -> None:
    """Raise ConfigError if an image of `size` has a side below `least`."""
    if min(size) < least:
        shape = f"{size[0]}x{size[1]}"
        raise ConfigError(f"is too deep for images of {shape} pixels; the smallest size it takes is {least}x{least}")


# What was measured to be fastest on a CPU: as images come; channels last; or that, unless images want gradients (the second derivative
# of batch normalisation takes twice as long in it).
Layout = Literal["contiguous", "last", "last_without_gradients"]


class Chain(nn.Module):
    """Stages one after the other, and a linear head on the last one, flattened: a `dd.types.Network`.

    layout: in which images enter on the fast path, see `Layout`. Numbers do not depend on it, but for rounding.
    """

    def __init__(self, blocks: Iterable[nn.Module], width: int, classes: int, layout: Layout = "contiguous") -> None:
        super().__init__()
        self.layout = layout
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(width, classes)

    def lay_out(self, x: Tensor) -> Tensor:
        """Return (n, c, h, w) images in the layout of this network; who calls its blocks one by one begins with it."""
        if self.layout == "contiguous" or (self.layout == "last_without_gradients" and x.requires_grad):
            return x
        return fast.channels_last(x)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the output of every stage, in order; the last one, flattened, is `embed(x)`."""
        outputs, x = [], self.lay_out(x)
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs

    def embed(self, x: Tensor) -> Tensor:
        """Return (n, d), the input of the head."""
        x = self.lay_out(x)
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


class Dropout(nn.Module):
    """In training mode each number is 0 with probability p in [0, 1), else divided by 1 - p; the identity in eval mode or with p = 0.

    Masks are drawn on the CPU, so they are the same on every device, from the random stream that `reseed` gave: never from torch's
    global generator. Each call in training mode draws a new mask. `train()` and `eval()` take the stream away, so that nobody goes on
    with what another training left of one: masks would then depend on what ran before, and a resumed run would differ.

    Raises:
        ConfigError: from forward, in training mode without a stream. A stream of its own would be no way out: the mask of a call would
            depend on the number of calls before it, which no checkpoint holds.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ConfigError(f"dropout: value {p} is not a probability below 1; allowed: 0 to 1, without 1")
        self.p = p
        self.generator: torch.Generator | None = None

    def train(self, mode: bool = True) -> Self:
        """Set the mode and forget the random stream; `eval()` and the `train()` of any module around this one come here too."""
        self.generator = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape, type and device of x."""
        if not self.training or self.p == 0 or x.is_meta:  # meta tensors have shapes and no numbers: there is nothing to draw
            return x
        if self.generator is None:
            raise ConfigError(
                "a network with dropout is used in training mode without a random stream. Where a method looks through networks in "
                "training mode, name one without dropout. In code: call reseed(net, seed, *names) of dd.networks._layers after train(), "
                "once an epoch or step, or use eval()"
            )
        keep = torch.rand(x.shape, generator=self.generator, device="cpu", dtype=torch.float32) >= self.p
        return x * keep.to(x.device) / (1 - self.p)  # a mask travels as one byte a number

    def extra_repr(self) -> str:
        """Return what stands in brackets when the network is printed."""
        return f"p={self.p}"


def reseed(net: nn.Module, seed: int, *names: object) -> None:
    """Let every `Dropout` of the network start a random stream, a function of (seed, *names) and of its place in the network.

    Call it at the start of each epoch, or step, with names that tell it from others, and after `train()`, which takes streams away.
    Networks without dropout stay as they are.
    """
    layers = [module for module in net.modules() if isinstance(module, Dropout)]
    for number, layer in enumerate(layers):
        layer.generator = stream(seed, *names, "dropout", number)
