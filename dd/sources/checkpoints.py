"""Networks that were trained before and stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dd.rng import stream

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dd.types import Batches


class Checkpoints:
    """Draw one of several pre-trained networks uniformly at each step; with one file, always that one.

    files: checkpoints of equal standing. load: reads one. A network is read when it is first drawn, and kept.
    """

    def __init__(self, files: Sequence[Path], load: Callable[[Path], nn.Module], seed: int) -> None:
        if not files:
            raise ValueError("Checkpoints needs at least one file")
        self._files = list(files)
        self._load = load
        self._seed = seed
        self._nets: dict[int, nn.Module] = {}

    def draw(self, step: int) -> nn.Module:
        """Return the network of this step: a function of (seed, step)."""
        which = int(torch.randint(len(self._files), (), generator=stream(self._seed, "checkpoint", step)))
        if which not in self._nets:
            self._nets[which] = self._load(self._files[which])
        return self._nets[which]

    def advance(self, net: Any, batches: Batches) -> None:
        """Do nothing: the networks are frozen."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: everything is a function of (seed, step)."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take nothing."""
