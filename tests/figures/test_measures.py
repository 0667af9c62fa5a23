"""Claims about numbers of an analysis."""

import torch

from dd.artifacts import save_tensors
from dd.config import parse
from dd.figures.checks import judge
from dd.figures.claims import Claim
from dd.figures.measures import measured
from dd.figures.paper import _read


def cell(folder, name, syn, **at):
    path = folder / f"{name}.safetensors"
    real = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    save_tensors(path, {"real": real, "syn": torch.tensor(syn)}, {"class": "x"})
    return {"at": at, "scaled": [], "id": name, "score_id": name, "config": {}, "scores": [], "sets": [], "analysis": str(path)}


def test_the_spread_of_a_set_is_compared_with_that_of_another(tmp_path):
    wide, narrow = (
        cell(tmp_path, "wide", [[0.0, 0.0], [4.0, 0.0]], method="dsdm"),
        cell(tmp_path, "narrow", [[0.0, 0.0], [1.0, 0.0]], method="dm"),
    )
    absent = {**narrow, "analysis": str(tmp_path / "none.safetensors"), "at": {"method": "idm"}, "id": "n", "score_id": "n"}
    drawn = _read({"name": "fig7", "title": "t", "kind": "tsne", "cells": [wide, narrow, absent]}, "paper", "all", [])
    points = measured(drawn, "spread_ratio")
    # real: squared distances to the mean are 2 each, 4 of them, over 3; wide: 8 / 1; narrow: 0.5 / 1
    assert [point.mean for point in points] == [8 / (8 / 3), 0.5 / (8 / 3), None]
    check = {"kind": "greater", "left": {"method": "dsdm"}, "right": {"method": "dm"}}
    claim = parse(
        Claim,
        {"id": "c", "paper": "p", "artifact": "fig7", "claim": "x", "reported_numbers": "y", "measure": "spread_ratio", "check": check},
        "t",
    )
    found = judge(claim, [("fig7", point) for point in points])
    assert found.verdict == "undecided" and "3.0 against 0.2" in found.reason  # one set each: no error is known


def test_the_distance_is_a_number_of_the_same_analysis(tmp_path):
    near, far = cell(tmp_path, "near", [[1.0, 0.0], [1.0, 2.0]], method="a"), cell(tmp_path, "far", [[9.0, 9.0], [9.0, 8.0]], method="b")
    drawn = _read({"name": "a1", "title": "t", "kind": "tsne", "cells": [far, near]}, "paper", "all", [])
    one, other = (point.mean for point in measured(drawn, "feature_distance"))
    assert one > 0.5 > other


def test_artifacts_of_another_kind_have_no_such_number(tmp_path):
    drawn = _read({"name": "t", "title": "t", "kind": "table", "cells": [cell(tmp_path, "a", [[0.0, 0.0]])]}, "paper", "all", [])
    assert measured(drawn, "feature_distance") == [] and measured(drawn, "class_accuracy") == []
    assert measured(drawn, "spread_ratio") == [] and measured(drawn, "loss_variation") == []
