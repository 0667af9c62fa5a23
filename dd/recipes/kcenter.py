"""K-Center: images chosen so that none is far from its nearest chosen one (Sener and Savarese 2018).

Features come from a network trained on the whole train split, class by class, with Euclidean distance. The published numbers'
feature network and its training are not released; the choice here is in `Features`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dd.config import Frozen
from dd.sources.features import Features
from dd.sources.features import needs as features_need

if TYPE_CHECKING:
    from dd.types import Inputs, Need, Run


class Config(Frozen):
    """Fields: where the features come from."""

    features: Features = Features()


def needs(config: Config, dataset: str) -> list[Need]:
    """Return the network that features are taken from."""
    return features_need(config.features, dataset)


def build(config: Config, inputs: Inputs) -> Run:
    """Return a run that only selects."""
    from dd import select

    pool = inputs.pool()
    f = select.features(pool, inputs.paths[0][0], inputs.device)
    return select.selected(pool, select.kcenter(f, pool.labels.cpu(), inputs.classes, inputs.ipc))
