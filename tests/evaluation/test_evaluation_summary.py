"""Means, spreads, intervals and tests, against numpy and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from dd.errors import DDError
from dd.evaluation.summary import compare, summarise
from dd.types import Score


def group(values, first=0):
    """Return scores from (sets, nets) accuracies; the best reading is a tenth more."""
    return [
        Score("convnet3_in", "dc", first + s, k, float(v), float(v) + 0.1, [])
        for s, row in enumerate(np.atleast_2d(values))
        for k, v in enumerate(row)
    ]


RNG = np.random.default_rng(0)
A, B = RNG.normal(0.5, 0.05, (5, 4)), RNG.normal(0.55, 0.1, (5, 4))


def test_several_sets():
    found = summarise(group(A)[::-1])
    means = A.mean(1)
    assert (found.n, found.sets, found.diverged) == (20, 5, 0)
    assert found.mean == pytest.approx(A.mean())
    assert found.std == pytest.approx(A.std())
    assert found.std_sets == pytest.approx(means.std())
    assert found.std_nets == pytest.approx(math.sqrt(A.var(1).mean()))
    assert found.std**2 == pytest.approx(found.std_sets**2 + found.std_nets**2)
    low, high = stats.t.interval(0.95, 4, means.mean(), stats.sem(means))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert summarise(group(A), "accuracy_best_on_test").mean == pytest.approx(A.mean() + 0.1)


def test_one_set_takes_its_networks_as_observations():
    found = summarise(group(A[0]))
    assert found.std_sets is None
    assert found.std_nets == found.std == pytest.approx(A[0].std())
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 3, A[0].mean(), stats.sem(A[0])))


def test_one_network_a_set_and_one_network_at_all():
    found = summarise(group(A[:, :1]))
    assert found.std_nets is None
    assert found.std_sets == found.std == pytest.approx(A[:, 0].std())
    single = summarise(group([[0.25]]))
    assert (single.mean, single.std, single.std_sets, single.std_nets, single.low, single.high) == (0.25, None, None, None, None, None)


def test_sets_of_different_size():
    scores = [*group(A[:1]), *group(A[1:2, :2], first=1), *group(A[2:3, :1], first=2)]
    found = summarise(scores)
    means = [A[0].mean(), A[1, :2].mean(), A[2, 0]]
    assert found.mean == pytest.approx(np.mean([*A[0], *A[1, :2], A[2, 0]]))
    assert found.std_nets == pytest.approx(math.sqrt((A[0].var() + A[1, :2].var()) / 2))
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 2, np.mean(means), stats.sem(means)))


def test_diverged_scores_count_and_are_counted():
    scores = group([[0.5, 0.5, 0.1]])
    scores[2].status = "diverged"
    found = summarise(scores)
    assert found.diverged == 1
    assert found.mean == pytest.approx(1.1 / 3)


@pytest.mark.parametrize("one_set", [False, True])
def test_against_scipy(one_set):
    left, right = (A[:1], B[:1]) if one_set else (A, B)
    a, b = (left[0], right[0]) if one_set else (left.mean(1), right.mean(1))
    for paired, expected in ((True, stats.ttest_rel(a, b)), (False, stats.ttest_ind(a, b, equal_var=False))):
        found = compare(group(left), group(right), paired=paired)
        assert found.kind == ("paired" if paired else "welch")
        assert found.n == (len(a), len(b))
        assert found.difference == pytest.approx(a.mean() - b.mean())
        assert found.p == pytest.approx(expected.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
        mirrored = compare(group(right), group(left), paired=paired)
        assert (mirrored.p, mirrored.low) == pytest.approx((found.p, -found.high))


def test_unequal_groups_welch():
    found = compare(group(A), group(B[:3]), paired=False)
    assert found.p == pytest.approx(stats.ttest_ind(A.mean(1), B[:3].mean(1), equal_var=False).pvalue)
    mixed = compare(group(A), group(B[0]), paired=False)
    assert mixed.n == (20, 4), "networks, where one side has a single set"
    assert mixed.p == pytest.approx(stats.ttest_ind(A.ravel(), B[0], equal_var=False).pvalue)


def test_too_few_observations_and_no_spread():
    alone = compare(group([[0.5]]), group(B[0]), paired=False)
    assert (alone.low, alone.high, alone.p) == (None, None, None)
    assert alone.difference == pytest.approx(0.5 - B[0].mean())
    assert compare(group([[0.5]]), group([[0.4]]), paired=True).p is None
    equal, less = group([[0.5, 0.5]]), group([[0.25, 0.25]])
    for paired in (True, False):
        assert compare(equal, equal, paired=paired).p == 1
        certain = compare(equal, less, paired=paired)
        assert (certain.p, certain.low, certain.high) == (0, 0.25, 0.25)


def test_mistakes_are_named():
    with pytest.raises(DDError, match="none"):
        summarise([])
    with pytest.raises(DDError, match="set 0, net 2 is there twice"):
        summarise([*group(A[0]), group(A[0])[2]])
    with pytest.raises(DDError, match="set 4 is in one group only"):
        compare(group(A), group(B[:4]), paired=True)
    with pytest.raises(DDError, match=r"\(set, net\) \(0, 3\) is in one group only"):
        compare(group(A[0]), group(B[0, :3]), paired=True)
