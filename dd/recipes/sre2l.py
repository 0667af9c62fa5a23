r"""SRe2L: squeeze, recover and relabel dataset condensation (Yin et al., NeurIPS 2023).

Squeeze: a network with batch normalisation is trained on the real images. Recover: images that start as noise learn to be of their
classes for it, in eval mode, and to have the statistics, at the input of each of its normalisations l, that it remembers:

.. math:: \min_S \sum_b \Big[ \frac{1}{|b|} \sum_{x \in b} CE(net(V_b x), y)
          + r \sum_l m_l \big( \| \mu_l - \bar\mu_l \|_2 + \| \sigma^2_l - \bar\sigma^2_l \|_2 \big) \Big]

(`dd.objectives.inversion`.) Relabel: no label but the class is stored; the network labels what students see (the protocol `sre2l`).

b are blocks of at most `batch` images of as many classes as there can be, since one class has not the statistics of all. V_b is, anew at
every update, one crop and one flip for a whole block, and a roll. Blocks know nothing of each other, and Adam none of another pixel. So
where the released code recovers one block after the other, every update here moves all blocks, each by the gradient of its own loss: the
same images, but `iterations` is the number of updates of every image, a published step is a whole set, and a method that judges or
scales the whole set (H-PD's choice, the relative rates of latents) sees all of it. One block is in the network at a time, so 1,000
classes of 10 images take the memory of 100 images, their gradients and the moments of Adam.

Settings: CIFAR-100's for images up to 32 x 32; Tiny-ImageNet's up to 64 x 64; ImageNet-1K's for larger ones, with rolls of the same part of
the side, but with the small stem of the others (`squeeze.network: resnet18_tv_bn` has ImageNet's own). For ImageNet-1K at 64 x 64 nobody
published any: size and network are Tiny-ImageNet's, and so is all but r, for which 0.1 is chosen, half-way (in its logarithm) between
both rows.

Differs from the released code: noise is clamped before the first update too; the moments of Adam and the last iterate as there, but
images are stored as numbers instead of JPEG files; random numbers are functions of (seed, step); flips only where a mirrored image keeps
its class, and sounds have no views. What differs in the training of the network, see `dd.train.squeeze`. As the base of GLaD and H-PD, for
which nobody published how latents are recovered, it is this loss with the optimizer that latents have under any other base (SGD at
rates of `dd.recipes._gan.Latents`, neither Adam nor a cosine); images that a generator makes are not clamped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from dd.config import Frozen
from dd.data.registry import DATASETS
from dd.train.squeeze import Squeeze

if TYPE_CHECKING:
    from dd.types import Inputs, Need, Run

BETAS = (0.5, 0.9)
CROPPED = {"iterations": 4000, "crop": True, "flip": True}
TINY = {**CROPPED, "lr_img": 0.1, "r_bn": 1.0, "roll": [-4, 4]}
IMAGENET = {**CROPPED, "lr_img": 0.25, "r_bn": 0.01}
CHOSEN = {"imagenet64": {**TINY, "r_bn": 0.1}}
ROLL = 1 / 7  # of the side: 32 of 224 pixels


class Config(Frozen):
    """Fields of SRe2L; the defaults are those of the released code for CIFAR-100.

    iterations: updates of every image. lr_img: of Adam, in normalised units; it falls to 0 along a cosine. r_bn: r. first_bn: m of the
    first normalisation; 1 for all others. batch: the most images of a block. crop, flip: of the views. roll: the least and the greatest
    shift, in pixels. squeeze: the network. steps: numbers of updates after which the set is published as well.
    """

    iterations: int = Field(default=1000, ge=0)
    lr_img: float = Field(default=0.25, gt=0)
    r_bn: float = Field(default=0.01, ge=0)
    first_bn: float = Field(default=10.0, ge=0)
    batch: int = Field(default=100, ge=1)
    crop: bool = False
    flip: bool = False
    roll: tuple[int, int] = (0, 4)
    squeeze: Squeeze = Squeeze()
    steps: tuple[int, ...] = ()

    @field_validator("roll")
    @classmethod
    def _rises(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] > value[1]:
            raise ValueError(f"is from {value[0]} to {value[1]}; the first must not be above the second")
        return value


def defaults(dataset: str, ipc: int) -> dict[str, Any]:
    """Return the published settings for images of this size; those of CIFAR-100 for datasets that the registry does not know."""
    side = max(DATASETS[dataset].size) if dataset in DATASETS else 0
    if dataset in CHOSEN or side <= 32:
        return dict(CHOSEN.get(dataset, {}))
    return dict(TINY) if side <= 64 else {**IMAGENET, "roll": [0, round(side * ROLL)]}


def needs(config: Config, dataset: str) -> list[Need]:
    """Return the squeezed network."""
    return [config.squeeze.need(dataset)]


def work(config: Config, classes: int, train: int, ipc: int) -> dict[str, float]:
    """Return how many images' forward passes the run costs; a backward pass counts for two."""
    return {config.squeeze.network: 3.0 * config.iterations * classes * ipc}


def build(config: Config, inputs: Inputs) -> Run:
    """Return the run: clamped pixels, the inversion of the squeezed network, Adam along a cosine.

    Raises:
        ConfigError: the squeezed network has no batch normalisation.
    """
    import torch

    from dd.annealing import CosineAdam
    from dd.augment.policies import Nothing
    from dd.augment.views import Views
    from dd.blocks import BlockBatches, mixed
    from dd.errors import ConfigError
    from dd.objectives.inversion import Inversion, norms
    from dd.parameterizations.clamped import ClampedPixels
    from dd.rng import stream
    from dd.sources.checkpoints import Checkpoints
    from dd.train.pretrain import check_trained, load_network
    from dd.types import Augment, DistilledSet, Parameterization, Run

    pool, seed = inputs.pool(), inputs.seed
    labels = torch.arange(inputs.classes, device=pool.device).repeat_interleave(inputs.ipc)
    noise = torch.randn(len(labels), *inputs.shape, generator=stream(seed, "noise")).to(pool.device)
    ends = [torch.full((1, inputs.shape[0], 1, 1), _bound(end, sign)) for end, sign in zip(inputs.manifest["range"], (-1, 1), strict=True)]
    low, high = (pool.normalisation.apply(end).to(pool.device) for end in ends)
    images: Parameterization = (
        ClampedPixels(noise, labels, config.lr_img, low, high) if inputs.parameterize is None else inputs.parameterize(labels)
    )
    (file,), one = inputs.paths[0], config.squeeze
    wanted = {"network": one.network, "training": one.need(inputs.manifest["name"]).config, "epoch": one.epochs, "lineage": "dc"}
    check_trained(file, {**wanted, "fingerprint": inputs.manifest["fingerprint"]})
    net = load_network(file, inputs.device).eval().requires_grad_(False)
    try:
        norms(net)
    except ConfigError as error:
        raise ConfigError(f"squeeze.network: value {config.squeeze.network!r}: {error}; allowed: such as resnet18_bn") from None
    flip = config.flip and bool(inputs.manifest["flip"])
    views: Augment = Views(crop=config.crop, flip=flip, roll=config.roll) if inputs.policy("views") == "views" else Nothing()
    blocks = mixed(inputs.classes, inputs.ipc, config.batch)
    every = torch.arange(len(labels), device=pool.device)
    batches: Any = lambda step: BlockBatches(pool, images, blocks, views, seed, step)  # noqa: E731

    def finish() -> DistilledSet:
        images.project_()  # the loop does so before an update: the last one is still to be clamped
        return DistilledSet(pool.normalisation.invert(images.decode(every).detach()).cpu(), labels.cpu(), *pool.statistics)

    return Run(
        parameterization=images,
        term=Inversion(config.r_bn, config.first_bn),
        source=Checkpoints(inputs.paths[0], lambda _: net, seed),
        batches=batches,  # without pairs: real images are not looked at
        optimizer=CosineAdam(images.parameters(), config.iterations, BETAS),
        iterations=config.iterations,
        steps=config.steps,
        finish=finish,
    )


def _bound(end: float | None, sign: int) -> float:
    """Return an end of the range of pixels, in raw units; where there is none, infinity."""
    return float("inf") * sign if end is None else float(end)
