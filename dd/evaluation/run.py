"""Train fresh networks on a finished set, and test them. Sees the set, never the method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from dd import networks
from dd.data.load import load, manifest
from dd.data.normalise import Normalisation
from dd.data.pool import RealPool
from dd.evaluation.protocols._protocol import Protocol
from dd.progress import Progress
from dd.train.config import Training
from dd.train.supervised import accuracy, fit
from dd.types import DistilledSet, Score

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]


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
) -> list[Score]:
    """Return the score of one freshly initialised network for every number in `nets`.

    Network k of set s is initialised and trained with random streams of its own, so blocks of nets can be made apart.
    A training that diverges is a score with the status `diverged`, with where and how, and the accuracy that the network then has.
    """
    facts = manifest(dataset)
    classes, shape = len(facts["classes"]), (facts["channels"], *facts["size"])
    fetch = _fetch(distilled, dataset, classes, device)
    images, labels = load(dataset, "test")
    test = RealPool(images, labels, classes, distilled.mean, distilled.std, device)  # type: ignore[arg-type]
    training = Training(**protocol.model_dump(exclude={"extra_passes", "readings"}))
    passes = protocol.epochs + protocol.extra_passes
    reads = {math.ceil(passes * (k + 1) / protocol.readings) for k in range(protocol.readings)}
    scores = []
    nets = list(nets)
    with Progress(f"evaluate {network}", len(nets)) as progress:
        for done, number in enumerate(nets, start=1):
            net = networks.build(network, *_split(shape), classes, set_, "evaluate", network, number).to(device)
            readings: list[tuple[float, list[float]]] = []

            def read(epoch: int, net: torch.nn.Module = net, readings: list[tuple[float, list[float]]] = readings) -> None:
                if epoch in reads:
                    readings.append(accuracy(net, lambda index: (test.x(index), test.y(index)), len(test), classes))

            fitted = fit(
                net, fetch, len(distilled.labels), training, seed=set_, names=("evaluate", network, number), first_epoch=0,
                last_epoch=passes, shape=shape, flip=bool(facts["flip"]), on_epoch=read,
            )  # fmt: skip
            if fitted.diverged or not readings:
                readings.append(accuracy(net, lambda index: (test.x(index), test.y(index)), len(test), classes))
            last, per_class = readings[-1]
            scores.append(
                Score(network, name, set_, number, last, max(value for value, _ in readings), per_class,
                      "diverged" if fitted.diverged else "ok",
                      dict(fitted.diverged or {"train_loss": round(fitted.loss, 6)}))
            )  # fmt: skip
            progress.update(done)
    return scores


def _split(shape: tuple[int, int, int]) -> tuple[int, tuple[int, int]]:
    return shape[0], (shape[1], shape[2])


def _fetch(distilled: DistilledSet, dataset: Path, classes: int, device: str) -> Fetch:
    """Return the set's images, normalised; a set of positions reads them from the prepared train split, a batch at a time."""
    labels = distilled.labels.to(device)
    if len(distilled.images):
        x = Normalisation(distilled.mean, distilled.std).apply(distilled.images.to(device))
        return lambda index: (x[index], labels[index])
    images, real = load(dataset, "train")
    pool = RealPool(images, real, classes, distilled.mean, distilled.std, device)  # type: ignore[arg-type]
    assert distilled.indices is not None
    positions = distilled.indices.to(device)
    return lambda index: (pool.x(positions[index]), labels[index])
