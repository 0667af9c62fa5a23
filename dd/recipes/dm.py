r"""DM: distribution matching (Zhao and Bilen, "Dataset Condensation with Distribution Matching", WACV 2023).

At every iteration a network is drawn and the mean features of the synthetic images of each class are pulled to those of a batch of
real ones, both under the same augmentation:

.. math:: S^* = \arg\min_S E_{\theta, \omega} \sum_c \| \frac{1}{|B_c|}\sum_{x \in B_c} f_\theta(A_\omega x)
          - \frac{1}{|S_c|}\sum_{s \in S_c} f_\theta(A_\omega s) \|^2

All classes take one joint step with momentum. With the `extractor` field this is also the method of the extractors paper, which
asks what network f should be, how long it should have been trained, and whether it should change at every step.

Differs from the paper: real images are drawn from per-step random streams instead of a clock-seeded generator (same distribution);
trained dynamic extractors come from a pool unless `supply: literal` (see `dd.sources.extractor`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dd.config import Frozen
from dd.sources import extractor as extractors
from dd.sources.extractor import Extractor

if TYPE_CHECKING:
    from dd.types import Inputs, Need, Run


class Config(Frozen):
    """Fields of DM; the defaults are those of the released code for CIFAR-10 at ipc 1, 10 and 50.

    iterations: updates of the images. lr_img: in normalised units. batch_real: real images per class and iteration.
    init: start from random real images, or from N(0, 1) noise. strategy: operations of the siamese augmentation; null is the
    dataset's own (without flip for digits). steps: numbers of updates after which the set is published as well.
    """

    iterations: int = Field(default=20_000, ge=0)
    lr_img: float = Field(default=1.0, gt=0)
    momentum: float = Field(default=0.5, ge=0, lt=1)
    batch_real: int = Field(default=256, ge=1)
    init: Literal["real", "noise"] = "real"
    augment: Literal["oneof", "none"] = "oneof"
    strategy: str | None = None
    extractor: Extractor = Extractor()
    steps: tuple[int, ...] = ()


def defaults(dataset: str, ipc: int) -> dict[str, Any]:
    """Return the authors' settings: from 100 images per class on, CIFAR-10 takes lr 10."""
    return {"lr_img": 10.0} if dataset == "cifar10" and ipc >= 100 else {}


def needs(config: Config, dataset: str) -> list[Need]:
    """Return the pre-trained extractors."""
    return extractors.needs(config.extractor, dataset)


def work(config: Config, classes: int, train: int, ipc: int) -> dict[str, float]:
    """Return how many images' forward passes the run costs, by network; a backward pass counts for two."""
    images = config.iterations * classes * (config.batch_real + 3.0 * ipc)
    if config.extractor.mode == "dynamic" and config.extractor.supply == "literal":
        images += config.iterations * config.extractor.epochs * train * 3.0
    return {config.extractor.network: images}


def build(config: Config, inputs: Inputs) -> Run:
    """Return the run: pixels, mean matching, the extractor's source, SGD with momentum."""
    import torch

    from dd import select
    from dd.augment.policies import make
    from dd.augment.strategies import default_strategy
    from dd.batches import SiameseBatches
    from dd.objectives.distribution import MeanMatch
    from dd.parameterizations.pixels import stored
    from dd.rng import stream
    from dd.types import DistilledSet, Run

    pool = inputs.pool()
    start = select.random(pool.labels.cpu(), inputs.classes, inputs.ipc, stream(inputs.seed, "init"))
    labels = pool.y(start)
    if config.init == "real":
        images = pool.x(start)
    else:
        images = torch.randn(len(start), *inputs.shape, generator=stream(inputs.seed, "noise")).to(pool.device)
    pixels = stored(inputs, images, labels, config.lr_img)
    every = torch.arange(len(labels), device=pool.device)
    strategy = config.strategy or default_strategy(bool(inputs.manifest["flip"]), "dc", "match", cutmix=False)
    augment = make(inputs.policy(config.augment), strategy)
    return Run(
        parameterization=pixels,
        term=MeanMatch(inputs.classes),
        source=extractors.source(config.extractor, inputs),
        batches=lambda step: SiameseBatches(pool, pixels, len(labels), augment, config.batch_real, inputs.seed, step),
        optimizer=torch.optim.SGD(pixels.parameters(), momentum=config.momentum),
        iterations=config.iterations,
        steps=config.steps,
        finish=lambda: DistilledSet(pool.normalisation.invert(pixels.decode(every).detach()).cpu(), labels.cpu(), *pool.statistics),
    )
