"""Pre-training on the real train split, from milestone to milestone, for a block of seeds."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dd import networks
from dd.artifacts import discard, load_tensors, read_meta, save_tensors
from dd.config import hashed
from dd.data.load import manifest
from dd.data.load import pool as real
from dd.data.pool import RealPool
from dd.errors import ArtifactError, ConfigError, Stopped
from dd.progress import Progress
from dd.train.config import ExpertConfig, PretrainConfig
from dd.train.supervised import Fitted, fit, for_data

if TYPE_CHECKING:
    from dd.train.gan_config import GanConfig

SAVE_EVERY = 60.0  # seconds between checkpoints of a running training


def pretrain(
    config: PretrainConfig,
    dataset: Path,
    epoch: int,
    seeds: Sequence[int],
    outs: Sequence[Path],
    previous: Sequence[Path] | None = None,
    previous_epoch: int = 0,
    *,
    device: str = "cpu",
    stop: Callable[[], bool] = lambda: False,
    save_every: float = SAVE_EVERY,
) -> None:
    """Train one network a seed from `previous_epoch` to `epoch`, and write one file each.

    A file holds `model.*` (weights and buffers) and `optimizer.*` (momentum); its metadata say what it is. Seed s is the same
    network whatever the block that it is made in. An interrupted job keeps the networks that it finished, and the last saved
    epoch of the one it was at, in an undeclared `.resume` folder; files that are there already and are what this job makes are
    kept. A training that diverges is no error: its file says so (`diverged` in the metadata) and later milestones repeat it.

    Args:
        previous: files of the milestone before, one a seed; None starts from the seeded initialisation (epoch 0).
        stop: asked after each epoch. save_every: seconds between saves inside a network's training.

    Raises:
        Stopped: `stop` said so.
        ArtifactError: a file of `previous` is damaged, or is not of this configuration, dataset, seed or epoch; or the prepared
            dataset is not the configuration's; or it has no whitening yet, and the lineage is `zca`.
        ConfigError: epochs that go backwards, or no files for a `previous_epoch` after 0.
    """
    if previous_epoch > epoch or (previous_epoch > 0 and not previous):
        files = "given" if previous else "missing"
        raise ConfigError(f"pretrain: epoch: value {epoch}, continued from epoch {previous_epoch} with the previous files {files}")
    facts = facts_of(config, dataset)
    pool = real(dataset, config.split, config.lineage, device)
    hidden = [out.parent / ".resume" / out.name for out in outs]
    starts: Sequence[Path | None] = previous or [None] * len(seeds)
    span = epoch - previous_epoch
    made: list[tuple[Path, Path]] = []
    with Progress(f"pretrain {config.network} to epoch {epoch}", len(seeds) * max(1, span)) as progress:
        for number, (seed, out, start, kept) in enumerate(zip(seeds, outs, starts, hidden, strict=True)):
            learner = Learner(config, facts, seed, device)
            if learner.resume(out, epoch, epoch):
                discard(kept)
                continue
            made.append((kept, out))
            if learner.resume(kept, epoch, epoch):
                continue
            if not learner.resume(kept, previous_epoch + 1, epoch) and start is not None:
                learner.load(start, previous_epoch)
            saved = time.monotonic()
            while learner.epoch < epoch:
                learner.advance(pool)
                progress.update(number * span + learner.epoch - previous_epoch)
                stopping = stop() and (learner.epoch < epoch or number + 1 < len(seeds))
                if stopping or time.monotonic() - saved > save_every:
                    learner.save(kept)
                    saved = time.monotonic()
                if stopping:
                    raise Stopped(f"stopped after epoch {learner.epoch} of {epoch} of seed {seed}; start again to continue")
            learner.save(kept)
    for kept, out in made:  # a block appears as a whole, but for a crash in these lines
        kept.replace(out)
        discard(kept)


def facts_of(config: PretrainConfig | ExpertConfig | GanConfig, dataset: Path) -> dict[str, Any]:
    """Return the manifest of the prepared dataset; raise ArtifactError if it is not the configuration's."""
    facts = manifest(dataset)
    for key, value in (("name", config.dataset.name), ("fingerprint", config.dataset.fingerprint)):
        if value is not None and facts[key] != value:
            raise ArtifactError(f"{Path(dataset) / 'manifest.json'}: {key}: is {facts[key]!r}, the configuration asks for {value!r}")
    return facts


def identity_of(config: PretrainConfig | ExpertConfig | GanConfig, seed: int, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata that every file of a training has; `facts` as of `facts_of`."""
    return {"config": hashed(config), "seed": seed, "fingerprint": facts["fingerprint"]}


def check_continued(meta: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """Raise ArtifactError if the metadata of a file are not those of the training that is to be continued."""
    for key, value in wanted.items():
        if meta.get(key) != value:
            raise ArtifactError(f"{path}: {key}: is {meta.get(key)!r}, this job continues {value!r}")


def weights_of(net: nn.Module, tensors: dict[str, torch.Tensor], part: str, path: Path) -> dict[str, torch.Tensor]:
    """Return the weights and buffers that a file holds as `part`.*, for `net.load_state_dict`.

    Raises:
        ArtifactError: they do not fit the network.
    """
    weights = {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
    expected = net.state_dict()
    wrong = sorted({*weights, *expected} - {name for name in weights if name in expected and weights[name].shape == expected[name].shape})
    if wrong:
        some = ", ".join(wrong[:3])
        raise ArtifactError(f"{path}: {part} does not fit the network that it names: {some} missing, unknown or of another shape")
    return weights


Take = Callable[[dict[str, torch.Tensor], dict[str, Any], Path, int], None]  # tensors and metadata of a file, where it is, how far it got


def resumed(take: Take, path: Path, counts: str, first: int, last: int) -> bool:
    """Let `take` take over what an interrupted job left at `path`; tell whether that was sound and `first` to `last` of `counts` far.

    counts: the key of the metadata that says how far: "epoch" or "step".
    """
    try:
        tensors, meta = load_tensors(path)
        if not first <= meta.get(counts, -1) <= last:
            return False
        take(tensors, meta, path, meta[counts])
    except ArtifactError:
        return False  # made again
    return True


class Learner:
    """One network on its way: weights, momentum, and how many epochs it has behind it.

    what: the first name of its random streams, which are (seed, what, network): so networks for different uses differ.
    """

    def __init__(
        self, config: PretrainConfig | ExpertConfig, facts: dict[str, Any], seed: int, device: str, what: str = "pretrain"
    ) -> None:
        self.config, self.facts, self.seed, self.epoch = config, facts, seed, 0
        self.shape = (int(facts["channels"]), int(facts["size"][0]), int(facts["size"][1]))
        self.names = (what, config.network)
        self.net = networks.build(config.network, self.shape[0], self.shape[1:], len(facts["classes"]), seed, *self.names).to(device)
        self.fitted = Fitted()

    def advance(self, pool: RealPool) -> None:
        """Train for one epoch; a network that diverged stays as it is."""
        if self.fitted.diverged is None:
            self.fitted = fit(
                self.net, lambda index: (pool.x(index), pool.y(index)), len(pool), for_data(self.config.training, self.facts),
                seed=self.seed, names=self.names, first_epoch=self.epoch, last_epoch=self.epoch + 1, shape=self.shape,
                flip=bool(self.facts["flip"]), momentum=self.fitted.momentum,
            )  # fmt: skip
            if self.fitted.diverged is not None:
                who = f"{self.names[0]} {self.config.network} seed {self.seed}"
                print(f"{who}: diverged: {self.fitted.diverged}", file=sys.stderr, flush=True)
        self.epoch += 1

    def identity(self) -> dict[str, Any]:
        """Return the metadata that a file must have to be this network."""
        return identity_of(self.config, self.seed, self.facts)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the network as it is: tensors and metadata of its file."""
        tensors = {f"model.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in self.fitted.momentum.items()}
        number = lambda value: round(value, 6) if math.isfinite(value) else None  # noqa: E731 (NaN is not JSON)
        meta = {
            **self.identity(), "epoch": self.epoch, "channels": self.shape[0], "size": list(self.shape[1:]),
            "classes": len(self.facts["classes"]), "train_loss": number(self.fitted.loss),
            "train_accuracy": number(self.fitted.accuracy), "diverged": self.fitted.diverged,
        }  # fmt: skip
        return tensors, meta

    def save(self, path: Path) -> None:
        """Write the network as it is."""
        save_tensors(path, *self.state())

    def load(self, path: Path, epoch: int) -> None:
        """Take over the network of `epoch` from a file.

        Raises:
            ArtifactError: missing, damaged, or of another configuration, dataset, seed or epoch.
        """
        self.take(*load_tensors(path), path, epoch)

    def take(self, tensors: dict[str, torch.Tensor], meta: dict[str, Any], path: Path, epoch: int) -> None:
        """Take over the network of `epoch` from what `path` held; see `load` for errors."""
        check_continued(meta, {**self.identity(), "epoch": epoch}, path)
        parameters = dict(self.net.named_parameters())
        momentum = {key.removeprefix("optimizer."): value for key, value in tensors.items() if key.startswith("optimizer.")}
        diverged = meta.get("diverged")
        some = epoch > 0 and self.config.training.momentum > 0 and diverged is None
        fits = all(name in parameters and value.shape == parameters[name].shape for name, value in momentum.items())
        if bool(momentum) != some or not fits:
            raise ArtifactError(f"{path}: its momentum does not fit the parameters of {self.config.network}; delete it and run again")
        self.net.load_state_dict(weights_of(self.net, tensors, "model", path))
        text = lambda key: math.nan if meta.get(key) is None else float(meta[key])  # noqa: E731
        self.fitted = Fitted(momentum, text("train_loss"), text("train_accuracy"), diverged)
        self.epoch = epoch

    def resume(self, path: Path, first: int, last: int) -> bool:
        """Take over what an interrupted job left at `path`, if it is this network, sound, and of epoch `first` to `last`."""
        return resumed(self.take, path, "epoch", first, last)


def check_trained(path: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a checkpoint, after checking that it is the one that somebody needs.

    Args:
        wanted: `network`, `training`, `epoch`, `fingerprint` of the images, `lineage`; those that are not given are not checked.

    Raises:
        ArtifactError: missing, damaged, or another network, or of another training, epoch or other images.
    """
    meta = read_meta(path)
    config = meta.get("config")
    known = config if isinstance(config, dict) else {}
    found = {"lineage": "dc", **known, "epoch": meta.get("epoch"), "fingerprint": meta.get("fingerprint")}
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ArtifactError(f"{path}: {key}: is {found.get(key)!r}, needed is {value!r}; train it again, or give the right file")
    return dict(meta)


def load_network(path: Path, device: str = "cpu") -> nn.Module:
    """Return the network that a checkpoint of ours holds, in training mode.

    Raises:
        ArtifactError: missing, damaged, or not a checkpoint.
    """
    tensors, meta = load_tensors(path)
    try:
        name, shape, seed = meta["config"]["network"], (meta["channels"], tuple(meta["size"]), meta["classes"]), meta["seed"]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: is not a pre-trained network (its metadata lack {error})") from None
    net = networks.build(name, *shape, seed, "load")  # with a seed, so that torch's global generator is left alone
    net.load_state_dict(weights_of(net, tensors, "model", path))
    return net.to(device)
