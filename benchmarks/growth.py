"""How cost grows: with images a class, classes, steps of a student, and experts; small enough for a few minutes on two cores."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.measure import Machine, Worker, measure
from benchmarks.textbook import Sizes
from dd.artifacts import write_json

FEW = 16  # real images a class where classes grow
SMALL = Sizes(width=32, real=64, per_class=64)
MATCHING = ("dm_iteration", "dsdm_iteration", "dsa_step")
SHORT = {unit: unit.split("_")[0].upper() for unit in (*MATCHING, "mtt_iteration")} | {"experts": "experts"}


@dataclass(frozen=True)
class Cell:
    """A unit at one size. along: what grows; x: how large it is."""

    along: str
    unit: str
    x: int
    sizes: Sizes


def cells(base: Sizes, quick: bool) -> list[Cell]:
    """Return what is measured, smallest first; quick: one or two sizes of each."""
    cut = 2 if quick else None
    few = min(base.real, FEW)
    found = [Cell("ipc", unit, x, replace(base, ipc=x)) for unit in MATCHING for x in (1, 10, 50)[:cut]]
    found += [
        Cell("classes", unit, x, replace(base, classes=x, ipc=min(base.ipc, few), real=few, per_class=few))
        for unit in MATCHING for x in (10, 50, 100)[: 1 if quick else None]
    ]  # fmt: skip
    found += [Cell("steps", "mtt_iteration", x, replace(base, steps=x)) for x in (5, 10, 20, 40)[:cut]]
    return found + [Cell("experts", "experts", x, replace(base, networks=x)) for x in (1, 2, 4, 8)[:cut]]


def grow(machine: Machine, out: Path, base: Sizes = SMALL, *, until: float = math.inf, quick: bool = False) -> None:
    """Measure every cell and write growth.json, growth.png and growth.pdf into `out`.

    until: value of `time.monotonic` after which no further cell is measured; those that are left out are named on standard error.

    The cells of `steps` are in processes of their own, for their peak memory; experts are not trained by the textbook path.
    """
    rounds, rows = 1 if quick else 2, []
    with machine.pair() as pair:
        for cell in sorted(cells(base, quick), key=lambda cell: cell.along != "steps"):  # the long ones first
            if time.monotonic() > until:
                print(f"growth: {cell.unit} with {cell.x} {cell.along} left out: time is over", file=sys.stderr, flush=True)
                continue
            if cell.along == "steps" and not quick:
                with machine.pair() as fresh:
                    rows.append(_row(fresh, cell, 1))
            else:
                rows.append(_row(pair[:1] if cell.along == "experts" else pair, cell, rounds))
    write_json(out / "growth.json", {"rows": rows, "width": base.width, "device": machine.device, "threads": machine.threads})
    draw(rows, base, out / "growth")


def _row(workers: Sequence[Worker], cell: Cell, rounds: int) -> dict[str, Any]:
    found = measure(workers, cell.unit, cell.sizes, 0.0, rounds, count=False, turn_s=0.3)
    row: dict[str, Any] = {"along": cell.along, "unit": cell.unit, "x": cell.x, "ours_s": statistics.median(found.seconds[0])}
    if found.seconds[1]:
        row["textbook_s"] = statistics.median(found.seconds[1])
    if cell.along == "steps":
        row |= {"ours_mb": found.peaks[0], "textbook_mb": found.peaks[1]}
    if cell.along == "experts":
        row["ours_mb"] = workers[0].ask("work", units=1)["value"] / 2**20  # the size of the files
    return row


# What a panel shows: along, the number, what stands at its axes, and whether these are logarithmic.
PANELS = (
    ("ipc", "s", "images a class", "seconds an iteration", True),
    ("classes", "s", "classes", "seconds an iteration", True),
    ("steps", "s", "steps of the student", "seconds an iteration", False),
    ("steps", "mb", "steps of the student", "peak memory, MB", False),
    ("experts", "s", "experts", "seconds an epoch", False),
    ("experts", "mb", "experts", "files, MB", False),
)


def draw(rows: list[dict[str, Any]], base: Sizes, stem: Path) -> None:
    """Draw the panels, ours solid and the textbook path dashed."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    from dd.figures.style import COLOURS, figure, heading, save, styled

    colours = dict(zip(SHORT, COLOURS, strict=False))
    with styled():
        made = figure(9, 5)
        legend: dict[str, Any] = {}
        for (along, number, x_label, y_label, logarithmic), axes in zip(PANELS, made.subplots(2, 3).flat, strict=True):
            shown = [row for row in rows if row["along"] == along]
            for unit in dict.fromkeys(row["unit"] for row in shown):
                for side, dashes in (("ours", "-"), ("textbook", "--")):
                    points = [(row["x"], row[key]) for row in shown if row["unit"] == unit and (key := f"{side}_{number}") in row]
                    if points:
                        (line,) = axes.plot(*zip(*points, strict=True), dashes, marker="o", markersize=3, color=colours[unit])
                        legend[SHORT[unit] + (" textbook" if side == "textbook" else "")] = line
            axes.set(xlabel=x_label, ylabel=y_label)
            if logarithmic:
                axes.set(xscale="log", yscale="log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            else:
                axes.set(xlim=(0, None), ylim=(0, None))
            ticks = sorted({row["x"] for row in shown})
            axes.set_xticks(ticks, [str(x) for x in ticks])
            axes.minorticks_off()
        note = (
            f"ConvNet-3 of width {base.width}, random 32x32 images, and unless they grow {base.classes} classes, {base.real} real images a "
            f"class ({min(base.real, FEW)} where classes grow), {base.ipc} synthetic ones. Medians. Both axes of the first two panels are "
            "logarithmic. Memory includes libraries and data. The textbook path trains no experts."
        )
        heading(made, "How cost grows", note, legend)
        save(made, stem)
