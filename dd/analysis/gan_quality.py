"""Is a generator good enough to distil through? Measures that need no Inception network, each with its gate.

All look through one classifier that was trained on the real train split. None of the gates comes from a paper: they are proposals for
small generators, and the measured values are in the result beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dd import networks
from dd.config import Frozen
from dd.data.normalise import ZCA
from dd.data.pool import RealPool
from dd.errors import ConfigError
from dd.generators import Generator, to_uint8
from dd.objectives.distribution import embed_in_chunks
from dd.rng import stream
from dd.train.config import Training
from dd.train.pretrain import load_network
from dd.train.supervised import accuracy, fit

TRAINING = Training(lr=0.01, batch=32)  # of the classification accuracy score
NEIGHBOURS = 3


class Gates(Frozen):
    """What a generator must reach; the defaults are for digits and Fashion-MNIST, `COLOURS` for CIFAR-10.

    consistency, class_min: accuracy of the classifier, over all samples and in the worst class. cas: accuracy of a network trained on
    samples over that of one trained on as many real images. spread: lowest and highest ratio of within-class std. precision,
    recall: shares of samples near real images, and of real images near samples. memorisation: ratio of distances, see `quality`.
    """

    consistency: float = 0.9
    class_min: float = 0.6
    cas: float = 0.85
    spread: tuple[float, float] = (0.6, 1.2)
    precision: float = 0.5
    recall: float = 0.1
    memorisation: float = 0.5


COLOURS = Gates(consistency=0.75, cas=0.65)


def quality(
    generator: Generator,
    classifier: nn.Module | Path,
    train: RealPool,
    test: RealPool,
    *,
    seed: int,
    samples: int = 2000,
    gates: Gates | None = None,
    network: str = "convnet3_in_w16",
    epochs: int = 5,
) -> dict[str, Any]:
    """Return the measures of a generator, a function of the arguments alone.

    Args:
        generator: anything with `z_dim` that gives images in GAN range from (z, y); they are rounded to uint8 first, as when saved.
        classifier: trained on real images, or its checkpoint; it sees images as `train` normalises them.
        train, test: real images that the generator learned from, and others; on the classifier's device.
        samples: how many, evenly over the classes. gates: None is for digits and Fashion-MNIST.
        network, epochs: what is trained on samples and on real images; at most as many of either as there are real ones.

    Returns:
        {"measures": {name: {"value", "gate": [lowest, highest], "passed"}}, "passed": all of them, "samples", "seed"}; None stands for a
        bound that there is not, and for a value that is no number, which never passes. The names:
        consistency, class_min: accuracy of the classifier on samples, of all and of the worst class.
        cas: classification accuracy score (Ravuri & Vinyals, 2019) over the real one; both accuracies are under "details".
        spread_pixels, spread_features: sqrt of the mean within-class variance, samples over train, in pixels and embeddings.
        precision, recall: Kynkaanniemi et al. (2019), k = 3, in the classifier's embeddings, against as many train images.
        memorisation: median distance of a sample to its nearest train image over that of a test image, in pixels; low is suspicious.

    Raises:
        ConfigError: fewer than 2 (k + 1) samples a class. ArtifactError: a checkpoint that is missing or damaged.
    """
    gates, classes = gates or Gates(), train.classes
    if samples < classes * 2 * (NEIGHBOURS + 1):
        raise ConfigError(f"samples: value {samples}; allowed: {classes * 2 * (NEIGHBOURS + 1)} and more, for {classes} classes")
    net = classifier if isinstance(classifier, nn.Module) else load_network(classifier, train.device)
    labels = torch.arange(samples) % classes
    fake = _like(train, sample(generator, labels, stream(seed, "gan_quality", "samples"), train.device), labels)
    order = torch.randperm(len(train), generator=stream(seed, "gan_quality", "real"))
    some = _part(train, order[:samples])
    others = _part(test, torch.randperm(len(test), generator=stream(seed, "gan_quality", "test"))[:samples])
    right, each = accuracy(net, lambda i: (fake.x(i), fake.y(i)), len(fake), classes)
    scores = {"fake": _score(fake, test, min(len(fake), len(some)), network, epochs, seed)}
    scores["real"] = _score(some, test, min(len(fake), len(some)), network, epochs, seed)
    of_real, of_fake = (_embed(net, pool) for pool in (some, fake))
    precision, recall = precision_recall(of_real, of_fake)
    lowest = lambda value, bound: _measure(value, bound, None)  # noqa: E731
    measures = {
        "consistency": lowest(right, gates.consistency),
        "class_min": lowest(min(each), gates.class_min),
        "cas": lowest(_ratio(scores["fake"], scores["real"]), gates.cas),
        "spread_pixels": _measure(_ratio(_spread(_pixels(fake), fake), _spread(_pixels(train), train)), *gates.spread),
        "spread_features": _measure(_ratio(_spread(of_fake, fake), _spread(of_real, some)), *gates.spread),
        "precision": lowest(precision, gates.precision),
        "recall": lowest(recall, gates.recall),
        "memorisation": lowest(memorisation(_pixels(fake), _pixels(train), _pixels(others)), gates.memorisation),
    }
    details = {"accuracy_from_samples": scores["fake"], "accuracy_from_real": scores["real"], "class_consistency": each}
    passed = all(measure["passed"] for measure in measures.values())
    return {"measures": measures, "passed": passed, "details": details, "samples": samples, "seed": seed}


@torch.no_grad()
def sample(generator: Generator, labels: Tensor, numbers: torch.Generator, device: str = "cpu", batch: int = 500) -> Tensor:
    """Return images of `labels` (n,), uint8 (n, c, h, w), of normal z drawn on the CPU from `numbers`."""
    latents = torch.randn(len(labels), generator.z_dim, generator=numbers)  # at once: smaller draws give other numbers
    parts = zip(latents.split(batch), labels.split(batch), strict=True)
    return torch.cat([to_uint8(generator(z.to(device), y.to(device))) for z, y in parts])


def precision_recall(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Return (precision, recall) of features (n, d) and (m, d).

    precision: the share of fake that lie in the ball of some real one, whose radius is the distance to its k-th nearest other real one;
    recall: the same with the roles exchanged.
    """
    between = _distances(real, fake)
    inside = lambda among, rows: (rows <= _radii(among, k)[:, None]).any(0).double().mean().item()  # noqa: E731
    return inside(real, between), inside(fake, between.t())


def memorisation(fake: Tensor, train: Tensor, test: Tensor) -> float:
    """Return median distance of fake to its nearest train row over that of test; rows (n, d)."""
    nearest = [torch.cat([_distances(part, train).min(1).values for part in rows.split(250)]).median().item() for rows in (fake, test)]
    return _ratio(*nearest)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")  # the other mode finds copies at a distance above 0


def _radii(rows: Tensor, k: int) -> Tensor:
    distances = _distances(rows, rows).fill_diagonal_(math.inf)
    return distances.kthvalue(k, 1).values


def _score(pool: RealPool, test: RealPool, n: int, network: str, epochs: int, seed: int) -> float:
    """Return the test accuracy of a fresh network trained on the first n images; which is the same network for every pool."""
    channels, height, width = pool.images.shape[1:]
    names = ("gan_quality", "score", network)
    net = networks.build(network, channels, (height, width), pool.classes, seed, *names).to(pool.device)
    fetch: Callable[[Tensor], tuple[Tensor, Tensor]] = lambda i: (pool.x(i), pool.y(i))  # noqa: E731
    fit(net, fetch, n, TRAINING, seed=seed, names=names, first_epoch=0, last_epoch=epochs, shape=(channels, height, width), flip=False)
    return accuracy(net, lambda i: (test.x(i), test.y(i)), len(test), test.classes)[0]


def _embed(net: nn.Module, pool: RealPool) -> Tensor:
    was = net.training
    net.eval()
    with torch.no_grad():
        result = embed_in_chunks(net, pool.x(torch.arange(len(pool), device=pool.device)))
    net.train(was)
    return result


def _pixels(pool: RealPool) -> Tensor:
    return pool.images.float().flatten(1) / 255.0


def _spread(rows: Tensor, pool: RealPool) -> float:
    """Return sqrt of the mean variance of a number of an image inside its class, over numbers and classes."""
    inside = [rows[pool.of_class(c)].double().var(0, correction=0).mean() for c in range(pool.classes)]
    return torch.stack(inside).mean().sqrt().item()


def _like(pool: RealPool, images: Tensor, labels: Tensor) -> RealPool:
    """Return a pool of these images that are normalised as `pool` normalises its own."""
    (mean, std), norm = pool.statistics, pool.normalisation
    zca = norm if isinstance(norm, ZCA) else None
    return RealPool(images, labels, pool.classes, mean.tolist(), std.tolist(), pool.device, zca=zca)


def _part(pool: RealPool, index: Tensor) -> RealPool:
    index = index.to(pool.device)
    return _like(pool, pool.images[index], pool.labels[index].cpu())


def _ratio(over: float, under: float) -> float:
    return over / under if under else math.nan


def _measure(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    known = math.isfinite(value)
    passed = known and (low is None or value >= low) and (high is None or value <= high)
    return {"value": round(value, 6) if known else None, "gate": [low, high], "passed": passed}
