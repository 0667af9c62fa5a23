"""Cells that others are measured against: a method without what an artifact adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dd.errors import ConfigError
from dd.figures.results import text
from dd.figures.selection import agrees
from dd.figures.sheets import Drawn, word


def is_baseline(drawn: Drawn, at: Mapping[str, Any]) -> bool:
    """Tell whether coordinates have all values of the artifact's `baseline`; null is a coordinate that a cell does not have."""
    wanted = drawn.get("baseline")
    return bool(wanted) and agrees(at, wanted)


def baseline_of(drawn: Drawn, at: Mapping[str, Any]) -> int | None:
    """Return which cell is the baseline of another: the one all of whose coordinates that one has too; None without one.

    Coordinates that `baseline` names are left out of this comparison: cells may have other values there than their baseline.

    Raises:
        ConfigError: several cells are.
    """
    wanted: Mapping[str, Any] = drawn.get("baseline") or {}
    found = [
        number
        for number, point in enumerate(drawn.points)
        if is_baseline(drawn, point.at) and agrees(at, _known(point.at, wanted))
    ]
    if len(found) > 1:
        where = ", ".join(f"{name} {text(item)}" for name, item in at.items() if text(item))
        raise ConfigError(f"artifact {drawn.artifact['name']}: baseline: {len(found)} cells fit the cell of {where}; name what differs")
    return found[0] if found else None


def baseline_words(drawn: Drawn) -> str:
    """Return what makes a cell a baseline: "without guidance"."""
    wanted: Mapping[str, Any] = drawn.get("baseline") or {}
    return ", ".join(f"with {word(name)} {text(item)}" if text(item) else f"without {word(name)}" for name, item in wanted.items())


def _known(at: Mapping[str, Any], without: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in at.items() if text(item) and name not in without}
