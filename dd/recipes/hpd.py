r"""H-PD: hierarchical features matter (Zhong et al., "A Deep Exploration of Progressive Parameterization Method for Dataset Distillation").

GLaD's latents (see `dd.recipes.glad`), which do not stay at one cut: every few layers of the generator are a space of their own. In
space k the features before layer n_k and the styles are optimised for N updates with the base method's own loss,

.. math:: \min_{h_k, w} L\big( G_{K-1} \circ \dots \circ G_{n_k} (h_k, w),\; T \big), \qquad
          h_{k+1} = G_{n_{k+1} - 1} \circ \dots \circ G_{n_k} (h_k^*, w^*)

(algorithm 1), where (h*, w*) are the latents of this space whose images are nearest to the real ones in the class-relevant feature
distance (eq. 6, `dd.objectives.feature_distance`). Styles start as means over 1,000 draws of w. The optimizer starts anew in every space;
a learned step size goes on.

The set is that of the last space; all spaces are published at their ends, as steps.

Differs from the paper: its "averaged noise" is an average of w (a mean over z is lost in a mapping network that normalises z). Differs
from the released code, which is not the published method: it has no such distance, and keeps references to latents that change.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator

from dd.config import Frozen, hashed
from dd.recipes._gan import Latents, assembled, complete, lineage, work
from dd.recipes._gan import needs as base_needs
from dd.train.config import Training
from dd.types import Need

if TYPE_CHECKING:
    from torch import Tensor

    from dd.generators import Generator
    from dd.types import DistilledSet, Inputs, Run

__all__ = ["Config", "build", "complete", "lineage", "needs", "work"]


class Proxy(Frozen):
    """The network that evidence of a class is looked for with, seed 0, trained on the dataset's own real images.

    variant: of the distance; see `dd.objectives.feature_distance`. lineage is that of the base method.
    """

    network: str = "resnet18_bn"
    epochs: int = Field(default=20, ge=0)
    training: Training = Training()
    variant: Literal["last", "layers", "gradcam"] = "last"


class Config(Latents):
    """Fields of H-PD; see `dd.recipes._gan.Latents`.

    iterations: of all spaces together, shared evenly; the first ones have one more where that does not come out even. cuts: where the
    spaces begin, rising. keep: what of a space is handed over: the latents with the least feature distance under `proxy`, those with the
    least loss, or the last ones.
    """

    iterations: int = Field(default=80, ge=0)
    cuts: tuple[int, ...] = (0, 2, 4, 6)
    keep: Literal["feature_distance", "loss", "last"] = "feature_distance"
    proxy: Proxy = Proxy()

    @field_validator("cuts")
    @classmethod
    def _rise(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if not value or any(b <= a for a, b in pairwise(value)) or value[0] < 0:
            raise ValueError(f"cuts are {list(value)}; allowed: whole numbers from 0 that rise, at least one")
        return value


def needs(config: Config, dataset: str) -> list[Need]:
    """Return what the base method needs, the generator, and the proxy, if it is asked."""
    one = config.proxy
    proxy = Need("pretrained", dataset, one.network, hashed(one.training), (0,), (one.epochs,), lineage(config))
    return [*base_needs(config, dataset), *([proxy] if config.keep == "feature_distance" else [])]


def ends(config: Config) -> tuple[int, ...]:
    """Return after how many updates each space ends; the last one with the run."""
    count = len(config.cuts)
    return tuple((config.iterations * (k + 1) + count - 1) // count for k in range(count))


def build(config: Config, inputs: Inputs) -> Run:
    """Return the run: the base method's, on latents that go from cut to cut."""
    from dataclasses import replace

    from dd.objectives.feature_distance import FeatureDistance
    from dd.parameterizations.gan import GanLatent, at_cut, first_styles
    from dd.parameterizations.hierarchical import HierarchicalGan, Judged
    from dd.rng import stream
    from dd.train.pretrain import load_network

    pool = inputs.pool()
    norm = pool.normalisation
    made: list[HierarchicalGan] = []
    score = None
    if config.keep == "feature_distance":
        score = FeatureDistance(load_network(inputs.paths[-1][0]), pool, variant=config.proxy.variant).distance

    def parameterize(generator: Generator, labels: Tensor) -> HierarchicalGan:
        ws, cut = first_styles(generator, labels, config.average, stream(inputs.seed, "latents")), config.cuts[0]
        latents = GanLatent(
            generator, at_cut(generator, ws, cut), ws, labels, cut, norm.apply,
            lr_f=config.lr_f, lr_w=config.lr_w, relative=config.rates == "relative", chunk=config.chunk,
        )  # fmt: skip
        made.append(HierarchicalGan(latents, config.cuts, config.keep, score))
        return made[0]

    run = assembled(config, inputs, parameterize)
    (spaces,) = made

    def finish() -> DistilledSet:
        with spaces.finished():
            return run.finish()

    assert run.term is not None
    return replace(run, term=Judged(run.term, spaces), finish=finish, spaces=ends(config)[:-1], hand_over=spaces.hand_over)
