"""Rates that fall along half a cosine: the factor, and Adam with it, with nothing to remember but what Adam remembers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch


def half_cosine(part: float) -> float:
    """Return the factor of a rate after a part of its way: 1 at 0, 0 at 1 and later."""
    return (1 + math.cos(math.pi * min(1.0, part))) / 2


class CosineAdam(torch.optim.Adam):
    r"""Adam with the rate :math:`\eta_t = \frac{\eta}{2} (1 + \cos(\pi t / T))` in its update t = 0 .. T - 1, for each group.

    t is the number of updates that the group's first tensor has behind it, which Adam's state holds: so a run that is continued goes on
    at the right rate. After T updates the rate is 0.

    groups: as of any optimizer; their `lr` is eta. total: T >= 0.
    """

    def __init__(self, groups: Iterable[Any], total: int, betas: tuple[float, float]) -> None:
        super().__init__(groups, betas=betas)
        self._total = max(1, total)
        for group in self.param_groups:
            group["highest"] = group["lr"]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make an update at the rate of its number."""
        for group in self.param_groups:
            done = float(self.state[group["params"][0]].get("step", 0.0)) if group["params"][0] in self.state else 0.0
            group["lr"] = group["highest"] * half_cosine(done / self._total)
        return super().step(closure)
