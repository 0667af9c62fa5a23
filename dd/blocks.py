"""What one update may look at where images are optimised in blocks of different classes, each seen through one random view."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from dd.batches import _Images
from dd.data.pool import RealPool
from dd.rng import stream
from dd.types import Augment, Parameterization


def mixed(classes: int, ipc: int, most: int) -> list[Tensor]:
    """Return positions of images sorted by class, in blocks of at most `most`, nearly equal, and of as many classes as there can be.

    Images go in by their number inside the class, then by class: 1,000 classes give blocks of 100 different classes, one image each;
    10 classes give blocks of 10 images each.
    """
    order = torch.arange(classes * ipc).view(classes, ipc).T.flatten()
    return list(order.tensor_split(-(-len(order) // most)))


class BlockBatches(_Images):
    """The batches of one step: blocks, each with one draw of the augmentation for all of its images.

    blocks: positions of stored images, each in one block. Views are a function of (seed, step, number of the block).
    """

    def __init__(
        self, pool: RealPool, synthetic: Parameterization, blocks: Sequence[Tensor], augment: Augment, seed: int, step: int
    ) -> None:
        super().__init__(pool, synthetic, sum(map(len, blocks)), seed, step)
        self._blocks = blocks
        self._augment = augment

    def blocks(self) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
        """Yield the positions of every block, and what shows its images, (n, c, h, w), through the view of this step."""
        for number, index in enumerate(self._blocks):
            yield index, partial(self._view, number)

    def _view(self, number: int, x: Tensor) -> Tensor:
        _, c, h, w = x.shape
        params = self._augment.draw(stream(self._seed, "view", self._step, number), 1, (c, h, w), shared=True)
        return self._augment.apply(x, params, torch.zeros(len(x), dtype=torch.int64))
