"""Numbers of an analysis that a claim can be about, as cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dd.figures import models, spaces
from dd.figures.results import Point
from dd.figures.sheets import Drawn


def _spread_ratio(cell: Mapping[str, Any]) -> float | None:
    found = spaces.read(cell.get("analysis"))
    return None if found is None else found.spreads[2]


def _loss_variation(cell: Mapping[str, Any]) -> float | None:
    found = models.read(cell.get("analysis"))
    return None if found is None else found.variation[0]


# measure -> (kind of the artifact, the number)
MEASURES: dict[str, tuple[str, Callable[[Mapping[str, Any]], float | None]]] = {
    "spread_ratio": ("tsne", _spread_ratio),  # within-class spread of distilled over real images
    "loss_variation": ("models", _loss_variation),  # of the class's matching loss over the models, standard deviation over mean, percent
}


def measured(drawn: Drawn, measure: str) -> list[Point]:
    """Return the cells of an artifact with the number of their analysis in place of the accuracy.

    An analysis looks at the first set alone, so that its number counts as a single run: no error is known. Artifacts of another kind have
    no such cells; an analysis that is not there is a cell that was not run.
    """
    kind, number = MEASURES[measure]
    points = []
    for cell, point in zip(drawn.artifact["cells"], drawn.points, strict=True) if drawn.artifact["kind"] == kind else ():
        value = number(cell)
        more: dict[str, Any] = {"mean": None, "runs": ()} if value is None else {
            "mean": value, "low": value, "high": value, "runs": ((value, False),)}  # fmt: skip
        points.append(replace(point, std_all=None, std_sets=None, std_nets=None, error=None, best=None, missing=0, **more))
    return points
