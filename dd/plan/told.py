"""What a recipe tells of a point, asked once for all points that have the same fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dd import recipes
from dd.config import parse


class Told(NamedTuple):
    """What a recipe tells: how images are normalised, and how many of a class networks see. fields: kept, so that their id is theirs."""

    fields: dict[str, Any]
    lineage: str
    images: int

    @property
    def id(self) -> int:
        """What tells these fields apart from all others of a plan."""
        return id(self.fields)


class Tellings:
    """What the recipes of one plan tell. Points of equal fields share one dict of them (see `dd.config.filled`): it is its own key."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], Told] = {}

    def __call__(self, config: Mapping[str, Any]) -> Told:
        """Return what the recipe of a point's configuration tells; its `recipe` is not changed any more."""
        key = config["method"], config["ipc"], id(config["recipe"])
        if key not in self._known:
            self._known[key] = Told(config["recipe"], lineage(config), decoded(config))
        return self._known[key]


def decoded(config: Mapping[str, Any]) -> int:
    """Return how many images of a class a network is trained on: those stored, unless the method decodes more."""
    recipe = recipes.load(config["method"])
    return int(recipe.decoded(_fields(config), config["ipc"])) if hasattr(recipe, "decoded") else int(config["ipc"])


def lineage(config: Mapping[str, Any]) -> str:
    """Return how a point's images are normalised."""
    return recipes.lineage_of(recipes.load(config["method"]), _fields(config))


def _fields(config: Mapping[str, Any]) -> Any:
    return parse(recipes.load(config["method"]).Config, config["recipe"], config["method"])
