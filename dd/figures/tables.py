"""Tables as papers have them: what stands in the rows by what stands in the columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dd.data.registry import DATASETS
from dd.errors import ConfigError
from dd.figures import gains
from dd.figures.reported import compare
from dd.figures.results import same, text
from dd.figures.sheets import CHOSEN, Drawn, Sheet, Waiting, has_choices, notes, printed, value, word

Key = tuple[str, ...]
Place = tuple[Key, str]  # a row: its coordinates, and "" for accuracies, or which gains stand in it
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
    column of its own where `rows` has ipc, else in a row above the rows that it is true of. With `gain`, a row below says how much each
    cell is above its `baseline`; with `mean_gain`, means of that stand in columns and rows of their own. Where `baseline` is a value of
    `rows`, such as a protocol, each baseline stands above what is measured against it, and "gain" below in the place of that value. Where a
    setting of a cell was picked from results, a column says which value; a published step stands in the cell itself, as "@300".

    Raises:
        ConfigError: two cells share a row and a column, a ratio or gains are asked for where there are no rows, or both are.
    """
    down, across = list(drawn.get("rows") or ()), list(drawn.get("columns") or ())
    compared = bool(drawn.get("gain") or drawn.get("mean_gain"))
    if (drawn.get("ratio") or compared) and not down:
        raise ConfigError(f"artifact {drawn.artifact['name']}: {'gain' if compared else 'ratio'} needs rows")
    if drawn.get("ratio") and compared:
        raise ConfigError(f"artifact {drawn.artifact['name']}: ratio, gain: a table has one of them")
    down += [CHOSEN] if has_choices(drawn) and not any(map(_step_chosen, drawn.artifact["cells"])) else []
    body: dict[Key, dict[Key, _Entry]] = {}
    heads: dict[Key, None] = {}
    for entry in _entries(drawn):
        side, head = (tuple(text(entry.at.get(name)) for name in names) for names in (down, across))
        if head in body.setdefault(side, {}):
            name = drawn.artifact["name"]
            raise ConfigError(f"artifact {name}: two cells stand in row {side}, column {head}; name what differs in rows or columns")
        body[side][head] = entry
        heads[head] = None
    sides = list(body)
    body = dict(sorted(body.items(), key=lambda row: _rank(drawn, row[0], sides, down)))
    lines = {(side, ""): {head: entry.text for head, entry in found.items()} for side, found in body.items()}
    named = {head: ", ".join(f"{word(name)} {item}" for name, item in zip(across, head, strict=True) if item) for head in heads}
    titles = {head: title or "accuracy (%)" for head, title in named.items()}
    if compared:
        lines, titles = _with_gains(drawn, lines, titles, down, across)
    own = [number for number, name in enumerate(down) if name in _values(drawn)]
    rows = [[*_named(*place, own), *(found.get(head, "") for head in titles)] for place, found in lines.items()]
    columns = [*map(word, down), *titles.values()]
    said = [*notes(drawn, [*down, *across]), *(gains.said(drawn) if compared else ())]
    if drawn.get("ratio"):
        said.append("Ratio: stored images to real ones of the train split.")
        if "ipc" in down:
            columns.insert(len(down), RATIO)
            rows = [[*row[: len(down)], _of_row(found), *row[len(down) :]] for row, found in zip(rows, body.values(), strict=True)]
        else:
            rows = list(_with_ratios(rows, body, list(heads), len(down)))
    return Sheet(columns, rows, said, [] if drawn.get("ratio") else _rules(list(lines), own))


def _entries(drawn: Drawn) -> Iterator[_Entry]:
    """Yield all cells in the order of the paper file."""
    later = list(drawn.waiting)
    for number, (cell, point, row) in enumerate(zip(drawn.artifact["cells"], drawn.points, drawn.reported, strict=True)):
        while later and later[0].place <= number:
            yield _waiting(later.pop(0))
        compared = compare(point, row, drawn.spread)
        sign = f", {compared[0]:+.1f}" if compared else ""
        beside = f" ({_beside(printed(row))}{sign})" if row else ""
        at = {**point.at, CHOSEN: point.chosen}
        picked = f" @{point.chosen}" if point.chosen and point.n and _step_chosen(cell) else ""
        yield _Entry(at, value(point, drawn.spread) + picked + beside, _ratio(cell["config"]) + ("†" if point.scaled else ""))
    yield from map(_waiting, later)


def _step_chosen(cell: Mapping[str, Any]) -> bool:
    """Tell whether the published step of a cell was picked: each cell has its own, so it stands in it."""
    return isinstance(cell["config"].get("step"), dict)


def _with_gains(
    drawn: Drawn, lines: Mapping[Place, dict[Key, str]], titles: dict[Key, str], down: Sequence[str], across: Sequence[str]
) -> tuple[dict[Place, dict[Key, str]], dict[Key, str]]:
    """Return lines and titles with those of gains: each below its cell, a mean where its own coordinates are, at the right or below."""
    found: dict[Place, dict[Key, str]] = {}
    own: dict[Key, dict[Key, str]] = {}
    for gain in gains.each(drawn).values() if drawn.get("gain") else ():
        side, head = (tuple(text(gain.at.get(name)) for name in names) for names in (down, across))
        own.setdefault(side, {})[head] = str(gain)
    for (side, kind), entries in lines.items():
        found[side, kind] = dict(entries)
        if side in own:
            found[side, gains.GAIN] = own[side]
    over = set(drawn.get("mean_gain") or ())
    more: dict[Key, str] = {}
    for gain in gains.means(drawn):
        side = tuple("" if name in over else text(gain.at.get(name)) for name in down)
        kept = [(name, text(gain.at.get(name))) for name in across if name not in over]
        head = (*(item for _, item in kept), gains.MEAN) if len(kept) < len(across) or not across else tuple(item for _, item in kept)
        if head not in titles:
            more[head] = ", ".join([*(f"{word(name)} {item}" for name, item in kept if item), gains.MEAN])
        below = over & set(down) or head in titles
        place = (side, gains.MEAN if below else gains.GAIN if side in own else "")
        found.setdefault(place, {})[head] = str(gain)
    return found, titles | more


def _values(drawn: Drawn) -> dict[str, str]:
    """Return the coordinates of which a baseline has one value and what is measured against it another."""
    return {name: text(item) for name, item in (drawn.get("baseline") or {}).items() if text(item)}


def _rank(drawn: Drawn, side: Key, sides: Sequence[Key], down: Sequence[str]) -> tuple[int, ...]:
    """Return the place of a row: that of the paper file, or by one coordinate after the other where those of a baseline are values.

    Values stand in the order in which they first appear beside equal values before them; a baseline's coordinates come last, it first.
    """
    values = _values(drawn)
    if not set(values) & set(down):
        return (sides.index(side),)
    order = [number for number, name in enumerate(down) if name not in values]
    order += [number for number, name in enumerate(down) if name in values]
    ranks, alike = [], list(sides)
    for number in order:
        seen = list(dict.fromkeys(one[number] for one in alike))
        ranks.append(0 if same(side[number], values.get(down[number])) else 1 + seen.index(side[number]))
        alike = [one for one in alike if one[number] == side[number]]
    return tuple(ranks)


def _rules(places: Sequence[Place], own: Sequence[int]) -> list[int]:
    """Return the rows above which something else begins than what is measured against the same baseline."""
    groups = [tuple(item for number, item in enumerate(side) if number not in own) for side, _ in places] if own else []
    return [number for number in range(1, len(groups)) if groups[number] != groups[number - 1]]


def _named(side: Key, kind: str, own: Sequence[int]) -> list[str]:
    """Return the first entries of a row; that of a gain says so: beside the first one, or instead of a value that a baseline has not.

    own: which entries are of coordinates whose values tell a baseline from what is measured against it.
    """
    if not kind:
        return list(side)
    if own:
        return [*side[: own[0]], kind, *side[own[0] + 1 :]]
    return [", ".join(part for part in (side[0], kind) if part), *side[1:]]


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
