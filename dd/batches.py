"""What one update may look at: the synthetic set and a fresh draw of real images, under one augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dd import fast
from dd.augment.policies import Nothing
from dd.data.pool import RealPool
from dd.rng import stream
from dd.types import Augment, Batch, Parameterization


@dataclass(frozen=True, slots=True)
class RealBatch(Batch):
    """Real images as they are, and their positions in the pool, (n,) int64."""

    index: Tensor


class _Images:
    """What every kind of batches offers of one step: its synthetic images as they are, and real ones at random."""

    def __init__(self, pool: RealPool, synthetic: Parameterization, size: int, seed: int, step: int) -> None:
        self._pool = pool
        self._synthetic = synthetic
        self._seed = seed
        self._step = step
        self._calls = 0
        self._index = torch.arange(size, device=pool.device)

    def synthetic(self, n: int | None = None) -> Batch:
        """Return what the first n stored images decode to, or all, un-augmented."""
        index = self._index[:n]
        return Batch(self._synthetic.decode(index), self._synthetic.labels(index))

    def real(self, n: int) -> Batch:
        """Return n real images drawn uniformly from the whole train split, anew in each call of a step."""
        index = self._pool.uniform(stream(self._seed, "uniform", *self._next()), n)
        return Batch(self._pool.x(index), self._pool.y(index))

    def _next(self) -> tuple[int, int]:
        self._calls += 1
        return self._step, self._calls - 1


class SiameseBatches(_Images):
    """The batches of one step.

    Real images are drawn without replacement inside a batch, `per_class` of each class. The augmentation is drawn once a class
    and applied to its real and its synthetic images alike (DSA's siamese augmentation). Every call of `pair` in a step is a new
    draw, and each is a function of (seed, step, number of the call).

    size: stored images, sorted by class and equally many of each. cap: the most synthetic images of a class in a batch, where
    decoding makes more of them; which ones is drawn anew in each call. None is no cap.

    Differs from the released code, which re-seeds the global generator from the clock: the distribution is the same. IDC's loader
    sweeps each class in an order of its own before it shows an image twice; here batches are independent of each other.
    """

    def __init__(
        self,
        pool: RealPool,
        synthetic: Parameterization,
        size: int,
        augment: Augment,
        per_class: int,
        seed: int,
        step: int,
        cap: int | None = None,
    ) -> None:
        super().__init__(pool, synthetic, size, seed, step)
        self._augment = augment
        self._per_class = per_class
        self._cap = cap

    def pair(self, net: Any = None) -> tuple[Batch, Batch]:
        """Return (synthetic, real), both sorted by class: (C * n, c, h, w) and (C * per_class, c, h, w).

        Without augmentation, what is real is a `RealBatch`.
        """
        names = self._next()
        index = self._pool.draw(stream(self._seed, "real", *names), self._per_class)
        synthetic = self._capped(names)
        params = self._draw(names, synthetic.x)
        x, flat = self._real(index, params), index.reshape(-1)
        y = self._pool.y(flat)
        return self._seen(synthetic, params), RealBatch(x, y, flat) if isinstance(self._augment, Nothing) else Batch(x, y)

    def augmented(self) -> Batch:
        """Return the synthetic images alone, sorted by class, under a draw of their own: for looks after the update."""
        names = self._next()
        synthetic = self._capped(names)
        return self._seen(synthetic, self._draw(names, synthetic.x))

    def _seen(self, batch: Batch, params: Any) -> Batch:
        """Return the synthetic images as augmented; which class each is of is known here without asking the device."""
        groups = torch.arange(self._pool.classes).repeat_interleave(len(batch.y) // self._pool.classes)
        return Batch(self._augment.apply(batch.x, params, groups), batch.y)

    def _real(self, index: Tensor, params: Any) -> Tensor:
        """Return the real images at (classes, m) positions, normalised and augmented; on a CPU by class, which fits into a cache."""
        if not fast.active(self._pool.images):
            groups = torch.arange(len(index)).repeat_interleave(index.shape[1])
            return self._augment.apply(self._pool.x(index.reshape(-1)), params, groups)
        found: Tensor | None = None
        for c, row in enumerate(index):
            part = self._augment.apply(self._pool.x(row), params, torch.full((len(row),), c))
            if found is None:
                found = part.new_empty(index.numel(), *part.shape[1:])
            found[c * len(row) : (c + 1) * len(row)] = part
        assert found is not None  # a dataset has classes
        return found

    def _draw(self, names: tuple[int, int], x: Tensor) -> Any:
        _, c, h, w = x.shape
        return self._augment.draw(stream(self._seed, "augment", *names), self._pool.classes, (c, h, w), shared=True)

    def _capped(self, names: tuple[int, int]) -> Batch:
        """Return all synthetic images, or a random `cap` of each class."""
        batch = self.synthetic()
        each = len(batch.y) // self._pool.classes
        if self._cap is None or each <= self._cap:
            return batch
        order = torch.rand(self._pool.classes, each, generator=stream(self._seed, "subset", *names)).argsort(1)[:, : self._cap]
        chosen = (order + each * torch.arange(self._pool.classes).unsqueeze(1)).reshape(-1).to(batch.x.device, non_blocking=True)
        return Batch(batch.x[chosen], batch.y[chosen])


class UnrolledBatches(_Images):
    """The batches of one step of a method that trains a student on the synthetic images inside the step.

    Every mini-batch is a function of (seed, step, i) and of the images, so that it may be made again in the backward pass.

    size: stored images. batch: images of a mini-batch; None, or more than there are, is all of them.
    """

    def __init__(
        self, pool: RealPool, synthetic: Parameterization, size: int, augment: Augment, batch: int | None, seed: int, step: int
    ) -> None:
        super().__init__(pool, synthetic, size, seed, step)
        self._augment = augment
        self._batch = batch

    def minibatch(self, i: int, images: Tensor, labels: Tensor) -> Batch:
        """Return mini-batch i of the student, augmented: at most `batch` of the n images, and their labels; differentiable in the images.

        All images are shuffled and cut into pieces of `batch`, of which the last one is taken first: where `batch` does not divide n, that
        is the short one. When no piece is left they are shuffled anew. The augmentation has values for each image.
        """
        n = len(images)
        batch = min(self._batch or n, n)
        sweep, taken = divmod(i, -(-n // batch))
        order = torch.randperm(n, generator=stream(self._seed, "chunks", self._step, sweep))
        index = order.split(batch)[-1 - taken].to(images.device, non_blocking=True)
        generator = stream(self._seed, "student", self._step, i)
        params = self._augment.draw(generator, len(index), (images.shape[1], images.shape[2], images.shape[3]), shared=False)
        return Batch(self._augment.apply(images.index_select(0, index), params, torch.arange(len(index))), labels[index])
