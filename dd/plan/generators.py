"""Training of generators as a chain of milestones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dd import generators
from dd.config import digest, hashed, parse
from dd.plan.job import PATHS, Job
from dd.train.gan_config import GanConfig
from dd.types import Need


class Generators:
    """Collects what is asked of generators, and turns it into jobs at the end. about: what ids know of a dataset.

    images: files of a dataset under a lineage.
    """

    def __init__(self, about: Callable[[str], dict[str, Any]], images: Callable[[str, str], list[str]]) -> None:
        self._about = about
        self._images = images
        self._configs: dict[str, dict[str, Any]] = {}
        self._epochs: dict[str, set[int]] = {}

    def id(self, need: Need) -> str:
        """Return the id of what is needed."""
        about = {"dataset": self._about(need.dataset), "generator": need.network, "training": need.config, "split": need.split}
        config = hashed(parse(GanConfig, about, f"generator {need.network}"))
        id_ = digest(config)
        self._configs[id_] = config
        return id_

    def ask(self, need: Need) -> list[str]:
        """Ask for the files of a need; return them."""
        id_ = self.id(need)
        self._epochs.setdefault(id_, set()).update(need.epochs)
        return [self._file(id_, epoch) for epoch in need.epochs]

    def jobs(self) -> Iterator[Job]:
        """Yield every job of every chain: each milestone starts from the one before."""
        for id_, epochs in self._epochs.items():
            config, before = self._configs[id_], 0
            dataset, name = config["dataset"]["name"], config["generator"]
            for epoch in sorted(epochs):
                previous = [self._file(id_, before)] if before else []
                facts = {"dataset": dataset, "epoch": epoch, "previous": previous, "previous_epoch": before, "id": id_}
                modules = ["dd.train.gan", generators.module_of(name)]
                yield Job("generator", [self._file(id_, epoch)], [*self._images(dataset, "dc"), *previous], config, modules, facts)
                before = epoch

    def _file(self, id_: str, epoch: int) -> str:
        config = self._configs[id_]
        return PATHS["generator"].format(dataset=config["dataset"]["name"], generator=config["generator"], id=id_, epoch=epoch)
