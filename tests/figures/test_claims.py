"""Claims: the language of claims.yaml, the verdicts of every kind of check, and the papers' own numbers."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from dd.config import load_yaml, parse
from dd.errors import ConfigError
from dd.figures.checks import judge
from dd.figures.claims import AnyLeaf, Claim, load_claims
from dd.figures.reported import as_points, load_reported
from dd.figures.results import Point

ROOT = Path(__file__).resolve().parents[2]
REPORTED = ROOT / "workflow" / "reported"
CLAIMS = load_claims(REPORTED / "claims.yaml").claims
LOST = "not in the text (figure or lost table)"


def point(mean: float | None, error: float | None = 0.5, runs: int = 5, diverged: int = 0, std: float = 1.0, **at: Any) -> Point:
    if mean is None:
        return Point(at, None)
    made = tuple((mean, number < diverged) for number in range(runs))
    return Point(at, mean, mean, mean, std_all=std if runs > 1 else None, error=error if runs > 1 else None, runs=made)


def sweep(means: dict[int, float | None], **more: Any) -> list[Point]:
    return [point(mean, **{"extractor_epochs": epoch, "ipc": 10, **more}) for epoch, mean in means.items()]


def claim(check: dict[str, Any]) -> Claim:
    return parse(Claim, {"id": "a", "paper": "p", "artifact": "f", "claim": "c", "reported_numbers": "", "check": check}, "a.yaml")


def verdict(check: dict[str, Any], points: list[Point]) -> str:
    return judge(claim(check), [("f", one) for one in points]).verdict


def epochs(*values: int) -> dict[str, Any]:
    return {"extractor_epochs": list(values)}


# kind -> (check, cells on which it holds, fails, is undecided); every cell has a standard error of 0.5, so two differ within 0.707
KINDS: dict[str, tuple[dict[str, Any], list[Point], list[Point], list[Point]]] = {
    "greater": (
        {"left": epochs(0, 1), "right": epochs(2, 3), "margin": 2.0},
        sweep({0: 10, 1: 50, 2: 47, 3: 20}), sweep({0: 10, 1: 50, 2: 49, 3: 20}), sweep({0: 10, 1: 50, 2: 47.5, 3: 20}),
    ),
    "all_greater": (
        {"left": epochs(0, 1), "right": epochs(2, 3)},
        sweep({0: 40, 1: 50, 2: 39, 3: 20}), sweep({0: 38, 1: 50, 2: 39, 3: 20}), sweep({0: 39.5, 1: 50, 2: 39, 3: 20}),
    ),
    "mean_gain": (
        {"left": epochs(1, 2), "right": epochs(0)},  # errors: sqrt((0.5**2 + 0.5**2) / 4 + 0.5**2) = 0.612
        sweep({0: 40, 1: 39, 2: 42.3}), sweep({0: 40, 1: 41, 2: 37.7}), sweep({0: 40, 1: 39, 2: 42.1}),
    ),
    "increasing": (
        {"left": epochs(0, 1, 2), "along": "extractor_epochs"},
        sweep({2: 30, 0: 10, 1: 20}), sweep({2: 30, 0: 10, 1: 31}), sweep({2: 30, 0: 10, 1: 30.5}),
    ),
    "within": (
        {"left": epochs(0, 1, 2), "margin": 3.0},
        sweep({0: 10, 1: 12, 2: 11}), sweep({0: 10, 1: 14, 2: 11}), sweep({0: 10, 1: 13.5, 2: 11}),
    ),
    "argmax": (
        {"left": epochs(0, 1, 2), "along": "extractor_epochs", "value": 1, "second": 0},
        sweep({0: 10, 1: 20, 2: 5}), sweep({0: 10, 1: 20, 2: 15}), sweep({0: 10, 1: 20, 2: 10.4}),
    ),
    "at_most": ({"left": epochs(0, 1), "value": 20}, sweep({0: 10, 1: 19}), sweep({0: 10, 1: 21}), sweep({0: 10, 1: 20.4})),
    "at_least": ({"left": epochs(0, 1), "value": 20}, sweep({0: 30, 1: 21}), sweep({0: 30, 1: 19}), sweep({0: 30, 1: 19.6})),
    "uncorrelated": (
        {"left": epochs(*range(8)), "along": "extractor_epochs", "p": 0.05},
        sweep(dict(enumerate([4, 1, 7, 2, 8, 3, 6, 5]))), sweep(dict(enumerate([1, 2, 3, 5, 4, 6, 8, 7]))), sweep({0: 1, 1: 3, 2: 2}),
    ),
    "diverges": (
        {"left": epochs(0, 1), "value": 12.0},
        sweep({0: 11, 1: 30}, diverged=5), sweep({0: 11, 1: 30}, diverged=4), sweep({0: 11, 1: None}),
    ),
}  # fmt: skip


def test_every_kind_is_here() -> None:
    kinds = {kind for leaf in get_args(get_args(AnyLeaf)[0]) for kind in get_args(leaf.model_fields["kind"].annotation)}
    assert set(KINDS) == kinds


@pytest.mark.parametrize("kind", KINDS)
def test_verdicts(kind: str) -> None:
    check, holds, fails, undecided = KINDS[kind]
    check = {"kind": kind, **check}
    assert verdict(check, holds) == "holds"
    assert verdict(check, fails) == "fails"
    assert verdict(check, undecided) == "undecided"
    assert verdict(check, []) == "not run"
    assert verdict(check, sweep({epoch: None for epoch in range(8)})) == "not run"
    assert verdict({**check, "over": ["ipc"]}, holds) == "holds"


@pytest.mark.parametrize("kind", KINDS)
def test_one_failing_combination_fails_and_says_where(kind: str) -> None:
    check, holds, fails, _ = KINDS[kind]
    moved = [Point({**one.at, "ipc": 50}, one.mean, one.low, one.high, one.std_all, error=one.error, runs=one.runs) for one in fails]
    found = judge(claim({"kind": kind, "over": ["ipc"], **check}), [("f", one) for one in holds + moved])
    assert found.verdict == "fails"
    assert found.reason.startswith("holds in 1 of 2 comparisons") and "ipc 50" in found.reason


@pytest.mark.parametrize("kind", ["greater", "all_greater", "mean_gain", "increasing", "within", "argmax", "at_most", "at_least"])
def test_single_runs_decide_nothing(kind: str) -> None:
    check, holds, fails, _ = KINDS[kind]
    for cells in (holds, fails):
        alone = [Point(one.at, one.mean, one.low, one.high, error=None, runs=one.runs[:1]) for one in cells]
        assert verdict({"kind": kind, **check}, alone) == "undecided"


def test_other_artifacts_are_not_read() -> None:
    check, holds, *_ = KINDS["at_most"]
    assert judge(claim({"kind": "at_most", **check}), [("elsewhere", one) for one in holds]).verdict == "not run"


def test_a_missing_cell_leaves_a_claim_open_but_a_counterexample_stands() -> None:
    check = {"kind": "all_greater", "left": epochs(1, 2, 3), "right": epochs(0)}
    found = judge(claim(check), [("f", one) for one in sweep({0: 10, 1: 20, 3: 30})])
    assert found.verdict == "undecided" and "extractor_epochs 2" in found.reason
    assert verdict(check, sweep({0: 25, 1: 20, 3: 30})) == "fails"


def test_listed_values_of_over_must_all_be_there() -> None:
    check = {"kind": "at_most", "over": ["extractor_epochs"], "left": epochs(0, 1), "value": 20}
    assert verdict(check, sweep({0: 10})) == "undecided"
    assert verdict(check, sweep({0: 10, 1: 10})) == "holds"


def test_increasing_by_rank_allows_a_step_back() -> None:
    check = {"kind": "increasing", "left": epochs(*range(8)), "along": "extractor_epochs", "p": 0.05}
    assert verdict(check, sweep(dict(enumerate([1, 2, 3, 5, 4, 6, 8, 7])))) == "holds"
    assert verdict(check, sweep(dict(enumerate([8, 7, 6, 5, 4, 3, 2, 1])))) == "fails"
    assert verdict(check, sweep(dict(enumerate([2, 5, 1, 7, 3, 8, 4, 6])))) == "undecided"  # rho 0.43: rises, not significantly


def test_sigmas_widen_what_is_within() -> None:
    check = {"kind": "within", "left": epochs(0), "right": epochs(1), "sigmas": 2.0}
    assert verdict(check, sweep({0: 10, 1: 15}, std=4.0)) == "holds"
    assert verdict(check, sweep({0: 10, 1: 15}, std=1.0)) == "fails"


def test_gain_against_gain() -> None:
    check = {"kind": "mean_gain", "left": {"extractor": "a", **epochs(1)}, "right": {"extractor": "a", **epochs(0)},
             "exceeds": {"left": {"extractor": "b", **epochs(1)}, "right": {"extractor": "b", **epochs(0)}}}  # fmt: skip
    cells = sweep({0: 10, 1: 20}, extractor="a")
    assert verdict(check, cells + sweep({0: 30, 1: 35}, extractor="b")) == "holds"
    assert verdict(check, cells + sweep({0: 30, 1: 45}, extractor="b")) == "fails"
    assert verdict(check, cells + sweep({0: 30, 1: 40.5}, extractor="b")) == "undecided"


def test_chance_counts_as_diverged() -> None:
    check = {"kind": "diverges", "left": epochs(0), "value": 12.0}
    assert verdict(check, sweep({0: 12.0})) == "holds"
    assert verdict(check, sweep({0: 12.1})) == "fails"


PAIRS = [("convnet3_in", "resnet18_bn"), ("resnet18_bn", "convnet3_in"), ("resnet18_bn", "resnet18_bn"), ("convnet3_in", "convnet3_in")]


@pytest.mark.parametrize(
    ("untrained", "trained", "expected"), [(18, 25, "holds"), (22, 25, "fails"), (18, 15, "fails"), (20.2, 25, "undecided")]
)
def test_the_bounds_of_figure_3(untrained: float, trained: float, expected: str) -> None:
    one = next(one for one in CLAIMS if one.id == "ex-f3-3")
    cells = []
    for (network, extractor), ipc in itertools.product(PAIRS, (10, 50)):
        where = {"eval_network": network, "extractor": extractor, "extractor_mode": "dynamic", "ipc": ipc}
        odd = network == "resnet18_bn" and extractor == "convnet3_in" and ipc == 50  # one cell pair is enough to decide
        means = {0: untrained if odd else 15, **{epoch: trained if odd else 40 for epoch in (1, 2, 3)}}
        if network == extractor == "convnet3_in":
            means = {0: 60, 1: 10, 2: 10, 3: 10}  # the fourth pair is none of its business
        cells += [("fig3", cell) for cell in sweep(means, **where)]
    assert judge(one, cells).verdict == expected


@pytest.mark.parametrize("one", CLAIMS, ids=lambda one: one.id)
def test_the_papers_own_numbers(one: Claim) -> None:
    found = judge(one, as_points(load_reported(REPORTED / f"{one.paper}.csv")))
    said = found.reason.split("; ")[0]
    nothing = found.verdict == "not run" or (found.verdict == "undecided" and said.startswith("holds in 0 of "))
    assert (LOST if nothing else said) == one.reported_numbers


@pytest.mark.parametrize("one", CLAIMS, ids=lambda one: one.id)
def test_every_selected_value_is_a_point_of_the_paper(one: Claim) -> None:
    paper = load_yaml(ROOT / "workflow" / "papers" / f"{one.paper}.yaml")
    points = []
    for name in one.artifacts():
        matrix = paper["artifacts"][name]["matrix"]
        points += [paper["at"] | dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())]
    columns = {column for at in points for column in at}
    assert set(one.check.over) <= columns
    for leaf in one.leaves():
        for part in itertools.chain.from_iterable(leaf.sides()):
            for values in itertools.product(*part.values()):
                wanted = dict(zip(part, values, strict=True))
                assert any(wanted.items() <= at.items() for at in points), wanted


@pytest.mark.parametrize("one", CLAIMS, ids=lambda one: one.id)
def test_invented_numbers_say_so(one: Claim) -> None:
    for leaf in one.leaves():
        if getattr(leaf, "margin", 0) or getattr(leaf, "sigmas", 0) or getattr(leaf, "p", None) or leaf.kind == "diverges":
            assert leaf.chosen


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({"kind": "greatr", "left": {"ipc": 1}, "right": {"ipc": 2}}, ["a.yaml", "greatr", "greater"]),
        ({"kind": "at_most", "left": {"ipcc": 1}, "value": 1}, ["a.yaml", "unknown column 'ipcc'", "did you mean 'ipc'"]),
        ({"kind": "at_most", "left": {"ipc": 1}, "value": 1, "over": ["extractor_epoch"]}, ["did you mean 'extractor_epochs'"]),
        ({"kind": "at_most", "left": {"ipc": 1}, "value": 1, "marg": 2}, ["marg", "unknown key"]),
        ({"kind": "at_most", "left": {"ipc": []}, "value": 1}, ["left"]),
        ({"kind": "greater", "left": {"ipc": 1}}, ["right", "missing"]),
        ({"kind": "within", "left": {"ipc": 1}}, ["margin"]),
        ({"all": []}, ["all"]),
    ],
)
def test_mistakes(check: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        claim(check)
    for word in words:
        assert word in str(error.value)


def test_a_file_with_the_same_id_twice_or_an_unlisted_artifact(tmp_path: Path) -> None:
    good = {"id": "a", "paper": "p", "artifact": "fig1", "claim": "c", "reported_numbers": "", "check": {"kind": "at_most", "left": {"ipc": 1}, "value": 1}}
    listed = [{"paper": "p", "name": "fig1", "title": "t"}]
    path = tmp_path / "claims.yaml"
    for claims, word in (([good, good], "twice"), ([{**good, "artifact": "fig2"}], "unknown artifact 'fig2'")):
        path.write_text(json.dumps({"artifacts": listed, "claims": claims}), encoding="utf-8")
        with pytest.raises(ConfigError, match=word):
            load_claims(path)


def test_reading_claims_imports_nothing_heavy() -> None:
    code = "import sys, dd.figures.claims; print(sorted({'torch', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"
