"""The loss of distillations over their updates, with its spread over independent sets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from dd.errors import ConfigError
from dd.figures.curves import column, read_curve
from dd.figures.plots import label
from dd.figures.results import Point, text
from dd.figures.sheets import Drawn, Sheet, all_columns, mark, notes, to_csv, varying, word
from dd.figures.style import COLOURS, GREY, figure, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("updates", "loss", "std_sets", "smallest", "n", "scaled", "id")
SAID = "Loss of the method itself, as logged: mean and standard deviation over sets. It has a unit of its own in each method."
FEW = 2  # powers of ten between the first and the last one on a logarithmic axis
Key = tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """The loss of one cell. values: by the number of updates, the finite losses of its sets. sets: that there are; wanted: of the plan."""

    point: Point
    name: str
    values: Mapping[int, tuple[float, ...]]
    sets: int
    wanted: int
    broken: int

    @property
    def rows(self) -> list[tuple[int, float, float | None, float, int]]:
        """(updates, mean, std over sets with ddof 0 or None for a single one, smallest, number of sets) of each row of the log."""
        return [
            (step, fmean(found), pstdev(found) if len(found) > 1 else None, min(found), len(found)) for step, found in self.values.items()
        ]


def misfits(artifact: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with an artifact."""
    if artifact.get("fields"):
        yield f"fields: kind losses has none, but it has {', '.join(artifact['fields'])}"


def losses(drawn: Drawn) -> Figure:
    """Return the loss over updates, one line a hue with a band of one standard deviation over sets, one panel a value of `panel`.

    Losses stand on a logarithmic axis with `axis: log`; panels do not share their axes, since methods do not share a unit.

    Raises:
        ConfigError: two distillations share hue and panel.
        ArtifactError: a log is damaged.
    """
    panels = _panels(drawn)
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    made = figure(7.0 if across == 1 else 4.0 * across, 3.0 * down)
    axes = made.subplots(down, across, squeeze=False).ravel()
    hues = list(dict.fromkeys(hue for lines in panels.values() for hue in lines))
    legend: dict[str, Any] = {}
    for axis, (panel, lines) in zip(axes, panels.items(), strict=False):
        for hue, line in lines.items():
            number = hues.index(hue)
            _line(axis, line, COLOURS[number % len(COLOURS)], "-" if number < len(COLOURS) else "--", drawn.get("axis") == "log", legend)
        if not any(line.values for line in lines.values()):
            axis.text(0.5, 0.5, "not run", ha="center", va="center", color=GREY, transform=axis.transAxes)
            axis.set(xticks=[], yticks=[])
        elif drawn.get("axis") == "log":
            _logarithmic(axis)
        axis.set_title(", ".join(f"{word(n)} {v}" for n, v in zip(drawn.get("panel") or (), panel, strict=True) if v), loc="left")
        axis.set(xlabel="updates", ylabel="loss")
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    parts = [str(drawn.get("note") or ""), SAID, *_lacking(drawn, panels), mark(drawn)]
    heading(made, drawn.title, "\n".join(part for part in parts if part), {name: one for name, one in legend.items() if name})
    return made


def losses_sheet(drawn: Drawn) -> Sheet:
    """Return one row a distillation: its loss in the first and the last row of the log, and the smallest mean."""
    panels = _panels(drawn)
    names = [name for name in varying(drawn) if not name.startswith("eval_")]
    lines = []
    for line in (line for lines in panels.values() for line in lines.values()):
        side, rows = [text(line.point.at.get(name)) for name in names], line.rows
        if not rows:
            lines.append([*side, "not run", "not run", "not run", "", f"0 of {line.wanted}"])
            continue
        least = min(rows, key=lambda row: row[1])
        relative = [std / abs(mean) for _, mean, std, _, _ in rows if std is not None and mean]
        spread = f"{100 * fmean(relative):.1f} %" if relative else ""
        marks = ("†" if line.point.scaled else "") + ("✕" if line.broken else "")
        lines.append([*side, _shown(rows[0]), _shown(rows[-1]) + marks, f"{least[1]:.4g} after {least[0]}", spread,
                      f"{line.sets} of {line.wanted}"])  # fmt: skip
    columns = [*map(word, names), "first loss", "last loss", "smallest mean", "std / mean, over the log", "sets"]
    said = [note for note in notes(drawn, names) if not note.startswith(("Test accuracy", "Reported numbers", "elsewhere", "✕"))]
    return Sheet(columns, lines, [*said, SAID, *_lacking(drawn, panels)])


def losses_csv(drawn: Drawn) -> str:
    """Return one line a distillation and row of its log; one without numbers where nothing was run."""
    names = [name for name in all_columns(drawn.points) if not name.startswith("eval_")]
    lines = []
    for line in (line for found in _panels(drawn).values() for line in found.values()):
        side, end = [text(line.point.at.get(name)) for name in names], ["; ".join(line.point.scaled), line.point.id]
        lines += [
            [*side, str(step), f"{mean:.6g}", "" if std is None else f"{std:.6g}", f"{least:.6g}", str(n), *end]
            for step, mean, std, least, n in line.rows
        ] or [[*side, "", "", "", "", "0", *end]]
    return to_csv([*names, *COLUMNS], lines)


def _panels(drawn: Drawn) -> dict[Key, dict[Key, Line]]:
    hue, panel = list(drawn.get("hue") or ()), list(drawn.get("panel") or ())
    where = f"artifact {drawn.artifact['name']}"
    for said in misfits(drawn.artifact):
        raise ConfigError(f"{where}: {said}")
    found: dict[Key, dict[Key, Line]] = {}
    for cell, point in zip(drawn.artifact["cells"], drawn.points, strict=True):
        key, one = (tuple(text(point.at.get(name)) for name in names) for names in (panel, hue))
        lines = found.setdefault(key, {})
        if one not in lines:
            lines[one] = _read(cell, point, label(drawn, point, hue))
        elif lines[one].point.id != point.id:  # one distillation may be evaluated in several ways
            names = ", ".join([*hue, *panel]) or "coordinates"
            raise ConfigError(f"{where}: two distillations have equal {names}; name what differs in hue")
    return found


def _read(cell: Mapping[str, Any], point: Point, name: str) -> Line:
    values: dict[int, list[float]] = {}
    sets = broken = 0
    for folder in cell["sets"]:
        path = Path(folder) / "curve.csv"
        curve = read_curve(path)
        if not curve:
            continue
        sets += 1
        found = column(curve, "loss", path)
        broken += any(not math.isfinite(loss) for loss in found.values())
        for step, loss in found.items():
            if math.isfinite(loss):
                values.setdefault(step, []).append(loss)
    return Line(point, name, {step: tuple(values[step]) for step in sorted(values)}, sets, len(cell["sets"]), broken)


def _line(axis: Axes, line: Line, colour: str, style: str, log: bool, legend: dict[str, Any]) -> None:
    rows = [row for row in line.rows if row[1] > 0 or not log]
    if not rows:
        return
    steps, means = [row[0] for row in rows], [row[1] for row in rows]
    (drawn,) = axis.plot(steps, means, color=colour, linestyle=style, linewidth=1.3)
    legend.setdefault(line.name, drawn)
    if any(row[2] is not None for row in rows):
        # A mean less its spread may be below 0, where a logarithm has nothing to show: the smallest loss of a set stands for it there.
        low = [max(mean - (std or 0.0), least if log else -math.inf) for _, mean, std, least, _ in rows]
        axis.fill_between(steps, low, [mean + (std or 0.0) for _, mean, std, _, _ in rows], color=colour, alpha=0.18, linewidth=0)


def _logarithmic(axis: Axes) -> None:
    """Let losses stand by their logarithms, with numbers that are written as numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    if math.floor(math.log10(high)) - math.ceil(math.log10(low)) < FEW:  # powers of ten alone would be too few ticks
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if high / low > 5 else MaxNLocator(4))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _lacking(drawn: Drawn, panels: Mapping[Key, Mapping[Key, Line]]) -> list[str]:
    lines = [line for found in panels.values() for line in found.values()]
    gone = [line for line in lines if not line.sets]
    said = [f"Not run: {'; '.join(_where(drawn, line) for line in gone)}."] if gone else []
    some = [f"{_where(drawn, line)} ({line.sets} of {line.wanted} sets)" for line in lines if 0 < line.sets < line.wanted]
    said += [f"Run in part: {'; '.join(some)}."] if some else []
    ended = [f"{_where(drawn, line)} ({line.broken} of {line.sets} sets)" for line in lines if line.broken]
    hidden = drawn.get("axis") == "log" and any(row[1] <= 0 for line in lines for row in line.rows)
    said += ["Losses that are not above 0 have no place on a logarithmic axis."] if hidden else []
    return [*said, *([f"✕ diverged, from there on without these sets: {'; '.join(ended)}."] if ended else [])]


def _where(drawn: Drawn, line: Line) -> str:
    panel = [text(line.point.at.get(name)) for name in drawn.get("panel") or ()]
    return ", ".join(part for part in (*panel, line.name) if part) or line.point.id


def _shown(row: tuple[int, float, float | None, float, int]) -> str:
    return f"{row[1]:.4g}" + ("" if row[2] is None else f" ± {row[2]:.2g}")
