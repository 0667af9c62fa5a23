"""Networks that are made as we go."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dd.types import Batches


class Population:
    """Hand out network number `step // lifetime`, made when its first step comes.

    `lifetime=1` is DM (a new random network in every iteration), `lifetime=m` is M3D's. What "made" means (random, or trained for
    some epochs first) is the business of `make`, which must be a function of the number alone: then there is no state to save.
    """

    def __init__(self, make: Callable[[int], nn.Module], lifetime: int = 1) -> None:
        if lifetime < 1:
            raise ValueError(f"lifetime must be at least 1 step, is {lifetime}")
        self._make = make
        self._lifetime = lifetime
        self._number = -1
        self._net: nn.Module | None = None

    def draw(self, step: int) -> nn.Module:
        """Return the network of this step."""
        number = step // self._lifetime
        if self._net is None or number != self._number:
            self._number, self._net = number, self._make(number)
        return self._net

    def advance(self, net: Any, batches: Batches) -> None:
        """Do nothing: these networks do not learn while they are looked through."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: everything is a function of the step."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take nothing."""
