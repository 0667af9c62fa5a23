"""Numbers with an error, and what a difference between them can decide."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from dd.figures.results import Point

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "fails", "undecided", "not run"


@dataclass(frozen=True)
class Value:
    """An interval (one number, but for bounds stated in prose) in percent, with its standard error; None when that is unknown."""

    low: float
    high: float
    error: float | None

    def __str__(self) -> str:
        """Return it with its standard error."""
        if self.low != self.high:
            return f"<= {self.high:g}" if math.isinf(self.low) else f">= {self.low:g}"
        return f"{self.low:.1f}" if not self.error else f"{self.low:.1f} ± {self.error:.1f}"


@dataclass(frozen=True)
class Outcome:
    """What one comparison says, the numbers behind it, and by how much (the smaller, the nearer to failing)."""

    verdict: str
    text: str
    slack: float = 0.0


def value(point: Point) -> Value:
    """Return the accuracy of a cell."""
    return Value(point.low, point.high, point.error)


def mean(values: Sequence[Value]) -> Value:
    """Return the mean of independent values."""
    return Value(fmean(v.low for v in values), fmean(v.high for v in values), _joint(values, len(values)))


def minus(one: Value, other: Value) -> Value:
    """Return the difference of independent values."""
    return Value(one.low - other.high, one.high - other.low, _joint((one, other), 1))


def above(one: Value, limit: float = 0.0, *, strict: bool = True) -> tuple[str, float]:
    """Decide whether a value is above a limit: not when it lies within its standard error of it, or when that is unknown.

    Returns:
        The verdict, and by how much more than the error it is above.
    """
    if one.error is None:
        return UNDECIDED, one.low - limit
    slack = one.low - limit - one.error
    if slack > 0 or (slack == 0 and not strict):
        return HOLDS, slack
    top = one.high - limit + one.error
    if top < 0 or (top == 0 and strict and one.error == 0):
        return FAILS, slack
    return UNDECIDED, slack


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Join comparisons that must all hold: one failure fails; the text is that of the comparison nearest to failing."""
    order = [FAILS, UNDECIDED, HOLDS]
    return min(outcomes, key=lambda outcome: (order.index(outcome.verdict), outcome.slack))


def pooled(points: Sequence[Point]) -> float:
    """Return the pooled standard deviation over runs of cells: the root of their mean variance."""
    known = [point.std_all for point in points if point.std_all is not None]
    return math.sqrt(fmean(std**2 for std in known)) if known else 0.0


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return Spearman's rho and its two-sided p: exact, over all orders, for up to 7 points; by the t distribution for more."""
    from scipy.stats import rankdata, spearmanr

    if len(x) > 7:
        result = spearmanr(x, y)
        return float(result.statistic), float(result.pvalue)
    ranks, others = [float(r) for r in rankdata(x)], [float(r) for r in rankdata(y)]
    found = _pearson(ranks, others)
    orders = [_pearson(ranks, order) for order in itertools.permutations(others)]
    return found, fmean(abs(rho) >= abs(found) - 1e-12 for rho in orders)


def _pearson(x: Sequence[float], y: Sequence[float]) -> float:
    mx, my = fmean(x), fmean(y)
    covariance = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return covariance / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


def _joint(values: Sequence[Value], count: int) -> float | None:
    errors = [v.error for v in values]
    if any(error is None for error in errors):
        return None
    return math.sqrt(sum(error**2 for error in errors if error is not None)) / count
