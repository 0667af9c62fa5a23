"""Differences between cells and their baselines, and means of them: arithmetic on accuracies, which no job runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dd.errors import ConfigError
from dd.figures.baselines import baseline_of, baseline_words, is_baseline
from dd.figures.reported import Reported, find
from dd.figures.results import Point, text
from dd.figures.sheets import CHOSEN, Drawn, doubts, long_csv, printed

EXTRA = ("gain", "gain_n", "gain_reported", "gain_certainty")
GAIN, MEAN = "gain", "average gain"


@dataclass(frozen=True)
class Gain:
    """How much a cell is above its baseline, or the mean of several such gains, in points.

    at: coordinates of the cell, or those that the cells of a mean share. value: None where a cell of it was not run. n: how many cells
    it is over, and `run` how many of them there are. row: what the paper prints.
    """

    at: Mapping[str, Any]
    value: float | None
    n: int
    run: int
    scaled: bool
    row: Reported | None
    averaged: bool = False

    def __str__(self) -> str:
        """Return it as a table shows it: "+1.1 (paper +1.1)"."""
        beside = "" if self.row is None else f" (paper {signed(self.row)})"
        if self.value is None:
            return ("not run" if not self.run or not self.averaged else f"{self.run} of {self.n} run") + beside
        shown = f"{self.value:+.2f}" if self.averaged else f"{self.value:+.1f}"
        return shown + ("†" if self.scaled else "") + (f", mean of {self.n}" if self.averaged else "") + beside

    def entries(self) -> list[str]:
        """Return what stands in the columns EXTRA of a csv file."""
        value = "" if self.value is None else f"{self.value:.4f}"
        return [value, str(self.n), *(["", ""] if self.row is None else [f"{self.row.mean:g}", self.row.certainty])]


def signed(row: Reported) -> str:
    """Return a printed gain with its sign, in brackets where it is no exact reading."""
    shown = f"{row.mean:+.2f}".removesuffix("0")  # papers print one decimal, or two
    return shown if row.certainty == "exact" else f"[{shown}]"


def each(drawn: Drawn) -> dict[int, Gain]:
    """Return, by the number of a cell, how much it is above its baseline; cells without one are left out.

    Raises:
        ConfigError: no cell is a baseline, or several are one cell's.
    """
    if not any(is_baseline(drawn, point.at) for point in drawn.points):
        raise ConfigError(f"artifact {drawn.artifact['name']}: baseline: no cell is {baseline_words(drawn)}; gains are against such cells")
    found = {}
    for number, point in enumerate(drawn.points):
        place = None if is_baseline(drawn, point.at) else baseline_of(drawn, point.at)
        if place is not None:
            found[number] = _gain(drawn, number, point, drawn.points[place])
    return found


def _gain(drawn: Drawn, number: int, point: Point, base: Point) -> Gain:
    known = point.mean is not None and base.mean is not None
    value = point.mean - base.mean if point.mean is not None and base.mean is not None else None
    row = _row(drawn, _printed_at(drawn, number), averaged=False)
    return Gain({**point.at, CHOSEN: point.chosen}, value, 1, int(known), bool(point.scaled or base.scaled), row)


def means(drawn: Drawn) -> list[Gain]:
    """Return the means of gains over the coordinates `mean_gain`, one for each combination of all others."""
    over = set(drawn.get("mean_gain") or ())
    if not over:
        return []
    groups: dict[tuple[tuple[str, str], ...], list[tuple[int, Gain]]] = {}
    for number, gain in each(drawn).items():
        key = tuple(sorted((name, text(item)) for name, item in gain.at.items() if name not in over and text(item)))
        groups.setdefault(key, []).append((number, gain))
    return [_mean(drawn, group, over) for group in groups.values()]


def _mean(drawn: Drawn, group: Sequence[tuple[int, Gain]], over: set[str]) -> Gain:
    (first, one), gains = group[0], [gain for _, gain in group]
    values = [gain.value for gain in gains if gain.value is not None]
    at = {name: item for name, item in one.at.items() if name not in over}
    row = _row(drawn, {name: item for name, item in _printed_at(drawn, first).items() if name not in over}, averaged=True)
    value = fmean(values) if len(values) == len(gains) else None
    return Gain(at, value, len(gains), len(values), any(gain.scaled for gain in gains), row, averaged=True)


def _printed_at(drawn: Drawn, number: int) -> Mapping[str, Any]:
    cell = drawn.artifact["cells"][number]
    found: Mapping[str, Any] = cell.get("printed") or cell["at"]
    return found


def _row(drawn: Drawn, at: Mapping[str, Any], *, averaged: bool) -> Reported | None:
    found = find(drawn.gains, drawn.get("reported") or [drawn.artifact["name"]], at)
    return found if found and found.averaged == averaged else None


def said(drawn: Drawn) -> list[str]:
    """Return what must be said below a table of gains."""
    found = list(_every(drawn))
    lines = []
    if drawn.get("gain"):
        lines.append(f"Gain: percentage points above the same cell {baseline_words(drawn)}.")
    if drawn.get("mean_gain"):
        over = " and ".join(name.replace("_", " ") for name in drawn.get("mean_gain"))
        lines.append(f"Average gain: mean over {over} of the points above the same cell {baseline_words(drawn)}.")
    rows = [gain.row for gain in found if gain.row]
    odd = [line.replace(printed(row), signed(row), 1) for row in rows for line in doubts([row])]
    return [*lines, *dict.fromkeys(odd)]


def _every(drawn: Drawn) -> Iterator[Gain]:
    if drawn.get("gain"):
        yield from each(drawn).values()
    yield from means(drawn)


def table_csv(drawn: Drawn) -> str:
    """Return one line a cell, as everywhere, with its gain; means of gains come below, without coordinates that they go over."""
    if not drawn.get("gain") and not drawn.get("mean_gain"):
        return long_csv(drawn)
    own = each(drawn)
    values = [own[number].entries() if number in own else [""] * len(EXTRA) for number in range(len(drawn.points))]
    changed = "; ".join(dict.fromkeys(item for point in drawn.points for item in point.scaled))
    below = [
        ({name: item for name, item in gain.at.items() if name != CHOSEN}, changed if gain.scaled else "", gain.entries())
        for gain in means(drawn)
    ]
    return long_csv(drawn, EXTRA, values, below)
