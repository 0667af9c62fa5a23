"""Choosing real images: random, herding, k-center. All work class by class and return positions in the train split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dd.errors import ConfigError
from dd.types import DistilledSet, Run

if TYPE_CHECKING:
    from dd.data.pool import RealPool


def random(labels: Tensor, classes: int, ipc: int, generator: torch.Generator) -> Tensor:
    """Return (classes * ipc,) positions, `ipc` different ones of every class, uniformly, sorted by class.

    Raises:
        ConfigError: a class has fewer than `ipc` images.
    """
    chosen = []
    for c in range(classes):
        members = _members(labels, c, ipc)
        chosen.append(members[torch.randperm(len(members), generator=generator)[:ipc]])
    return torch.cat(chosen)


def herding(features: Tensor, labels: Tensor, classes: int, ipc: int) -> Tensor:
    r"""Return positions that keep the mean of the chosen features close to the class mean.

    For k = 1..ipc the image nearest to :math:`k \mu - \sum_{chosen} f` joins; the first is the image nearest to the mean.

    Args:
        features: (n, d). labels: (n,).

    Raises:
        ConfigError: a class has fewer than `ipc` images.
    """
    chosen = []
    for c in range(classes):
        members = _members(labels, c, ipc)
        f = features[members].double()
        mean, total, free = f.mean(0), torch.zeros(f.shape[1], dtype=f.dtype), torch.ones(len(f), dtype=torch.bool)
        for k in range(1, ipc + 1):
            distance = (f - (k * mean - total)).square().sum(1).masked_fill(~free, torch.inf)
            best = int(distance.argmin())
            free[best] = False
            total = total + f[best]
            chosen.append(members[best])
    return torch.stack(chosen)


def kcenter(features: Tensor, labels: Tensor, classes: int, ipc: int) -> Tensor:
    """Return positions chosen greedily so that no image is far from its nearest chosen one (in Euclidean distance).

    The first is the image nearest to the class mean, as in the authors' pseudo-code, so k-center equals herding at ipc 1.

    Args:
        features: (n, d). labels: (n,).

    Raises:
        ConfigError: a class has fewer than `ipc` images.
    """
    chosen = []
    for c in range(classes):
        members = _members(labels, c, ipc)
        f = features[members].double()
        pick = int((f - f.mean(0)).square().sum(1).argmin())
        nearest = torch.full((len(f),), torch.inf, dtype=f.dtype)
        for _ in range(ipc):
            chosen.append(members[pick])
            nearest = torch.minimum(nearest, (f - f[pick]).square().sum(1))
            nearest[pick] = -1  # chosen; also keeps exact duplicates from being chosen before others
            pick = int(nearest.argmax())
    return torch.stack(chosen)


def _members(labels: Tensor, c: int, ipc: int) -> Tensor:
    members = (labels == c).nonzero().squeeze(1)
    if len(members) < ipc:
        raise ConfigError(f"ipc: value {ipc} is larger than class {c}, which has {len(members)} images; allowed: 1 to {len(members)}")
    return members


def features(pool: RealPool, checkpoint: Path, device: str) -> Tensor:
    """Return (n, d) features of the whole train split from a pre-trained network, without augmentation, in eval mode."""
    from dd.train.pretrain import load_network

    net = load_network(checkpoint, device).eval()
    with torch.no_grad():
        return torch.cat([net.embed(pool.x(index)).cpu() for index in torch.arange(len(pool)).split(500)])


def selected(pool: RealPool, index: Tensor, *, store_images: bool = True) -> Run:
    """Return a run that does nothing but hand out the chosen images (or, for large choices, only their positions)."""
    images = pool.raw(index).cpu() if store_images else torch.empty(0, *pool.images.shape[1:])
    return Run(finish=lambda: DistilledSet(images, pool.y(index).cpu(), *pool.statistics, indices=index))
