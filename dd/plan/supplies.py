"""What distillations and analyses need beside images: networks trained before, experts, teachers, whitening."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dd import networks
from dd.config import digest, hashed, parse
from dd.config.stages import DistillConfig
from dd.data.registry import DATASETS
from dd.errors import ConfigError, nearest
from dd.plan.generators import Generators
from dd.plan.job import PATHS, Job
from dd.plan.papers import WeightsFile
from dd.plan.pretraining import Pretraining
from dd.teachers import TEACHERS
from dd.train.config import ExpertConfig
from dd.types import Need


class Supplies:
    """Collects what is needed, and turns it into jobs at the end.

    block: how many seeds one job makes. about: what ids know of a dataset. images: files of a dataset
    under a lineage, which adds the job that whitens it. teachers, generators: files that config.yaml names.
    """

    def __init__(
        self,
        block: int,
        about: Callable[[str], dict[str, Any]],
        images: Callable[[str, str], list[str]],
        teachers: Mapping[str, WeightsFile],
        generators: Mapping[str, WeightsFile],
    ) -> None:
        self._block = block
        self._about = about
        self._images = images
        self._given = teachers
        self.pretraining = Pretraining(self._block)
        self.generators = Generators(about, images, self.pretraining, generators)
        self._experts: dict[str, dict[str, Any]] = {}
        self._counts: dict[str, int] = {}
        self._teachers: dict[str, None] = {}

    def id(self, need: Need) -> str:
        """Return the id of what is needed."""
        if need.kind == "pretrained":
            return self.pretraining.id(self._about(need.dataset), need)
        if need.kind == "experts":
            about = {"dataset": self._about(need.dataset), **need.config, "lineage": need.lineage, "split": need.split}
            config = hashed(parse(ExpertConfig, about, f"experts {need.network}"))
            id_ = digest(config)
            self._experts[id_] = config
            return id_
        if need.kind == "generator":
            return self.generators.id(need)
        if need.kind == "teacher":
            self._teachers[need.network] = None
            return digest(self._teacher(need.network))
        raise ConfigError(f"need: kind {need.kind!r} cannot be made yet")

    def ask(self, need: Need, seed: int) -> list[str]:
        """Ask for the files of a need of set `seed`; return them."""
        id_ = self.id(need)
        if need.kind == "pretrained":
            return self.pretraining.ask(self._about(need.dataset), need, seed)
        if need.kind == "generator":
            return self.generators.ask(need)
        if need.kind == "teacher":
            return [PATHS["teacher"].format(name=need.network)]
        seeds = need.seeds or (seed,)
        self._counts[id_] = max(self._counts.get(id_, 0), max(seeds) + 1)
        return [PATHS["experts"].format(dataset=need.dataset, network=need.network, id=id_, seed=s) for s in seeds]

    def jobs(self) -> Iterator[Job]:
        """Yield every job that makes something of it."""
        yield from self._pretraining_jobs()
        yield from self._expert_jobs()
        yield from self.generators.jobs()
        for name in self._teachers:
            config = self._teacher(name)
            given = self._given.get(name)
            modules = ["dd.teachers", networks.module_of(TEACHERS[name].network)]
            yield Job("teacher", [PATHS["teacher"].format(name=name)], [given.path] if given else [], config, modules,
                      {"name": name, "id": digest(config)})  # fmt: skip

    def _pretraining_jobs(self) -> Iterator[Job]:
        for made in self.pretraining.jobs():
            yield Job(
                "pretrain",
                made.outputs,
                [*self._images(made.dataset, made.config.get("lineage", "dc")), *made.previous],
                made.config,
                ["dd.train.pretrain", networks.module_of(made.network)],
                {"dataset": made.dataset, "epoch": made.epoch, "previous": made.previous, "previous_epoch": made.previous_epoch,
                 "seeds": made.seeds, "key": made.key, "network": made.network, "id": made.id},
            )  # fmt: skip

    def _expert_jobs(self) -> Iterator[Job]:
        for id_, config in self._experts.items():
            name, network, count = config["dataset"]["name"], config["network"], self._counts.get(id_, 0)
            for first in range(0, count, self._block):
                seeds = tuple(range(first, min(first + self._block, count)))
                yield Job(
                    "experts",
                    [PATHS["experts"].format(dataset=name, network=network, id=id_, seed=seed) for seed in seeds],
                    self._images(name, config["lineage"]),
                    config,
                    ["dd.train.experts", networks.module_of(network)],
                    {"dataset": name, "seeds": seeds, "key": f"{name}/{network}/{id_}", "network": network, "id": id_},
                )

    def _teacher(self, name: str) -> dict[str, Any]:
        given = self._given.get(name)
        return {"stage": "teacher", "version": 1, "teacher": name, "sha256": given.sha256 if given else None}


def check_teachers(given: Mapping[str, WeightsFile], where: str) -> None:
    """Check that config.yaml names teachers that there are.

    Raises:
        ConfigError: it does not.
    """
    for name in given:
        if name not in TEACHERS:
            raise ConfigError(f"{where}: teachers: no teacher {name!r}{nearest(name, TEACHERS)}")


def check_guides(config: DistillConfig, needs: Iterable[Need]) -> None:
    """Check that guides take the images of a set, and (clom) know its classes, as far as the registry tells.

    Raises:
        ConfigError: they do not: better now than after their training.
    """
    own = DATASETS.get(config.dataset.name)
    for need in needs if own else ():
        teacher, other = TEACHERS.get(need.network), DATASETS.get(need.dataset)
        shape = (3, *teacher.size) if teacher else (other.channels, *other.size) if other else None
        assert own is not None and config.guidance is not None
        if shape is not None and shape != (own.channels, *own.size):
            mine = (own.channels, *own.size)
            raise ConfigError(f"guidance: {need.network} of {need.dataset} takes images of {shape}, those of {own.name} are {mine}")
        if teacher and config.guidance["kind"] == "clom" and teacher.classes != len(own.classes):
            raise ConfigError(
                f"guidance: {need.network} knows {teacher.classes} classes, {own.name} has {len(own.classes)}; guidance.kind cclom takes it"
            )
