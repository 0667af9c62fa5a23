"""Accuracy, loss and feature distance over the steps of one run, each scaled to [0, 1], and how they go together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import correlation, fmean
from typing import TYPE_CHECKING, Any

from dd.errors import ConfigError
from dd.figures.curves import Curve, read_curve
from dd.figures.results import Point, text
from dd.figures.sheets import Drawn, Sheet, all_columns, mark, notes, to_csv, varying, word
from dd.figures.steps import own_step
from dd.figures.style import COLOURS, GREY, figure, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCURACY, LOSS, DISTANCE = "accuracy", "loss", "feature distance"
LOGGED = {LOSS: "kept_loss", DISTANCE: "kept_distance"}  # how curve.csv calls them: of the latents that the published set is made of
FEWEST = 3  # steps: a correlation of two is always 1 or -1
COLUMNS = (
    "updates", "row", "accuracy", "loss", "distance", "accuracy_scaled", "loss_scaled", "distance_scaled", "r_loss", "r_distance", "scaled",
    "id",
)  # fmt: skip
SAID = (
    "Each curve is scaled to [0, 1] by its own smallest and largest value here. Loss and distance: of what is kept of the space, which is "
    "what is published, as far as the last logged row before the step knows; means over sets. r: Pearson's correlation with the accuracy "
    "over the steps."
)
Key = tuple[str, ...]


@dataclass(frozen=True)
class Stop:
    """One step: its point, after how many updates (None where that is not known), the logged row's step, and the values by their names."""

    point: Point
    updates: int | None
    row: int | None
    values: Mapping[str, float | None]


@dataclass
class Track:
    """The steps of one run."""

    stops: list[Stop] = field(default_factory=list)

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Return (updates, value) wherever a value is known and finite."""
        return [
            (stop.updates, value)
            for stop in self.stops
            if stop.updates is not None and (value := stop.values[name]) is not None and math.isfinite(value)
        ]

    def scaled(self, name: str) -> dict[int, float]:
        """Return the curve in [0, 1] by the updates; nothing for one that is constant, which has no such scale."""
        curve = self.curve(name)
        low, high = min((value for _, value in curve), default=0.0), max((value for _, value in curve), default=0.0)
        return {updates: (value - low) / (high - low) for updates, value in curve} if high > low else {}

    def r(self, name: str) -> float | None:
        """Return Pearson's correlation of a curve with the accuracy over the steps that have both; None for too few, or constants."""
        mine, accuracy = dict(self.curve(name)), dict(self.curve(ACCURACY))
        both = sorted(set(mine) & set(accuracy))
        pairs = [mine[step] for step in both], [accuracy[step] for step in both]
        if len(both) < FEWEST or any(len(set(one)) == 1 for one in pairs):
            return None
        return correlation(*pairs)


def misfits(artifact: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with an artifact."""
    if artifact.get("fields"):
        yield f"fields: kind normalised has none, but it has {', '.join(artifact['fields'])}"
    if not artifact.get("x"):
        yield "kind normalised needs x, the coordinate that tells the steps of a run"


def normalised(drawn: Drawn) -> Figure:
    """Return accuracy, loss and feature distance over the updates, each scaled to [0, 1], one panel a value of `panel`.

    Raises:
        ConfigError: x is missing, or a panel has several runs, or several networks that judge them.
        ArtifactError: a log or a file of scores is damaged.
    """
    panels = _panels(drawn)
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    made = figure(7.0 if across == 1 else 4.2 * across, 3.3 * down)
    axes = made.subplots(down, across, squeeze=False).ravel()
    for axis, (panel, track) in zip(axes, panels.items(), strict=False):
        _panel(axis, track)
        axis.set_title(_name(drawn, panel), loc="left")
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    parts = [str(drawn.get("note") or ""), SAID, *_lacking(drawn, panels), mark(drawn)]
    heading(made, drawn.title, "\n".join(part for part in parts if part))
    return made


def normalised_sheet(drawn: Drawn) -> Sheet:
    """Return one row a run: the correlations of loss and of distance with the accuracy, and over how many steps."""
    panels = _panels(drawn)
    lines = []
    for panel, track in panels.items():
        known = track.curve(ACCURACY)
        best = max(known, key=lambda pair: pair[1], default=None)
        shown = ["not run", ""] if best is None else [f"{known[-1][1]:.1f}", f"{best[1]:.1f} after {best[0]}"]
        lines.append([*panel, f"{len(known)} of {len(track.stops)}", *shown, *(_shown(track.r(name)) for name in LOGGED)])
    columns = [*map(word, drawn.get("panel") or ()), "steps", "last accuracy (%)", "best (%)", "r of loss", "r of feature distance"]
    said = [note for note in notes(drawn, [*varying(drawn)]) if not note.startswith(("Reported numbers", "elsewhere"))]
    return Sheet(columns, lines, [*said, SAID, *_lacking(drawn, panels)])


def normalised_csv(drawn: Drawn) -> str:
    """Return one line a step: accuracy, loss and distance as they are and scaled, and the correlations of its run."""
    names = all_columns(drawn.points)
    lines = []
    for track in _panels(drawn).values():
        scaled = {name: track.scaled(name) for name in (ACCURACY, *LOGGED)}
        rs = [_exact(track.r(name)) for name in LOGGED]
        for stop in track.stops:
            own = [_exact(stop.values[name]) for name in (ACCURACY, *LOGGED)]
            unit = [_exact(scaled[name].get(stop.updates) if stop.updates is not None else None) for name in (ACCURACY, *LOGGED)]
            side, end = [text(stop.point.at.get(name)) for name in names], ["; ".join(stop.point.scaled), stop.point.id]
            lines.append([*side, text(stop.updates), text(stop.row), *own, *unit, *rs, *end])
    return to_csv([*names, *COLUMNS], lines)


def runs(drawn: Drawn) -> list[tuple[Point, float | None, float | None]]:
    """Return the first point of each run, and the correlations of loss and of distance with the accuracy."""
    return [(track.stops[0].point, track.r(LOSS), track.r(DISTANCE)) for track in _panels(drawn).values()]


def _panels(drawn: Drawn) -> dict[Key, Track]:
    where, names = f"artifact {drawn.artifact['name']}", list(drawn.get("panel") or ())
    for said in misfits(drawn.artifact):
        raise ConfigError(f"{where}: {said}")
    found: dict[Key, Track] = {}
    logs: dict[str, list[Curve]] = {}
    for cell, point in zip(drawn.artifact["cells"], drawn.points, strict=True):
        key = tuple(text(point.at.get(name)) for name in names)
        track = found.setdefault(key, Track())
        if track.stops and track.stops[0].point.id != point.id:
            raise ConfigError(f"{where}: panel {', '.join(key)}: has several runs; name what differs in panel")
        logs.setdefault(point.id, [curve for folder in cell["sets"] if (curve := read_curve(Path(folder) / "curve.csv"))])
        stop = _stop(cell, point, logs[point.id])
        same = [one for one in track.stops if one.updates == stop.updates is not None]
        if any(one.point.score_id != point.score_id for one in same):
            raise ConfigError(f"{where}: panel {', '.join(key)}: is judged in several ways; name what differs in panel")
        track.stops += [] if same else [stop]  # a scale may have made one step of two
    for track in found.values():
        track.stops.sort(key=lambda stop: -1 if stop.updates is None else stop.updates)
    return found


def _stop(cell: Mapping[str, Any], point: Point, curves: Sequence[Curve]) -> Stop:
    place = own_step(cell)
    updates = place[1] if place else None
    row = _row(curves, updates)
    values = {name: _mean(curves, row, column) for name, column in LOGGED.items()}
    return Stop(point, updates, row, {ACCURACY: point.mean, **values})


def _row(curves: Sequence[Curve], updates: int | None) -> int | None:
    """Return the step of the last logged row before a number of updates, that all sets have; of the first set, before any, its own."""
    if updates is None or not curves:
        return None
    shared = set.intersection(*(set(curve) for curve in curves))
    return max((step for step in shared if step < updates or step == updates == 0), default=None)


def _mean(curves: Sequence[Curve], row: int | None, column: str) -> float | None:
    found = [curve[row].get(column) for curve in curves if row is not None]
    known = [value for value in found if value is not None]
    return fmean(known) if known and len(known) == len(curves) else None


def _panel(axis: Axes, track: Track) -> None:
    for number, name in enumerate((ACCURACY, *LOGGED)):
        curve, r = sorted(track.scaled(name).items()), track.r(name) if name in LOGGED else None
        said = name if name == ACCURACY else f"{name}, r = {_shown(r)}"
        if not curve:
            axis.plot([], [], color=COLOURS[number], label=f"{name}: {'constant' if track.curve(name) else 'not there'}")
            continue
        steps, values = zip(*curve, strict=True)
        look: dict[str, Any] = {"markersize": 4, "linewidth": 2.0 if name == ACCURACY else 1.4}
        axis.plot(steps, values, color=COLOURS[number], marker="os^"[number], label=said, **look)
    if not any(track.curve(name) for name in (ACCURACY, *LOGGED)):
        axis.text(0.5, 0.5, "not run", ha="center", va="center", color=GREY, transform=axis.transAxes)
    axis.set(xlabel="updates", ylabel="scaled to [0, 1]", ylim=(-0.05, 1.05))
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1)


def _lacking(drawn: Drawn, panels: Mapping[Key, Track]) -> list[str]:
    gone = {key: sum(stop.values[ACCURACY] is None for stop in track.stops) for key, track in panels.items()}
    parts = [f"{_name(drawn, key) or 'the run'} ({count} of {len(panels[key].stops)} steps)" for key, count in gone.items() if count]
    return [f"Not run: {'; '.join(parts)}."] if parts else []


def _name(drawn: Drawn, panel: Key) -> str:
    return ", ".join(f"{word(name)} {item}" for name, item in zip(drawn.get("panel") or (), panel, strict=True) if item)


def _shown(r: float | None) -> str:
    return "unknown" if r is None else f"{r:+.2f}"


def _exact(item: float | None) -> str:
    return "" if item is None else f"{item:.6g}"
