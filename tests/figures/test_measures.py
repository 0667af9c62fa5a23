"""Claims about numbers of an analysis."""

import json
from pathlib import Path
from statistics import correlation

import pytest
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


def test_ratios_of_seconds_are_cells_of_their_rows_in_percent(bench):
    cells = []
    for space, seconds, base in (("glad", 20.0, "dsa"), ("hpd", 25.0, "dsa"), ("glad", 8.0, "dm"), ("hpd", None, "dm")):
        one = bench.cell([[0.5]], space=space, base=base, method=space)
        if seconds is not None:
            Path(one["run_files"]["distillation"][0]).write_text(json.dumps({"seconds": seconds, "device": "cpu", "host": "a", "threads": 1}))
        cells.append(one)
    looks = {"name": "t7", "title": "t", "kind": "seconds_ratio", "rows": ["base"], "fields": {"over": {"space": "glad"}}}
    drawn = _read({**looks, "cells": cells}, "paper", "all", [])
    points = measured(drawn, "seconds_ratio")
    assert [(point.at["base"], point.at["space"], point.mean) for point in points] == [("dsa", "hpd", 125.0), ("dm", "hpd", None)]
    check = {"over": ["base"], "kind": "at_most", "left": {"base": ["dsa"]}, "value": 110.0}
    fields = {"id": "c", "paper": "p", "artifact": "t7", "claim": "x", "reported_numbers": "y", "measure": "seconds_ratio", "check": check}
    found = judge(parse(Claim, fields, "t"), [("t7", point) for point in points])
    assert found.verdict == "undecided" and "125.0" in found.reason, "one measurement: no error is known"


def test_correlations_are_of_a_run_and_in_percent(bench):
    cells = []
    for step, accuracy in ((10, 0.2), (20, 0.4), (30, 0.9)):
        one = bench.cell([[accuracy]], step=step, base="dm")
        one |= {"id": "run", "sets": cells[0]["sets"] if cells else one["sets"], "score_id": f"s{step}"}
        cells.append(one | {"config": {"recipe": {"iterations": 30}, "step": None if step == 30 else step}})
    rows = [(9, 5.0, 8.0), (19, 7.0, 6.0), (29, 6.0, 1.0)]
    lines = ["step,loss,grad_norm,kept_loss,kept_distance", *(f"{step},1,1,{loss},{distance}" for step, loss, distance in rows)]
    (Path(cells[0]["sets"][0]) / "curve.csv").write_text("\n".join(lines) + "\n")
    drawn = _read({"name": "f5", "title": "t", "kind": "normalised", "x": "step", "panel": ["base"], "cells": cells}, "paper", "all", [])
    wanted = [100 * correlation([20, 40, 90], column) for column in ([5, 7, 6], [8, 6, 1])]
    (distance,), (gap,) = measured(drawn, "distance_correlation"), measured(drawn, "correlation_gap")
    assert distance.mean == pytest.approx(wanted[1]) and gap.mean == pytest.approx(wanted[0] - wanted[1])
    assert distance.at["base"] == "dm" and distance.error is None
