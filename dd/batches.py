"""What one update may look at: the synthetic set and a fresh draw of real images, under one augmentation."""

from __future__ import annotations

from typing import Any

import torch

from dd.data.pool import RealPool
from dd.rng import stream
from dd.types import Augment, Batch, Parameterization


class SiameseBatches:
    """The batches of one step.

    Real images are drawn without replacement inside a batch, `per_class` of each class. The augmentation is drawn once a class
    and applied to its real and its synthetic images alike (DSA's siamese augmentation). Every call of `pair` in a step is a new
    draw, and each is a function of (seed, step, number of the call).

    Differs from the released code, which re-seeds the global generator from the clock: the distribution is the same.
    """

    def __init__(
        self, pool: RealPool, synthetic: Parameterization, size: int, augment: Augment, per_class: int, seed: int, step: int
    ) -> None:
        self._pool = pool
        self._synthetic = synthetic
        self._augment = augment
        self._per_class = per_class
        self._seed = seed
        self._step = step
        self._calls = 0
        self._index = torch.arange(size, device=pool.device)

    def pair(self, net: Any = None) -> tuple[Batch, Batch]:
        """Return (synthetic, real), both sorted by class: (C * n, c, h, w) and (C * per_class, c, h, w)."""
        names = (self._step, self._calls)
        self._calls += 1
        index = self._pool.draw(stream(self._seed, "real", *names), self._per_class).reshape(-1)
        real = Batch(self._pool.x(index), self._pool.y(index))
        synthetic = self.synthetic()
        _, c, h, w = real.x.shape
        params = self._augment.draw(stream(self._seed, "augment", *names), self._pool.classes, (c, h, w), shared=True)
        return (
            Batch(self._augment.apply(synthetic.x, params, synthetic.y), synthetic.y),
            Batch(self._augment.apply(real.x, params, real.y), real.y),
        )

    def synthetic(self, n: int | None = None) -> Batch:
        """Return the first n synthetic images, or all."""
        index = self._index[:n]
        return Batch(self._synthetic.decode(index), self._synthetic.labels(index))

    def real(self, n: int) -> Batch:
        """Return n real images drawn uniformly from the whole train split."""
        index = self._pool.uniform(stream(self._seed, "uniform", self._step, self._calls), n)
        self._calls += 1
        return Batch(self._pool.x(index), self._pool.y(index))
