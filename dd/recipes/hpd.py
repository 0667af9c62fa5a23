r"""H-PD: hierarchical features matter (Zhong et al., "A Deep Exploration of Progressive Parameterization Method for Dataset Distillation").

GLaD's latents (see `dd.recipes.glad`), which do not stay at one cut: every few layers of the generator are a space of their own. In
space k the features before layer n_k and the styles are optimised for N updates with the base method's own loss,

.. math:: \min_{h_k, w} L\big( G_{K-1} \circ \dots \circ G_{n_k} (h_k, w),\; T \big), \qquad
          h_{k+1} = G_{n_{k+1} - 1} \circ \dots \circ G_{n_k} (h_k^*, w^*)

(algorithm 1), where (h*, w*) are the latents of this space whose images are nearest to the real ones in the class-relevant feature
distance (eq. 6, `dd.objectives.feature_distance`). Styles start as means over 1,000 draws of w. The optimizer starts anew in every space;
a learned step size goes on.

The set is that of the last space; the images at the start and those at the end of every other space are published too (`steps`).

Differs from the paper: its "averaged noise" is an average of w (a mean over z is lost in a mapping network that normalises z). Differs
from the released code, which is not the published method: it has no such distance, and keeps references to latents that change.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from dd.config import Frozen, hashed
from dd.errors import ConfigError
from dd.generators.files import class_ids
from dd.recipes import _gan_presets as presets
from dd.recipes._gan import Latents, assembled, entered, lineage
from dd.recipes._gan import complete as with_defaults
from dd.recipes._gan import generator_work as base_generator_work
from dd.recipes._gan import needs as base_needs
from dd.recipes._gan import work as base_work
from dd.teachers import TEACHERS
from dd.train.config import Training
from dd.types import Need

if TYPE_CHECKING:
    from torch import Tensor

    from dd.generators import Generator
    from dd.types import DistilledSet, Inputs, Run

IMAGENET = 1000  # classes

__all__ = ["Config", "build", "complete", "generator_work", "lineage", "needs", "published", "work"]


class Proxy(Frozen):
    """The network that evidence of a class is looked for with, seed 0, trained on the dataset's own real images.

    Or the name of a teacher from a file that knows ImageNet's classes (`resnet18_tv`, the paper's), for datasets of these; epochs and
    training then mean nothing. variant: of the distance; see `dd.objectives.feature_distance`. lineage is that of the base method.
    """

    network: str = "resnet18_bn"
    epochs: int = Field(default=20, ge=0)
    training: Training = Training()
    variant: Literal["last", "layers", "gradcam"] = "last"


class Config(Latents):
    """Fields of H-PD; see `dd.recipes._gan.Latents`.

    iterations: of all spaces together, shared evenly; the first ones have one more where that does not come out even. 0, or at least
    one a space. cuts: where the spaces begin, rising. keep: what of a space is handed over: the latents with the least feature distance
    under `proxy`, those with the least loss, or the last ones. steps: numbers of updates after which the set is published as well, or
    `spaces`: 0, and the end of every space but the last.
    """

    iterations: int = Field(default=80, ge=0)
    cuts: tuple[int, ...] = (0, 2, 4, 6)
    keep: Literal["feature_distance", "loss", "last"] = "feature_distance"
    proxy: Proxy = Proxy()
    steps: tuple[int, ...] | Literal["spaces"] = "spaces"

    @field_validator("cuts")
    @classmethod
    def _rise(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if not value or any(b <= a for a, b in pairwise(value)) or value[0] < 0:
            raise ValueError(f"cuts are {list(value)}; allowed: whole numbers from 0 that rise, at least one")
        if 0 < info.data.get("iterations", 0) < len(value):
            raise ValueError(f"iterations is {info.data['iterations']}: {len(value)} spaces need that many updates, or more")
        return value


def complete(fields: dict[str, Any], dataset: str, ipc: int) -> dict[str, Any]:
    """Return the fields with what nobody gave: of `dd.recipes._gan`, the cuts, and the updates.

    Here `cuts` may also be one number: spaces of so many stages of whatever generator it is; not given, 2.
    """
    known = with_defaults(fields, dataset, ipc)
    cuts = fields.get("cuts", 2)
    if isinstance(cuts, int) and cuts > 0:
        cuts = presets.cuts(known["generator"]["name"], dataset, cuts)
    count = len(cuts) if isinstance(cuts, (list, tuple)) else 1  # anything else is refused when it is parsed
    return {"iterations": presets.updates(str(known.get("base", "dm")))[1] * count, **known, "cuts": cuts}


def needs(config: Config, dataset: str) -> list[Need]:
    """Return what the base method needs, the generator, and the proxy, if it is asked.

    Raises:
        ConfigError: what `dd.recipes._gan.needs` raises; a teacher as proxy that does not know the classes, or whitened images.
    """
    found = base_needs(config, dataset, config.cuts)
    if config.keep != "feature_distance":
        return found
    one = config.proxy
    if one.network not in TEACHERS:
        return [*found, Need("pretrained", dataset, one.network, hashed(one.training), (0,), (one.epochs,), lineage(config))]
    if TEACHERS[one.network].classes != IMAGENET or class_ids(dataset) is None:
        raise ConfigError(
            f"proxy.network: value {one.network!r} does not know the classes of {dataset}; allowed for it: networks that are trained "
            "on its images, such as resnet18_bn"
        )
    if lineage(config) == "zca":
        raise ConfigError(f"proxy.network: value {one.network!r} has never seen whitened images; allowed with it: settings.zca false")
    return [*found, Need("teacher", "ImageNet", one.network, {}, (0,), (0,))]


def ends(config: Config) -> tuple[int, ...]:
    """Return after how many updates each space ends; the last one with the run."""
    count = len(config.cuts)
    return tuple((config.iterations * (k + 1) + count - 1) // count for k in range(count))


def published(config: Config) -> list[int]:
    """Return after how many updates sets are published beside the final one."""
    return list(dict.fromkeys((0, *ends(config)[:-1]))) if config.steps == "spaces" else list(config.steps)


def work(config: Config, classes: int, train: int, ipc: int) -> dict[str, float]:
    """Return how many images' forward passes of networks the run costs: the base's and the proxy's, which sees all real images once."""
    counted = base_work(config, classes, train, ipc)
    if config.keep == "feature_distance":
        name, passes = config.proxy.network, 2.0 if config.proxy.variant == "layers" else 1.0
        counted = {**counted, name: counted.get(name, 0.0) + passes * (train + config.iterations * classes * ipc)}
    return counted


def generator_work(config: Config, classes: int, ipc: int) -> dict[str, float]:
    """Return how many images' forward passes of the generator the run costs: one more an update where the proxy is asked."""
    (counted,) = base_generator_work(config, classes, ipc).values()
    asked = config.iterations * classes * ipc if config.keep == "feature_distance" else 0
    return {config.generator.name: counted + asked}


def build(config: Config, inputs: Inputs) -> Run:
    """Return the run: the base method's, on latents that go from cut to cut."""
    from dataclasses import replace

    from dd.objectives.feature_distance import FeatureDistance, Resized
    from dd.parameterizations.hierarchical import HierarchicalGan, Judged
    from dd.train.pretrain import check_trained, load_network

    pool = inputs.pool()
    made: list[HierarchicalGan] = []
    score = None
    if config.keep == "feature_distance":
        file, one, teacher, ids = inputs.paths[-1][0], config.proxy, TEACHERS.get(config.proxy.network), None
        if teacher is None:
            wanted = {"network": one.network, "training": hashed(one.training), "epoch": one.epochs, "lineage": lineage(config)}
            check_trained(file, {**wanted, "fingerprint": inputs.manifest["fingerprint"]})
        proxy = load_network(file)
        if teacher is not None:  # as it was trained: its images were of one size, and its classes are all of ImageNet's
            proxy, ids = Resized(proxy, teacher.size), class_ids(inputs.manifest["name"])
        score = FeatureDistance(proxy, pool, variant=config.proxy.variant, ids=ids).distance

    def parameterize(generator: Generator, labels: Tensor) -> HierarchicalGan:
        latents = entered(config, inputs, generator, labels, config.cuts[0])
        made.append(HierarchicalGan(latents, config.cuts, config.keep, score))
        return made[0]

    run = assembled(config, inputs, parameterize, tuple(published(config)))
    (spaces,) = made

    def finish() -> DistilledSet:
        with spaces.finished():
            return run.finish()

    assert run.term is not None
    return replace(run, term=Judged(run.term, spaces), finish=finish, spaces=ends(config)[:-1], hand_over=spaces.hand_over)
