"""What every protocol fixes."""

from __future__ import annotations

from pydantic import Field

from dd.config import added
from dd.train.config import Positive, Training


class Protocol(Training):
    """Training of a fresh network on a set, and its tests: one shape for all, run by one loop.

    extra_passes: passes beyond `epochs` (the DC lineage counts 0..E). readings: how often the network is tested, evenly spaced
    and the last time at the end. strategy: null is the dataset's own, without flips where a mirrored image changes its class
    (digits, MNIST, SVHN); the published exceptions are in the protocols' own words. learned_lr: train with the step size that the
    set itself learned, in the place of `lr` and under the same schedule, as MTT evaluates; a set without one is trained with `lr`.
    """

    epochs: Positive
    extra_passes: int = Field(default=0, ge=0)
    readings: Positive = 1
    learned_lr: bool = added(False)
