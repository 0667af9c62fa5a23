"""Random: real images chosen uniformly, a new choice for every set. The floor that every method must beat.

Differs from IDC's "random", which takes the first n images of every class in dataset order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dd.config import Frozen

if TYPE_CHECKING:
    from dd.types import Inputs, Need, Run


class Config(Frozen):
    """Random has no settings."""


def needs(config: Config, dataset: str) -> list[Need]:
    """Return nothing: random needs only the data."""
    return []


def build(config: Config, inputs: Inputs) -> Run:
    """Return a run that only selects."""
    from dd.rng import stream
    from dd.select import random, selected

    pool = inputs.pool()
    return selected(pool, random(pool.labels.cpu(), inputs.classes, inputs.ipc, stream(inputs.seed, "init")))
