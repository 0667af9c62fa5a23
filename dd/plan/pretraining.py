"""Pre-training as a chain of milestones, in blocks of seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dd.config import digest, hashed, parse
from dd.train.config import PretrainConfig
from dd.types import Need


@dataclass(frozen=True)
class Block:
    """One job: some seeds of one network, from one milestone to the next. key: the part of the path that names network and epoch."""

    id: str
    dataset: str
    network: str
    config: dict[str, Any]
    epoch: int
    previous_epoch: int
    seeds: tuple[int, ...]

    @property
    def key(self) -> str:
        """dataset/network/id/epochE."""
        return _key(self.dataset, self.network, self.id, self.epoch)

    @property
    def outputs(self) -> list[str]:
        """The files, one a seed."""
        return [_file(self.key, seed) for seed in self.seeds]

    @property
    def previous(self) -> list[str]:
        """The files that this job continues, one a seed; none for the first milestone, which starts from the seed itself."""
        before = _key(self.dataset, self.network, self.id, self.previous_epoch)
        return [_file(before, seed) for seed in self.seeds] if self.previous_epoch else []


class Pretraining:
    """Collects what is asked of pre-training, and turns it into jobs at the end.

    Asking for a later epoch adds jobs at the end of the chain and recomputes nothing; so does asking for more sets, since
    seeds outside a declared pool are jobs of their own. block: seeds in one job of a pool. milestones: those of the paper that is asking.
    """

    def __init__(self, block: int) -> None:
        self._block = block
        self.milestones: Sequence[int] = ()
        self._published: dict[str, set[int]] = {}  # id -> the milestones of all papers that ask for it
        self._configs: dict[str, dict[str, Any]] = {}
        self._pools: dict[tuple[str, int], int] = {}  # (id, epoch) -> size of the largest pool
        self._singles: dict[tuple[str, int], set[int]] = {}

    def id(self, dataset: dict[str, Any], need: Need) -> str:
        """Return the id of what is needed."""
        about = {"dataset": dataset, "network": need.network, "training": need.config, "lineage": need.lineage, "split": need.split}
        config = hashed(parse(PretrainConfig, about, f"pretrain {need.network}"))
        id_ = digest(config)
        self._configs[id_] = config
        return id_

    def ask(self, dataset: dict[str, Any], need: Need, seed: int, *, published: bool = True) -> list[str]:
        """Ask for the files of a need of set `seed`; return them. published: stop at the paper's milestones on the way."""
        id_ = self.id(dataset, need)
        self._published.setdefault(id_, set()).update(self.milestones if published else ())
        seeds = (seed,) if need.seeds is None else need.seeds
        for epoch in need.epochs:
            if need.seeds is None or len(need.seeds) == 1:
                self._singles.setdefault((id_, epoch), set()).update(seeds)
            else:
                self._pools[(id_, epoch)] = max(len(seeds), self._pools.get((id_, epoch), 0))
        return [_file(_key(need.dataset, need.network, id_, epoch), s) for epoch in need.epochs for s in seeds]

    def jobs(self) -> Iterator[Block]:
        """Yield every job of every chain."""
        for id_, config in self._configs.items():
            asked = sorted({epoch for key, epoch in [*self._pools, *self._singles] if key == id_})
            if not asked:
                continue
            chain = [epoch for epoch in sorted({*asked, *self._published[id_]}) if 0 < epoch <= asked[-1]]
            for epoch in [0, *chain] if 0 in asked else chain:
                earlier = [before for before in chain if before < epoch]
                for seeds in self._seeds(id_, epoch):
                    dataset = config["dataset"]["name"]
                    yield Block(id_, dataset, config["network"], config, epoch, earlier[-1] if earlier else 0, seeds)

    def _seeds(self, id_: str, epoch: int) -> list[tuple[int, ...]]:
        """Return the blocks of seeds that this milestone, or a later one, is asked for."""
        later = lambda found: [value for (key, e), value in found.items() if key == id_ and (e >= epoch if epoch else e == 0)]  # noqa: E731
        pool = max(later(self._pools), default=0)
        singles = {seed for seeds in later(self._singles) for seed in seeds if seed >= pool}
        blocks = [tuple(range(first, min(first + self._block, pool))) for first in range(0, pool, self._block)]
        return [*blocks, *((seed,) for seed in sorted(singles))]


def _key(dataset: str, network: str, id_: str, epoch: int) -> str:
    return f"{dataset}/{network}/{id_}/epoch{epoch}"


def _file(key: str, seed: int) -> str:
    return f"results/pretrained/{key}/seed{seed}.safetensors"
