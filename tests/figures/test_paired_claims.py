"""Checks that are comparisons of their own, the largest of several gains, and coordinates that printed numbers do not have."""

import pytest

from dd.config import parse
from dd.errors import ConfigError
from dd.figures.checks import judge
from dd.figures.claims import Claim
from dd.figures.results import Point


def claim(**check):
    return parse(Claim, {"id": "c", "paper": "p", "artifact": "a", "claim": "x", "reported_numbers": "y", "check": check}, "test")


def cell(mean, *, error=0.1, n=4, **at):
    return "a", Point(at, mean if n else None, mean, mean, std_all=0.2, error=error, runs=((mean, False),) * n, id=str(sorted(at.items())))


def better(left, right, **more):
    return {"kind": "greater", "left": {"eval_network": left}, "right": {"eval_network": right}, **more}


NETS = {"r_in": 30.0, "r_bn": 20.0, "v_in": 25.0, "v_bn": 28.0}
CELLS = [cell(mean, method=method, eval_network=name) for method in ("dm", "mtt") for name, mean in NETS.items()]
EACH = {"over": ["method"], "each": [better("r_in", "r_bn"), better("v_in", "v_bn")]}


def test_each_check_is_a_comparison_of_its_own_and_all_are_one():
    apart, joined = judge(claim(**EACH), CELLS), judge(claim(over=["method"], all=EACH["each"]), CELLS)
    assert (apart.verdict, apart.reason.split(";")[0]) == ("fails", "holds in 2 of 4 comparisons")
    assert (joined.verdict, joined.reason.split(";")[0]) == ("fails", "holds in 0 of 2 comparisons")
    assert "(method dm, eval_network v_in)" in apart.reason, "which of them it was is said"


def test_where_only_the_other_side_differs_it_is_said():
    found = judge(claim(over=["method"], each=[better("r_in", "r_bn"), better("r_in", "v_bn", margin=5.0)]), CELLS)
    assert found.reason.startswith("holds in 2 of 4") and "(method dm, against eval_network v_bn)" in found.reason


def test_a_check_of_which_there_are_no_cells_makes_no_comparison():
    found = judge(claim(**EACH), [one for one in CELLS if one[1].at["eval_network"] != "v_in"])
    assert (found.verdict, found.reason.split(";")[0]) == ("holds", "holds in 2 of 2 comparisons: all")
    missing = judge(claim(**EACH), [one for one in CELLS if one[1].at["eval_network"] != "v_bn"])
    assert missing.verdict == "undecided" and "holds in 2 of 4" in missing.reason, "but one whose other side is missing does"
    assert judge(claim(**EACH), []).verdict == "not run"


def test_over_belongs_beside_each():
    with pytest.raises(ConfigError, match="beside each"):
        claim(each=[better("r_in", "r_bn", over=["method"])])


def test_a_margin_below_zero_says_how_much_less_is_allowed():
    check = better("v_in", "v_bn", over=["method"])
    assert judge(claim(**check), CELLS).verdict == "fails"
    assert judge(claim(**check, margin=-4.0), CELLS).verdict == "holds"
    found = judge(claim(**check, margin=-2.0), CELLS)
    assert found.verdict == "fails" and "allowed 2 less" in found.reason


# -- the largest of several gains --------------------------------------------------------------------------------------

GAINS = {"dm": {"a": 3.0, "b": 8.0}, "mtt": {"a": 5.0, "b": 12.0}}


def gained(gains=None, **more):
    found = []
    for method, row in (gains or GAINS).items():
        for name, gain in row.items():
            at = {"dataset": "cifar10", "method": method, "eval_network": name}
            found += [cell(40.0, eval_protocol="baseline", **at, **more), cell(40.0 + gain, eval_protocol="elf", **at, **more)]
    return found


LARGEST = {"over": ["dataset"], "kind": "largest_gain", "left": {"eval_protocol": "elf"}, "right": {"eval_protocol": "baseline"},
           "pair": ["method", "eval_network"], "value": {"method": "mtt", "eval_network": "b"}}  # fmt: skip


def test_the_largest_gain_is_where_it_is_said_to_be():
    found = judge(claim(**LARGEST), gained())
    assert found.verdict == "holds" and "a gain of 12.0" in found.reason and "against 8.0" in found.reason and "dm, b" in found.reason
    wrong = judge(claim(**{**LARGEST, "value": {"method": "mtt", "eval_network": "a"}}), gained())
    assert wrong.verdict == "fails"
    assert judge(claim(**LARGEST), gained({**GAINS, "dm": {"a": 3.0, "b": 11.9}})).verdict == "undecided", "four errors of 0.1 make 0.2"
    assert judge(claim(**LARGEST), gained({**GAINS, "dm": {"a": 3.0, "b": 11.7}})).verdict == "holds"


def test_accuracies_alone_do_not_decide_it():
    cells = [one for one in gained() if one[1].at["method"] != "dm"]
    high = {"dataset": "cifar10", "method": "dm", "eval_network": "b"}
    cells += [cell(85.0, eval_protocol="baseline", **high), cell(90.0, eval_protocol="elf", **high)]
    assert judge(claim(**LARGEST), cells).verdict == "holds"


def test_what_is_missing_leaves_it_open():
    some = gained()
    named = {**LARGEST, "left": {"eval_protocol": "elf", "method": ["dm", "mtt"], "eval_network": ["a", "b", "c"]}}
    assert judge(claim(**named), some).verdict == "undecided"
    lonely = [one for one in some if one[1].at["method"] == "mtt" or one[1].at["eval_protocol"] == "elf"]
    assert "2 of 4 cells have nothing to be compared with" in judge(claim(**LARGEST), lonely).reason
    assert judge(claim(**LARGEST), gained({"mtt": {"b": 1.0}})).verdict == "undecided"
    gone = [one for one in some if one[1].at != {"dataset": "cifar10", "method": "mtt", "eval_network": "b", "eval_protocol": "elf"}]
    assert judge(claim(**LARGEST), gone).verdict == "not run"


def test_pairs_must_be_pairs():
    with pytest.raises(ConfigError, match="2 cells of right have method dm, eval_network a"):
        judge(claim(**LARGEST), [*gained(ipc=10), *gained(ipc=50)])
    with pytest.raises(ConfigError, match="2 cells of left have method mtt"):
        judge(claim(**{**LARGEST, "value": {"method": "mtt"}}), gained())


# -- coordinates that printed numbers do not have ----------------------------------------------------------------------


def test_nothing_beside_other_values_takes_cells_without_the_coordinate():
    check = {"over": ["method"], "kind": "greater", "left": {"eval_protocol": "elf", "lr": [0.005, ""]},
             "right": {"eval_protocol": "baseline", "lr": [0.005, ""]}}  # fmt: skip
    rates = [cell(mean, method="dm", eval_protocol=name, lr=lr) for name, mean in (("elf", 50.0), ("baseline", 40.0)) for lr in (0.005,)]
    other = cell(60.0, method="dm", eval_protocol="baseline", lr=0.01)
    assert judge(claim(**check), [*rates, other]).verdict == "holds", "the other rate is left out"
    plain = [cell(mean, method="dm", eval_protocol=name) for name, mean in (("elf", 50.0), ("baseline", 40.0))]
    assert judge(claim(**check), plain).verdict == "holds"
    assert judge(claim(**check), [rates[0], other]).verdict == "not run", "neither value is there"
