"""Train fresh networks on a finished set, and test them. Sees the set, never the method."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from dd import networks
from dd.artifacts import sha256_file
from dd.data.load import load, manifest, normalisation, pool
from dd.data.normalise import Normalisation
from dd.data.pool import RealPool
from dd.errors import ArtifactError, Stopped
from dd.evaluation.protocols._protocol import Protocol
from dd.evaluation.replicas import replicated
from dd.evaluation.resume import SAVE_EVERY, Kept, content, stretches
from dd.progress import Progress
from dd.train.ema import Ema
from dd.train.supervised import Fetch, Fitted, Loss, accuracy, cross_entropy, fit, for_data
from dd.types import DistilledSet, Score

DIGITS = 6  # of the training loss in `detail`


def evaluate(
    distilled: DistilledSet,
    network: str,
    name: str,
    protocol: Protocol,
    dataset: Path,
    set_: int,
    nets: Iterable[int],
    *,
    device: str = "cpu",
    split: str = "test",
    needs: Sequence[Sequence[Path]] = (),
    stop: Callable[[], bool] = lambda: False,
    state: Path | None = None,
    save_every: float = SAVE_EVERY,
) -> list[Score]:
    """Return the score of one freshly initialised network for every number in `nets`.

    Network k of set s is initialised and trained with random streams of its own, (s, "evaluate", network, k), so blocks of nets
    can be made apart. The set and the test split are normalised with the set's mean and std; or, if the set says `zca`, whitened
    with the whitening of the dataset's train split, and its mean and std are not looked at.

    A training that diverges is a score with the status `diverged`, with where and how (`detail`: in the training or already in the
    distillation, step, loss, norm of the gradient), and the accuracy that the network then has: it, not the average of its weights,
    which a protocol with `ema` tests.

    Args:
        distilled: (n, c, h, w) images, or only positions in the prepared train split, which are then read a batch at a time.
        name: of the protocol. dataset: folder of the prepared dataset. set_: number of the set.
        split: what the networks are tested on: `test`, or `holdout`, the held-out tenth of train, for choosing between settings.
        needs: files of what the protocol needs, a list for each need.
        stop: asked after every network, and about every ten seconds inside a training where that can be cut (`dd.evaluation.resume`).
        state: file that keeps how far an evaluation came that was stopped or killed; whoever has published the scores removes it.
            One that is damaged, or of another set, protocol, dataset or block of nets, is not used.
        save_every: seconds between saves inside one network's training.

    Raises:
        Stopped: `stop` said so, and something is left to do.
        ArtifactError: the set does not fit the dataset, or there is no whitening for it; or its learned step size, which the protocol
            asks for, is not above 0. ConfigError: the network does not fit the images, or what the protocol teaches it beside them.
    """
    facts = manifest(dataset)
    classes, shape = len(facts["classes"]), (int(facts["channels"]), int(facts["size"][0]), int(facts["size"][1]))
    _check(distilled, facts, shape)
    training = for_data(_with_rate(protocol, distilled), facts)
    fetch = _fetch(distilled, dataset, classes, device)
    lessons = protocol.lessons(needs, facts, fetch, len(distilled.labels), device)
    test = _pool(distilled, dataset, split, classes, device)
    measure = partial(accuracy, fetch=lambda index: (test.x(index), test.y(index)), n=len(test), classes=classes)
    passes = protocol.epochs + protocol.extra_passes
    reads = {math.ceil(passes * (k + 1) / protocol.readings) for k in range(protocol.readings)}
    numbers = list(nets)
    about = {
        "network": network, "protocol": name, "settings": protocol.model_dump(mode="json"), "set": set_, "nets": numbers, "split": split,
        "fingerprint": facts["fingerprint"], "content": "" if state is None else content(distilled),
        "needs": [] if state is None else [[sha256_file(file) for file in group] for group in needs],
    }  # fmt: skip
    kept = Kept(state, about)
    cut = lessons is None and protocol.optimizer == "sgd"  # of no other all that goes on from epoch to epoch can be saved
    with Progress(f"evaluate {network}", len(numbers), len(kept.scores)) as progress:
        for done, number in enumerate(numbers[len(kept.scores) :], start=len(kept.scores) + 1):
            names = ("evaluate", network, number)
            net = networks.build(network, shape[0], shape[1:], classes, set_, *names).to(device)
            average = Ema(net, protocol.ema) if protocol.ema else None
            first, momentum, readings = kept.begin(net, average)

            def read(epoch: int, net: Any = net, average: Ema | None = average, readings: list[Any] = readings) -> None:
                if average is not None:
                    average.update(net)
                if epoch in reads:
                    readings.append(measure(average.net if average is not None else net))

            loss: Loss = lessons.loss(network, net, shape) if lessons else cross_entropy
            loss, fitted, saved = replicated(loss, protocol.replicas), Fitted(momentum), time.monotonic()
            for begin, end in stretches(first, passes, cut=cut):
                fitted = fit(
                    net, fetch, len(distilled.labels), training, seed=set_, names=names, first_epoch=begin, last_epoch=end,
                    shape=shape, flip=bool(facts["flip"]), use="eval", momentum=fitted.momentum, loss=loss,
                    optimizer=protocol.optimizer, on_epoch=read,
                )  # fmt: skip
                if fitted.diverged is not None:
                    readings.append(measure(net))
                    break
                stopping = end < passes and stop()
                if stopping or (end < passes and time.monotonic() - saved > save_every):
                    kept.pause(net, average, end, fitted.momentum, readings)
                    saved = time.monotonic()
                if stopping:
                    raise Stopped(f"stopped after epoch {end} of {passes} of network {number}; start again to continue")
            last, per_class = readings[-1]
            status, detail = _outcome(distilled, fitted.diverged, fitted.loss)
            best = max(value for value, _ in readings)
            detail |= lessons.detail if lessons else {}
            kept.done(Score(network, name, set_, number, last, best, per_class, status, detail), save=done < len(numbers))
            progress.update(done)
            if done < len(numbers) and stop():
                raise Stopped(f"stopped after {done} of {len(numbers)} networks; start again to continue")
    return kept.scores


def _outcome(distilled: DistilledSet, diverged: dict[str, Any] | None, loss: float) -> tuple[str, dict[str, Any]]:
    """Return (status, detail); what is left of a distillation that diverged did so, whatever a network makes of it."""
    first = distilled.meta.get("diverged")
    if first:
        return "diverged", {"diverged_in": "distillation", **first}
    if diverged is not None:
        return "diverged", {"diverged_in": "training", **diverged}
    return "ok", {"train_loss": round(loss, DIGITS)}


def _check(distilled: DistilledSet, facts: dict[str, Any], shape: tuple[int, int, int]) -> None:
    images, labels, classes = distilled.images, distilled.labels, len(facts["classes"])
    if distilled.indices is None or len(images):
        if tuple(images.shape) != (len(labels), *shape):
            needed = (len(labels), *shape)
            raise ArtifactError(f"distilled set: images {tuple(images.shape)}; its labels and {facts['name']} need {needed}")
    else:
        most = sum(facts["counts"]["train"])
        if len(distilled.indices) != len(labels) or not bool(((distilled.indices >= 0) & (distilled.indices < most)).all()):
            raise ArtifactError(f"distilled set: its positions must be {len(labels)} below {most}, the images of {facts['name']}")
    if not len(labels):
        raise ArtifactError("distilled set: has no images")
    hard = labels.ndim == 1 and bool(((labels >= 0) & (labels < classes)).all())
    if not hard and labels.shape[1:] != (classes,):
        raise ArtifactError(f"distilled set: labels {tuple(labels.shape)} do not fit the {classes} classes of {facts['name']}")


def _with_rate(protocol: Protocol, distilled: DistilledSet) -> Protocol:
    """Return the protocol with the rate that the set learned, where the protocol asks for it and the set has one."""
    size = distilled.step_size
    if not protocol.learned_lr or size is None:
        return protocol
    if not (size > 0 and math.isfinite(size)):
        raise ArtifactError(f"distilled set: step_size: value {size}: it must be above 0 to train with; or set learned_lr to false")
    return protocol.model_copy(update={"lr": size})


def _pool(distilled: DistilledSet, dataset: Path, split: str, classes: int, device: str) -> RealPool:
    """Return a prepared split, normalised or whitened as the set is."""
    if distilled.zca:
        return pool(dataset, split, "zca", device)
    images, labels = load(dataset, split)
    return RealPool(images, labels, classes, distilled.mean.tolist(), distilled.std.tolist(), device)


def _fetch(distilled: DistilledSet, dataset: Path, classes: int, device: str) -> Fetch:
    """Return the set's images, normalised or whitened; a set of positions reads them from the prepared train split, a batch at a time."""
    labels = distilled.labels.to(device)
    if distilled.indices is None or len(distilled.images):
        norm = normalisation(dataset, "zca") if distilled.zca else Normalisation(distilled.mean, distilled.std)
        x = norm.apply(distilled.images.to(device))
        return lambda index: (x[index], labels[index])
    real = _pool(distilled, dataset, "train", classes, device)
    positions: Tensor = distilled.indices.to(device)
    return lambda index: (real.x(positions[index]), labels[index])
