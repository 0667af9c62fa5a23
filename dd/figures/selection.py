"""Which cells a claim is about, and which of them are missing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dd.figures.claims import AnyLeaf
from dd.figures.results import Point, same, text

Combination = dict[str, Any]
Parts = Sequence[Mapping[str, Sequence[Any]]]  # a selector: a union of products of values
NONE = ("",)  # what a selector gives for a coordinate that its cells do not have


def unique(points: Iterable[Point]) -> list[Point]:
    """Drop cells that stand in several artifacts."""
    kept: dict[tuple[Any, ...], Point] = {}
    for point in points:
        kept.setdefault((point.id, point.score_id, point.low, point.high, *sorted((k, text(v)) for k, v in point.at.items())), point)
    return list(kept.values())


def agrees(at: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether coordinates have all of these values."""
    return all(same(at.get(name), item) for name, item in wanted.items())


def selected(point: Point, selector: Parts) -> bool:
    """Tell whether a selector takes a cell."""
    return any(all(any(same(point.at.get(name), item) for item in items) for name, items in one.items()) for one in selector)


def _here(part: Mapping[str, Sequence[Any]], where: Mapping[str, Any]) -> dict[str, Any]:
    """Return a combination without the columns that the cells of a part do not have: such cells belong to each of its values."""
    return {name: item for name, item in where.items() if tuple(part.get(name, ())) != NONE}


def combinations(over: Sequence[str], leaves: Sequence[AnyLeaf], points: Sequence[Point]) -> list[Combination]:
    """Return each combination of the columns `over` among the cells of left, and the listed ones that have no cell at all.

    Cells of left that do not have one of these columns, by their selector, belong to combinations of others and make none.
    """
    found: list[Combination] = []
    every = [one for leaf in leaves for one in leaf.left]
    lefts = [one for one in every if len(_here(one, dict.fromkeys(over))) == len(over)]
    for point in points:
        if selected(point, lefts):
            combination = {name: point.at.get(name) for name in over}
            if not any(agrees(other, combination) for other in found):
                found.append(combination)
    if not found:
        return []
    absent: list[Combination] = []
    for one in lefts:
        listed = [name for name in over if name in one]
        for items in itertools.product(*(one[name] for name in listed)):
            part = dict(zip(listed, items, strict=True))
            if part and not any(agrees(other, part) for other in [*found, *absent]):
                absent.append(part)
    return found + absent


def pick(selector: Parts, points: Sequence[Point], where: Combination) -> tuple[list[Point], list[str]]:
    """Return the cells of a selector in a combination that were run, and what is missing, in words."""
    chosen = [point for point in points if any(agrees(point.at, _here(one, where)) and selected(point, [one]) for one in selector)]
    lacking = [_words(point.at, selector) for point in chosen if not point.n]
    lacking += [f"{_words(point.at, selector)} in part" for point in chosen if point.n and point.missing]
    for one in selector:
        here = _here(one, where)
        if not all(name not in one or any(same(item, x) for x in one[name]) for name, item in here.items()):
            continue  # this part of the union is about another combination
        names = [name for name in one if name not in here]
        sure = [name for name in names if NONE[0] not in one[name] or tuple(one[name]) == NONE]  # others need not be there at all
        for items in itertools.product(*(one[name] for name in sure)):
            part = dict(zip(sure, items, strict=True))
            if not any(agrees(point.at, part) and selected(point, [one]) for point in chosen):
                lacking.append(_words(part, [{name: one[name] for name in names}]))
    return [point for point in chosen if point.n], lacking


def _words(at: Mapping[str, Any], selector: Parts) -> str:
    """Name a cell by the columns of which the selector takes several values, or by all of them."""
    names = dict.fromkeys(name for one in selector for name in one)
    values = {name: {text(item) for one in selector for item in one.get(name, ())} for name in names}
    several = [name for name in names if len(values[name]) > 1]
    return ", ".join(f"{name} {text(at.get(name))}" for name in several or names)
