"""Seconds of distilling, compared on one device."""

import json
from pathlib import Path

import pytest

from dd.errors import ConfigError
from dd.figures.looks import mistakes
from dd.figures.paper import draw_paper
from dd.figures.reported import load_times
from dd.figures.seconds_ratio import seconds_ratio

LOOK = {"name": "t", "title": "T", "kind": "seconds_ratio", "rows": ["base"], "fields": {"over": {"space": "glad"}}}
GPU = {"device": "cuda", "gpu": "NVIDIA A100", "host": "one", "threads": 4}


def cell(bench, space, seconds, *, facts=GPU, resumed=0, scaled=(), **at):
    """A distillation whose sets took these seconds; None for a set that left no run.json."""
    at = {"base": "dsa", "dataset": "imagenet_a", "ipc": 1, **at}
    one = bench.cell([[0.5]] * len(seconds), space=space, method=space, scaled=scaled, **at)
    paths = one["run_files"]["distillation"]
    for path, value in zip(paths, seconds, strict=True):
        if value is not None:
            Path(path).write_text(json.dumps({"seconds": value, "resumed": resumed, **facts}))
    return one


def table(cells, times=(), **look):
    sheet, header, lines = seconds_ratio({**LOOK, "cells": cells, **look}, times)
    return sheet, [dict(zip(header, line, strict=True)) for line in lines]


def test_seconds_are_means_over_sets_and_over_what_a_row_does_not_tell_apart(bench):
    cells = [
        cell(bench, "glad", [10.0, 30.0]), cell(bench, "hpd", [40.0, 60.0]), cell(bench, "pixel", [5.0, 5.0]),
        cell(bench, "glad", [60.0], dataset="imagenet_b"), cell(bench, "hpd", [10.0], dataset="imagenet_b"),
        cell(bench, "pixel", [15.0], dataset="imagenet_b"),
        cell(bench, "glad", [8.0], base="dm"), cell(bench, "hpd", [2.0], base="dm"),
    ]  # fmt: skip
    cells.append({**cells[1], "at": {**cells[1]["at"], "eval_network": "alexnet"}})  # the same sets, judged once more
    sheet, rows = table(cells)
    assert sheet.columns == [
        "base",
        "space glad (s)",
        "space hpd (s)",
        "space pixel (s)",
        "space hpd / glad",
        "space pixel / glad",
        "device",
    ]
    assert sheet.rows == [
        ["dsa", "40.0", "30.0", "10.0", "0.75", "0.25", "NVIDIA A100"],
        ["dm", "8.0", "2.0", "no cell", "0.25", "no cell", "NVIDIA A100"],
    ]
    assert [(row["base"], row["space"], row["distillations"], row["sets"]) for row in rows[:3]] == [
        ("dsa", "glad", "2", "3"), ("dsa", "hpd", "2", "3"), ("dsa", "pixel", "2", "3"),
    ]  # fmt: skip
    assert float(rows[1]["ratio"]) == pytest.approx((50 + 10) / (20 + 60)) and rows[0]["ratio"] == ""


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({**GPU, "gpu": "NVIDIA T4"}, "measured on different devices"),
        ({**GPU, "host": "other", "threads": 1}, ""),
        ({"device": "cpu", "host": "one", "threads": 4}, "measured on different devices"),
    ],
)
def test_only_what_was_measured_on_one_device_is_compared(bench, facts, said):
    sheet, rows = table([cell(bench, "glad", [10.0]), cell(bench, "hpd", [20.0], facts=facts)])
    assert sheet.rows[0][3] == (said or "2.00") and rows[1]["reason"] == said
    assert rows[1]["device"] in sheet.rows[0][4]


def test_of_a_processor_machine_and_threads_must_agree(bench):
    mine = {"device": "cpu", "gpu": None, "host": "one", "threads": 2}
    for other, ratio in ((mine, "2.00"), ({**mine, "threads": 4}, "different"), ({**mine, "host": "two"}, "different")):
        sheet, _ = table([cell(bench, "glad", [10.0], facts=mine), cell(bench, "hpd", [20.0], facts=other)])
        assert ratio in sheet.rows[0][3]
    assert "cpu, 2 threads" in sheet.rows[0][-1] and "one" not in sheet.rows[0][-1]


def test_what_was_not_measured_whole_is_not_guessed(bench):
    sheet, rows = table([cell(bench, "glad", [10.0]), cell(bench, "hpd", [20.0, None])])
    assert sheet.rows[0][2:4] == ["not measured (1 of 2 sets)"] * 2 and rows[1]["not_measured"] == "1"
    sheet, rows = table([cell(bench, "glad", [10.0], resumed=1), cell(bench, "hpd", [20.0])])
    assert sheet.rows[0][1] == sheet.rows[0][3] == "continued from a checkpoint (1 of 1 sets)" and rows[0]["continued"] == "1"


def test_the_papers_own_ratio_stands_beside(bench):
    about = {"artifact": "table7", "dataset": "abc_mean", "ipc": 1, "metric": "distill_time_unit_lost", "certainty": "inferred"}
    path = bench.reported(
        {**about, "method": "glad", "variant": "base=dsa", "mean": 69}, {**about, "method": "hpd", "variant": "base=dsa", "mean": 73},
        {**about, "method": "hpd", "variant": "base=dsa", "mean": 43.2, "metric": "top1_percent"},
    )  # fmt: skip
    times = load_times(path)
    assert [row.mean for row in times] == [69, 73]
    cells = []
    for space, seconds in (("glad", 10.0), ("hpd", 20.0)):
        one = cell(bench, space, [seconds], scaled=["dataset digits"] if space == "hpd" else [])
        mean = {"dataset": "abc_mean", "ipc": 1, "method": space, "variant": "base=dsa", "space": None, "base": None}
        cells += [one, {**one, "at": {**one["at"], "dataset": "abc_mean"}, "printed": mean, "members": [one]}]
    sheet, rows = table(cells, times, reported=["table7"])
    assert sheet.rows[0][1:4] == ["10.0", "20.0†", f"2.00† (paper {73 / 69:.2f})"]
    assert (rows[1]["reported"], rows[1]["reported_certainty"], rows[1]["distillations"]) == ("73", "inferred", "1")
    assert float(rows[1]["reported_ratio"]) == pytest.approx(73 / 69, abs=1e-4)
    assert "lost their unit" in " ".join(sheet.notes) and "dataset digits" in sheet.notes[-1]
    draw_paper(bench.job({**LOOK, "cells": cells, "reported": ["table7"]}, reported=path), bench.root / "out")
    assert f"(paper {73 / 69:.2f})" in (bench.root / "out/t.md").read_text() and "73" in (bench.root / "out/t.csv").read_text()


@pytest.mark.parametrize(
    ("look", "said"),
    [
        ({"fields": {"over": {"spcae": "glad"}}}, "fields.over: no point has a coordinate 'spcae'; did you mean 'space'"),
        ({"fields": {"over": {"space": "gald"}}}, "fields.over: no point has space gald"),
        ({"fields": {}}, "over: is missing"),
        ({"rows": []}, "needs rows"),
        ({"rows": ["base", "space"]}, "rows: space is what is compared"),
    ],
)
def test_mistakes_are_named(bench, look, said):
    artifact = {**LOOK, "cells": [cell(bench, "glad", [1.0])], **look}
    with pytest.raises(ConfigError, match=said):
        seconds_ratio(artifact)
    job = {"artifacts": [artifact], "reported": str(bench.root / "none.csv"), "claims": None, "paper": "p"}
    assert any(said in mistake and mistake.startswith("p.yaml: artifacts.t: ") for mistake in mistakes(job, "p.yaml"))
