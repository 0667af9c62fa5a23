"""What DC and DSA share: random networks that learn from the synthetic images, and the gradients that these give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dd.config import Frozen

if TYPE_CHECKING:
    from torch import nn

    from dd.types import Inputs, Need, Run

NETWORKS = 1000  # that the images meet, one after the other
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}  # ipc: (outer, inner), as released


class Gradients(Frozen):
    """Fields of both methods; the defaults are those of the released code for CIFAR-10 at 10 images per class.

    iterations: updates of the images, 1000 networks times `outer`. outer: updates with one network; 1 is networks that are never
    trained. inner: epochs over the synthetic images that it is trained for between two of them. lr_img: in normalised units.
    batch_real: real images per class and update; the smallest class limits all. lr_net, batch_train: of the plain SGD that trains the
    networks. network: a name of `dd.networks`. distance: of gradients; see `dd.objectives.gradient`. strategy: operations of the
    augmentation; null is the dataset's own (without flip for digits). steps: numbers of updates after which the set is published as
    well.
    """

    iterations: int = Field(default=10_000, ge=0)
    outer: int = Field(default=10, ge=1)
    inner: int = Field(default=50, ge=1)
    lr_img: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.5, ge=0, lt=1)
    batch_real: int = Field(default=256, ge=1)
    lr_net: float = Field(default=0.01, gt=0)
    batch_train: int = Field(default=256, ge=1)
    network: str = "convnet3_in"
    distance: Literal["ours", "mse", "cos"] = "ours"
    init: Literal["noise", "real"] = "noise"
    augment: Literal["oneof", "none"] = "none"
    strategy: str | None = None
    steps: tuple[int, ...] = ()


def loops(ipc: int) -> tuple[int, int]:
    """Return (outer, inner): the released table, and between its entries a rule of ours.

    2 to 9 images per class: ipc updates, 50 epochs between them; 11 to 49: ipc updates, 500 / ipc epochs, so that a network takes
    about 500 epochs; more than 50: (50, 10), which is what an author of the method recommends there.
    """
    if ipc in LOOPS:
        return LOOPS[ipc]
    if ipc > 50:
        return LOOPS[50]
    return (ipc, 50) if ipc < 10 else (ipc, round(500 / ipc))


def defaults(dataset: str, ipc: int) -> dict[str, Any]:
    """Return the loops for that many images per class; spectrograms are not augmented and take a deeper network."""
    outer, inner = loops(ipc)
    speech = {"augment": "none", "network": "convnet4_in"} if dataset == "mini_speech_commands" else {}
    return {"iterations": NETWORKS * outer, "outer": outer, "inner": inner, **speech}


def needs(config: Gradients, dataset: str) -> list[Need]:
    """Return nothing: the networks are random, and learn here."""
    return []


def work(config: Gradients, classes: int, train: int, ipc: int) -> dict[str, float]:
    """Return how many images' forward passes the run costs, by network; a backward pass counts for two, a second one for four."""
    matching = classes * (3.0 * min(config.batch_real, train // classes) + 7.0 * ipc)
    trainings = config.iterations - config.iterations // config.outer  # none after the last update with a network
    return {config.network: config.iterations * matching + trainings * config.inner * 3.0 * classes * ipc}


def build(config: Gradients, inputs: Inputs) -> Run:
    """Return the run: pixels, gradient matching, networks that learn from the images, SGD with momentum."""
    import torch

    from dd import networks, select
    from dd.augment.policies import make
    from dd.augment.strategies import default_strategy
    from dd.batches import SiameseBatches
    from dd.objectives.gradient import GradientMatch
    from dd.parameterizations.pixels import stored
    from dd.rng import stream
    from dd.sources.trainee import Trainee, learner, statistics
    from dd.train.config import Training
    from dd.types import DistilledSet, Run

    pool, seed = inputs.pool(), inputs.seed
    channels, height, width = inputs.shape
    labels = torch.arange(inputs.classes, device=pool.device).repeat_interleave(inputs.ipc)
    if config.init == "real":
        images = pool.x(select.random(pool.labels.cpu(), inputs.classes, inputs.ipc, stream(seed, "init")))
    else:
        images = torch.randn(len(labels), *inputs.shape, generator=stream(seed, "noise")).to(pool.device)
    pixels = stored(inputs, images, labels, config.lr_img)
    every = torch.arange(len(labels), device=pool.device)

    def network(number: int) -> nn.Module:
        names = ("trainee", config.network, number)
        return networks.build(config.network, channels, (height, width), inputs.classes, seed, *names).to(inputs.device)

    policy: Any = inputs.policy(config.augment)
    strategy = config.strategy or default_strategy(bool(inputs.manifest["flip"]), "dc", "match", cutmix=False)
    augment = make(policy, strategy)  # first: it names mistakes in the strategy
    training = Training(lr=config.lr_net, momentum=0.0, weight_decay=0.0, batch=config.batch_train, augment=policy, strategy=strategy)
    train, settle = learner(training, config.inner, inputs.shape, seed), statistics(pool, 16, seed)
    per_class = min(config.batch_real, pool.smallest)
    return Run(
        parameterization=pixels,
        term=GradientMatch(inputs.classes, config.distance),
        source=Trainee(network, config.outer, train, settle),
        batches=lambda step: SiameseBatches(pool, pixels, len(labels), augment, per_class, seed, step),
        optimizer=torch.optim.SGD(pixels.parameters(), momentum=config.momentum),
        iterations=config.iterations,
        steps=config.steps,
        finish=lambda: DistilledSet(pool.normalisation.invert(pixels.decode(every).detach()).cpu(), labels.cpu(), *pool.statistics),
    )
