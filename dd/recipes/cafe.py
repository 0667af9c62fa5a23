r"""CAFE: learning to condense dataset by aligning features (Wang et al., CVPR 2022).

For each of K = 2000 random networks in turn, the synthetic images are updated until the network has nothing more to say. An update
pulls, for every layer of the network, the mean features of each class of synthetic images to those of a batch of real ones, and
makes the synthetic centres tell real images apart:

.. math:: S^* = \arg\min_S E_\theta \sum_l w_l \sum_c \| \bar f^l_{\theta,c}(T) - \bar f^l_{\theta,c}(S) \|^2
          + \beta \sum_{(x, y) \in T} CE\big(\langle f_\theta(x), \bar f_{\theta,c'}(S) \rangle_{c'},\; y\big)

Between updates the network is trained on the synthetic images until its accuracy on real training images has moved. Both are in
`dd.objectives.cafe` and `dd.sources.dynamic`. All classes take one joint step with momentum; the images' rate is halved when 60, 80
and 90 % of the networks are used up (1200, 1600 and 1800 of 2000).

Differs from the paper, as the released code does: the "query set" of the dynamic loop is drawn from the training images; the
probes add up (`extractor.accumulate`). The code's one set of numbers is used for every dataset and number of images: the paper's
others were not released. The layer weights (0.1, 0.1, 1, 1, 1) are for three blocks; for other depths and families the last three
layers have weight 1 and all before `early`.

Differs from the released code: any number of classes, channels and pixels (that is written for 10 x 3 x 32 x 32); both loops have
caps, since a network whose accuracy stands still never leaves that code's inner loop; the cross-entropy of the network's own logits
on real images, which does not depend on the synthetic ones, is left out; of 2000 networks the last is number 1999, where the code
begins another one after it has measured its result; draws come from named random streams instead of the clock.

Caps. A network takes at least 10 updates, and a pause between two of them at least 10 epochs. On CIFAR-10, with ConvNet-3s of width
16, the three networks that we followed to their end (1 and 10 images a class) took 16, 23 and 34 updates; of some 100 pauses most
took 10 epochs and the longest 56. `extractor.updates_max` = 100 and `extractor.inner_max` = 100 are well above; how often they are
hit stands in curve.csv (`caps_outer`, `caps_inner`): on digits, or with `accumulate: reset`, some pauses do hit theirs.
`iterations` caps the updates of the images in all: 100,000 are 50 for each of 2000 networks. The run ends when `networks` are used
up, or at `iterations` if that comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dd.config import Frozen
from dd.sources.dynamic import Dynamics

if TYPE_CHECKING:
    from dd.types import Inputs, Need, Run

HALVED = (6, 8, 9)  # tenths of the networks after which the images' rate is halved


class Config(Frozen):
    """Fields of CAFE; the defaults are those of the released code for CIFAR-10.

    iterations: the most updates of the images. networks: K, how many networks come; the images' rate follows their number.
    lr_img: in normalised units, at the start. batch_real: real images per class and update; the smallest class limits all.
    init: start from N(0, 1) noise, or from random real images. augment: `oneof` is DSA, siamese in matching and non-siamese in the
    training of the networks. strategy: its operations; null is the dataset's own (without flip for digits). early: weight of all
    layers but the last three. beta: weight of the discrimination loss. extractor: the network, and the rule by which it learns.
    steps: numbers of updates after which the set is published as well.
    """

    iterations: int = Field(default=100_000, ge=0)
    networks: int = Field(default=2000, ge=1)
    lr_img: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.5, ge=0, lt=1)
    batch_real: int = Field(default=256, ge=1)
    init: Literal["noise", "real"] = "noise"
    augment: Literal["oneof", "none"] = "none"
    strategy: str | None = None
    early: float = Field(default=0.1, ge=0)
    beta: float = Field(default=0.01, ge=0)
    extractor: Dynamics = Dynamics()
    steps: tuple[int, ...] = ()


def defaults(dataset: str, ipc: int) -> dict[str, Any]:
    """Return nothing but what speech needs: the authors released one set of numbers for all."""
    return {"augment": "none", "extractor": {"network": "convnet4_in"}} if dataset == "mini_speech_commands" else {}


def needs(config: Config, dataset: str) -> list[Need]:
    """Return nothing: the networks are random, and learn here."""
    return []


def work(config: Config, classes: int, train: int, ipc: int) -> dict[str, float]:
    """Return how many images' forward passes the run costs, by network; a backward pass counts for two.

    An estimate, since the networks themselves decide: two and a half windows of updates for each, and one and a half of epochs
    between two updates, each with a probe.
    """
    rule = config.extractor
    updates = min(config.iterations, config.networks * min(rule.updates_max, 2.5 * rule.window))
    epochs = min(rule.inner_max, 1.5 * rule.window)
    return {rule.network: updates * classes * (config.batch_real + 3.0 * ipc + rule.probe + epochs * (3.0 * ipc + rule.probe))}


def rate(config: Config, number: int) -> float:
    """Return the images' rate while network `number`, counted from 0, is looked through."""
    return config.lr_img * 0.5 ** sum(10 * number >= tenths * config.networks for tenths in HALVED)


def build(config: Config, inputs: Inputs) -> Run:
    """Return the run: pixels, feature alignment, networks that learn, SGD whose rate follows the number of the network."""
    import torch

    from dd import select
    from dd.augment.policies import make
    from dd.augment.strategies import default_strategy
    from dd.batches import SiameseBatches
    from dd.objectives.cafe import FeatureAlignment
    from dd.parameterizations.pixels import Pixels
    from dd.rng import stream
    from dd.sources.dynamic import source
    from dd.train.config import Training
    from dd.train.supervised import for_data
    from dd.types import DistilledSet, Run

    pool, rule = inputs.pool(), config.extractor
    labels = torch.arange(inputs.classes, device=pool.device).repeat_interleave(inputs.ipc)
    if config.init == "real":
        images = pool.x(select.random(pool.labels.cpu(), inputs.classes, inputs.ipc, stream(inputs.seed, "init")))
    else:
        images = torch.randn(len(labels), *inputs.shape, generator=stream(inputs.seed, "noise")).to(pool.device)
    pixels = Pixels(images, labels, config.lr_img)
    optimizer = torch.optim.SGD(pixels.parameters(), momentum=config.momentum)

    def begin(number: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate(config, number)

    strategy = config.strategy or default_strategy(bool(inputs.manifest["flip"]), "dc", "match", cutmix=False)
    policy = inputs.policy(config.augment)
    augment = make(policy, strategy)
    plain = Training(lr=rule.lr, momentum=0.0, weight_decay=0.0, batch=rule.batch, augment=config.augment, strategy=strategy)
    per_class = min(config.batch_real, pool.smallest)
    networks = source(rule, for_data(plain, inputs.manifest), inputs, config.networks, begin)
    return Run(
        parameterization=pixels,
        term=FeatureAlignment(inputs.classes, config.early, config.beta, networks.facts),
        source=networks,
        batches=lambda step: SiameseBatches(pool, pixels, len(labels), augment, per_class, inputs.seed, step),
        optimizer=optimizer,
        iterations=config.iterations,
        steps=config.steps,
        finish=lambda: DistilledSet(pool.normalisation.invert(pixels.images.detach()).cpu(), labels.cpu(), *pool.statistics),
        done=networks.done,
    )
