"""MLP of the DC repository: two hidden layers of 128 with ReLU. Names: mlp[_w{width}], the width of both hidden layers.

Flatten -> Linear -> ReLU -> Linear -> ReLU -> Linear. Stage i is the output of ReLU i; the embedding is that of the second.

Differs from the paper: the repository's MLP has no embedding; this one is what "the first n-1 layers" means (extractors paper).
"""

from __future__ import annotations

from torch import nn

from dd.networks._layers import Chain

NAME = r"mlp(?:_w(?P<width>[1-9][0-9]*))?"
EXAMPLES = ["mlp", "mlp_w32"]


def smallest(**_: object) -> int:
    """Return 1: it takes any image."""
    return 1


def build(channels: int, size: tuple[int, int], classes: int, width: int = 128) -> nn.Module:
    """Build an MLP; see `dd.networks.build`."""
    pixels = channels * size[0] * size[1]
    first = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU())
    second = nn.Sequential(nn.Linear(width, width), nn.ReLU())
    return Chain([first, second], width, classes)
