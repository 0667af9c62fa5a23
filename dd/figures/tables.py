"""Tables as papers have them: what stands in the rows by what stands in the columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dd.data.registry import DATASETS
from dd.errors import ConfigError
from dd.figures.reported import compare
from dd.figures.results import text
from dd.figures.sheets import Drawn, Sheet, Waiting, notes, printed, value, word

Key = tuple[str, ...]
RATIO = "ratio (%)"


@dataclass(frozen=True)
class _Entry:
    """One cell: its coordinates, its text, and the ratio of stored to real images in percent ("" where unknown)."""

    at: Mapping[str, Any]
    text: str
    ratio: str


def pivot(drawn: Drawn) -> Sheet:
    """Return the table of a paper: `rows` by `columns`, the reported number beside the reproduced one.

    Cells that cannot be made yet have "-" and what is printed. With `ratio`, the ratio of stored images to the train split stands in a
    column of its own where `rows` has ipc, else in a row above the rows that it is true of.

    Raises:
        ConfigError: two cells share a row and a column, or a ratio is asked for where there are no rows.
    """
    down, across = list(drawn.get("rows") or ()), list(drawn.get("columns") or ())
    if drawn.get("ratio") and not down:
        raise ConfigError(f"artifact {drawn.artifact['name']}: ratio needs rows")
    body: dict[Key, dict[Key, _Entry]] = {}
    heads: dict[Key, None] = {}
    for entry in _entries(drawn):
        side, head = (tuple(text(entry.at.get(name)) for name in names) for names in (down, across))
        if head in body.setdefault(side, {}):
            name = drawn.artifact["name"]
            raise ConfigError(f"artifact {name}: two cells stand in row {side}, column {head}; name what differs in rows or columns")
        body[side][head] = entry
        heads[head] = None
    titles = [", ".join(f"{word(name)} {item}" for name, item in zip(across, head, strict=True) if item) for head in heads]
    rows = [[*side, *(found[head].text if head in found else "" for head in heads)] for side, found in body.items()]
    columns = [*map(word, down), *(title or "accuracy (%)" for title in titles)]
    said = notes(drawn, [*down, *across])
    if drawn.get("ratio"):
        said.append("Ratio: stored images to real ones of the train split.")
        if "ipc" in down:
            columns.insert(len(down), RATIO)
            rows = [[*row[: len(down)], _of_row(found), *row[len(down) :]] for row, found in zip(rows, body.values(), strict=True)]
        else:
            rows = list(_with_ratios(rows, body, list(heads), len(down)))
    return Sheet(columns, rows, said)


def _entries(drawn: Drawn) -> Iterator[_Entry]:
    """Yield all cells in the order of the paper file."""
    later = list(drawn.waiting)
    for number, (cell, point, row) in enumerate(zip(drawn.artifact["cells"], drawn.points, drawn.reported, strict=True)):
        while later and later[0].place <= number:
            yield _waiting(later.pop(0))
        compared = compare(point, row, drawn.spread)
        sign = f", {compared[0]:+.1f}" if compared else ""
        beside = f" ({_beside(printed(row))}{sign})" if row else ""
        yield _Entry(point.at, value(point, drawn.spread) + beside, _ratio(cell["config"]) + ("†" if point.scaled else ""))
    yield from map(_waiting, later)


def _waiting(one: Waiting) -> _Entry:
    return _Entry(one.at, "-" + (f" ({_beside(printed(one.printed))})" if one.printed else ""), "")


def _beside(shown: str) -> str:
    return shown if shown.startswith("elsewhere") else f"paper {shown}"


def _ratio(config: Mapping[str, Any]) -> str:
    """Return ipc * classes / |train| in percent: 0.02, 0.2, 1; 100 for the whole train split; nothing for unknown datasets."""
    spec, ipc = DATASETS.get(str(config.get("dataset"))), config.get("ipc")
    if spec is None or ipc is None:
        return ""
    ratio = 100 * ipc * len(spec.classes) / spec.train if ipc else 100.0
    return f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"


def _of_row(found: Mapping[Key, _Entry]) -> str:
    """Return the ratios of a row, each once; that of the whole train split only where it stands alone."""
    ratios = dict.fromkeys(entry.ratio for entry in found.values() if entry.ratio.strip("†"))
    several = [ratio for ratio in ratios if ratio.strip("†") != "100"]
    return ", ".join(several or ratios)


def _with_ratios(rows: list[list[str]], body: Mapping[Key, Mapping[Key, _Entry]], heads: list[Key], wide: int) -> Iterator[list[str]]:
    """Yield rows, and above each run of rows with equal ratios a row that says them."""
    sides, above = list(body), 0
    while above < len(rows):
        ratios: dict[Key, str] = {}
        below = above
        while below < len(rows):
            more = {head: entry.ratio for head, entry in body[sides[below]].items() if entry.ratio.strip("†") not in ("", "100")}
            if any(ratios.get(head, ratio) != ratio for head, ratio in more.items()):
                break
            ratios |= more
            below += 1
        run = sides[above:below]
        shared = ["" if len({side[i] for side in run}) > 1 else run[0][i] for i in range(wide)]
        if ratios:
            yield [*shared[: wide - 1], RATIO, *(ratios.get(head, "") for head in heads)]
        yield from rows[above:below]
        above = below
