"""Losses over updates."""

import csv
import io
import statistics
from pathlib import Path

import pytest

from dd.errors import ArtifactError, ConfigError
from dd.figures.curves import read_curve
from dd.figures.losses import losses, losses_csv, losses_sheet
from dd.figures.paper import _read

FIRST = {"glad": ({0: 4.0, 10: 3.0, 20: 1.0}, {0: 8.0, 10: 5.0, 20: 1.5}), "hpd": ({0: 2.0, 10: 0.25, 20: 1e-3},)}


def log(folder, losses):
    lines = ["step,loss,grad_norm,distance", *(f"{step},{loss},1,0.5" for step, loss in losses.items())]
    (folder / "curve.csv").write_text("\n".join(lines) + "\n")


def cells(bench, runs=FIRST, **at):
    """One cell a method, one log a set."""
    found = []
    for method, sets in runs.items():
        one = bench.cell([[0.5]] * len(sets), method=method, **at)
        for folder, losses_ in zip(one["sets"], sets, strict=True):
            log(Path(folder), losses_)
        found.append(one)
    return found


def drawn(found, **look):
    return _read({"name": "a", "title": "A", "kind": "losses", "cells": found, **look}, "paper", "all", [])


def test_each_line_is_the_mean_over_sets_and_its_band_one_standard_deviation(bench):
    figure = losses(drawn(cells(bench), hue=["method"]))
    (axis,) = figure.axes
    assert [list(line.get_ydata()) for line in axis.lines] == [[6.0, 4.0, 1.25], [2.0, 0.25, 1e-3]]
    assert [list(line.get_xdata()) for line in axis.lines] == [[0, 10, 20]] * 2
    (band,) = axis.collections  # a single set has no spread
    points = {(round(float(x)), round(float(y), 6)) for x, y in band.get_paths()[0].vertices}
    assert points == {(0, 4.0), (0, 8.0), (10, 3.0), (10, 5.0), (20, 1.0), (20, 1.5)}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["glad", "hpd"]


def test_a_logarithmic_axis_shows_what_it_can_of_the_spread(bench):
    runs = {"glad": ({0: 1.0, 10: 0.1}, {0: 1.0, 10: 0.1}, {0: 1.0, 10: 1.0}), "hpd": ({0: 1.0, 10: -1.0},)}
    figure = losses(drawn(cells(bench, runs), hue=["method"], axis="log"))
    (axis,) = figure.axes
    assert axis.get_yscale() == "log" and list(axis.lines[1].get_ydata()) == [1.0]
    low = min(float(y) for _, y in axis.collections[0].get_paths()[0].vertices)
    assert low == pytest.approx(0.1), "mean less spread is below 0: the smallest loss of a set stands for it"
    assert "not above 0" in " ".join(losses_sheet(drawn(cells(bench, runs), hue=["method"], axis="log")).notes)


def test_the_csv_and_the_table(bench):
    one = drawn(cells(bench), hue=["method"])
    rows = list(csv.DictReader(io.StringIO(losses_csv(one))))
    assert [(row["method"], row["updates"], row["n"]) for row in rows[:3]] == [("glad", "0", "2"), ("glad", "10", "2"), ("glad", "20", "2")]
    assert [float(row["loss"]) for row in rows[:3]] == [6, 4, 1.25] and [float(row["std_sets"]) for row in rows[:3]] == [2, 1, 0.25]
    assert [row["std_sets"] for row in rows[3:]] == [""] * 3
    relative = statistics.fmean([2 / 6, 1 / 4, 0.25 / 1.25])
    assert losses_sheet(one).rows == [
        ["glad", "6 ± 2", "1.25 ± 0.25", "1.25 after 20", f"{100 * relative:.1f} %", "2 of 2"],
        ["hpd", "2", "0.001", "0.001 after 20", "", "1 of 1"],
    ]


def test_what_diverged_or_was_not_run_is_said(bench):
    found = cells(bench, {"glad": ({0: 4.0, 10: 3.0}, {0: 8.0, 10: "nan"}), "hpd": ({0: 2.0}, {0: 2.0})})
    (Path(found[1]["sets"][1]) / "curve.csv").unlink()
    found.append(bench.cell([[0.5]], method="dm"))
    one = drawn(found, hue=["method"])
    rows = list(csv.DictReader(io.StringIO(losses_csv(one))))
    assert [(row["updates"], row["loss"], row["n"]) for row in rows if row["method"] == "glad"] == [("0", "6", "2"), ("10", "3", "1")]
    assert [(row["updates"], row["n"]) for row in rows if row["method"] == "dm"] == [("", "0")]
    said = " ".join(losses_sheet(one).notes)
    assert (
        "Not run: dm." in said
        and "hpd (1 of 2 sets)" in said
        and "✕ diverged, from there on without these sets: glad (1 of 2 sets)" in said
    )
    empty = losses(drawn([bench.cell([[0.5]], method="dm", ipc=1)]))
    assert [text.get_text() for text in empty.axes[0].texts] == ["not run"]


def test_panels_and_lines_are_told_apart(bench):
    found = [*cells(bench), *cells(bench, ipc=50)]
    figure = losses(drawn(found, hue=["method"], panel=["ipc"]))
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["ipc 10", "ipc 50"]
    with pytest.raises(ConfigError, match="two distillations have equal method; name what differs in hue"):
        losses(drawn(found, hue=["method"]))
    again = [*cells(bench), {**cells(bench)[0], "at": {**cells(bench)[0]["at"], "eval_network": "alexnet"}}]
    assert len(losses(drawn(again, hue=["method"])).axes[0].lines) == 2, "one distillation that is judged twice is one line"
    with pytest.raises(ConfigError, match="kind losses has none"):
        losses(drawn(found, fields={"column": "loss"}))


def test_a_log_that_is_none_is_named(bench):
    path = bench.root / "curve.csv"
    path.write_text("step,loss\n0,big\n")
    with pytest.raises(ArtifactError, match="is not the log of a distillation"):
        read_curve(path)
    found = cells(bench)
    (Path(found[0]["sets"][0]) / "curve.csv").write_text("step,los\n0,1\n")
    with pytest.raises(ArtifactError, match="has no column 'loss'; did you mean 'los'"):
        losses(drawn(found, hue=["method"]))
    assert read_curve(bench.root / "gone.csv") is None
