r"""IDM: improved distribution matching for dataset condensation (Zhao et al., CVPR 2023).

DM with three changes. Four training images lie in each stored one ("partition and expansion"). Features come from a queue of up to a
hundred networks of every age, which go on being trained on the real images. And the synthetic images must be classified by the network
that is looked through, the more so the better it is itself:

.. math:: L = \sum_c \| \frac{1}{B}\sum_{x \in X_c} f(A x) - \frac{1}{m}\sum_{s \in S_c} f(A s) \|^2
          + \lambda \, a \, \frac{1}{m}\sum_{s \in S_c} CE(net(A s), c)

Each class takes a step of its own, with one shared momentum. Pixels are normalised and never clamped.

Differs from the paper, as the released code does: a is the network's accuracy on its training batches since the last reset, *in
percent*, from 0 to 100, so that `ce_weight: 0.5` is a weight of 30 for a network at 60 % (the paper has a plain lambda:
`ce_scale: plain`); a network that was not trained since the last reset of the meters (every 100 or 500 iterations) has a weight of 0.

Differs from the code: random numbers are functions of (seed, step); a class with fewer images than `batch_real` limits all classes to
its number; the result is the last iterate, where the code keeps the best of 40 to 200 on the test split.

Of the datasets here, the authors published commands for CIFAR-10 and CIFAR-100, at 1, 10 and 50 images per class. Other datasets take
those of CIFAR-10, other numbers of images those of the nearest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dd.config import Frozen, added

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dd.types import Inputs, Need, Run

# (ce_weight, batch_real, grow_every, train_steps, reset_every) of the published commands, by images per class
CIFAR10 = {1: (0.5, 5000, 5, 10, 100), 10: (0.5, 256, 30, 10, 100), 50: (0.1, 256, 30, 10, 500)}
CIFAR100 = {1: (0.5, 5000, 5, 10, 100), 10: (0.1, 256, 30, 50, 100), 50: (0.1, 256, 30, 10, 500)}
KEYS = ("ce_weight", "batch_real", "grow_every", "train_steps", "reset_every")


class Config(Frozen):
    """Fields of IDM; the defaults are those of the released code for CIFAR-10 at 10 images per class.

    iterations: rounds over all classes. lr_img: in normalised units. batch_real: real images per class and iteration. factor: training
    images per side of a stored one; time_only: cut along the width alone (spectrograms). init: each part a random real image, or N(0, 1)
    noise. strategy: operations of the siamese augmentation; null is the dataset's own. network: of the queue. ce_weight, ce_scale:
    lambda, and whether it is times the accuracy in percent. size, grow_every: of the queue, and iterations between two networks that
    join. fetch, train_steps, train_batch: how many of them are trained after each iteration, for how many steps of how many images.
    reset_every: iterations between two resets of the accuracies. steps: numbers of updates after which the set is published as well.
    """

    iterations: int = Field(default=20_000, ge=0)
    lr_img: float = Field(default=0.2, gt=0)
    momentum: float = Field(default=0.5, ge=0, lt=1)
    batch_real: int = Field(default=256, ge=1)
    factor: int = Field(default=2, ge=1)
    time_only: bool = added(False)
    init: Literal["real", "noise"] = "real"
    augment: Literal["oneof", "none"] = "oneof"
    strategy: str | None = None
    network: str = "convnet3_in"
    ce_weight: float = Field(default=0.5, ge=0)
    ce_scale: Literal["percent", "plain"] = "percent"
    size: int = Field(default=100, ge=1)
    grow_every: int = Field(default=30, ge=1)
    fetch: int = Field(default=2, ge=0)
    train_steps: int = Field(default=10, ge=0)
    train_batch: int = Field(default=256, ge=1)
    reset_every: int = Field(default=100, ge=1)
    steps: tuple[int, ...] = ()


def defaults(dataset: str, ipc: int) -> dict[str, Any]:
    """Return the published settings of the nearest number of images per class."""
    table = CIFAR100 if dataset == "cifar100" else CIFAR10
    speech = {"augment": "none", "time_only": True, "network": "convnet4_in"} if dataset == "mini_speech_commands" else {}
    return {**dict(zip(KEYS, table[min(table, key=lambda known: abs(known - ipc))], strict=True)), **speech}


def needs(config: Config, dataset: str) -> list[Need]:
    """Return nothing: the queue trains its own networks."""
    return []


def decoded(config: Config, ipc: int) -> int:
    """Return how many training images a class has."""
    return ipc * (config.factor if config.time_only else config.factor**2)


def work(config: Config, classes: int, train: int, ipc: int) -> dict[str, float]:
    """Return how many images' forward passes the run costs, by network; a backward pass counts for two, one to weights included."""
    matching = classes * (min(config.batch_real, train // classes) + 3.0 * decoded(config, ipc))
    return {config.network: config.iterations * (matching + 3.0 * config.fetch * config.train_steps * config.train_batch)}


def build(config: Config, inputs: Inputs) -> Run:
    """Return the run: mosaics, the queue, matching and classifying, one step a class."""
    import torch

    from dd import networks
    from dd.augment.policies import make
    from dd.augment.strategies import default_strategy
    from dd.batches import SiameseBatches
    from dd.objectives.classify import MatchAndClassify
    from dd.optim import PerClassSGD
    from dd.parameterizations.multiformation import MultiFormation, draws
    from dd.rng import stream
    from dd.sources.queue import Queue
    from dd.types import DistilledSet, Run

    pool = inputs.pool()
    channels, height, width = inputs.shape
    labels = torch.arange(inputs.classes, device=pool.device).repeat_interleave(inputs.ipc)
    if config.init == "real":
        images = draws(pool, inputs.ipc, config.factor, stream(inputs.seed, "init"), time_only=config.time_only)
    else:
        images = torch.randn(len(labels), *inputs.shape, generator=stream(inputs.seed, "noise")).to(pool.device)
    formation = MultiFormation(images, labels, config.lr_img, factor=config.factor, order="columns", time_only=config.time_only)

    def network(number: int) -> nn.Module:
        names = ("queue", config.network, number)
        return networks.build(config.network, channels, (height, width), inputs.classes, inputs.seed, *names).to(inputs.device)

    queue = Queue(
        network, inputs.seed, size=config.size, grow_every=config.grow_every, fetch=config.fetch, train_steps=config.train_steps,
        train_batch=config.train_batch, reset_every=config.reset_every,
    )  # fmt: skip

    def weight() -> Tensor:
        scale = 100 * queue.accuracy if config.ce_scale == "percent" else torch.ones(())
        return config.ce_weight * scale

    strategy = config.strategy or default_strategy(bool(inputs.manifest["flip"]), "dc", "match", cutmix=False)
    augment = make(inputs.policy(config.augment), strategy)
    per_class = min(config.batch_real, pool.smallest)
    index = torch.arange(len(labels), device=pool.device)

    def finish() -> DistilledSet:
        stored = formation.images.detach()
        shown, decoded = pool.normalisation.invert(formation.expand(stored)).cpu(), formation.labels(index).cpu()
        kept = pool.normalisation.invert(stored).cpu() if formation.each > 1 else None
        return DistilledSet(shown, decoded, *pool.statistics, stored=kept)

    return Run(
        parameterization=formation,
        term=MatchAndClassify(inputs.classes, weight),
        source=queue,
        batches=lambda step: SiameseBatches(pool, formation, len(labels), augment, per_class, inputs.seed, step),
        optimizer=PerClassSGD(formation.parameters(), labels, inputs.classes, config.momentum),
        iterations=config.iterations,
        steps=config.steps,
        finish=finish,
    )
