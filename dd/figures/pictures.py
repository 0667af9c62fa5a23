"""Distilled images, and tables as pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dd.errors import ArtifactError
from dd.figures.plots import label
from dd.figures.results import Point, text
from dd.figures.sheets import Drawn, Sheet, cells, mark, value, varying, word
from dd.figures.style import GREY, INK, figure, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 14.0  # inches: a table wider than that is broken
SHOWN = 24  # grids of images in one figure; more cannot be read, and make the report too heavy to open


def table(title: str, sheet: Sheet) -> Figure:
    """Return a table as a picture: rules above, below and under the header. In a wide one, printed numbers stand in lines of their own."""
    columns = [[head, *(row[i] for row in sheet.rows)] for i, head in enumerate(sheet.columns)]
    if sum(map(_width, columns)) > WIDE:
        columns = [[item.replace(" (paper", "\n(paper").replace(" (elsewhere", "\n(elsewhere") for item in column] for column in columns]
    widths = list(map(_width, columns))
    width = max(6.0, sum(widths) + 0.1)
    said = [wrapped for note in sheet.notes for wrapped in textwrap.wrap(note, int(width * 17))]
    titles = textwrap.wrap(title, int(width * 12)) or [""]
    heights = [0.08 + 0.15 * max(item.count("\n") + 1 for item in row) for row in zip(*columns, strict=True)]
    small = 0.15
    height = 0.3 + 0.2 * len(titles) + sum(heights) + 0.1 + small * len(said)
    made = figure(width, height)
    made.set_layout_engine("none")
    axis = made.add_axes((0.0, 0.0, 1.0, 1.0))
    axis.set(xlim=(0, width), ylim=(-height, 0))
    axis.axis("off")
    y = 0.15 + 0.2 * len(titles)
    axis.text(0.1, -0.1, "\n".join(titles), va="top", fontsize=10, fontweight="bold", color=INK, linespacing=1.2)
    if columns:
        _cells(axis, columns, widths, y, heights)
        for number in sheet.rules:
            line = -(y + sum(heights[: number + 1]))
            axis.plot([0.1, 0.1 + sum(widths)], [line, line], color="#CCCCCC", linewidth=0.6)
        y += sum(heights)
    for number, wrapped in enumerate(said):
        axis.text(0.1, -(y + 0.08 + small * number), wrapped, va="top", fontsize=6.8, color=GREY)
    return made


def _width(column: Sequence[str]) -> float:
    return 0.25 + 0.068 * max(len(line) for item in column for line in item.split("\n"))


def _cells(axis: Axes, columns: Sequence[Sequence[str]], widths: Sequence[float], top: float, heights: Sequence[float]) -> None:
    end = 0.1 + sum(widths)
    tops = [top + sum(heights[:number]) for number in range(len(heights) + 1)]
    for y, thick in ((tops[0], 1.0), (tops[1], 0.6), (tops[-1], 1.0)):
        axis.plot([0.1, end], [-y, -y], color=INK, linewidth=thick)
    x = 0.18
    for column, width in zip(columns, widths, strict=True):
        for number, item in enumerate(column):
            weight = "bold" if number == 0 else "normal"
            middle = tops[number] + heights[number] / 2
            axis.text(x, -middle, item, va="center", fontsize=8, color=INK, fontweight=weight, linespacing=1.2)
        x += width


def grid(drawn: Drawn) -> Figure:
    """Return the grids of distilled images of sets that differ, labelled, the first of the sets of a cell.

    At most SHOWN of them, evenly spaced in the order of the cells so that every part of a sweep is seen; the note says how many more.
    """
    first = _first_sets(drawn)
    named = zip(first.items(), _labels(drawn, list(first.values())), strict=True)  # labels tell all sets apart, not only those shown
    judges = [name for name in ("eval_network", "eval_protocol") if len({text(point.at.get(name)) for point in drawn.points}) > 1]
    kept = set(_evenly(len(first)))
    shown = [one for number, one in enumerate(named) if number in kept]
    across = min(len(shown), 6 if len(shown) > 12 else 4)
    down = -(-len(shown) // across)
    side = 1.9 if across == 6 else 2.5
    made = figure(max(6.0, across * side), down * (side + 0.45))
    axes = made.subplots(down, across, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, ((folder, point), name) in zip(axes, shown, strict=False):
        _image(axis, folder / "grid.png")
        judge = "".join(f", {text(point.at.get(one))}" for one in judges)  # one set is judged in several ways: this is the first
        said = f"{textwrap.fill(name, int(side * (16 if across == 6 else 13)))}\n{value(point, drawn.spread)}{judge}"
        axis.set_title(said, fontsize=6.5 if across == 6 else 8, color=INK)
    heading(made, drawn.title, "\n".join(part for part in (_left_out(drawn), mark(drawn)) if part))
    return made


def grid_sheet(drawn: Drawn) -> Sheet:
    """Return one row a cell, and how many sets the figure leaves out."""
    sheet, left_out = cells(drawn), _left_out(drawn)
    return Sheet(sheet.columns, sheet.rows, [*sheet.notes, *([left_out] if left_out else [])])


def _first_sets(drawn: Drawn) -> dict[Path, Point]:
    """Return the folder of the first set of each cell, once, with the first cell that shows it."""
    first: dict[Path, Point] = {}
    for cell, point in zip(drawn.artifact["cells"], drawn.points, strict=True):
        first.setdefault(Path(cell["sets"][0]), point)
    return first


def _evenly(count: int) -> list[int]:
    """Return which of `count` things are shown: all, or SHOWN of them with the first and the last."""
    return list(range(count)) if count <= SHOWN else [number * (count - 1) // (SHOWN - 1) for number in range(SHOWN)]


def _left_out(drawn: Drawn) -> str:
    count = len(_first_sets(drawn))
    return f"{SHOWN} of {count} sets shown, evenly spaced; {count - SHOWN} more lie as grid.png in their folders." if count > SHOWN else ""


def _labels(drawn: Drawn, points: Sequence[Point]) -> list[str]:
    """Return a label a set; where two would be equal, with the coordinates in which they differ."""
    names = varying(drawn)
    found = [label(drawn, point, names) for point in points]
    if len(set(found)) == len(found):
        return found
    used = {name for name in names if f"{{{name}}}" in str(drawn.get("label"))} | {"eval_network"}  # no set depends on who judges it
    more = [name for name in names if name not in used and len({text(point.at.get(name)) for point in points}) > 1]
    extra = [[f"{word(name)} {text(point.at.get(name))}" for name in more if text(point.at.get(name))] for point in points]
    return [", ".join([one, *parts]) for one, parts in zip(found, extra, strict=True)]


def _image(axis: Axes, path: Path) -> None:
    if not path.exists():
        axis.text(0.5, 0.5, "no image", ha="center", va="center", color=GREY, transform=axis.transAxes)
        return
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            axis.imshow(np.asarray(image.convert("RGB")), interpolation="antialiased")
    except (OSError, UnidentifiedImageError) as error:
        raise ArtifactError(f"{path}: is not a readable image ({error}); delete its folder and run again") from error
