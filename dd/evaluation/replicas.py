"""Batch normalisation as several GPUs under DataParallel have it: one device computes, in shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dd.train.supervised import Loss

T = TypeVar("T")


class Replicas:
    """A network as `count` replicas see it: each has a shard of the mini-batch, and normalises it with the shard's own statistics.

    Only the first shard moves running statistics, as only device 0 keeps its own. Shards are those of `torch.chunk`: of ceil(n / count)
    images, the last one fewer; there may be fewer than `count`. Networks without batch normalisation are not changed by it.
    """

    def __init__(self, net: nn.Module, count: int) -> None:
        self._net: Any = net
        self._count = count
        self._norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the output of every stage, in order."""
        return [torch.cat(shards) for shards in zip(*self._each(self._net.stages, x), strict=True)]

    def rear(self, h: Tensor, after: int) -> Tensor:
        """Return (n, k) logits from the output `h` of stage `after` on."""
        return torch.cat(self._each(partial(self._net.rear, after=after), h))

    def __call__(self, x: Tensor) -> Tensor:
        """Return (n, k) logits."""
        return torch.cat(self._each(self._net, x))

    def _each(self, call: Callable[[Tensor], T], x: Tensor) -> list[T]:
        first, *others = x.chunk(self._count)
        own = call(first)
        with self._unrecorded():
            return [own, *map(call, others)]

    @contextmanager
    def _unrecorded(self) -> Iterator[None]:
        """Let batch normalisation leave its running statistics alone: those of a shard get no weight."""
        momenta = [module.momentum for module in self._norms]
        for module in self._norms:
            module.momentum = 0.0
        try:
            yield
        finally:
            for module, momentum in zip(self._norms, momenta, strict=True):
                module.momentum = momentum


def replicated(loss: Loss, count: int) -> Loss:
    """Return a loss whose forward passes go through `count` replicas; the value is still one mean over the mini-batch."""
    return loss if count == 1 else partial(_replicated, loss, count)


def _replicated(loss: Loss, count: int, net: nn.Module, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    return loss(Replicas(net, count), x, y, index)  # type: ignore[arg-type]  # a network in all that a loss asks for
