"""Many scores in a few numbers: means, spreads, intervals, and tests between two groups. Imports nothing heavy at the top.

All numbers are fractions, as in `Score`. Networks trained on one set share its flaws, so wherever a group has several sets the sets
are the independent observations (the mean of each is one), and the networks only where there is a single set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev, stdev
from typing import Literal

from dd.errors import DDError
from dd.types import Score

Column = Literal["accuracy_last", "accuracy_best_on_test"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """One group of scores. Spreads have ddof 0, as the papers print them; None where there is a single value.

    mean, std: over all scores. std_sets: over the means of sets. std_nets: over the networks of a set (root mean square over the
    sets that have several). low, high: 95 % interval of the mean, Student's t. n, sets, diverged: numbers of scores, of sets, and
    of scores with the status diverged, which count in all of these with the accuracy that they have.
    """

    mean: float
    std: float | None
    std_sets: float | None
    std_nets: float | None
    low: float | None
    high: float | None
    n: int
    sets: int
    diverged: int


@dataclass(frozen=True)
class Comparison:
    """Two groups of scores. difference: mean of left minus mean of right, over the observations that were compared.

    low, high: its 95 % interval. p: two-sided. n: (observations in left, in right). kind: paired or welch. low, high and p are None
    where there are too few observations for a spread.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    n: tuple[int, int]
    kind: str


def summarise(scores: Sequence[Score], column: Column = "accuracy_last") -> Summary:
    """Return the summary of one group of scores (one method, network and protocol).

    Raises:
        DDError: no scores, or a network that is there twice.
    """
    sets = _by_set(scores, column)
    values = [value for one in sets.values() for value in one.values()]
    means = [fmean(one.values()) for one in sets.values()]
    several = [pstdev(one.values()) ** 2 for one in sets.values() if len(one) > 1]
    observed = means if len(means) > 1 else values
    centre = fmean(observed)  # the mean, but for sets of different size
    half = _t_quantile(len(observed) - 1) * stdev(observed) / math.sqrt(len(observed)) if len(observed) > 1 else None
    return Summary(
        mean=fmean(values),
        std=pstdev(values) if len(values) > 1 else None,
        std_sets=pstdev(means) if len(means) > 1 else None,
        std_nets=math.sqrt(fmean(several)) if several else None,
        low=None if half is None else centre - half,
        high=None if half is None else centre + half,
        n=len(values),
        sets=len(sets),
        diverged=sum(score.status == "diverged" for score in scores),
    )


def compare(left: Sequence[Score], right: Sequence[Score], *, paired: bool, column: Column = "accuracy_last") -> Comparison:
    r"""Test whether two groups of scores have the same mean.

    Observations are the means of sets if both groups have several sets, else the scores of both groups.

    Args:
        paired: compare set s with set s (or network k of set s with its namesake): for groups that share what seeds decide, such
            as two protocols on the same sets. Then :math:`t = \bar d \sqrt{n} / s_d` with n - 1 degrees of freedom. Otherwise
            Welch's :math:`t = (\bar a - \bar b) / \sqrt{s_a^2 / n_a + s_b^2 / n_b}` with the degrees of Welch and Satterthwaite.

    Raises:
        DDError: no scores, a network that is there twice, or pairs that lack one half.
    """
    groups = [_by_set(scores, column) for scores in (left, right)]
    if all(len(sets) > 1 for sets in groups):
        observed: list[dict[object, float]] = [{number: fmean(one.values()) for number, one in sets.items()} for sets in groups]
    else:
        observed = [{(number, net): v for number, one in sets.items() for net, v in one.items()} for sets in groups]
    a, b = observed
    n = (len(a), len(b))
    if paired:
        if alone := sorted(map(str, a.keys() ^ b.keys())):
            what = "set" if all(len(sets) > 1 for sets in groups) else "(set, net)"
            raise DDError(f"scores: cannot be paired: {what} {', '.join(alone[:3])} is in one group only")
        differences = [a[key] - b[key] for key in a]
        difference, error = fmean(differences), stdev(differences) / math.sqrt(len(a)) if len(a) > 1 else None
        freedom = len(a) - 1.0
    else:
        difference, error, freedom = fmean(a.values()) - fmean(b.values()), None, 0.0
        if min(n) > 1:
            parts = [stdev(group.values()) ** 2 / len(group) for group in observed]
            error = math.sqrt(sum(parts))
            below = sum(part**2 / (len(group) - 1) for part, group in zip(parts, observed, strict=True))
            freedom = sum(parts) ** 2 / below if below else min(n) - 1.0
    kind = "paired" if paired else "welch"
    if error is None:
        return Comparison(difference, None, None, None, n, kind)
    half = _t_quantile(freedom) * error
    return Comparison(difference, difference - half, difference + half, _p(difference, error, freedom), n, kind)


def _by_set(scores: Sequence[Score], column: Column) -> dict[int, dict[int, float]]:
    sets: dict[int, dict[int, float]] = {}
    for score in sorted(scores, key=lambda score: (score.set, score.net)):
        nets = sets.setdefault(score.set, {})
        if score.net in nets:
            raise DDError(f"scores: set {score.set}, net {score.net} is there twice; a group is one method, network and protocol")
        nets[score.net] = getattr(score, column)
    if not sets:
        raise DDError("scores: there are none")
    return sets


def _t_quantile(freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, freedom))


def _p(difference: float, error: float, freedom: float) -> float:
    if error == 0:  # all observations of a group are equal
        return 1.0 if difference == 0 else 0.0
    from scipy.stats import t

    return float(2 * t.sf(abs(difference) / error, freedom))
