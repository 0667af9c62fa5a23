"""The floor under a unit's time: its floating-point operations over the rate of a large matrix product.

Operations are those of convolutions and matrix products, forward and backward, two for a multiplication and an addition. What the
floor leaves out (normalisations, augmentation, reading and writing memory) is why no path can reach it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

SIDES = {"cpu": (1024, 2048, 3072), "cuda": (4096, 8192)}
REPEATS = 3


class _Counting(TorchDispatchMode):
    """Adds up what PyTorch's own counter says of each operation; that counter's hooks on modules forbid a second backward pass."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def flops(work: Callable[[], object]) -> int:
    """Return the operations of one call, whatever the autograd functions that they hide in."""
    with _Counting() as counting:
        work()
    return int(counting.total)


def rate(device: str) -> float:
    """Return operations a second of a float32 matrix product: of several sizes the best, of several products the median.

    On CUDA, TF32 is allowed here where it is allowed for convolutions, which are most of every unit.
    """
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        return max(_rate(side, device) for side in SIDES[device])
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def _rate(side: int, device: str) -> float:
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    out, seconds = torch.empty_like(a), []
    for _ in range(REPEATS + 1):
        synchronise(device)
        began = time.perf_counter()
        torch.mm(a, b, out=out)
        synchronise(device)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / statistics.median(seconds[1:])  # the first one warms up


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()
