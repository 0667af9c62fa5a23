"""What every protocol fixes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dd.config import Frozen


class Protocol(Frozen):
    """Training of a fresh network on a set, and its tests.

    The fields are those of `dd.train.config.Training`. extra_passes: passes beyond `epochs` (the DC lineage counts 0..E).
    readings: how often the network is tested, evenly spaced and the last time at the end. strategy: null is the dataset's own;
    the published exceptions are in the protocols' own words.
    """

    epochs: int = Field(ge=0)
    lr: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    batch: int = Field(ge=1)
    augment: Literal["none", "oneof", "stack"]
    strategy: str | None = None
    cutmix: float = Field(default=0.0, ge=0, le=1)
    schedule: Literal["constant", "halfway_reset", "multistep"]
    extra_passes: int = Field(default=0, ge=0)
    readings: int = Field(default=1, ge=1)
