"""Points of a table that cannot be made yet: they keep their places, and what is printed for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dd import evaluation, networks, recipes
from dd.data.registry import DATASETS
from dd.errors import ConfigError, nearest
from dd.plan.papers import Artifact, Scalar

At = dict[str, Scalar]


@dataclass(frozen=True)
class Pending:
    """A point that waits. place: how many points that are made stand before it."""

    at: At
    reason: str
    place: int


def _network(name: str) -> bool:
    try:
        networks.parse(name)
    except ConfigError:
        return False
    return True


# Configuration key -> whether a value is registered by now.
REGISTERED: dict[str, Callable[[str], bool]] = {
    "method": lambda name: name in recipes.names(),
    "network": _network,
    "dataset": lambda name: name in DATASETS,
    "protocol.name": lambda name: name in evaluation.names(),
}


def check(artifact: Artifact, axes: Mapping[str, str | None], where: str) -> None:
    """Check what an artifact says of pending points.

    Raises:
        ConfigError: not a table, an axis that has no registry, no reason, or a value that is registered by now.
    """
    if artifact.pending and artifact.kind != "table":
        raise ConfigError(f"{where}: pending: only a table keeps places, and this is of kind {artifact.kind!r}; allowed: 'table'")
    for axis, values in artifact.pending.items():
        known = REGISTERED.get(axes.get(axis) or "")
        if known is None:
            able = [name for name, key in axes.items() if key in REGISTERED]
            raise ConfigError(f"{where}: pending: axis {axis!r} is of nothing that is registered{nearest(axis, able)}")
        for value, reason in values.items():
            if not reason.strip():
                raise ConfigError(f"{where}: pending.{axis}.{value}: needs the reason")
            if known(value):
                raise ConfigError(f"{where}: pending.{axis}.{value}: is registered by now; take it out here and move it into matrix.{axis}")


def extended(artifact: Artifact, matrix: Mapping[str, Sequence[Scalar]]) -> dict[str, tuple[Scalar, ...]]:
    """Return a matrix with the pending values at the ends of their axes, but for those that stand in it or in an `include`."""
    found = {axis: tuple(values) for axis, values in matrix.items()}
    for axis, values in artifact.pending.items():
        there = {value for block in (matrix, *artifact.include) for value in block.get(axis, ())}
        more = tuple(value for value in values if value not in there)
        if more or axis in found:  # all may stand in blocks of `include`, of points whose others have the axis from elsewhere
            found[axis] = (*found.get(axis, ()), *more)
    return found


def reason(pending: Mapping[str, Mapping[str, str]], at: Mapping[str, Any]) -> str | None:
    """Return why a point cannot be made yet ("method dd: ..."), or None for one that can."""
    found = [f"{axis} {at[axis]}: {values[str(at[axis])]}" for axis, values in pending.items() if str(at.get(axis)) in values]
    return "; ".join(found) or None


def split(pending: Mapping[str, Mapping[str, str]], ats: Sequence[At]) -> tuple[list[At], list[Pending]]:
    """Return the coordinates of the points that can be made, and those that wait."""
    made: list[At] = []
    waiting: list[Pending] = []
    for at in ats:
        why = reason(pending, at)
        if why is None:
            made.append(at)
        else:
            waiting.append(Pending(at, why, len(made)))
    return made, waiting
