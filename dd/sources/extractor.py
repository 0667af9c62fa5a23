"""Which network features are taken from: any family, random or trained, one for the whole run or a new one each step.

Read by the planner, so nothing heavy is imported at the top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dd.config import Frozen, hashed
from dd.train.config import Training
from dd.types import Need

if TYPE_CHECKING:
    from torch import nn

    from dd.types import Inputs, Source


class Extractor(Frozen):
    """A feature extractor: all layers of a classifier but the last.

    network: a name of `dd.networks`.
    mode: `fixed` is one network for the whole run; `dynamic` is a new one at every step.
    epochs: how long it was trained on the real data before; 0 is random weights.
    supply: where trained dynamic extractors come from. `pool` draws one of `pool` independently trained networks at each step;
        `literal` initialises and trains a new one at every step, which is what the words of the extractors paper say and costs
        `epochs` epochs a step. Random ones (epochs 0) are always new.
    norm: batch normalisation with the statistics of the batch (`train`, as the released code runs it: DM forwards all classes
        of a step in one batch, DSDM each alone), or with running statistics (`eval`). Group and layer norm do not care.
    training: how it was trained.
    """

    network: str = "convnet3_in"
    mode: Literal["fixed", "dynamic"] = "dynamic"
    epochs: int = Field(default=0, ge=0)
    supply: Literal["pool", "literal"] = "pool"
    pool: int = Field(default=20, ge=1)
    norm: Literal["train", "eval"] = "train"
    training: Training = Training()


def needs(extractor: Extractor, dataset: str, lineage: str = "dc") -> list[Need]:
    """Return the checkpoints that must exist before the extractor can be used; lineage: as of `Need`.

    A fixed extractor of set s is the pre-trained network of seed s, so that sets stay independent of each other.
    """
    if extractor.epochs == 0 or (extractor.mode == "dynamic" and extractor.supply == "literal"):
        return []
    seeds = None if extractor.mode == "fixed" else tuple(range(extractor.pool))
    return [Need("pretrained", dataset, extractor.network, hashed(extractor.training), seeds, (extractor.epochs,), lineage)]


def source(extractor: Extractor, inputs: Inputs) -> Source[Any]:
    """Return the source of networks that an extractor configuration describes.

    Those that come again and again have their features of real images `known` (`dd.sources.known`).
    """
    from dd.sources import known
    from dd.sources.checkpoints import Checkpoints
    from dd.sources.population import Population
    from dd.train.pretrain import load_network

    if inputs.paths and inputs.paths[0]:
        files = inputs.paths[0]
        load = lambda path: known.attach(_freeze(load_network(path, inputs.device), extractor), inputs.pool(), len(files))  # noqa: E731
        return Checkpoints(files, load, inputs.seed)
    make = (
        (lambda number: _freeze(_trained(extractor, inputs, number), extractor))
        if extractor.epochs
        else (lambda number: _freeze(_random(extractor, inputs, number), extractor))
    )
    if extractor.mode == "dynamic":
        return Population(make)
    forever = 2**62
    return Population(lambda number: known.attach(make(number), inputs.pool(), 1), lifetime=forever)


def _random(extractor: Extractor, inputs: Inputs, number: int) -> nn.Module:
    from dd import networks

    size = tuple(inputs.manifest["size"])
    classes = len(inputs.manifest["classes"])
    # A fixed one is epoch 0 of the very network that pre-training would go on with: its curve over epochs is of one network.
    names = ("pretrain", extractor.network) if extractor.mode == "fixed" else ("extractor", extractor.network, number)
    return networks.build(extractor.network, inputs.manifest["channels"], size, classes, inputs.seed, *names).to(inputs.device)


def _trained(extractor: Extractor, inputs: Inputs, number: int) -> nn.Module:
    """Train extractor number `number` from scratch, here and now."""
    from dd.train.supervised import fit, for_data

    net = _random(extractor, inputs, number)
    pool = inputs.pool()
    fit(
        net,
        lambda index: (pool.x(index), pool.y(index)),
        len(pool),
        for_data(extractor.training, inputs.manifest),
        seed=inputs.seed,
        names=("extractor", extractor.network, number),
        first_epoch=0,
        last_epoch=extractor.epochs,
        shape=inputs.shape,
        flip=bool(inputs.manifest["flip"]),
    )
    return net


def _freeze(net: nn.Module, extractor: Extractor) -> nn.Module:
    return net.requires_grad_(False).train(extractor.norm == "train")
