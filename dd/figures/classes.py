"""Accuracies by class, under two readings: of networks trained on a set, and of the set's own images under pre-trained networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd.artifacts import load_tensors
from dd.data.registry import DATASETS
from dd.errors import ArtifactError, ConfigError
from dd.figures.results import Point, facts_of, scores_of, text
from dd.figures.sheets import Drawn, Sheet, all_columns, mark, notes, to_csv, varying, word
from dd.figures.style import GREY, INK, dark, figure, heading, shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

READINGS = {
    "trained": "Test accuracy in percent, by class, of networks trained on the set; mean over all sets and networks, last epoch.",
    "pretrained": "Percent of the distilled images of a class (of the first set) that a network trained on the real images takes for it.",
}
ONE_SET = "pretrained"  # the reading that looks at the first set alone
COLUMNS = ("class", "accuracy", "std_all", "n", "images", "scaled", "id")
NAMED = 24  # classes whose numbers are written into the picture
Key = tuple[str, ...]


@dataclass(frozen=True)
class ByClass:
    """values: of each class, the accuracies in percent of the networks of each set (one list a set; none for a class without images).

    images: of each class, the images that they were counted over; () where scores do not say it.
    """

    names: tuple[str, ...]
    values: tuple[tuple[tuple[float, ...], ...], ...]
    images: tuple[int, ...] = ()

    def mean(self, number: int) -> float | None:
        """Return the mean of a class over all runs, or None where there are none."""
        every = [item for one in self.values[number] for item in one]
        return sum(every) / len(every) if every else None

    def point(self, point: Point, number: int) -> Point:
        """Return a cell of its own for one class, with the coordinate `class`."""
        facts = {**facts_of(self.values[number]), "missing": point.missing, "scaled": point.scaled}
        return Point(at={**point.at, "class": self.names[number]}, id=point.id, score_id=point.score_id, **facts)


def read(drawn: Drawn, cell: Mapping[str, Any]) -> ByClass | None:
    """Return the accuracies of a cell by class, or None where nothing was run.

    Raises:
        ConfigError: the artifact asks for pre-trained networks, but has no analysis of kind accuracy.
        ArtifactError: a damaged file, or files that disagree about the classes.
    """
    if (drawn.get("reading") or "trained") == ONE_SET:
        if cell.get("analysis") is None:
            raise ConfigError(f"artifact {drawn.artifact['name']}: reading {ONE_SET} needs analysis, of kind accuracy")
        return _of_images(cell["analysis"])
    return _of_networks(cell)


def _of_images(path: str) -> ByClass | None:
    if not Path(path).exists():
        return None
    tensors, meta = load_tensors(path)
    if not {"right", "count"} <= set(tensors):
        raise ArtifactError(f"{path}: holds {', '.join(tensors)}, not `right` and `count` of every class")
    right, count = tensors["right"].tolist(), tensors["count"].tolist()
    values = tuple(((100 * r / n,),) if n else () for r, n in zip(right, count, strict=True))
    return ByClass(tuple(map(str, meta["classes"])), values, tuple(count))


def _of_networks(cell: Mapping[str, Any]) -> ByClass | None:
    sets: dict[int, list[list[float]]] = {}
    for path in cell["scores"]:
        for score in scores_of(path) if Path(path).exists() else ():
            sets.setdefault(score["set"], []).append(score["per_class"])
    rows = [row for number in sorted(sets) for row in sets[number]]
    if not rows:
        return None
    if len({len(row) for row in rows}) > 1:
        raise ArtifactError(f"{cell['scores'][0]}: and the other scores of its cell are of different numbers of classes")
    values = tuple(tuple(tuple(100 * row[c] for row in sets[number]) for number in sorted(sets)) for c in range(len(rows[0])))
    spec = DATASETS.get(str(cell["config"].get("dataset")))
    named = spec is not None and len(spec.classes) == len(rows[0])
    return ByClass(tuple(spec.classes) if spec and named else tuple(map(str, range(len(rows[0])))), values)


def heat(drawn: Drawn) -> Figure:
    """Return a heat map a panel: the cells by `rows`, classes across, the accuracy in each field, the best of a class in bold.

    Raises:
        ConfigError: two cells of a panel share their row.
    """
    panels = _panels(drawn)
    known = [found for rows in panels.values() for _, found in rows.values() if found]
    classes = max((len(found.names) for found in known), default=1)
    tall = max((len(name) for found in known for name in found.names), default=1)
    count = max(map(len, panels.values()))
    side = 0.6 if classes <= NAMED else 0.16
    made = figure(max(6.0, 1.6 + side * classes), sum(0.55 + 0.3 * len(rows) for rows in panels.values()) + 0.062 * tall)
    axes = made.subplots(len(panels), 1, squeeze=False, height_ratios=[len(rows) + 0.4 * count / 4 for rows in panels.values()]).ravel()
    means = [mean for found in known for mean in map(found.mean, range(len(found.names))) if mean is not None and math.isfinite(mean)]
    limits = (min(means, default=0.0), max(means, default=100.0))
    for axis, (panel, rows) in zip(axes, panels.items(), strict=True):
        _panel(axis, rows, limits, classes, axis is axes[-1])
        title = ", ".join(f"{word(name)} {item}" for name, item in zip(drawn.get("panel") or (), panel, strict=True) if item)
        axis.set_title(title, loc="left")
    said = [str(drawn.get("note") or ""), _said(drawn), mark(drawn)]
    heading(made, drawn.title, "\n".join(part for part in said if part))
    return made


def _panels(drawn: Drawn) -> dict[Key, dict[str, tuple[Point, ByClass | None]]]:
    """Return, by the values of `panel`, the rows of a panel by their names."""
    panel, down = list(drawn.get("panel") or ()), list(drawn.get("rows") or ["eval_network"])
    found: dict[Key, dict[str, tuple[Point, ByClass | None]]] = {}
    for cell, point in zip(drawn.artifact["cells"], drawn.points, strict=True):
        key = tuple(text(point.at.get(name)) for name in panel)
        name = ", ".join(text(point.at.get(one)) for one in down if text(point.at.get(one)))
        rows = found.setdefault(key, {})
        if name in rows:
            where = f"artifact {drawn.artifact['name']}"
            raise ConfigError(f"{where}: two cells stand in row {name}, panel {', '.join(key)}; name what differs in rows or panel")
        rows[name] = (point, read(drawn, cell))
    return found


def _panel(axis: Axes, rows: Mapping[str, tuple[Point, ByClass | None]], limits: tuple[float, float], classes: int, last: bool) -> None:
    import numpy as np

    grid = np.full((len(rows), classes), np.nan)
    for number, (_, found) in enumerate(rows.values()):
        if found:
            grid[number, : len(found.names)] = [mean if (mean := found.mean(c)) is not None else np.nan for c in range(len(found.names))]
    low, high = limits
    axis.imshow(grid, aspect="auto", cmap=shades(), vmin=low, vmax=high if high > low else low + 1)
    axis.set_facecolor("#EFEFEF")  # shows where there is no number
    axis.grid(False)
    axis.set_yticks(range(len(rows)), [name + ("†" if point.scaled else "") for name, (point, _) in rows.items()])
    names = next((found.names for _, found in rows.values() if found), ("",) * classes)
    axis.set_xticks(range(classes), names if last else [""] * classes, rotation=90 if classes > NAMED or max(map(len, names)) > 8 else 0)
    axis.tick_params(length=0, labelsize=8 if classes <= NAMED else 5)
    for number, (_, found) in enumerate(rows.values()):
        if found is None:
            axis.text((classes - 1) / 2, number, "not run", ha="center", va="center", color=GREY)
        for c in range(classes) if found and classes <= NAMED else ():
            _number(axis, grid, number, c, (low, high))


def _number(axis: Axes, grid: Any, row: int, column: int, limits: tuple[float, float]) -> None:
    mean, others = grid[row, column], grid[:, column]
    if not math.isfinite(mean):
        axis.text(column, row, "–", ha="center", va="center", color=GREY)
        return
    best = mean == max(one for one in others if math.isfinite(one))
    axis.text(column, row, f"{mean:.1f}", ha="center", va="center", fontsize=8, color="white" if dark(mean, limits) else INK,
              fontweight="bold" if best else "normal")  # fmt: skip


def classes_sheet(drawn: Drawn) -> Sheet:
    """Return one row a cell, one column a class, and below each panel the best row of each class."""
    names = varying(drawn)
    found = {id(point): one for rows in _panels(drawn).values() for point, one in rows.values()}
    classes: Sequence[str] = next((one.names for one in found.values() if one), ())
    rows = []
    for panel in _panels(drawn).values():
        for point, one in panel.values():
            numbers = [_shown(one.mean(c)) for c in range(len(one.names))] if one else ["not run"] * len(classes)
            rows.append([*(text(point.at.get(name)) for name in names), *numbers])
        first = next(iter(panel.values()))[0]
        own = set(drawn.get("rows") or ["eval_network"])
        side = [text(first.at.get(name)) if name not in own else "" for name in names]
        place = next((number for number, name in enumerate(names) if name in own), 0)
        if side:
            side[place] = "best"
        rows.append([*side, *(_best(panel, c) for c in range(len(classes)))])
    accuracy = ("Test accuracy", "✕", "Reported numbers", "elsewhere")  # of all classes together, which is not shown here
    said = [note for note in notes(drawn, names) if not note.startswith(accuracy)]
    return Sheet([*map(word, names), *classes], rows, [*said, _said(drawn)])


def _best(panel: Mapping[str, tuple[Point, ByClass | None]], number: int) -> str:
    """Return which rows of a panel are the best of a class: several where they are equal."""
    known = {name: mean for name, (_, found) in panel.items() if found and (mean := found.mean(number)) is not None}
    top = max(known.values(), default=0.0)
    best = [name for name, mean in known.items() if mean == top]
    return "all equal" if len(best) > 1 and len(best) == len(known) else " = ".join(best)


def classes_csv(drawn: Drawn) -> str:
    """Return one line a cell and class; a cell that was not run has one line without numbers."""
    names = all_columns(drawn.points)
    rows = []
    for cell, point in zip(drawn.artifact["cells"], drawn.points, strict=True):
        side, more = [text(point.at.get(name)) for name in names], ["; ".join(point.scaled), point.id]
        found = read(drawn, cell)
        if found is None:
            rows.append([*side, *("" for _ in COLUMNS[:-2]), *more])
            continue
        for number, name in enumerate(found.names):
            one = found.point(point, number)
            spread = "" if one.std_all is None else f"{one.std_all:.4f}"
            mean = "" if one.mean is None else f"{one.mean:.4f}"
            images = str(found.images[number]) if found.images else ""
            rows.append([*side, name, mean, spread, str(one.n), images, *more])
    return to_csv([*names, *COLUMNS], rows)


def _said(drawn: Drawn) -> str:
    return READINGS[drawn.get("reading") or "trained"]


def _shown(mean: float | None) -> str:
    return "–" if mean is None else f"{mean:.1f}"
