"""Networks that learn from the synthetic images while these are made, each for as long as that changes what it knows (CAFE).

Read by the planner, so nothing heavy is imported at the top.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from dd.config import Frozen

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dd.data.pool import RealPool
    from dd.train.config import Training
    from dd.types import Batches, Inputs


class Dynamics(Frozen):
    """A network and the rule by which it learns.

    network: a name of `dd.networks`, built anew with random weights. lr, batch: of the plain SGD that trains it on the synthetic
    images. probe: real training images per class whose accuracy is measured; the smallest class limits all. window: how many of
    the last probes are compared. lambda1: a network is left when these differ by less; lambda2: its training pauses when they
    differ by more. updates_max: of the images with one network; inner_max: epochs of training between two of them: caps, which the
    released code lacks. accumulate: `released` adds to each probe the one before divided by the number of classes, as the released
    code does (it never sets its sum back to zero); `reset` does not.
    """

    network: str = "convnet3_in"
    lr: float = Field(default=0.01, gt=0)
    batch: int = Field(default=256, ge=1)
    probe: int = Field(default=128, ge=1)
    window: int = Field(default=10, ge=2)
    lambda1: float = Field(default=0.04, ge=0)
    lambda2: float = Field(default=0.03, ge=0)
    updates_max: int = Field(default=100, ge=1)
    inner_max: int = Field(default=100, ge=1)
    accumulate: Literal["released", "reset"] = "released"


class Dynamic:
    """Hand out one network after the other, each trained on the synthetic images between their updates.

    After an update the network is probed: its accuracy on real training images, averaged over classes. When the last `window`
    probes differ by less than lambda1 the network has nothing more to say, and a new one comes. Otherwise it is trained on the
    synthetic images, an epoch and a probe at a time, until the last `window` of these probes differ by more than lambda2. Both
    need a full window: at least `window` updates a network, and `window` epochs between two of them. Each network starts with an
    empty window, and so does each pause between two updates, so that only the outer window lives from step to step.

    Differs from the released code: `updates_max` and `inner_max`. A network whose accuracy stands still never leaves that code's
    inner loop; here it goes on to the next update. How often each cap was hit is among the `facts`. Batch normalisation takes the
    statistics of the batch everywhere, one class at a time in probes, as there; running statistics are never read.

    Args:
        make: returns network number n with random weights, a function of n alone.
        pool: the real images that probes draw from. training: how to train; its epochs and schedule mean nothing here.
        shape: (c, h, w) of an image. networks: how many come, before `done` says so.
        seed: every draw is a function of it, the number of the network, and of updates and epochs that the network has seen.
        begin: called with the number of each network that follows another, also when a saved state is taken back.
    """

    def __init__(
        self,
        make: Callable[[int], nn.Module],
        pool: RealPool,
        rule: Dynamics,
        training: Training,
        shape: tuple[int, int, int],
        networks: int,
        seed: int,
        begin: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._make = make
        self._pool = pool
        self._rule = rule
        self._training = training
        self._shape = shape
        self._networks = networks
        self._seed = seed
        self._begin = begin
        self._net: nn.Module | None = None
        self._number = 0
        self._updates = 0  # with this network
        self._recent: list[float] = []  # probes after the last updates with this network
        self._epochs = 0  # of all networks, as are the next three
        self._outer_caps = 0
        self._inner_caps = 0
        self._broken = 0

    def done(self) -> bool:
        """Tell whether all networks are used up."""
        return self._number >= self._networks

    def draw(self, step: int) -> nn.Module:
        """Return the present network, in training mode, its weights frozen."""
        if self._net is None:
            self._net = self._make(self._number).requires_grad_(False).train()
        return self._net

    def advance(self, net: nn.Module, batches: Batches) -> None:
        """Probe the network; then train it, or go on to the next one."""
        self._updates += 1
        self._recent.append(self._probe(net, 0, self._recent))
        settled = self._full(self._recent) and max(self._recent) - min(self._recent) < self._rule.lambda1
        if settled or self._updates >= self._rule.updates_max:
            self._outer_caps += not settled
            self._next()
            return
        self._recent = self._recent[1 - self._rule.window :]
        if not self._learn(net, batches):
            self._broken += 1
            self._next()

    def _next(self) -> None:
        self._number, self._updates, self._recent, self._net = self._number + 1, 0, [], None
        self._begin(self._number)

    def facts(self) -> dict[str, Tensor]:
        """Return scalars: number of the network (from 0), its last probe (0 before the first), epochs and caps hit up to now."""
        import torch

        values = {
            "network": self._number,
            "probe": self._recent[-1] if self._recent else 0.0,
            "inner_epochs": self._epochs,
            "caps_outer": self._outer_caps,
            "caps_inner": self._inner_caps,
            "diverged": self._broken,
        }
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

    def _learn(self, net: nn.Module, batches: Batches) -> bool:
        """Train until the probes have moved, or the cap is hit; return False for a network whose training diverged."""
        from dd.train.supervised import fit

        batch = batches.synthetic()
        x, y = batch.x.detach(), batch.y
        recent: list[float] = []
        net.requires_grad_(True)
        for epoch in range(self._rule.inner_max):
            fitted = fit(
                net,
                lambda index: (x[index], y[index]),
                len(x),
                self._training,
                seed=self._seed,
                names=("inner", self._number, self._updates),
                first_epoch=epoch,
                last_epoch=epoch + 1,
                shape=self._shape,
                flip=False,  # the strategy of the training is given
            )
            self._epochs += 1
            if fitted.diverged is not None:
                return False
            recent.append(self._probe(net, epoch + 1, recent))
            if self._full(recent):
                if max(recent) - min(recent) > self._rule.lambda2:
                    break
                recent.pop(0)
        else:
            self._inner_caps += 1
        net.requires_grad_(False)
        return True

    def _full(self, recent: list[float]) -> bool:
        return len(recent) == self._rule.window

    def _probe(self, net: nn.Module, epoch: int, before: list[float]) -> float:
        """Return the accuracy on a fresh draw of real images, averaged over classes, plus what `accumulate` adds."""
        import torch

        from dd.rng import stream

        generator = stream(self._seed, "probe", self._number, self._updates, epoch)
        index = self._pool.draw(generator, min(self._rule.probe, self._pool.smallest))
        with torch.no_grad():
            hits = [(net(self._pool.x(rows)).argmax(1) == number).sum() for number, rows in enumerate(index)]
        accuracy = torch.stack(hits).sum().item() / index.numel()
        if self._rule.accumulate == "released" and before:
            accuracy += before[-1] / self._pool.classes
        return accuracy

    def state_dict(self) -> dict[str, Tensor]:
        """Return the counters with the window, and the weights of a network that has begun to learn."""
        import torch

        from dd.train.functional import flat

        counters = [self._number, self._updates, self._epochs, self._outer_caps, self._inner_caps, self._broken]
        state = {"progress": torch.tensor([*counters, *self._recent], dtype=torch.float64)}
        if self._net is not None and self._updates:
            state["weights"] = flat(self._net.parameters())
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take them back; a network that has not begun to learn is made again when it is drawn."""
        from dd.train.functional import fill_

        values = state["progress"].tolist()
        self._number, self._updates, self._epochs, self._outer_caps, self._inner_caps, self._broken = map(int, values[:6])
        self._recent = values[6:]
        self._net = None
        if self._updates:
            fill_(self.draw(0).parameters(), state["weights"])
        self._begin(self._number)


def source(rule: Dynamics, training: Training, inputs: Inputs, networks: int, begin: Callable[[int], None]) -> Dynamic:
    """Return the source of a recipe's inputs; network n is a function of (seed of the set, name, n)."""
    from dd import networks as families

    def make(number: int) -> nn.Module:
        channels, height, width = inputs.shape
        names = ("dynamic", rule.network, number)
        net = families.build(rule.network, channels, (height, width), inputs.classes, inputs.seed, *names)
        return net.to(inputs.device)

    return Dynamic(make, inputs.pool(), rule, training, inputs.shape, networks, inputs.seed, begin)
