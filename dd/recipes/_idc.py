"""What the methods of the IDC lineage share: pixels in [0, 1], multi-formation, steps class by class. Nothing heavy at the top."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dd.augment.strategies import default_strategy
from dd.config import Frozen

if TYPE_CHECKING:
    from dd.types import Inputs, Run, Source, Term


class Factored(Frozen):
    """Fields of every method that is built on IDC's synthesiser.

    iterations: rounds over all classes. lr_img: in units of stored pixels, [0, 1] from black to white (spectrograms: standardised).
    batch_real: real images per class and iteration; the smallest class limits all. batch_syn_max: decoded images per class and
    iteration; of more, a random part. factor: training images per side of a stored one. time_only: cut along the width alone
    (spectrograms). init: `mix` fills the parts with the first images of each class, `random` with random ones. strategy: operations
    of the siamese augmentation; null is colour, crop and cutout, but for MNIST with a factor, which has no cutout. steps: numbers of
    updates after which the set is published as well.

    Pixels are clamped at the start of an iteration, as in the released code, so that the last update may leave [0, 1] a little.
    """

    iterations: int = Field(default=10_000, ge=0)
    lr_img: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.5, ge=0, lt=1)
    batch_real: int = Field(default=256, ge=1)
    batch_syn_max: int = Field(default=256, ge=1)
    factor: int = Field(default=2, ge=1)
    time_only: bool = False
    init: Literal["mix", "random"] = "mix"
    augment: Literal["stack", "none"] = "stack"
    strategy: str | None = None
    steps: tuple[int, ...] = ()


def special(dataset: str) -> dict[str, Any]:
    """Return what a dataset changes for every method of the lineage: spectrograms are cut along time and not augmented."""
    return {"time_only": True, "augment": "none"} if dataset == "mini_speech_commands" else {}


def strategy_of(config: Factored, dataset: str) -> str:
    """Return the operations that the images of a dataset meet."""
    if config.strategy is not None:
        return config.strategy
    if dataset == "mnist" and config.factor > 1:
        return "color_crop"
    return default_strategy(flip=False, lineage="idc", use="match", cutmix=False)


def decoded(config: Factored, ipc: int) -> int:
    """Return how many images a class is decoded to."""
    return ipc * (config.factor if config.time_only else config.factor**2)


def images(config: Factored, classes: int, ipc: int) -> float:
    """Return how many images' forward passes a run costs; a backward pass counts for two."""
    return config.iterations * classes * (config.batch_real + 3.0 * min(decoded(config, ipc), config.batch_syn_max))


def assemble(
    config: Factored,
    inputs: Inputs,
    term: Term[Any],
    source: Source[Any],
    *,
    after: Callable[[Any, Any], None] | None = None,
) -> Run:
    """Return the run of a method of this lineage: multi-formation, siamese batches, one step a class with shared momentum."""
    import torch

    from dd.augment.policies import make
    from dd.batches import SiameseBatches
    from dd.optim import PerClassSGD
    from dd.parameterizations.multiformation import MultiFormation, mix
    from dd.rng import stream
    from dd.types import DistilledSet, Run

    pool = inputs.pool()
    generator = stream(inputs.seed, "init") if config.init == "random" else None
    labels = torch.arange(inputs.classes, device=pool.device).repeat_interleave(inputs.ipc)
    start = mix(pool, inputs.ipc, config.factor, generator, time_only=config.time_only)
    low, high = inputs.manifest.get("range", (0.0, 1.0))
    standard = high is None  # spectrograms: IDC optimises them standardised, and bounds them from below
    if standard:
        start = pool.normalisation.apply(start)
        low = float(pool.normalisation.apply(torch.full((1, len(pool.statistics[0]), 1, 1), float(low))).min())
    formation = MultiFormation(
        start,
        labels,
        config.lr_img,
        factor=config.factor,
        normalisation=None if standard else pool.normalisation,
        low=low,
        high=high,
        time_only=config.time_only,
    )
    augment = make(inputs.policy(config.augment), strategy_of(config, inputs.manifest["name"]))
    per_class = min(config.batch_real, pool.smallest)
    index = torch.arange(len(labels), device=pool.device)

    def finish() -> DistilledSet:
        stored = formation.images.detach()
        images, decoded = formation.expand(stored), formation.labels(index).cpu()
        if standard:
            images, stored = pool.normalisation.invert(images), pool.normalisation.invert(stored)
        return DistilledSet(images.cpu(), decoded, *pool.statistics, stored=stored.cpu() if formation.each > 1 else None)

    return Run(
        parameterization=formation,
        term=term,
        source=source,
        batches=lambda step: SiameseBatches(pool, formation, len(labels), augment, per_class, inputs.seed, step, config.batch_syn_max),
        optimizer=PerClassSGD(formation.parameters(), labels, inputs.classes, config.momentum),
        iterations=config.iterations,
        steps=config.steps,
        finish=finish,
        after=after,
    )
