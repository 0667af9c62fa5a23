"""Gains over baselines in tables, baselines in lines, and values that were picked from results."""

import csv
import io
import json

import pytest

from dd.errors import ArtifactError, ConfigError
from dd.figures.gains import table_csv
from dd.figures.paper import _read
from dd.figures.plots import line
from dd.figures.reported import load_gains, load_reported
from dd.figures.sheets import cells
from dd.figures.tables import pivot

PLAIN = {("dc", 10): 50.0, ("dc", 50): 60.0, ("dm", 10): 48.0, ("dm", 50): 62.0}
GUIDED = {("dc", 10): 52.0, ("dc", 50): 61.0, ("dm", 10): 47.0, ("dm", 50): 66.0}
LOOKS = {"rows": ["method", "guidance"], "columns": ["ipc"], "baseline": {"guidance": None}}
AT = {"dataset": "cifar10", "eval_network": "convnet3_in"}


def cell(bench, mean, **at):
    return {**bench.cell([[mean / 100 - 0.01, mean / 100 + 0.01]], **at), "config": {}}


def both(bench):
    plain = [cell(bench, mean, method=method, ipc=ipc) for (method, ipc), mean in PLAIN.items()]
    return plain + [cell(bench, mean, method=method, ipc=ipc, guidance="clom", n_m=3) for (method, ipc), mean in GUIDED.items()]


def read(made, gains=(), kind="table", **looks):
    return _read({"name": "a", "title": "A", "kind": kind, "cells": made, **looks}, "paper", "all", [], list(gains))


def printed(bench, *rows):
    guided = {**AT, "guidance": "clom", "n_m": 3}
    return bench.reported(*({**guided, **row} for row in rows))


def test_a_row_below_says_how_much_each_cell_is_above_its_own_baseline(bench):
    gains = load_gains(printed(bench, {"method": "dc", "ipc": 10, "metric": "gain_pp", "mean": 1.5},
                               {"method": "dm", "ipc": 10, "metric": "gain_pp", "mean": 0.0, "certainty": "doubtful", "note": "a misprint"}))  # fmt: skip
    sheet = pivot(read(both(bench), gains, gain=True, **LOOKS))
    assert [row[:2] for row in sheet.rows] == [
        ["dc", ""], ["dm", ""], ["dc", "clom"], ["dc, gain", "clom"], ["dm", "clom"], ["dm, gain", "clom"],
    ]  # fmt: skip
    assert sheet.rows[3][2:] == ["+2.0 (paper +1.5)", "+1.0"] and sheet.rows[5][2:] == ["-1.0 (paper [+0.0])", "+4.0"]
    assert "Gain: percentage points above the same cell without guidance." in sheet.notes and "[+0.0]: a misprint." in sheet.notes


def test_means_of_gains_stand_where_their_own_coordinates_are(bench):
    gains = load_gains(printed(bench, {"metric": "avg_gain_pp", "mean": 1.35}, {"method": "dm", "metric": "avg_gain_pp", "mean": 9}))
    sheet = pivot(read(both(bench), gains, mean_gain=["method", "ipc"], **LOOKS))
    assert sheet.columns == ["method", "guidance", "ipc 10", "ipc 50", "average gain"]
    assert sheet.rows[-1] == ["average gain", "clom", "", "", "+1.50, mean of 4 (paper +1.35)"], "(2 + 1 - 1 + 4) / 4"
    assert len(sheet.rows) == 5 and [row[4] for row in sheet.rows[:4]] == [""] * 4
    beside = pivot(read(both(bench), gains, mean_gain=["ipc"], **LOOKS))
    assert [row[4] for row in beside.rows] == ["", "", "+1.50, mean of 2", "+1.50, mean of 2 (paper +9.0)"]
    below = pivot(read(both(bench), gain=True, mean_gain=["method"], **LOOKS))
    assert below.columns == ["method", "guidance", "ipc 10", "ipc 50"]
    assert below.rows[-1] == ["average gain", "clom", "+0.50, mean of 2", "+2.50, mean of 2"]
    assert "Average gain: mean over method of the points above the same cell without guidance." in below.notes


def test_a_mean_over_networks_is_found_under_the_name_that_the_paper_gives_it(bench):
    made = [cell(bench, 50, eval_network=one) for one in ("a", "b")] + [
        cell(bench, 51, eval_network=one, guidance="clom") for one in ("a", "b")
    ]
    path = bench.reported({"dataset": "cifar10", "ipc": 10, "method": "dm", "guidance": "clom", "eval_network": "mean_of_the_2_networks",
                           "metric": "avg_gain_pp", "mean": 4.5})  # fmt: skip
    looks = {**LOOKS, "columns": ["eval_network"], "mean_gain": ["eval_network"]}
    sheet = pivot(read(made, load_gains(path), gain=True, **looks))
    assert sheet.rows[2][2:] == ["+1.0", "+1.0", "+1.00, mean of 2 (paper +4.5)"], "a mean is not the gain of one network"
    assert load_reported(path) == [], "a gain is no accuracy"


def test_what_was_not_run_and_what_a_scale_changed_is_said(bench):
    made = both(bench)
    made[0]["scores"], made[7]["scores"] = ["nowhere.json"], ["nowhere.json"]
    made[5]["scaled"] = ["dataset digits"]
    sheet = pivot(read(made, gain=True, mean_gain=["method", "ipc"], **LOOKS))
    assert sheet.rows[3][2:4] == ["not run", "+1.0†"] and sheet.rows[5][2:4] == ["-1.0", "not run"]
    assert sheet.rows[-1][-1] == "2 of 4 run"
    rows = list(csv.DictReader(io.StringIO(table_csv(read(made, gain=True, mean_gain=["method", "ipc"], **LOOKS)))))
    assert [row["gain"] for row in rows] == ["", "", "", "", "", "1.0000", "-1.0000", "", ""]
    assert (rows[-1]["guidance"], rows[-1]["method"], rows[-1]["gain_n"], rows[-1]["mean"]) == ("clom", "", "4", "")


def test_a_csv_without_gains_is_as_it_was(bench):
    assert "gain" not in table_csv(read(both(bench), **LOOKS))


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ({"baseline": {"guidance": "none"}, "gain": True}, "no cell is with guidance none"),
        ({"gain": True, "ratio": True}, "ratio, gain"),
        ({"gain": True, "rows": [], "columns": ["method", "guidance", "ipc"]}, "gain needs rows"),
    ],
)
def test_what_cannot_be_is_named(bench, looks, said):
    with pytest.raises(ConfigError, match=said):
        pivot(read(both(bench), **{**LOOKS, **looks}))


def test_two_baselines_of_one_cell_are_named(bench):
    made = [*both(bench), cell(bench, 1, method="dc", ipc=10, n_m=3)]
    with pytest.raises(ConfigError, match=r"2 cells fit the cell of .*method dc"):
        pivot(read(made, gain=True, **{**LOOKS, "rows": ["method", "guidance", "n_m"]}))


# -- baselines of lines -----------------------------------------------------------------------------------------------


def sweep(bench):
    plain = [cell(bench, mean, method=method, ipc=ipc) for (method, ipc), mean in PLAIN.items()]
    swept = [(method, ipc, alpha) for method, ipc in PLAIN for alpha in (1.0, 10.0, 1000.0)]
    return plain + [cell(bench, 55, method=method, ipc=ipc, guidance="clom", alpha=alpha) for method, ipc, alpha in swept]


def test_a_baseline_is_a_dotted_line_of_its_hue_in_its_panel(bench):
    looks = {"x": "alpha", "axis": "log", "hue": ["method"], "panel": ["ipc"], "baseline": {"guidance": None}}
    made = line(read(sweep(bench), kind="line", **looks))
    for axis, ipc in zip(made.axes, (10, 50), strict=True):
        dotted = [one for one in axis.lines if one.get_linestyle() == ":"]
        solid = [one for one in axis.lines if one.get_linestyle() == "-"]
        assert [one.get_ydata()[0] for one in dotted] == pytest.approx([PLAIN["dc", ipc], PLAIN["dm", ipc]])
        assert [one.get_color() for one in dotted] == [one.get_color() for one in solid]
        assert solid[0].get_xdata() == pytest.approx([0, 1, 3]), "a baseline has no place on x"
        low, high = axis.get_ylim()
        assert low < min(PLAIN.values()) and high > max(PLAIN.values())
    assert [text.get_text() for text in made.legends[0].get_texts()] == ["dc", "dm", "without guidance"]


def test_a_baseline_that_was_not_run_is_not_drawn_and_two_beside_one_line_are_an_error(bench):
    made = sweep(bench)
    looks = {"x": "alpha", "axis": "log", "hue": ["method"], "panel": ["ipc"], "baseline": {"guidance": None}}
    for one in made[:4]:
        one["scores"] = ["nowhere.json"]
    assert not [one for axis in line(read(made, kind="line", **looks)).axes for one in axis.lines if one.get_linestyle() == ":"]
    only = [one for one in sweep(bench) if one["at"].get("alpha") in (None, 1.0 if one["at"]["ipc"] == 10 else 10.0)]
    with pytest.raises(ConfigError, match="2 of them beside one line"):
        line(read(only, kind="line", **{**looks, "panel": []}))


# -- values that were picked from results ------------------------------------------------------------------------------


def picked(bench, content=None):
    path = bench.root / "choice.json"
    facts = {"value": 4, "criterion": "largest mean accuracy", "split": "holdout", "candidates": {"1": 0.5, "10": 0.4, "4": 0.52}}
    path.write_text(json.dumps(facts if content is None else content))
    return [cell(bench, 50, method="dm"), {**cell(bench, 52, method="dm", guidance="clom", choice="holdout"), "choice": str(path)}]


def test_what_was_chosen_stands_beside_its_cell(bench):
    drawn = read(picked(bench), rows=["guidance"], columns=["ipc"])
    sheet = pivot(drawn)
    assert sheet.columns[:2] == ["guidance", "chosen"] and [row[:2] for row in sheet.rows] == [["", ""], ["clom", "4"]]
    assert "Chosen: by the largest mean accuracy on holdout, among 1, 4, 10." in sheet.notes
    below = cells(drawn)
    assert [row[below.columns.index("chosen")] for row in below.rows] == ["", "4"]
    assert [row["chosen"] for row in csv.DictReader(io.StringIO(table_csv(drawn)))] == ["", "4"]


def test_a_choice_that_is_not_made_yet_is_said_and_a_damaged_one_named(bench):
    made = picked(bench)
    made[1]["choice"] = str(bench.root / "none.json")
    assert pivot(read(made, rows=["guidance"], columns=["ipc"])).rows[1][1] == "not chosen yet"
    with pytest.raises(ArtifactError, match="not a file of a choice"):
        read(picked(bench, {"value": 4}))
