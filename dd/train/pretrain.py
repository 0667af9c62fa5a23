"""Pre-training on the real train split, from milestone to milestone, for a block of seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dd import networks
from dd.artifacts import load_tensors, read_meta, save_tensors
from dd.config import hashed
from dd.data.load import load, manifest
from dd.data.pool import RealPool
from dd.errors import ArtifactError
from dd.progress import Progress
from dd.train.config import PretrainConfig
from dd.train.supervised import fit


class Stopped(Exception):
    """The job was asked to stop; what is finished is kept, and the next start continues."""


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
) -> None:
    """Train one network a seed from `previous_epoch` to `epoch`, and write one file each.

    A file holds `model.*` (weights and buffers) and `optimizer.*` (momentum); its metadata say what it is. Seed s is the same
    network whatever the block that it is made in. An interrupted job keeps the networks that it finished, and the last finished
    epoch of the one it was at, in an undeclared `.resume` folder.

    Args:
        previous: files of the milestone before, one a seed; None starts from the seeded initialisation (epoch 0).

    Raises:
        Stopped: `stop` said so. ArtifactError: a file of `previous` is damaged, or is not of this configuration.
    """
    facts = manifest(dataset)
    images, labels = load(dataset, "train")
    pool = RealPool(images, labels, len(facts["classes"]), **facts["lineages"]["dc"], device=device)
    finished: list[Path] = []
    with Progress(f"pretrain {config.network} to epoch {epoch}", len(seeds) * max(1, epoch - previous_epoch)) as progress:
        for number, (seed, out) in enumerate(zip(seeds, outs, strict=True)):
            hidden = out.parent / ".resume" / out.name
            finished.append(hidden)
            if _epoch_of(hidden, config, seed) != epoch:
                start = previous[number] if previous else None
                before = number * (epoch - previous_epoch) - previous_epoch
                told = partial(_tell, progress, before)
                _train(config, facts, pool, epoch, seed, hidden, start, previous_epoch, device, stop, told)
    for hidden, out in zip(finished, outs, strict=True):
        hidden.replace(out)


def _tell(progress: Progress, before: int, done: int) -> None:
    progress.update(before + done)


def _train(
    config: PretrainConfig, facts: dict[str, Any], pool: RealPool, epoch: int, seed: int, hidden: Path, start: Path | None,
    start_epoch: int, device: str, stop: Callable[[], bool], told: Callable[[int], None],
) -> None:  # fmt: skip
    done = _epoch_of(hidden, config, seed)
    if done is not None and start_epoch < done < epoch:
        start, start_epoch = hidden, done
    net = networks.build(
        config.network, facts["channels"], tuple(facts["size"]), len(facts["classes"]), seed, "pretrain", config.network
    )
    momentum: dict[str, torch.Tensor] = {}
    if start is not None:
        tensors, meta = load_tensors(start)
        _check(start, meta, config, seed, start_epoch)
        _load(net, tensors, start)
        momentum = {key.removeprefix("optimizer."): value for key, value in tensors.items() if key.startswith("optimizer.")}
    net.to(device)
    loss = accuracy = None
    for e in range(start_epoch, epoch):  # an epoch at a time: each can be saved
        fitted = fit(
            net, lambda index: (pool.x(index), pool.y(index)), len(pool), config.training, seed=seed,
            names=("pretrain", config.network), first_epoch=e, last_epoch=e + 1,
            shape=(facts["channels"], *facts["size"]), flip=bool(facts["flip"]), momentum=momentum,
        )  # fmt: skip
        momentum, loss, accuracy = fitted.momentum, fitted.loss, fitted.accuracy
        told(e + 1)
        if stop() and e + 1 < epoch:
            _save(hidden, config, facts, seed, e + 1, net, momentum, loss, accuracy)
            raise Stopped(f"stopped after epoch {e + 1} of {epoch} of seed {seed}; start again to continue")
    _save(hidden, config, facts, seed, epoch, net, momentum, loss, accuracy)


def _save(
    path: Path, config: PretrainConfig, facts: dict[str, Any], seed: int, epoch: int, net: nn.Module,
    momentum: dict[str, torch.Tensor], loss: float | None, accuracy: float | None,
) -> None:  # fmt: skip
    tensors = {f"model.{name}": value for name, value in net.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in momentum.items()}
    text = lambda value: None if value is None else f"{value:.6g}"  # noqa: E731 (NaN is not JSON)
    meta = {
        "config": hashed(config), "seed": seed, "epoch": epoch, "fingerprint": facts["fingerprint"], "channels": facts["channels"],
        "size": list(facts["size"]), "classes": len(facts["classes"]), "train_loss": text(loss), "train_accuracy": text(accuracy),
    }  # fmt: skip
    save_tensors(path, tensors, meta)


def _epoch_of(path: Path, config: PretrainConfig, seed: int) -> int | None:
    """Return the epoch of a hidden file of this very job, or None."""
    try:
        meta = read_meta(path)
    except ArtifactError:
        return None
    return int(meta["epoch"]) if meta["config"] == hashed(config) and meta["seed"] == seed else None


def _check(path: Path, meta: dict[str, Any], config: PretrainConfig, seed: int, epoch: int) -> None:
    for key, wanted in (("config", hashed(config)), ("seed", seed), ("epoch", epoch)):
        if meta.get(key) != wanted:
            raise ArtifactError(f"{path}: {key}: is {meta.get(key)!r}, this job continues {wanted!r}")


def _load(net: nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    weights = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise ArtifactError(f"{path}: does not fit the network that it names: {error}") from None


def load_network(path: Path, device: str = "cpu") -> nn.Module:
    """Return the network that a checkpoint of ours holds, in training mode.

    Raises:
        ArtifactError: missing, damaged, or not a checkpoint.
    """
    tensors, meta = load_tensors(path)
    try:
        name, shape = meta["config"]["network"], (meta["channels"], tuple(meta["size"]), meta["classes"])
    except KeyError as error:
        raise ArtifactError(f"{path}: is not a pre-trained network (its metadata have no {error})") from None
    net = networks.build(name, *shape)
    _load(net, tensors, path)
    return net.to(device)
