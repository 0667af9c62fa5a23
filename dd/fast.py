"""Which path the arithmetic takes: the fast one, or the plain one that it is tested against.

Both have the same mathematics; their last bits differ. What is fast was measured on a CPU (`records/speed.md`); on other devices the plain
path is taken until somebody measures there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_plain = False


@contextmanager
def plain() -> Iterator[None]:
    """Take the plain path inside the block: torch's own modules, contiguous tensors, batches in one piece."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def active(x: Tensor) -> bool:
    """Tell whether (n, c, h, w) images or features take the fast path: on the CPU, but for shapes without numbers."""
    return not _plain and x.device.type == "cpu"


def laid_out(x: Tensor) -> Tensor:
    """Return (n, c, h, w) images in the layout in which convolutions and pooling are fastest: channels last on the CPU.

    Also those of one channel, whose layout would be ambiguous: its strides say so.
    """
    if not active(x) or x.ndim != 4 or x.stride(1) == 1:
        return x
    return x.clone(memory_format=torch.channels_last)


def at_once(x: Tensor, most: int) -> int:
    """Return how many images are forwarded at once without gradients, at most `most`: so few that their activations stay in a cache."""
    return min(most, 32) if active(x) else most
