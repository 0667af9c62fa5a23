"""Accuracy, loss and feature distance on one scale."""

import csv
import io
import json
import math
from pathlib import Path

import pytest

from dd.errors import ConfigError
from dd.figures.normalised import normalised, normalised_csv, normalised_sheet
from dd.figures.paper import _read

ACCURACY = {0: 0.20, 10: 0.40, 20: 0.30, 30: 0.60}
LOGS = [  # of two sets; a row is of the state before its update
    {0: (8.0, 4.0), 5: (6.0, 3.0), 9: (5.0, 2.0), 10: (99.0, 99.0), 15: (4.0, 2.5), 20: (77.0, 77.0), 29: (3.0, 0.5)},
    {0: (10.0, 4.0), 5: (8.0, 3.0), 9: (7.0, 2.0), 10: (99.0, 99.0), 15: (4.0, 3.5), 20: (77.0, 77.0), 29: (1.0, 0.5)},
]
LOSS, DISTANCE = [9.0, 6.0, 4.0, 2.0], [4.0, 2.0, 3.0, 0.5]


def cells(bench, accuracy=None, logs=LOGS, *, distance=True, **at):
    """One cell a step, of one run of several sets."""
    found = []
    for step, value in (accuracy or ACCURACY).items():
        one = bench.cell([[value - 0.01], [value + 0.01]], step=step, **at)
        one |= {"id": "run-" + "-".join(map(str, at.values())), "sets": found[0]["sets"] if found else one["sets"]}
        one |= {"config": {"recipe": {"iterations": 30}, "step": None if step == 30 else step}, "score_id": f"s{step}"}
        found.append(one)
    for folder, rows in zip(found[0]["sets"], logs, strict=True):
        lines = ["step,loss,grad_norm,distance,kept_loss" + (",kept_distance" if distance else "")]  # the first two are of other latents
        lines += [f"{step},50,1,60,{loss}" + (f",{d}" if distance else "") for step, (loss, d) in rows.items()]
        (Path(folder) / "curve.csv").write_text("\n".join(lines) + "\n")
    return found


def drawn(found, **look):
    return _read({"name": "a", "title": "A", "kind": "normalised", "x": "step", "cells": found, **look}, "paper", "all", [])


def pearson(xs, ys):
    a, b = sum(xs) / len(xs), sum(ys) / len(ys)
    top = sum((x - a) * (y - b) for x, y in zip(xs, ys, strict=True))
    return top / math.sqrt(sum((x - a) ** 2 for x in xs) * sum((y - b) ** 2 for y in ys))


def unit(values):
    return [(value - min(values)) / (max(values) - min(values)) for value in values]


def test_each_curve_is_scaled_by_its_own_range_and_correlations_are_of_the_numbers(bench):
    one = drawn(cells(bench))
    rows = list(csv.DictReader(io.StringIO(normalised_csv(one))))
    assert [row["updates"] for row in rows] == ["0", "10", "20", "30"]
    assert [row["row"] for row in rows] == ["0", "9", "15", "29"], "the last row before the step; of the first set, its own"
    assert [float(row["loss"]) for row in rows] == LOSS and [float(row["distance"]) for row in rows] == DISTANCE
    accuracy = [100 * value for value in ACCURACY.values()]
    assert [float(row["accuracy"]) for row in rows] == pytest.approx(accuracy)
    for name, values in (("accuracy", accuracy), ("loss", LOSS), ("distance", DISTANCE)):
        assert [float(row[f"{name}_scaled"]) for row in rows] == pytest.approx(unit(values), abs=1e-5)
    assert [float(row["r_loss"]) for row in rows] == pytest.approx([pearson(LOSS, accuracy)] * 4, abs=1e-5)
    assert [float(row["r_distance"]) for row in rows] == pytest.approx([pearson(DISTANCE, accuracy)] * 4, abs=1e-5)


def test_the_picture_has_three_curves_and_says_the_correlations(bench):
    (axis,) = normalised(drawn(cells(bench))).axes
    accuracy = [100 * value for value in ACCURACY.values()]
    assert [list(line.get_ydata()) for line in axis.lines] == [pytest.approx(unit(values)) for values in (accuracy, LOSS, DISTANCE)]
    said = [text.get_text() for text in axis.get_legend().get_texts()]
    assert said == ["accuracy", f"loss, r = {pearson(LOSS, accuracy):+.2f}", f"feature distance, r = {pearson(DISTANCE, accuracy):+.2f}"]
    assert normalised_sheet(drawn(cells(bench))).rows == [["4 of 4", "60.0", "60.0 after 30", *(text[-5:] for text in said[1:])]]


def test_without_distances_there_is_no_curve_of_them(bench):
    one = drawn(cells(bench, distance=False))
    (axis,) = normalised(one).axes
    assert [text.get_text() for text in axis.get_legend().get_texts()][2] == "feature distance: not there"
    assert normalised_sheet(one).rows[0][-1] == "unknown"
    flat = {step: (2.0, d) for step, (_, d) in LOGS[0].items()}
    (axis,) = normalised(drawn(cells(bench, logs=[flat, flat]))).axes
    assert [text.get_text() for text in axis.get_legend().get_texts()][1] == "loss: constant"


def test_two_steps_have_no_correlation_and_what_is_not_run_is_left_out(bench):
    found = cells(bench)
    for one in found[2:]:
        for path in one["scores"]:
            Path(path).unlink()
    one = drawn(found)
    assert [row["r_loss"] for row in csv.DictReader(io.StringIO(normalised_csv(one)))] == [""] * 4
    assert normalised_sheet(one).rows[0][:3] == ["2 of 4", "40.0", "40.0 after 10"]
    assert "Not run: the run (2 of 4 steps)." in normalised_sheet(one).notes
    nothing = cells(bench, ipc=1)
    for path in [path for one in nothing for path in one["scores"]] + [f"{folder}/curve.csv" for folder in nothing[0]["sets"]]:
        Path(path).unlink()
    assert [text.get_text() for text in normalised(drawn(nothing)).axes[0].texts] == ["not run"]


def test_a_step_that_a_scale_made_equal_to_another_counts_once(bench):
    found = cells(bench)
    found[3] = {**found[3], "config": {"recipe": {"iterations": 30}, "step": 20}, "score_id": "s20"}
    assert [row["updates"] for row in csv.DictReader(io.StringIO(normalised_csv(drawn(found))))] == ["0", "10", "20"]


def test_a_step_that_is_picked_is_the_one_that_was_picked(bench):
    found = cells(bench)
    (bench.root / "choice.json").write_text(json.dumps({"value": 10, "criterion": "c", "split": "test", "candidates": {}}))
    one = {**found[1], "config": {"recipe": {"iterations": 30}, "step": {"split": "test"}}, "choice": str(bench.root / "choice.json")}
    assert [row["row"] for row in csv.DictReader(io.StringIO(normalised_csv(drawn([one]))))] == ["9"]


def test_a_panel_is_one_run_judged_in_one_way(bench):
    found = [*cells(bench, ipc=1), *cells(bench, ipc=10)]
    assert [axis.get_title(loc="left") for axis in normalised(drawn(found, panel=["ipc"])).axes] == ["ipc 1", "ipc 10"]
    with pytest.raises(ConfigError, match="has several runs; name what differs in panel"):
        normalised(drawn(found))
    with pytest.raises(ConfigError, match="is judged in several ways"):
        normalised(drawn([found[0], {**found[0], "score_id": "other"}]))
    with pytest.raises(ConfigError, match="kind normalised needs x"):
        normalised(_read({"name": "a", "title": "A", "kind": "normalised", "cells": found}, "paper", "all", []))
