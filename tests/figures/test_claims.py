import itertools
from pathlib import Path

import numpy as np
import pytest
from plans import whole

from dd.config import load_yaml, parse
from dd.errors import ConfigError
from dd.figures.checks import judge
from dd.figures.claims import Claim, load_claims
from dd.figures.reported import as_points, load_reported
from dd.figures.results import Point
from dd.figures.selection import combinations
from dd.figures.values import Value, above, rank_correlation

CLAIMS = "workflow/reported/claims.yaml"


def claim(**check):
    check = {"over": ["ipc"], **check}
    return parse(Claim, {"id": "c", "paper": "p", "artifact": "a", "claim": "x", "reported_numbers": "y", "check": check}, "test")


def cell(mean, e=0, *, error=0.1, std=0.3, ipc=10, runs=None, scaled=(), **at):
    runs = ((mean, False),) * 4 if runs is None else runs
    at = {"ipc": ipc, "extractor_epochs": e, **at}
    return "a", Point(at, mean, mean, mean, std_all=std, error=error, runs=runs, scaled=scaled, id=str(sorted(at.items())))


def series(*means, **more):
    return [cell(mean, e, **more) for e, mean in enumerate(means)]


E0, E1, E123 = {"extractor_epochs": 0}, {"extractor_epochs": 1}, {"extractor_epochs": [1, 2, 3]}
EVERY = {"extractor_epochs": [0, 1, 2, 3, 4]}
GREATER = {"kind": "greater", "left": E0, "right": E123}
ALL = {"kind": "all_greater", "left": E0, "right": E123}
UP = {"kind": "increasing", "left": EVERY, "along": "extractor_epochs"}
NINE = {"extractor_epochs": [0, 1, 2, 3, 4, 5, 6, 7, 8]}
GONE = ((10.0, True), (10.0, True))

SOME = {"kind": "some_greater", "left": {"method": "x"}, "right": {"method": "y"}, "pair": ["class"]}
BEST = {"kind": "best_differs", "left": {"method": ["x", "y"]}, "along": "method", "across": "class"}


def classes(*rows, **more):
    """Accuracies of methods x and y (a row) at classes a, b, ..."""
    return [cell(mean, method=m, **{"class": name}, **more) for name, row in zip("ab", rows, strict=False) for m, mean in zip("xy", row, strict=True)]


CASES = [
    ("greater", GREATER, series(30, 20, 25, 29), "holds"),
    ("greater", GREATER, series(30, 20, 25, 31), "fails"),
    ("greater", GREATER, series(30, 20, 25, 30.05), "undecided"),
    ("greater", GREATER, series(30), "not run"),
    ("greater", {**GREATER, "margin": 5}, series(30, 20, 25, 26), "fails"),
    ("all_greater", ALL, series(30, 20, 25, 29), "holds"),
    ("all_greater", ALL, series(30, 20, 25, 29.95), "undecided"),
    ("all_greater", ALL, series(30, 20, 35), "fails"),  # what is missing cannot save it
    ("all_greater", ALL, series(30, 20, 25), "undecided"),  # one is missing
    ("all_greater", ALL, series(20, 30, 30, 30), "fails"),
    ("all_greater", ALL, series(30, 20, 25, 29, error=None), "undecided"),  # single runs
    ("mean_gain", {"kind": "mean_gain", "left": E123, "right": E0}, series(20, 19, 22, 25), "holds"),
    ("mean_gain", {"kind": "mean_gain", "left": E123, "right": E0}, series(20, 19, 18, 20), "fails"),
    ("mean_gain", {"kind": "mean_gain", "left": E123, "right": E0}, series(20, 19.9, 20.1, 20.0), "undecided"),
    ("mean_gain", {"kind": "mean_gain", "left": E123, "right": E0}, series(20), "not run"),
    ("increasing", UP, series(1, 2, 3, 4, 5), "holds"),
    ("increasing", UP, series(1, 2, 3, 2, 5), "fails"),
    ("increasing", UP, series(1, 2, 3, 3.05, 5), "undecided"),
    ("increasing", UP, series(1, 2, 3), "undecided"),
    ("increasing", UP, [], "not run"),
    ("increasing", {**UP, "left": NINE, "p": 0.05}, series(1, 2, 3, 5, 4, 6, 7, 8, 9), "holds"),
    ("increasing", {**UP, "left": NINE, "p": 0.05}, series(9, 8, 7, 6, 5, 4, 3, 2, 1), "fails"),
    ("increasing", {**UP, "left": NINE, "p": 0.05}, series(1, 2, 3), "undecided"),
    ("increasing", {**UP, "left": NINE, "p": 0.05}, series(5, 1, 9, 2, 8, 3, 7, 4, 6), "undecided"),
    ("uncorrelated", {"kind": "uncorrelated", "left": NINE, "along": "extractor_epochs", "p": 0.05}, series(5, 1, 9, 2, 8, 3, 7, 4, 6), "holds"),
    ("uncorrelated", {"kind": "uncorrelated", "left": NINE, "along": "extractor_epochs", "p": 0.05}, series(*range(9)), "fails"),
    ("uncorrelated", {"kind": "uncorrelated", "left": NINE, "along": "extractor_epochs", "p": 0.05}, series(1, 2), "undecided"),
    ("uncorrelated", {"kind": "uncorrelated", "left": NINE, "along": "extractor_epochs", "p": 0.05}, series(*[10] * 9), "undecided"),
    ("within", {"kind": "within", "left": EVERY, "margin": 2}, series(20, 21, 20.5, 20, 21.5), "holds"),
    ("within", {"kind": "within", "left": EVERY, "margin": 2}, series(20, 21, 23), "fails"),
    ("within", {"kind": "within", "left": EVERY, "margin": 2}, series(20, 21, 20, 20, 22.05), "undecided"),
    ("within", {"kind": "within", "left": E0, "right": E1, "sigmas": 2}, series(20, 20.4), "holds"),
    ("within", {"kind": "within", "left": E0, "right": E1, "sigmas": 2}, series(20, 20.9), "fails"),
    ("within", {"kind": "within", "left": E0, "right": E1, "sigmas": 2}, series(20), "not run"),
    ("argmax", {"kind": "argmax", "left": EVERY, "along": "extractor_epochs", "value": 3, "second": 0}, series(8, 2, 3, 9, 1), "holds"),
    ("argmax", {"kind": "argmax", "left": EVERY, "along": "extractor_epochs", "value": 3, "second": 0}, series(2, 8, 3, 9, 1), "fails"),
    ("argmax", {"kind": "argmax", "left": EVERY, "along": "extractor_epochs", "value": 3}, series(9.05, 8, 3, 9, 1), "undecided"),
    ("argmax", {"kind": "argmax", "left": EVERY, "along": "extractor_epochs", "value": 3}, series(9, 8, 3), "not run"),
    ("at_most", {"kind": "at_most", "left": E0, "value": 20}, series(19), "holds"),
    ("at_most", {"kind": "at_most", "left": E0, "value": 20}, series(21), "fails"),
    ("at_most", {"kind": "at_most", "left": E0, "value": 20}, series(20), "undecided"),
    ("at_most", {"kind": "at_most", "left": E0, "value": 20}, series(20, error=0.0), "holds"),
    ("at_least", {"kind": "at_least", "left": E0, "value": 20}, series(21), "holds"),
    ("at_least", {"kind": "at_least", "left": E0, "value": 20}, series(19), "fails"),
    ("at_least", {"kind": "at_least", "left": E0, "value": 20}, series(19, error=None), "undecided"),
    ("at_least", {"kind": "at_least", "left": E0, "value": 20}, [], "not run"),
    ("best_differs", BEST, classes((9, 1), (1, 9)), "holds"),
    ("best_differs", BEST, classes((9, 1), (8, 2)), "fails"),
    ("best_differs", BEST, classes((9, 1), (8, 7.95)), "undecided"),  # which is the best of b is not certain
    ("best_differs", BEST, classes((9, 1)), "undecided"),  # one class says nothing
    ("best_differs", BEST, classes((9, 1), (1, 9), error=None), "undecided"),
    ("best_differs", {**BEST, "left": {"method": ["x", "y", "z"]}}, classes((9, 1), (1, 9)), "undecided"),  # z might be the best everywhere
    ("best_differs", {**BEST, "left": {"method": ["x", "y", "z"]}}, classes((9, 1), (8, 2)), "undecided"),
    ("some_greater", SOME, classes((1, 9), (9, 1)), "holds"),  # in one of two
    ("some_greater", SOME, classes((1, 9), (2, 8)), "fails"),
    ("some_greater", SOME, classes((1, 9), (8, 7.95)), "undecided"),
    ("some_greater", {**SOME, "margin": 9}, classes((9, 1)), "fails"),
    ("some_greater", SOME, classes((1, 9), (9, 1), error=None), "undecided"),
    ("diverges", {"kind": "diverges", "left": E1, "value": 12}, series(50, 10, runs=GONE), "holds"),
    ("diverges", {"kind": "diverges", "left": E1, "value": 12}, series(50, 11), "holds"),
    ("diverges", {"kind": "diverges", "left": E1, "value": 12}, series(50, 30, runs=((50.0, False), (10.0, True))), "fails"),
    ("diverges", {"kind": "diverges", "left": E1}, series(50, 11), "fails"),
    ("diverges", {"kind": "diverges", "left": {"extractor_epochs": [1, 2]}}, series(50, 10, runs=GONE), "undecided"),
    ("diverges", {"kind": "diverges", "left": E1}, series(50), "not run"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "check", "cells", "verdict"), CASES, ids=[f"{c[0]}-{c[3]}-{n}" for n, c in enumerate(CASES)])
def test_verdicts(kind, check, cells, verdict):
    found = judge(claim(**check), cells)
    assert found.verdict == verdict, found.reason
    assert "\n" not in found.reason and found.reason


def test_every_kind_has_all_verdicts_that_it_can_have():
    kinds = {kind for kind, *_ in CASES}
    for kind in kinds:
        seen = {verdict for other, _, _, verdict in CASES if other == kind}
        assert {"holds", "fails"} <= seen and seen & {"undecided"}, kind
    assert kinds == {"greater", "all_greater", "mean_gain", "increasing", "uncorrelated", "within", "argmax", "best_differs", "some_greater", "at_most", "at_least", "diverges"}


def test_a_claim_holds_only_over_all_combinations():
    cells = [*series(30, 20, ipc=10), *series(10, 20, ipc=50)]
    check = {"kind": "greater", "left": E0, "right": E1}
    found = judge(claim(**check), cells)
    assert found.verdict == "fails" and found.reason.startswith("holds in 1 of 2 comparisons; worst: 10.0 ± 0.1 against 20.0 ± 0.1 (ipc 50)")
    assert judge(claim(**check), series(30, 20)).reason.startswith("holds in 1 of 1 comparisons: all; closest")


def test_listed_combinations_without_cells_are_not_run():
    check = {"over": ["extractor_epochs", "ipc"], "kind": "at_least", "left": EVERY, "value": 20}
    found = judge(claim(**check), series(30, 30))
    assert found.verdict == "undecided"
    assert found.reason.startswith("holds in 2 of 5 comparisons; 3 not run (extractor_epochs 2;")


def test_a_gain_can_be_compared_with_another_gain():
    check = {
        "kind": "mean_gain",
        "left": {**E1, "method": "a"}, "right": {**E0, "method": "a"},
        "exceeds": {"left": {**E1, "method": "b"}, "right": {**E0, "method": "b"}},
    }  # fmt: skip
    assert judge(claim(**check), [*series(10, 20, method="a"), *series(10, 15, method="b")]).verdict == "holds"
    assert judge(claim(**check), [*series(10, 14, method="a"), *series(10, 15, method="b")]).verdict == "fails"
    assert judge(claim(**check), [*series(10, 15, method="a"), *series(10, 15, method="b")]).verdict == "undecided"
    assert judge(claim(**check), series(10, 15, method="a")).verdict == "not run"


def test_cells_without_a_column_of_over_belong_to_each_of_its_values():
    plain = [cell(20, method="a"), cell(30, method="b")]
    guided = [cell(mean, method=m, source_domain=s) for m, s, mean in (("a", "x", 21), ("a", "y", 19), ("b", "x", 31), ("b", "y", 32))]
    check = {"over": ["source_domain", "method"], "kind": "greater", "left": {"source_domain": ["x", "y"]}, "right": {"source_domain": ""}}
    found = judge(claim(**check), [*plain, *guided])
    assert found.verdict == "fails" and found.reason.startswith("holds in 3 of 4 comparisons; worst: 19.0 ± 0.1 against 20.0 ± 0.1 (source_domain y")
    lacking = judge(claim(**check), [plain[1], *guided])
    assert lacking.verdict == "undecided" and "2 not run" in lacking.reason, "a method without a plain cell is not compared with another's"
    joint = {"over": ["source_domain"], "all": [
        {"kind": "greater", "left": {"method": "b", "source_domain": ""}, "right": {"method": "a", "source_domain": ""}},
        {"kind": "greater", "left": {"method": "b", "source_domain": ["x", "y"]}, "right": {"method": "a"}},
    ]}  # fmt: skip
    assert judge(claim(**joint), [*plain, *guided]).reason.startswith("holds in 2 of 2 comparisons: all"), "plain cells make no combination"


def test_two_cells_at_one_place_of_a_best_are_an_error():
    cells = [*classes((9, 1), (1, 9)), cell(5, method="x", n_m=3, **{"class": "a"})]
    with pytest.raises(ConfigError, match="class a and the same method; name the column"):
        judge(claim(over=[], **BEST), cells)


def test_all_joins_checks():
    check = {"all": [{"kind": "at_most", "left": E0, "value": 20}, {"kind": "at_least", "left": E1, "value": 20}]}
    assert judge(claim(**check), series(15, 25)).verdict == "holds"
    assert judge(claim(**check), series(15, 18)).verdict == "fails"
    assert judge(claim(**check), series(15)).verdict == "undecided"
    assert judge(claim(**check), series(20, 25)).verdict == "undecided"


def test_scaled_and_diverged_cells_are_said():
    found = judge(claim(kind="at_most", left=E1, value=20), series(50, 10, runs=GONE, scaled=("dataset digits",)))
    assert found.scaled and "2 of 2 runs diverged, counted at the accuracy they had" in found.reason
    assert not judge(claim(kind="at_most", left=E0, value=20), series(50)).scaled


def test_cells_of_other_artifacts_are_not_looked_at():
    other = [("b", point) for _, point in series(10)]
    assert judge(claim(kind="at_most", left=E0, value=20), other).verdict == "not run"
    both = [*series(10), *[("a", point) for _, point in series(10)]]
    assert judge(claim(kind="argmax", left=E0, along="extractor_epochs", value=0), both).verdict == "undecided", "the same cell counts once"


def test_a_column_forgotten_under_over_is_an_error():
    cells = [*series(1, 2, ipc=10), *series(1, 2, ipc=50)]
    with pytest.raises(ConfigError, match="over"):
        judge(claim(over=[], kind="increasing", left=EVERY, along="extractor_epochs"), cells)


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({"kind": "greater", "left": {"extractor_epoch": 0}, "right": E1}, "extractor_epochs"),
        ({"kind": "greater", "left": E0, "right": E1, "over": ["ipcs"]}, "did you mean 'ipc'"),
        ({"kind": "increasing", "left": E0, "along": "epochs"}, "unknown column 'epochs'"),
        ({"kind": "greatest", "left": E0, "right": E1}, "all_greater"),
        ({"kind": "greater", "left": E0}, "right: is missing"),
        ({"kind": "at_most", "left": E0, "value": 1, "margin": 2}, "unknown key"),
        ({"kind": "within", "left": E0}, "margin or sigmas"),
        ({"kind": "at_most", "left": [], "value": 1}, "mapping"),
        ({"all": [{"kind": "at_most", "left": E0, "value": 1, "over": ["ipc"]}]}, "beside all"),
    ],
)
def test_mistakes_in_checks_are_named(check, said):
    with pytest.raises(ConfigError, match=said):
        claim(**check)


def test_decisions_need_more_than_the_standard_error():
    assert above(Value(1.0, 1.0, 0.9))[0] == "holds"
    assert above(Value(1.0, 1.0, 1.1))[0] == "undecided"
    assert above(Value(-1.0, -1.0, 1.1))[0] == "undecided"
    assert above(Value(-1.0, -1.0, 0.9))[0] == "fails"
    assert above(Value(5.0, 5.0, None))[0] == "undecided"
    assert above(Value(0.0, 0.0, 0.0))[0] == "fails" and above(Value(0.0, 0.0, 0.0), strict=False)[0] == "holds"
    assert above(Value(-np.inf, 1.0, 0.0))[0] == "undecided"


@pytest.mark.parametrize("n", [5, 6, 7])
def test_small_rank_correlations_are_exact(n):
    y = [3.0, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0][:n]
    x = list(range(n))

    def rho(a, b):
        return np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1]

    found, p = rank_correlation(x, y)
    every = [abs(rho(x, order)) >= abs(rho(x, y)) - 1e-9 for order in itertools.permutations(y)]
    assert found == pytest.approx(rho(x, y)) and p == pytest.approx(np.mean(every))


# -- the project's own claims --------------------------------------------------------------------------------------------


def test_the_checker_gives_back_reported_numbers():
    told = 0
    claims = load_claims(CLAIMS)
    for paper in {one.paper for one in claims.claims}:
        cells = as_points(load_reported(f"workflow/reported/{paper}.csv"))
        for one in claims.of(paper)[1]:
            if one.reported_numbers.startswith("holds"):
                told += 1
                assert judge(one, cells).reason.split(";")[0] == one.reported_numbers, one.id
    assert told >= 1


def test_every_claim_of_extractors_is_there_and_can_be_run():
    """Every selector takes cells of the paper file's matrix: a misspelt network would silently never be run."""
    paper = load_yaml("workflow/papers/extractors.yaml")
    listed, claims = load_claims(CLAIMS).of("extractors")
    assert len(claims) == 20
    for one in claims:
        cells = [
            (name, Point({**paper["at"], **dict(zip(matrix, values, strict=True))}, 1.0, 1.0, 1.0, error=0.0, runs=((1.0, False),) * 2))
            for name in one.artifacts()
            for matrix in [paper["artifacts"][name]["matrix"]]
            for values in itertools.product(*matrix.values())
        ]
        assert "ipc" in one.check.over, "the papers do not state ipc: a claim must hold at every one that is run"
        found = judge(one, cells)
        assert found.verdict != "not run" and "not run" not in found.reason, (one.id, found.reason)
    for artifact in listed:
        assert artifact.name in paper["artifacts"] or artifact.absent


@pytest.mark.parametrize(("paper", "count"), [("dsdm", 15), ("clom", 18), ("elf", 27), ("hpd", 28)])
def test_every_claim_can_be_run_over_the_points_of_its_paper(paper, count):
    """At scale paper no selector of a claim misses its cells: a misspelt method would silently never be run."""
    job = whole().drawing(paper)
    cells = [
        (artifact["name"], Point(cell["at"], 1.0, 1.0, 1.0, error=0.0, runs=((1.0, False),) * 2, id=cell["id"], score_id=cell["score_id"]))
        for artifact in job["artifacts"]
        for cell in [*artifact["cells"], *(dict(later, id="", score_id="") for later in artifact.get("pending") or ())]
    ]
    listed, claims = load_claims(CLAIMS).of(paper)
    assert len(claims) == count
    for one in claims:
        found = judge(one, cells)
        assert found.verdict != "not run" and "not run" not in found.reason, (one.id, found.reason)
        own = [point for name, point in cells if name in one.artifacts()]
        for group in one.groups() if one.measure == "accuracy" else ():
            assert combinations(one.check.over, group, own), (one.id, group)
    for artifact in listed:
        assert artifact.name in [other["name"] for other in job["artifacts"]] or artifact.absent


def test_claims_name_only_listed_artifacts(tmp_path):
    text = Path(CLAIMS).read_text().replace("artifact: fig4", "artifact: fig44", 1)
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(ConfigError, match="did you mean 'fig4'"):
        load_claims(tmp_path / "claims.yaml")
