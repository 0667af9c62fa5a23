"""Networks that are trained on the synthetic images for a fixed time each, while these are made (DC, DSA)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dd.rng import stream
from dd.train.functional import fill_, flat
from dd.train.supervised import fit
from dd.types import Batch

if TYPE_CHECKING:
    from dd.data.pool import RealPool
    from dd.train.config import Training
    from dd.types import Batches

Train = Callable[[nn.Module, Batch, int], None]
Settle = Callable[[nn.Module, int], None]


class Trainee:
    """Hand out network number `step // lifetime`; after each update but the last of its lifetime, it learns from the synthetic images.

    With a lifetime of 1 no network learns anything. Networks are in training mode, and their parameters require gradients, but for
    what `settle` does.

    Args:
        make: returns network number n with random weights, a function of n alone.
        lifetime: updates of the images that a network is looked through for.
        train: changes a network in place; is given the synthetic images as they are after the update of a step, detached and
            un-augmented, and the number of the step. settle: prepares a network for a step that it is about to be looked through in.
            Both are functions of their arguments alone.
    """

    def __init__(self, make: Callable[[int], nn.Module], lifetime: int, train: Train, settle: Settle | None = None) -> None:
        if lifetime < 1:
            raise ValueError(f"lifetime must be at least 1 step, is {lifetime}")
        self._make = make
        self._lifetime = lifetime
        self._train = train
        self._settle = settle
        self._net: nn.Module | None = None
        self._step = 0  # of the last draw
        self._learned = False  # it is in the middle of its lifetime, so that its weights are not those that it was made with
        self._weights: Tensor | None = None  # taken back, for the network that the next draw makes

    def draw(self, step: int) -> nn.Module:
        """Return the network of this step; called once for each, in order."""
        if not self._learned or self._net is None:
            self._net = self._make(step // self._lifetime)
            if self._weights is not None:
                fill_(self._net.state_dict().values(), self._weights)
        self._step, self._weights = step, None
        if self._settle is not None:
            self._settle(self._net, step)
        return self._net

    def advance(self, net: nn.Module, batches: Batches) -> None:
        """Train the network, unless this was its last step."""
        self._learned = (self._step + 1) % self._lifetime != 0
        if self._learned:
            batch = batches.synthetic()
            self._train(net, Batch(batch.x.detach(), batch.y), self._step)

    def state_dict(self) -> dict[str, Tensor]:
        """Return weights and buffers of a network in the middle of its lifetime, else nothing."""
        if self._weights is not None:
            return {"weights": self._weights}
        if self._net is None or not self._learned:
            return {}
        return {"weights": flat(self._net.state_dict().values())}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take them back; the next draw says whose they are."""
        self._net, self._weights = None, state.get("weights")
        self._learned = self._weights is not None


def learner(training: Training, epochs: int, shape: tuple[int, int, int], seed: int) -> Train:
    """Return a `train`: some epochs of SGD on the synthetic images, whose random numbers are functions of (seed, step).

    Args:
        training: how; its strategy of augmentation is spelt out. Epochs and schedule mean nothing here: its rate is constant.
        shape: (c, h, w) of an image.

    A training that diverges leaves weights that are not finite: the run is then over, and the loop records it with the next row of its log.
    """

    def train(net: nn.Module, batch: Batch, step: int) -> None:
        fit(
            net,
            lambda index: (batch.x[index], batch.y[index]),
            len(batch.y),
            training,
            seed=seed,
            names=("inner", step),
            first_epoch=0,
            last_epoch=epochs,
            shape=shape,
            flip=False,  # the strategy of the training is given
        )

    return train


def statistics(pool: RealPool, per_class: int, seed: int) -> Settle:
    """Return a `settle` for batch normalisation: running statistics move once towards those of real images, and then stand still.

    `per_class` real images of each class (the smallest class limits all) are forwarded in one batch in training mode; then every
    batch normalisation is put in evaluation mode, where it uses its running statistics. Networks without any are left alone.
    """

    def settle(net: nn.Module, step: int) -> None:
        norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        if not norms:
            return
        index = pool.draw(stream(seed, "statistics", step), min(per_class, pool.smallest)).reshape(-1)
        net.train()
        with torch.no_grad():
            net(pool.x(index))
        for module in norms:
            module.eval()

    return settle

