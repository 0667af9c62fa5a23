"""Numbers of an analysis that a claim can be about, as cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dd.figures import classes, models, normalised, seconds_ratio, spaces
from dd.figures.results import Point, text
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


def _correlations(drawn: Drawn, measure: str) -> list[Point]:
    """Return a cell for each run of kind normalised: its first step's, with 100 times a correlation, or a difference of two."""
    points = []
    for point, loss, distance in normalised.runs(drawn) if drawn.artifact["kind"] == "normalised" else ():
        gap = None if loss is None or distance is None else loss - distance
        points.append(_single(point, _percent(distance if measure == "distance_correlation" else gap)))
    return points


def _seconds(drawn: Drawn) -> list[Point]:
    """Return a cell for each ratio of seconds: the coordinates of its row, with the ratio in percent."""
    if drawn.artifact["kind"] != "seconds_ratio":
        return []
    _, header, lines = seconds_ratio.seconds_ratio(drawn.artifact)
    names, place = list(drawn.artifact["rows"]), header.index("ratio")
    over = len(drawn.artifact["fields"]["over"])
    base = tuple(text(item) for item in drawn.artifact["fields"]["over"].values())
    points = []
    for line in lines:
        if tuple(line[len(names) : len(names) + over]) != base:
            at = dict(zip(header[: len(names) + over], line, strict=False))
            points.append(_single(Point(at, None), _percent(float(line[place]) if line[place] else None)))
    return points


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _single(point: Point, value: float | None) -> Point:
    """Return a cell with a number in place of its accuracy, as of a single run: no error is known."""
    more: dict[str, Any] = {"mean": None, "runs": ()} if value is None else {
        "mean": value, "low": value, "high": value, "runs": ((value, False),)}  # fmt: skip
    return replace(point, std_all=None, std_sets=None, std_nets=None, error=None, best=None, missing=0, **more)


def measured(drawn: Drawn, measure: str) -> list[Point]:
    """Return the cells of an artifact with the number of their analysis in place of the accuracy.

    An analysis looks at the first set alone, so that its number counts as a single run: no error is known. Artifacts of another kind have
    no such cells; an analysis that is not there is a cell that was not run. `class_accuracy` makes a cell of each class, with the
    coordinate `class`; its number is that of an analysis where the artifact reads one, else of all networks that were trained.
    Correlations (`distance_correlation`; `correlation_gap`, that of the loss less that of the distance) and `seconds_ratio` are in percent.
    """
    if measure in ("distance_correlation", "correlation_gap"):
        return _correlations(drawn, measure)
    if measure == "seconds_ratio":
        return _seconds(drawn)
    if measure == "class_accuracy":
        return _by_class(drawn)
    kind, number = MEASURES[measure]
    points = []
    for cell, point in zip(drawn.artifact["cells"], drawn.points, strict=True) if drawn.artifact["kind"] == kind else ():
        value = number(cell)
        points.append(_single(point, value))
    return points
