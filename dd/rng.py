"""Named random streams: every random number is a function of (seed, names), so there is no state to save.

The generators live on the CPU on purpose: the same numbers are drawn whatever device the arithmetic runs on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(seed: int, *names: object) -> int:
    """Return a 63-bit integer that depends on the seed and every name."""
    text = "\x1f".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def stream(seed: int, *names: object) -> torch.Generator:
    """Return a fresh CPU generator for the stream (seed, names); equal arguments give equal numbers."""
    return torch.Generator().manual_seed(seed_of(seed, *names))


@contextmanager
def seeded(seed: int, *names: object) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block and restore it after.

    For code that takes no generator, which is what module constructors are.
    """
    state = torch.get_rng_state()
    torch.manual_seed(seed_of(seed, *names))
    try:
        yield
    finally:
        torch.set_rng_state(state)
