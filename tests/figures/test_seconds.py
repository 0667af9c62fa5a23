"""What guides cost."""

import json

import pytest

from dd.figures.seconds import seconds


def noted(bench, name, value):
    path = bench.root / name
    path.write_text(json.dumps({"seconds": value, "device": "cpu", "gpu": None}))
    return str(path)


def cell(bench, guides=(), distilled=(), guidance="clom", **at):
    made = bench.cell([[0.5]], guidance=guidance, **at)
    files = {"distillation": list(distilled), "guides": [{"run": run, "share": share} for run, share in guides]}
    return {**made, "config": {"guidance": guidance and {"kind": guidance}}, "run_files": files}


def test_shares_of_jobs_add_up_and_are_compared_with_one_distillation(bench):
    block, own = noted(bench, "block.json", 100.0), noted(bench, "own.json", 7.0)
    sets = [noted(bench, "a.json", 40.0), noted(bench, "b.json", 60.0)]
    first = cell(bench, [(block, 0.2), (own, 1.0)], sets, n_m=1)
    again = {**first, "at": {**first["at"], "eval_network": "alexnet"}}
    many = cell(bench, [(block, 1.0), (own, 1.0)], sets, n_m=10)
    sheet, header, lines = seconds({"name": "s", "cells": [first, again, many, cell(bench, guidance=None)]})
    assert sheet.columns == ["pre-trained models", "training of guides (s)", "one distillation (s)", "guides / distillation", "device"]
    assert sheet.rows == [["1", "27.0", "50.0", "0.54", "cpu"], ["10", "107.0", "50.0", "2.14", "cpu"]], (
        "evaluations of one set are one row"
    )
    facts = dict(zip(header, lines[0], strict=True))
    assert float(facts["ratio"]) == pytest.approx(27 / 50) and (facts["guide_runs"], facts["guide_runs_missing"]) == ("2", "0")


def test_what_left_no_record_is_not_measured(bench):
    run = noted(bench, "run.json", 5.0)
    gone = str(bench.root / "gone.json")
    made = [cell(bench, [(run, 1.0), (gone, 1.0)], [run], n_m=1), cell(bench, [(run, 1.0)], [gone], n_m=2), cell(bench, [], [run], n_m=3)]
    sheet, header, lines = seconds({"name": "s", "cells": made, "note": "of ours"})
    assert [row[1:4] for row in sheet.rows] == [
        ["not measured", "5.0", ""], ["5.0", "not measured", ""], ["not trained here", "5.0", ""],
    ]  # fmt: skip
    assert dict(zip(header, lines[0], strict=True))["guide_runs_missing"] == "1"
    assert sheet.notes[0] == "of ours"


def test_a_cell_that_a_scale_changed_is_marked(bench):
    made = {**cell(bench, n_m=1), "scaled": ["dataset digits"]}
    sheet, *_ = seconds({"name": "s", "cells": [made]})
    assert sheet.rows[0][-1] == "†" and "dataset digits" in sheet.notes[-1]
