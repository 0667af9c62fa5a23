"""Bars and lines over cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dd.errors import ConfigError, nearest
from dd.figures.baselines import baseline_of, baseline_words, is_baseline
from dd.figures.reported import Reported
from dd.figures.results import Point, text
from dd.figures.sheets import Drawn, mark, word
from dd.figures.style import COLOURS, GREY, INK, RED, figure, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Key = tuple[str, ...]
Series = dict[str, tuple[Point, Reported | None]]  # by the value of x


def bars(drawn: Drawn) -> Figure:
    """Return grouped bars: x apart, one colour a hue, one panel a value of `panel`, the spread as an error bar.

    A cell with diverged runs is hatched and crossed, at the accuracy it had; a cell that was not run says so. What the paper prints
    stands as a diamond (a triangle for a bound), never beside a cell that a scale changed.
    """
    return _draw(drawn, _bars, from_zero=True)


def line(drawn: Drawn) -> Figure:
    """Return accuracy over x, one line a hue, with a band of the spread.

    x is spaced evenly, for 0-5, 10, 50, 100 side by side; or, with `axis: linear` or `axis: log`, by its numbers. A cell of `baseline`
    has no place on it: it is a dotted line, in the colour of the hue whose coordinates it has.
    """
    return _draw(drawn, _line, from_zero=False)


def label(drawn: Drawn, point: Point, names: Sequence[str]) -> str:
    """Return the artifact's label of a cell, or the values of `names`.

    Raises:
        ConfigError: the label names something that is no coordinate.
    """
    known = {name: text(item) for name, item in point.at.items()}
    form = drawn.get("label")
    if not form:
        given = {name: known[name] for name in names if known.get(name)}
        return ", ".join(f"{word(name)} {item}" if _plain(item) else item for name, item in given.items())
    try:
        return str(form).format(**known)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"artifact {drawn.artifact['name']}: label {form!r}: {error} is no coordinate{nearest(error, known)}") from None


def _plain(item: str) -> bool:
    return item.replace(".", "", 1).isdigit()


def ordered(items: Iterable[str]) -> list[str]:
    """Return different values once: numbers by size, text in the order of appearance."""
    found = list(dict.fromkeys(items))
    try:
        return sorted(found, key=float)
    except ValueError:
        return found


def _grouped(drawn: Drawn) -> tuple[list[Key], list[Key], list[str], dict[tuple[Key, Key], Series], dict[Key, str]]:
    x, hue, panel = drawn.get("x"), list(drawn.get("hue") or ()), list(drawn.get("panel") or ())
    if not x:
        raise ConfigError(f"artifact {drawn.artifact['name']}: kind {drawn.artifact['kind']} needs x, the coordinate of its axis")
    groups: dict[tuple[Key, Key], Series] = {}
    labels: dict[Key, str] = {}
    for point, printed in zip(drawn.points, drawn.reported, strict=True):
        if is_baseline(drawn, point.at):
            continue
        key = tuple(tuple(text(point.at.get(name)) for name in names) for names in (panel, hue))
        place = text(point.at.get(x))
        if place in groups.setdefault((key[0], key[1]), {}):
            rest = ", ".join([*hue, *panel])
            raise ConfigError(f"artifact {drawn.artifact['name']}: two cells have {x} {place} and equal {rest}; name what differs")
        groups[key[0], key[1]][place] = (point, printed)
        labels.setdefault(key[1], label(drawn, point, hue))
    panels, hues = list(dict.fromkeys(p for p, _ in groups)), list(dict.fromkeys(h for _, h in groups))
    return panels, hues, ordered(place for series in groups.values() for place in series), groups, labels


def _positions(drawn: Drawn, places: list[str]) -> dict[str, float]:
    """Return where each value of x stands.

    Raises:
        ConfigError: a numeric axis of values that are no numbers, or a logarithmic one of numbers that have no logarithm; bars.
    """
    axis, where = drawn.get("axis") or "even", f"artifact {drawn.artifact['name']}"
    if axis == "even":
        return {place: float(number) for number, place in enumerate(places)}
    if drawn.artifact["kind"] != "line":
        raise ConfigError(f"{where}: axis {axis!r}: kind {drawn.artifact['kind']} stands evenly; allowed: 'even'")
    try:
        found = {place: float(place) for place in places}
    except ValueError:
        values = ", ".join(place or "(none)" for place in places)
        raise ConfigError(f"{where}: axis {axis!r}: {drawn.artifact['x']} has the values {values}; they must be numbers") from None
    if axis == "linear":
        return found
    if min(found.values()) <= 0:
        raise ConfigError(f"{where}: axis {axis!r}: {drawn.artifact['x']} has the value {min(found.values()):g}; must be above 0")
    return {place: math.log10(number) for place, number in found.items()}


def _ticks(axis: Axes, positions: dict[str, float]) -> None:
    """Mark every value of x, and name those that have room, the last and the first one always."""
    from matplotlib.ticker import NullFormatter

    low, high = min(positions.values()), max(positions.values())
    span = high - low or 1.0
    order = sorted(positions, key=lambda place: positions[place])
    named = [order[-1]]
    for place in [order[0], *reversed(order)]:
        if all(abs(positions[other] - positions[place]) >= 0.006 * (len(place) + len(other) + 4) * span for other in named):
            named.append(place)
    named.sort(key=order.index)
    axis.set_xticks([positions[place] for place in named], named)
    axis.set_xticks([position for place, position in positions.items() if place not in named], minor=True)
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlim(low - 0.05 * span, high + 0.05 * span)


def _draw(drawn: Drawn, one: Callable[..., None], *, from_zero: bool) -> Figure:
    panels, hues, places, groups, labels = _grouped(drawn)
    positions = _positions(drawn, places)
    across = min(len(panels), 2)
    down = -(-len(panels) // across)
    made = figure(7.0 if across == 1 else 10.4, 3.2 * down)
    axes = made.subplots(down, across, squeeze=False, sharey=True).ravel()
    legend: dict[str, Any] = {}
    for axis, panel in zip(axes, panels, strict=False):
        for number, hue in enumerate(hues):
            one(axis, groups.get((panel, hue), {}), positions, (number, len(hues)), labels[hue], drawn.spread, legend)
            _dotted(axis, drawn, groups.get((panel, hue), {}), number, legend)
        if (drawn.get("axis") or "even") == "even":
            axis.set_xticks(range(len(places)), places)
            axis.set_xlim(-0.6, len(places) - 0.4)
        else:
            _ticks(axis, positions)
        axis.set_xlabel(word(drawn.artifact["x"]))
        axis.set_title(", ".join(f"{word(n)} {v}" for n, v in zip(drawn.get("panel") or (), panel, strict=True)), loc="left")
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[::across]:
        axis.set_ylabel("test accuracy (%)")
    _limits(axes[0], drawn, from_zero)
    names = [labels[hue] for hue in hues]
    order = sorted(legend, key=lambda name: (names.index(name) if name in names else len(names), name))
    heading(made, drawn.title, mark(drawn), {name: legend[name] for name in order if name})
    return made


def _limits(axis: Axes, drawn: Drawn, from_zero: bool) -> None:
    spreads = [(point.mean, point.spread(drawn.spread) or 0.0) for point in drawn.points if point.mean is not None]
    top = max((mean + spread for mean, spread in spreads), default=100.0)
    low = min((mean - spread for mean, spread in spreads), default=0.0)
    shown = [row.mean for point, row in zip(drawn.points, drawn.reported, strict=True) if row and not point.scaled]
    top, low = max([top, *shown]), min([low, *shown])
    room = max(0.08 * (top if from_zero else top - low), 0.5)
    axis.set_ylim(0 if from_zero else max(0.0, low - room), top + 1.5 * room)


def _bars(
    axis: Axes, series: Series, places: dict[str, float], which: tuple[int, int], name: str, spread: str, legend: dict[str, Any]
) -> None:  # fmt: skip
    from matplotlib.patches import Patch

    number, count = which
    width = 0.8 / count
    plain: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "hatch": "" if number < len(COLOURS) else "...", "edgecolor": "white"}
    legend.setdefault(name, Patch(**{"facecolor" if key == "color" else key: item for key, item in plain.items()}))
    for place, (point, printed) in series.items():
        x = places[place] + (number - (count - 1) / 2) * width
        if point.mean is None:
            small: dict[str, Any] = {"rotation": 90, "ha": "center", "fontsize": 6.5, "color": GREY}
            axis.annotate("not run", (x, 0), xytext=(0, 3), textcoords="offset points", **small)
            continue
        look = {**plain, "linewidth": 0.6}
        if point.diverged:
            look |= {"hatch": "xxxx", "edgecolor": RED, "linewidth": 0.0, "alpha": 0.55}
        axis.bar(x, point.mean, width, **look)
        std = point.spread(spread)
        if std is not None:
            axis.errorbar(x, point.mean, std, color=INK, elinewidth=0.9, capsize=1.8, capthick=0.9)
        if point.diverged:
            _cross(axis, x, point.mean + (std or 0.0), legend)
        _paper(axis, x, point, printed, legend)


def _line(
    axis: Axes, series: Series, places: dict[str, float], which: tuple[int, int], name: str, spread: str, legend: dict[str, Any]
) -> None:  # fmt: skip
    number, _ = which
    colour, marker = COLOURS[number % len(COLOURS)], "o" if number < len(COLOURS) else "s"
    run = sorted(((places[place], point) for place, (point, _) in series.items() if point.mean is not None), key=lambda pair: pair[0])
    x, means = [at for at, _ in run], [point.mean or 0.0 for _, point in run]
    spreads = [point.spread(spread) or 0.0 for _, point in run]
    (drawn,) = axis.plot(x, means, color=colour, marker=marker, markersize=4, linewidth=1.5)
    legend.setdefault(name, drawn)
    if len(run) > 1:
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.errorbar(x, means, spreads, color=colour, fmt="none", elinewidth=0.9, capsize=2)
    for at, point in run:
        if point.diverged:
            _cross(axis, at, point.mean or 0.0, legend)
    for place, (point, printed) in series.items():
        if point.mean is not None:
            _paper(axis, places[place], point, printed, legend)


def _dotted(axis: Axes, drawn: Drawn, series: Series, number: int, legend: dict[str, Any]) -> None:
    """Draw the baseline of a series as a dotted line over the whole width."""
    from matplotlib.lines import Line2D

    places = {baseline_of(drawn, point.at) for point, _ in series.values()} - {None} if drawn.get("baseline") else set()
    if len(places) > 1:
        where = f"artifact {drawn.artifact['name']}"
        raise ConfigError(f"{where}: baseline: {len(places)} of them beside one line; name what differs in hue or panel")
    for place in places:
        mean = drawn.points[place].mean if place is not None else None
        if mean is None:
            continue
        axis.axhline(mean, color=COLOURS[number % len(COLOURS)], linestyle=":", linewidth=1.4, zorder=1.5)
        legend.setdefault(baseline_words(drawn), Line2D([], [], color=GREY, linestyle=":", linewidth=1.4))


def _cross(axis: Axes, x: float, y: float, legend: dict[str, Any]) -> None:
    (drawn,) = axis.plot([x], [y], linestyle="none", marker="x", color=RED, markersize=6, markeredgewidth=1.6, zorder=5)
    legend.setdefault("diverged", drawn)


def _paper(axis: Axes, x: float, point: Point, printed: Reported | None, legend: dict[str, Any]) -> None:
    if printed is None or point.scaled:
        return
    shape, bound = {"": ("D", ""), "<=": ("v", ": at most"), ">=": ("^", ": at least")}[printed.sign]
    shape = "s" if printed.elsewhere and not bound else shape
    name = ("elsewhere" if printed.elsewhere else "paper") + bound
    if printed.std is not None:
        axis.errorbar([x], [printed.mean], [printed.std], fmt="none", color=INK, elinewidth=0.8, zorder=4)
    (drawn,) = axis.plot([x], [printed.mean], linestyle="none", marker=shape, color=INK, markerfacecolor="white", markersize=4,
                         markeredgewidth=0.9, zorder=4)  # fmt: skip
    legend.setdefault(name, drawn)
