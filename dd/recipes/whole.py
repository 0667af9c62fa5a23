"""Whole: all of the train split, the ceiling. Stores positions, not images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dd.config import Frozen

if TYPE_CHECKING:
    from dd.types import Inputs, Need, Run

USES_IPC = False
RANDOM = False


class Config(Frozen):
    """Whole has no settings."""


def needs(config: Config, dataset: str) -> list[Need]:
    """Return nothing: whole needs only the data."""
    return []


def build(config: Config, inputs: Inputs) -> Run:
    """Return a run that selects everything."""
    import torch

    from dd.select import selected

    pool = inputs.pool()
    return selected(pool, torch.arange(len(pool)), store_images=False)
