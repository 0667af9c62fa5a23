"""Numbers of an analysis that a claim can be about, as cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dd.figures import classes, models, spaces
from dd.figures.results import Point
from dd.figures.sheets import Drawn


def _spread_ratio(cell: Mapping[str, Any]) -> float | None:
    found = spaces.read(cell.get("analysis"))
    return None if found is None else found.spreads[2]


def _loss_variation(cell: Mapping[str, Any]) -> float | None:
    found = models.read(cell.get("analysis"))
    return None if found is None else found.variation[0]


def _feature_distance(cell: Mapping[str, Any]) -> float | None:
    found = spaces.read(cell.get("analysis"))
    return None if found is None else found.distance


# measure -> (kind of the artifact, the number)
MEASURES: dict[str, tuple[str, Callable[[Mapping[str, Any]], float | None]]] = {
    "spread_ratio": ("tsne", _spread_ratio),  # within-class spread of distilled over real images
    "feature_distance": ("tsne", _feature_distance),  # squared MMD between distilled and real images
    "loss_variation": ("models", _loss_variation),  # of the class's matching loss over the models, standard deviation over mean, percent
}


def _by_class(drawn: Drawn) -> list[Point]:
    points = []
    for cell, point in zip(drawn.artifact["cells"], drawn.points, strict=True) if drawn.artifact["kind"] == "classes" else ():
        found = classes.read(drawn, cell)
        if found is None:
            points.append(replace(point, mean=None, runs=()))
            continue
        points += [found.point(point, number) for number in range(len(found.names))]
    return points


def measured(drawn: Drawn, measure: str) -> list[Point]:
    """Return the cells of an artifact with the number of their analysis in place of the accuracy.

    An analysis looks at the first set alone, so that its number counts as a single run: no error is known. Artifacts of another kind have
    no such cells; an analysis that is not there is a cell that was not run. `class_accuracy` makes a cell of each class, with the
    coordinate `class`; its number is that of an analysis where the artifact reads one, else of all networks that were trained.
    """
    if measure == "class_accuracy":
        return _by_class(drawn)
    kind, number = MEASURES[measure]
    points = []
    for cell, point in zip(drawn.artifact["cells"], drawn.points, strict=True) if drawn.artifact["kind"] == kind else ():
        value = number(cell)
        more: dict[str, Any] = {"mean": None, "runs": ()} if value is None else {
            "mean": value, "low": value, "high": value, "runs": ((value, False),)}  # fmt: skip
        points.append(replace(point, std_all=None, std_sets=None, std_nets=None, error=None, best=None, missing=0, **more))
    return points
