"""From matrices to configurations: what a coordinate means, what follows from it, and which step of a run is meant."""

import pytest

from dd.config import parse
from dd.errors import ConfigError
from dd.plan.papers import Paper, Scale
from dd.plan.points import check_rules, expand

STEPS = "recipe.steps"


def points(matrix, scale=None, **more):
    artifact = {
        "title": "t",
        "kind": "table",
        "matrix": {"dataset": ("digits",), "ipc": (1,), "eval_network": ("mlp",), "eval_protocol": ("dc",)} | matrix,
    }
    paper = parse(Paper, {"paper": "p", "title": "t", "artifacts": {"a": artifact | more.pop("artifact", {})}} | more, "p")
    return expand(paper, "a", paper.artifacts["a"], parse(Scale, {"scale": "s", "title": "s"} | (scale or {}), "s"), "p.yaml")


def test_coordinates_follow_from_others_unless_the_matrix_gives_them():
    implied = (
        {"when": {"dataset": "digits"}, "set": {"resolution": 16}},
        {"when": {"method": ("dm",), "resolution": 16}, "set": {"distill_network": "convnet3_in"}},
    )
    found = points({"method": ("dm", "random")}, implied=implied)
    assert [(p.at["method"], p.at["resolution"], p.at.get("distill_network")) for p in found] == [
        ("dm", 16, "convnet3_in"),
        ("random", 16, None),
    ]
    (given,) = points({"method": ("dm",), "resolution": (32,)}, implied=implied, axes={"resolution": None})
    assert given.at["resolution"] == 32 and "distill_network" not in given.at


def test_a_named_axis_gets_its_meaning_from_overrides():
    found = points(
        {"method": ("dm",), "variant": ("plain", "slow")},
        axes={"variant": None},
        overrides=({"when": {"variant": "slow"}, "set": {"recipe.lr_img": 0.1}},),
    )
    assert [p.config["recipe"]["lr_img"] for p in found] == [1.0, 0.1]


def test_a_step_must_be_published_and_the_last_one_is_the_finished_set():
    every = {"when": {}, "set": {STEPS: (0, 10), "recipe.iterations": 20}}
    first, last = points({"method": ("dm",), "step": (10, 20)}, axes={"step": "step"}, overrides=(every,))
    assert first.config["step"] == 10
    assert "step" not in last.config and last.at["step"] == 20
    with pytest.raises(ConfigError, match=r"p.yaml: artifacts.a: step: value 15 is not published by dm; recipe.steps has \[0, 10\]"):
        points({"method": ("dm",), "step": (15,)}, axes={"step": "step"}, overrides=(every,))


def test_a_cap_reaches_into_lists():
    every = {"when": {}, "set": {STEPS: (0, 10, 20, 30), "recipe.iterations": 40}}
    caps = {"cap": {STEPS: 15, "step": 15, "recipe.iterations": 15}}
    start, ten, end = points({"method": ("dm",), "step": (0, 10, 30)}, caps, axes={"step": "step"}, overrides=(every,))
    assert start.config["recipe"]["steps"] == [0, 10, 15]
    assert (start.config["step"], ten.config["step"]) == (0, 10)
    assert "step" not in end.config  # 30 became 15, which is the end


def test_rules_of_a_paper_that_match_nothing_are_errors():
    """A misspelt value in an override would give another experiment in silence."""
    for kind in ("overrides", "implied"):
        for when, message in (
            ({"method": "dmm"}, rf"p.yaml: {kind}: when {{'method': 'dmm'}} matches no point of any artifact"),
            ({"methd": "dm"}, rf"p.yaml: {kind}: when: unknown coordinate 'methd'; did you mean 'method'"),
        ):
            paper = paper_of(**{kind: ({"when": when, "set": {"recipe.lr_img": 0.1}},)})
            with pytest.raises(ConfigError, match=message):
                check_rules(paper, "p.yaml")
    check_rules(paper_of(overrides=({"when": {"method": "dm"}, "set": {"recipe.lr_img": 0.1}},)), "p.yaml")


def test_words_of_the_printed_files_must_be_of_some_point():
    check_rules(paper_of(printed={"eval_protocol": {"dc": "baseline"}}), "p.yaml")
    with pytest.raises(ConfigError, match=r"p.yaml: printed.eval_protocol: no point has the value 'idc'"):
        check_rules(paper_of(printed={"eval_protocol": {"idc": "baseline"}}), "p.yaml")


def paper_of(**more):
    matrix = {"dataset": ("digits",), "ipc": (1,), "method": ("dm",), "eval_network": ("mlp",), "eval_protocol": ("dc",)}
    return parse(Paper, {"paper": "p", "title": "t", "artifacts": {"a": {"title": "t", "kind": "table", "matrix": matrix}}} | more, "p")


def test_a_shorter_protocol_keeps_what_the_images_demand():
    quiet = {"when": {}, "set": {"protocol.augment": "none", "protocol.cutmix": 0.0, "protocol.epochs": 700}}
    (point,) = points({"method": ("dm",), "eval_protocol": ("idc",)}, {"map": {"protocol": {"idc": "idc_short"}}}, overrides=(quiet,))
    protocol = point.config["protocol"]
    assert (protocol["name"], protocol["augment"], protocol["cutmix"], protocol["epochs"]) == ("idc_short", "none", 0.0, 200)
