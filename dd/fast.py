"""Which path the arithmetic takes: the fast one, or the plain one that it is tested against.

Both have the same mathematics; their last bits differ. What is fast was measured on a CPU (`records/speed.md`); on other devices the plain
path is taken until somebody measures there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

CACHED = 32  # images whose activations stay in a cache; the same for any number of threads, so that numbers do not depend on it
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
    """Tell whether images or features take the fast path: true on the CPU, false on a GPU and for meta tensors."""
    return not _plain and x.device.type == "cpu"


def channels_last(x: Tensor) -> Tensor:
    """Return (n, c, h, w) images, c above 1, in channels-last layout, if they take the fast path; else as they are."""
    return x.contiguous(memory_format=torch.channels_last) if active(x) else x


def at_once(x: Tensor, most: int) -> int:
    """Return how many images are forwarded at once without gradients, at most `most`."""
    return min(most, CACHED) if active(x) else most
