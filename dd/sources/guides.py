"""Which pre-trained models guide a distillation, whatever its method: their architectures, seeds, epoch and data.

Read by the planner, so nothing heavy is imported at the top.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from dd.config import Frozen, hashed
from dd.errors import ConfigError
from dd.teachers import TEACHERS
from dd.train.config import Schedule, Training
from dd.types import Need

if TYPE_CHECKING:
    from torch import nn


class GuideTraining(Training):
    """How CLoM's guides are trained: 150 epochs without augmentation, a tenth of the rate at 50 and at 100, ten times the usual decay."""

    weight_decay: float = Field(default=5e-3, ge=0)
    schedule: Schedule = "thirds"
    epochs: int = Field(default=150, ge=0, validate_default=True)


class Candidates(Frozen):
    """An epoch that is chosen from results: the one of `candidates` whose guide gives the best set.

    Each candidate guides, alone (the first network, one seed), a set of its own, which is judged on `split`: the held-out tenth of train,
    that neither guide nor set have seen (but in a mean, a deviation or a whitening of all of train), or the test split, as the paper does.
    It is judged under the protocol of the point, so that one row under two protocols may be two sets. choice: id of the choice, once the
    plan knows it.
    """

    candidates: Annotated[tuple[int, ...], Field(min_length=1)]
    split: Literal["holdout", "test"] = "holdout"
    choice: str | None = None


Weight = Annotated[float, Field(ge=0)]
Alpha = Weight | tuple[Weight, ...]


def _names(value: Any) -> Any:
    """Take "a+b", as the papers' coordinates have it, for a list of names."""
    return tuple(value.split("+") if isinstance(value, str) else value) if isinstance(value, (str, list)) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1)]


class Guidance(Frozen):
    """Pre-trained models as supervision signals (Lu et al., "Can pre-trained models assist in dataset distillation?").

    kind: `clom`, their classification loss of the synthetic images; `cclom`, contrastive, for models of other data and labels.
    alpha: weight of that loss; one for all, or one an architecture.
    networks: architectures (N_a of them; also "a+b"). models: seeds of each (N_m), 0 to models - 1, the same for all sets.
    epochs: of their training; any milestone of the schedule of `training`, or the best of several (`Candidates`).
    source: the dataset that they were trained on; null is the set's own. Teachers from files (`dd.teachers`) bring their own.
    batch: real images of a step, for `cclom`.
    """

    kind: Literal["clom", "cclom"]
    alpha: Alpha
    networks: Names = ("convnet3_in",)
    models: int = Field(default=1, ge=1)
    epochs: Annotated[int, Field(ge=0)] | Candidates = 150
    source: str | None = None
    batch: int = Field(default=512, ge=1)
    training: GuideTraining = GuideTraining()

    @model_validator(mode="after")
    def _goes_together(self) -> Guidance:
        if isinstance(self.alpha, tuple) and len(self.alpha) != len(self.networks):
            raise ValueError(f"alpha has {len(self.alpha)} values for {len(self.networks)} networks; allowed: one for all, or one each")
        if self.kind == "clom" and self.source is not None:
            raise ValueError("source is for cclom: clom's guides must know the classes of the set's own dataset")
        last = max(self.epochs.candidates) if isinstance(self.epochs, Candidates) else self.epochs
        if self.training.schedule != "constant" and last > self.training.epochs:
            raise ValueError(f"epochs: value {last} is beyond the {self.training.epochs} epochs of `training`")
        if all(name in TEACHERS for name in self.networks) and (self.models != 1 or isinstance(self.epochs, Candidates)):
            raise ValueError("models and candidates are for networks that are trained here; a teacher is one file")
        return self

    @property
    def alphas(self) -> tuple[float, ...]:
        """One weight for every architecture."""
        return self.alpha if isinstance(self.alpha, tuple) else (self.alpha,) * len(self.networks)


# Recovered from the history of the authors' repository, for N_m = 10 ConvNets; the paper states none. ipc 10, ipc 50.
ALPHAS = {
    ("dc", "fashion_mnist"): (100.0, 100.0),
    ("dc", "cifar10"): (1000.0, 5000.0),
    ("dc", "cifar100"): (10_000.0, 1000.0),
    ("dsa", "fashion_mnist"): (100.0, 100.0),
    ("dsa", "cifar10"): (5000.0, 1000.0),
    ("dsa", "cifar100"): (10_000.0, 10.0),
    ("dm", "fashion_mnist"): (100.0, 100.0),
    ("dm", "cifar10"): (2000.0, 1000.0),
    ("dm", "cifar100"): (500.0, 1.0),
}


def defaults(method: str, dataset: str, ipc: int, kind: str) -> dict[str, Any]:
    """Return the weight that the authors used, where it is known or can be carried over.

    clom: the table above; CIFAR-10's for other datasets, and the nearest of ipc 10 and 50 for other ipc. cclom: 1000, the README's
    example. MTT and TESLA: 0.01, our choice, since their loss is a ratio near 1 and their rates are 100 and more. Nothing for other
    methods: then the configuration must give one.
    """
    if method in ("mtt", "tesla"):
        return {"alpha": 0.01}
    if kind == "cclom":
        return {"alpha": 1000.0}
    known = ALPHAS.get((method, dataset)) or ALPHAS.get((method, "cifar10"))
    return {"alpha": known[0 if ipc <= 30 else 1]} if known else {}


def architecture(name: str) -> str:
    """Return the network of `dd.networks` that a guide is: that of a teacher, or the name itself."""
    return TEACHERS[name].network if name in TEACHERS else name


def needs(guidance: Guidance, dataset: str, lineage: str, split: str) -> list[Need]:
    """Return the models that must exist, architecture by architecture; of every candidate, where the epoch is chosen.

    lineage, split: of the distillation; models of other data are normalised as those papers do ("dc") and see all of them.
    """
    epochs = guidance.epochs.candidates if isinstance(guidance.epochs, Candidates) else (guidance.epochs,)
    own = guidance.source is None
    found = []
    for network in guidance.networks:
        if network in TEACHERS:
            found.append(Need("teacher", guidance.source or "its own data", network, {}, (0,), (0,)))
            continue
        found.append(
            Need(
                "pretrained", guidance.source or dataset, network, hashed(guidance.training), tuple(range(guidance.models)), epochs,
                lineage if own else "dc", split if own else "train",
            )
        )  # fmt: skip
    return found


def chosen(guidance: Guidance, paths: Sequence[Sequence[Path]], epoch: int | None) -> list[list[Path]]:
    """Return the files of the epoch that was chosen; `paths` hold those of all candidates, epoch by epoch.

    Raises:
        ConfigError: an epoch that is no candidate, or none where one must be chosen.
    """
    if not isinstance(guidance.epochs, Candidates):
        return [list(group) for group in paths]
    candidates = guidance.epochs.candidates
    if epoch not in candidates:
        raise ConfigError(f"guidance.epochs: value {epoch!r} was chosen; allowed: {', '.join(map(str, candidates))}")
    kept = []
    for network, group in zip(guidance.networks, paths, strict=True):
        first = 0 if network in TEACHERS else candidates.index(epoch) * guidance.models
        kept.append(list(group[first : first + (1 if network in TEACHERS else guidance.models)]))
    return kept


class Guides:
    """Draw one model a step: an architecture uniformly, then one of its seeds (CLoM, section 5).

    groups: files of each architecture. load: reads one; a model is read when it is first drawn, and kept. alphas: weights by
    architecture. Models stay as they are: no gradients, eval mode.
    """

    def __init__(self, groups: Sequence[Sequence[Path]], load: Callable[[Path], nn.Module], alphas: Sequence[float], seed: int) -> None:
        if not groups or not all(groups) or len(groups) != len(alphas):
            raise ValueError("Guides needs at least one file of every architecture, and a weight for each")
        self._groups = [list(group) for group in groups]
        self._load = load
        self._alphas = list(alphas)
        self._seed = seed
        self._models: dict[Path, nn.Module] = {}

    def draw(self, step: int) -> tuple[nn.Module, float]:
        """Return the model of this step and its weight: a function of (seed, step)."""
        import torch

        from dd.rng import stream

        generator = stream(self._seed, "guide", step)
        which = int(torch.randint(len(self._groups), (), generator=generator))
        path = self._groups[which][int(torch.randint(len(self._groups[which]), (), generator=generator))]
        if path not in self._models:
            self._models[path] = self._load(path).requires_grad_(False).eval()
        return self._models[path], self._alphas[which]
