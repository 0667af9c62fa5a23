"""Verdicts on claims: holds, fails, undecided, not run, each with the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dd.figures.claims import AnyLeaf, BestDiffers, Claim, Increasing, MeanGain, Uncorrelated
from dd.figures.deciders import DECIDERS
from dd.figures.results import Point, text
from dd.figures.selection import Combination, combinations, pick, selected, unique
from dd.figures.values import FAILS, HOLDS, NOT_RUN, UNDECIDED, Outcome


@dataclass(frozen=True)
class Verdict:
    """verdict: holds | fails | undecided | not run. reason: one line, with the numbers. scaled: whether a scale changed its cells."""

    verdict: str
    reason: str
    scaled: bool


def judge(claim: Claim, cells: Iterable[tuple[str, Point]]) -> Verdict:
    """Return the verdict on a claim over cells, given as (artifact, point).

    Each combination of the columns under `over` is one comparison. The claim fails if one of them fails, and holds only if all hold.
    A difference within the joint standard error, a cell with a single run, and cells that are missing leave a comparison undecided.

    Raises:
        ConfigError: several cells stand where the check needs one, because a column is missing under `over`.
    """
    points = unique(point for name, point in cells if name in claim.artifacts())
    found = [(group, where) for group in claim.groups() for where in combinations(claim.check.over, group, points)]
    if not found:
        return Verdict(NOT_RUN, "none of its cells is among the points of this scale", False)
    outcomes = [_all([_leaf(leaf, points, where, claim.id) for leaf in group]) for group, where in found]
    used = [point for point in points if point.n and any(selected(point, side) for leaf in claim.leaves() for side in leaf.sides())]
    verdict = _overall([outcome.verdict for outcome in outcomes])
    scaled = verdict != NOT_RUN and any(point.scaled for point in used)
    places = [{**where, **_own(group, claim)} for group, where in found]
    return Verdict(verdict, _reason(list(zip(places, outcomes, strict=True)), used), scaled)


def _own(group: Sequence[AnyLeaf], claim: Claim) -> Combination:
    """Return the coordinates in which a check differs from the others of its claim, where each is a comparison of its own.

    Those of left; where left is the same in all of them, those of right, as "against variant".
    """
    if len(claim.groups()) == 1:
        return {}
    for side, before in ((0, ""), (1, "against ")):
        parts = [dict(leaf.sides()[side][0]) for leaf in claim.leaves() if len(leaf.sides()) > side]
        own = group[0].sides()[side][0] if len(group[0].sides()) > side else {}
        found = {
            before + name: items[0] for name, items in own.items() if len(items) == 1 and any(part.get(name) != items for part in parts)
        }
        if found:
            return found
    return {}


def _overall(verdicts: Sequence[str]) -> str:
    if FAILS in verdicts:
        return FAILS
    if set(verdicts) == {NOT_RUN}:
        return NOT_RUN
    return HOLDS if set(verdicts) == {HOLDS} else UNDECIDED


def _reason(found: list[tuple[Combination, Outcome]], used: Sequence[Point]) -> str:
    count = {verdict: sum(outcome.verdict == verdict for _, outcome in found) for verdict in (HOLDS, FAILS, UNDECIDED, NOT_RUN)}
    if count[NOT_RUN] == len(found):
        return found[0][1].text
    line = f"holds in {count[HOLDS]} of {len(found)} comparisons"
    parts = [line + ": all" if count[HOLDS] == len(found) else line]
    if count[UNDECIDED]:
        parts.append(f"{count[UNDECIDED]} undecided")
    if count[NOT_RUN]:
        parts.append(f"{count[NOT_RUN]} not run ({_few([_place(where) for where, o in found if o.verdict == NOT_RUN])})")
    decisive = FAILS if count[FAILS] else UNDECIDED if count[UNDECIDED] else HOLDS
    where, worst = min(((where, o) for where, o in found if o.verdict == decisive), key=lambda pair: pair[1].slack)
    label = {FAILS: "worst", UNDECIDED: "open", HOLDS: "closest"}[decisive]
    parts.append(f"{label}: {worst.text}" + (f" ({_place(where)})" if _place(where) else ""))
    diverged = sum(point.diverged for point in used)
    if diverged:
        parts.append(f"{diverged} of {sum(point.n for point in used)} runs diverged, counted at the accuracy they had")
    return "; ".join(parts)


def _place(where: Combination) -> str:
    return ", ".join(f"{name} {text(item)}" for name, item in where.items() if text(item))


def _all(outcomes: Sequence[Outcome]) -> Outcome:
    """Join the parts of an `all`."""
    verdict = _overall([outcome.verdict for outcome in outcomes])
    wanted = {FAILS: FAILS, NOT_RUN: NOT_RUN, HOLDS: HOLDS}.get(verdict)
    shown = [o for o in outcomes if o.verdict == wanted] or [o for o in outcomes if o.verdict == UNDECIDED] or list(outcomes)
    return replace(min(shown, key=lambda outcome: outcome.slack), verdict=verdict)


def _leaf(leaf: AnyLeaf, points: Sequence[Point], where: Combination, id_: str) -> Outcome:
    picked = [pick(selector, points, where) for selector in leaf.sides()]
    sides = [cells for cells, _ in picked]
    lacking = [words for _, more in picked for words in more]
    if not all(sides):
        return Outcome(NOT_RUN, f"not run: {_few(lacking) or 'no such cell'}")
    outcome = DECIDERS[type(leaf)](leaf, *sides, id_)
    if not lacking or outcome.verdict in (NOT_RUN, UNDECIDED):
        return outcome
    if outcome.verdict == FAILS and _universal(leaf):
        return outcome  # what is missing cannot save it
    return Outcome(UNDECIDED, f"{outcome.text}, but not run: {_few(lacking)}", outcome.slack)


def _few(names: Sequence[str]) -> str:
    return "; ".join(names[:3]) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")


def _universal(leaf: AnyLeaf) -> bool:
    if isinstance(leaf, Increasing):
        return leaf.p is None
    return not isinstance(leaf, (MeanGain, Uncorrelated, BestDiffers)) and leaf.kind != "greater"
