"""Heat maps: mean accuracy over two coordinates of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dd.errors import ConfigError
from dd.figures import gates, tables
from dd.figures.baselines import baseline_of, baseline_words, is_baseline
from dd.figures.plots import ordered
from dd.figures.reported import compare
from dd.figures.results import Point, text
from dd.figures.sheets import Drawn, Sheet, has_choices, mark, notes, printed, value, word
from dd.figures.style import GREY, INK, RED, dark, figure, heading, shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Key = tuple[str, ...]
Panel = dict[tuple[str, str], int]  # (x, y) -> which cell


def heatmap(drawn: Drawn) -> Figure:
    """Return a grid of x by `rows`, one panel a value of `panel`: mean accuracy as colour and as number, the spread below it.

    The largest number of a panel is bold. A cell that was not run says so, and so does a pair of values that no cell has. The baseline of
    a panel is a line in the colour bar, whose range it belongs to, and stands in words below.

    Raises:
        ConfigError: x is missing, `rows` names not one coordinate, a cell lacks one of the two, two cells share a place, or the cells of a
            panel have several baselines.
    """
    panels, xs, ys = _panels(drawn)
    across = min(len(panels), 2)
    down = -(-len(panels) // across)
    made = figure(max(4.6, 1.4 + 0.95 * len(xs)) * across, (1.0 + 0.52 * len(ys)) * down)
    axes = made.subplots(down, across, squeeze=False).ravel()
    bases = {key: _baseline(drawn, panel) for key, panel in panels.items()}
    shown = [drawn.points[number].mean for panel in panels.values() for number in panel.values()]
    means = [mean for mean in [*shown, *(base.mean for base in bases.values() if base)] if mean is not None]
    low, high = (min(means), max(means)) if means else (0.0, 100.0)
    limits = (low, high if high > low else low + 1)
    for axis, (key, panel) in zip(axes, panels.items(), strict=False):
        _panel(drawn, axis, panel, xs, ys, limits)
        axis.set_title(", ".join(f"{word(n)} {v}" for n, v in zip(drawn.get("panel") or (), key, strict=True)), loc="left")
        base = bases[key]
        bar = made.colorbar(axis.images[0], ax=axis, fraction=0.06, pad=0.03)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.set_label("test accuracy (%)")
        if base and base.mean is not None:
            _mark(bar.ax, base.mean, limits)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    heading(made, drawn.title, "\n".join(part for part in (*_said(drawn, panels), mark(drawn)) if part))
    return made


def heat_sheet(drawn: Drawn) -> Sheet:
    """Return the table of a heat map, `rows` and `panel` by x, and the baseline in words."""
    panels, xs, ys = _panels(drawn)
    places = [(key, y, x) for key in panels for y in ys for x in xs]
    order = [panels[key][x, y] for key, y, x in places if (x, y) in panels[key]]
    look = {**drawn.artifact, "columns": [drawn.get("x")], "rows": [*(drawn.get("panel") or ()), *drawn.get("rows")],
            "cells": [drawn.artifact["cells"][number] for number in order], "gain": False, "mean_gain": [], "ratio": False}  # fmt: skip
    swept = replace(drawn, artifact=look, points=[drawn.points[n] for n in order], reported=[drawn.reported[n] for n in order])
    sheet = tables.pivot(swept)
    shown = [drawn.get("x"), *(drawn.get("panel") or ()), *drawn.get("rows")]
    side = len(shown) - 1 + has_choices(drawn)
    rows = [[*row[:side], *(entry or "no cell" for entry in row[side:])] for row in sheet.rows]
    return Sheet(sheet.columns, rows, [*notes(drawn, shown), *_said(drawn, panels)])


def _panels(drawn: Drawn) -> tuple[dict[Key, Panel], list[str], list[str]]:
    """Return, by the values of `panel`, which cell stands where, and all values of x and of y, numbers by size."""
    where = f"artifact {drawn.artifact['name']}"
    names, down, x = list(drawn.get("panel") or ()), list(drawn.get("rows") or ()), drawn.get("x")
    if not x or len(down) != 1:
        raise ConfigError(f"{where}: kind heatmap needs x, and one coordinate in rows: those of its axes")
    found: dict[Key, Panel] = {}
    for number, point in enumerate(drawn.points):
        if is_baseline(drawn, point.at):
            continue
        place = (text(point.at.get(x)), text(point.at.get(down[0])))
        lacking = [name for name, item in zip((x, down[0]), place, strict=True) if not item]
        if lacking:
            raise ConfigError(f"{where}: a cell has no {' and no '.join(lacking)} and is no baseline; a heat map has no place for it")
        panel = found.setdefault(tuple(text(point.at.get(name)) for name in names), {})
        if place in panel:
            raise ConfigError(f"{where}: two cells stand at {x} {place[0]}, {down[0]} {place[1]}; name what differs in panel")
        panel[place] = number
    if not found:
        raise ConfigError(f"{where}: kind heatmap: all of its cells are baselines; nothing is left for the axes")
    places = [place for panel in found.values() for place in panel]
    return found, ordered(one for one, _ in places), ordered(other for _, other in places)


def _baseline(drawn: Drawn, panel: Panel) -> Point | None:
    found = {baseline_of(drawn, drawn.points[number].at) for number in panel.values()} - {None} if drawn.get("baseline") else set()
    if len(found) > 1:
        raise ConfigError(f"artifact {drawn.artifact['name']}: baseline: {len(found)} of them in one panel; name what differs in panel")
    return next((drawn.points[number] for number in found if number is not None), None)


def _said(drawn: Drawn, panels: Mapping[Key, Panel]) -> list[str]:
    """Return the baseline of every panel in words, with what is printed for it."""
    lines = []
    for key, panel in panels.items():
        base = _baseline(drawn, panel)
        if base is None:
            continue
        row = drawn.reported[next(number for number, point in enumerate(drawn.points) if point is base)]
        compared = compare(base, row, drawn.spread)
        sign = f", {compared[0]:+.1f}" if compared else ""
        beside = f" (paper {printed(row)}{sign})" if row else ""
        place = "".join(f", {word(name)} {item}" for name, item in zip(drawn.get("panel") or (), key, strict=True) if item)
        lines.append(f"Baseline, {baseline_words(drawn)}{place}: {value(base, drawn.spread)}{beside}.")
    return lines


def _panel(drawn: Drawn, axis: Axes, panel: Panel, xs: Sequence[str], ys: Sequence[str], limits: tuple[float, float]) -> None:
    import numpy as np

    grid = np.full((len(ys), len(xs)), np.nan)
    for (x, y), number in panel.items():
        mean = drawn.points[number].mean
        grid[ys.index(y), xs.index(x)] = np.nan if mean is None else mean
    axis.imshow(grid, aspect="auto", cmap=shades(), vmin=limits[0], vmax=limits[1], origin="lower")
    axis.set_facecolor("#EFEFEF")  # shows where there is no number
    axis.grid(False)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.set_xticks(range(len(xs)), xs)
    axis.set_yticks(range(len(ys)), ys)
    axis.tick_params(length=0)
    axis.set_xlabel(word(str(drawn.get("x"))))
    axis.set_ylabel(word(drawn.get("rows")[0]))
    best = max((mean for number in panel.values() if (mean := drawn.points[number].mean) is not None), default=None)
    for row, y in enumerate(ys):
        for column, x in enumerate(xs):
            point = drawn.points[panel[x, y]] if (x, y) in panel else None
            _number(axis, column, row, point, best, drawn.spread, limits)


def _number(
    axis: Axes, x: int, y: int, point: Point | None, best: float | None, spread: str, limits: tuple[float, float]
) -> None:  # fmt: skip
    middle: dict[str, Any] = {"ha": "center", "va": "center"}
    if point is None or point.mean is None:
        axis.text(x, y, "not run" if point else "no cell", fontsize=7, color=GREY, **middle)
        return
    colour = "white" if dark(point.mean, limits) else INK
    std = point.spread(spread)
    marks = ("†" if point.scaled else "") + ("✕" if point.diverged else "") + (gates.MARK if point.below else "")
    weight = "bold" if point.mean == best else "normal"
    axis.text(x, y + (0.11 if std is not None else 0.0), f"{point.mean:.1f}{marks}", fontsize=9, color=colour, fontweight=weight, **middle)
    if std is not None:
        axis.text(x, y - 0.22, f"± {std:.1f}", fontsize=6.5, color=colour, **middle)


def _mark(axis: Axes, mean: float, limits: tuple[float, float]) -> None:
    """Draw the baseline into the colour bar: a line across it, named on the side where there is room."""
    top = mean > sum(limits) / 2
    look: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "center", "fontsize": 6.5}
    axis.axhline(mean, color=RED, linewidth=2.2)
    axis.annotate(f"baseline {mean:.1f}", (0.5, mean), xytext=(0, -4 if top else 4), va="top" if top else "bottom",
                  color="white" if dark(mean, limits) else RED, rotation=90, **look)  # fmt: skip
