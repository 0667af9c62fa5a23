"""How each kind of check decides one comparison."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dd.errors import ConfigError
from dd.figures import values
from dd.figures.claims import (
    ArgMax,
    BestDiffers,
    Diverges,
    Greater,
    Increasing,
    LargestGain,
    Limit,
    MeanGain,
    SomeGreater,
    Uncorrelated,
    Within,
)
from dd.figures.results import Point, same, text
from dd.figures.selection import agrees
from dd.figures.values import FAILS, HOLDS, NOT_RUN, UNDECIDED, Outcome, Value, above, minus, pooled, value

ENOUGH = 5  # points for a rank correlation: with four, even a perfect order has p = 0.083


def _differ(one: Value, other: Value, margin: float) -> Outcome:
    verdict, slack = above(minus(one, other), margin)
    more = f", wanted {margin:g} more" if margin > 0 else f", allowed {-margin:g} less" if margin else ""
    return Outcome(verdict, f"{one} against {other}{more}", slack)


def _exceeds(one: Point, other: Point, margin: float) -> Outcome:
    return _differ(value(one), value(other), margin)


def _greater(leaf: Greater, left: list[Point], right: list[Point], id_: str) -> Outcome:
    if leaf.kind == "greater":
        return _differ(_largest(left), _largest(right), leaf.margin)
    return values.together([_exceeds(one, other, leaf.margin) for one in left for other in right])


def _some_greater(leaf: SomeGreater, left: list[Point], right: list[Point], id_: str) -> Outcome:
    steps = []
    for point in left:
        place = ", ".join(f"{name} {text(point.at.get(name))}" for name in leaf.pair)
        rivals = [one for one in right if all(same(one.at.get(name), point.at.get(name)) for name in leaf.pair)]
        if len(rivals) > 1:
            raise ConfigError(f"claim {id_}: {len(rivals)} cells of right have {place}; name the column in which they differ in `pair`")
        found = [_exceeds(point, one, leaf.margin) for one in rivals]
        steps += [replace(step, text=f"{step.text} at {place}") for step in found]
    if not steps:
        return Outcome(UNDECIDED, "no cell of left has one to be compared with")
    for verdict in (HOLDS, UNDECIDED, FAILS):
        of = [step for step in steps if step.verdict == verdict]
        if of:
            best = max(of, key=lambda step: step.slack)
            return replace(best, text=f"in {len(of)} of {len(steps)}, {best.text}") if verdict == HOLDS else best
    raise AssertionError


def _mean_gain(leaf: MeanGain, left: list[Point], right: list[Point], *more: Any) -> Outcome:
    gain = minus(_mean(left), _mean(right))
    if leaf.exceeds:
        other = minus(_mean(more[0]), _mean(more[1]))
        verdict, slack = above(minus(gain, other), leaf.margin)
        return Outcome(verdict, f"a gain of {gain} against a gain of {other}", slack)
    return _differ(_mean(left), _mean(right), leaf.margin)


def _largest_gain(leaf: LargestGain, left: list[Point], right: list[Point], id_: str) -> Outcome:
    gains: list[tuple[Point, Value]] = []
    for point in left:
        rivals = [one for one in right if all(same(one.at.get(name), point.at.get(name)) for name in leaf.pair)]
        place = ", ".join(f"{name} {text(point.at.get(name))}" for name in leaf.pair)
        if len(rivals) > 1:
            raise ConfigError(f"claim {id_}: {len(rivals)} cells of right have {place}; name the column in which they differ in `pair`")
        gains += [(point, minus(value(point), value(one))) for one in rivals]
    best = [gain for point, gain in gains if agrees(point.at, leaf.value)]
    rest = [(gain, point) for point, gain in gains if not agrees(point.at, leaf.value)]
    wanted = ", ".join(f"{name} {text(item)}" for name, item in leaf.value.items())
    if len(best) != 1:
        if not best:
            return Outcome(NOT_RUN, f"not run: {wanted}")
        raise ConfigError(f"claim {id_}: value: {len(best)} cells of left have {wanted}; name the column in which they differ")
    if not rest:
        return Outcome(UNDECIDED, f"only {wanted} was run")
    if len(gains) < len(left):
        return Outcome(UNDECIDED, f"{len(left) - len(gains)} of {len(left)} cells have nothing to be compared with")
    steps = []
    for gain, point in rest:
        verdict, slack = above(minus(best[0], gain))
        where = ", ".join(text(point.at.get(name)) for name in leaf.pair if text(point.at.get(name)))
        steps.append(Outcome(verdict, f"a gain of {best[0]} at {wanted} against {gain} at {where}", slack))
    return values.together(steps)


def _increasing(leaf: Increasing, left: list[Point], id_: str) -> Outcome:
    ordered = _along(leaf.along, left, id_)
    if leaf.p is not None:
        return _correlated(leaf, ordered)
    if len(ordered) < 2:
        return Outcome(UNDECIDED, f"only {leaf.along} {text(ordered[0].at[leaf.along])} was run")
    steps = []
    for before, after in itertools.pairwise(ordered):
        step = _exceeds(after, before, 0.0)
        steps.append(replace(step, text=f"{step.text} at {leaf.along} {text(after.at[leaf.along])} and {text(before.at[leaf.along])}"))
    return values.together(steps)


def _correlated(leaf: Increasing | Uncorrelated, ordered: list[Point]) -> Outcome:
    assert leaf.p is not None
    means = [value(point).low for point in ordered]
    if len(ordered) < ENOUGH or any(point.low != point.high for point in ordered):
        return Outcome(UNDECIDED, f"{len(ordered)} points are too few for a rank correlation (at least {ENOUGH})")
    if len(set(means)) == 1:
        return Outcome(UNDECIDED, f"all {len(ordered)} points are equal, {means[0]:.1f}")
    rho, p = values.rank_correlation([float(point.at[leaf.along]) for point in ordered], means)
    said = f"Spearman rho {rho:.2f}, p {p:.3f}, over {len(ordered)} points"
    if isinstance(leaf, Uncorrelated):
        return Outcome(HOLDS if p > leaf.p else FAILS, said, p)
    if p < leaf.p:
        return Outcome(HOLDS if rho > 0 else FAILS, said, rho)
    return Outcome(UNDECIDED if rho > 0 else FAILS, said, rho)


def _uncorrelated(leaf: Uncorrelated, left: list[Point], id_: str) -> Outcome:
    return _correlated(leaf, _along(leaf.along, left, id_))


def _within(leaf: Within, left: list[Point], *more: Any) -> Outcome:
    right: list[Point] = more[0] if leaf.right else []
    pairs = list(itertools.product(left, right)) if leaf.right else list(itertools.combinations(left, 2))
    if not pairs:
        return Outcome(UNDECIDED, "only one of its cells was run")
    allowed = max(leaf.margin, leaf.sigmas * pooled([*left, *right]))
    outcomes = []
    for one, other in pairs:
        gap = minus(value(one), value(other))
        size = Value(max(0.0, gap.low, -gap.high), max(abs(gap.low), abs(gap.high)), gap.error)
        verdict, slack = above(Value(allowed - size.high, allowed - size.low, size.error), strict=False)
        outcomes.append(Outcome(verdict, f"{value(one)} and {value(other)}, allowed to differ by {allowed:.1f}", slack))
    return values.together(outcomes)


def _argmax(leaf: ArgMax, left: list[Point], id_: str) -> Outcome:
    rest = _along(leaf.along, left, id_)
    steps: list[Outcome] = []
    for place, wanted in (("best", leaf.value), ("second", leaf.second)):
        if wanted is None:
            continue
        best = [point for point in rest if same(point.at[leaf.along], wanted)]
        rest = [point for point in rest if not same(point.at[leaf.along], wanted)]
        if not best and not steps:
            return Outcome(NOT_RUN, f"not run: {leaf.along} {text(wanted)}")
        if not best or not rest:  # what is missing leaves open what the others did not yet refute
            what = f"not run: {leaf.along} {text(wanted)}" if not best else f"only {leaf.along} {text(wanted)} was run"
            steps.append(Outcome(UNDECIDED, what))
            break
        rival = max(rest, key=_middle)
        step = _differ(value(best[0]), _largest(rest), 0.0)
        said = f"{place}: {step.text} at {leaf.along} {text(wanted)} and {text(rival.at[leaf.along])}"
        steps.append(replace(step, text=said))
    return values.together(steps)


def _best_differs(leaf: BestDiffers, left: list[Point], id_: str) -> Outcome:
    places: dict[str, list[Point]] = {}
    for point in left:
        places.setdefault(text(point.at.get(leaf.across)), []).append(point)
    clear: dict[str, tuple[str, float]] = {}  # where one is the best for certain: its name, and by how much
    for place, points in places.items():
        if len({text(point.at.get(leaf.along)) for point in points}) < len(points):
            where = f"{leaf.across} {place} and the same {leaf.along}"
            raise ConfigError(f"claim {id_}: several cells have {where}; name the column in which they differ under `over`")
        best = max(points, key=_middle)
        rivals = [_exceeds(best, other, 0.0) for other in points if other is not best]
        step = values.together(rivals) if rivals else Outcome(UNDECIDED, "")
        if step.verdict == HOLDS:
            clear[place] = (text(best.at.get(leaf.along)), step.slack)
    kinds: dict[str, tuple[float, str]] = {}
    for place, (name, slack) in clear.items():
        kinds[name] = max(kinds.get(name, (slack, place)), (slack, place))
    if len(kinds) > 1:
        said = ", ".join(f"{name} at {leaf.across} {place}" for name, (_, place) in kinds.items())
        return Outcome(HOLDS, f"best: {said}", sorted(slack for slack, _ in kinds.values())[-2])
    if len(clear) == len(places) > 1:
        (name,) = kinds
        return Outcome(FAILS, f"best: {name} at every {leaf.across}", -min(slack for _, slack in clear.values()))
    return Outcome(UNDECIDED, f"a best {leaf.along} is certain at {len(clear)} of {len(places)} values of {leaf.across}, never another")


def _limit(leaf: Limit, left: list[Point], id_: str) -> Outcome:
    outcomes = []
    for point in left:
        it = value(point)
        room = Value(leaf.value - it.high, leaf.value - it.low, it.error) if leaf.kind == "at_most" else Value(
            it.low - leaf.value, it.high - leaf.value, it.error
        )  # fmt: skip
        verdict, slack = above(room, strict=False)
        outcomes.append(Outcome(verdict, f"{it}, wanted {leaf.kind.replace('_', ' ')} {leaf.value:g}", slack))
    return values.together(outcomes)


def _diverges(leaf: Diverges, left: list[Point], id_: str) -> Outcome:
    if any(point.low != point.high for point in left):
        return Outcome(UNDECIDED, "only a bound is known")
    runs = [run for point in left for run in point.runs]
    limit = float("-inf") if leaf.value is None else leaf.value
    gone = sum(diverged or accuracy <= limit for accuracy, diverged in runs)
    chance = "" if leaf.value is None else f" or were at most {leaf.value:g}"
    said = f"{gone} of {len(runs)} runs diverged{chance}, mean {_mean(left)}"
    return Outcome(HOLDS if gone == len(runs) else FAILS, said, gone / len(runs))


def _along(column: str, points: list[Point], id_: str) -> list[Point]:
    """Return cells in the order of a column that tells them apart."""
    seen = [text(point.at.get(column)) for point in points]
    if len(set(seen)) < len(seen):
        raise ConfigError(f"claim {id_}: several cells have the same {column}; name the column in which they differ under `over`")
    try:
        return sorted(points, key=lambda point: float(point.at[column]))
    except (TypeError, ValueError, KeyError):
        raise ConfigError(f"claim {id_}: along {column!r}: its values {', '.join(seen)} are not numbers") from None


def _middle(point: Point) -> float:
    """Return what cells are ranked by: the mean, or the number that bounds it."""
    assert point.mean is not None
    return point.mean


def _largest(points: Sequence[Point]) -> Value:
    """Return the largest of several accuracies; its error is that of the cell which seems to be it."""
    return Value(max(p.low for p in points), max(p.high for p in points), max(points, key=_middle).error)


def _mean(points: Sequence[Point]) -> Value:
    return values.mean([value(point) for point in points])


DECIDERS: dict[type, Callable[..., Outcome]] = {
    Greater: _greater, SomeGreater: _some_greater, MeanGain: _mean_gain, LargestGain: _largest_gain, Increasing: _increasing,
    Uncorrelated: _uncorrelated, Within: _within, ArgMax: _argmax, BestDiffers: _best_differs, Limit: _limit, Diverges: _diverges,
}  # fmt: skip
