"""Heat maps over two coordinates of a sweep."""

import csv
import io

import pytest

from dd.errors import ConfigError
from dd.figures.heat import heat_sheet, heatmap
from dd.figures.paper import LONG, OVER_CELLS, _read, draw_paper
from dd.figures.reported import load_reported
from dd.figures.sheets import long_csv
from dd.figures.style import styled

LOOKS = {"x": "front", "rows": ["rear"], "baseline": {"eval_protocol": "baseline"}}
MEANS = {(0.1, 1.0): 30.0, (0.1, 10.0): 32.0, (1.0, 1.0): 38.0, (1.0, 10.0): 36.0, (10.0, 1.0): 31.0}  # (10, 10) has no cell


def cell(bench, mean, **at):
    return {**bench.cell([[mean / 100 - 0.01, mean / 100 + 0.01]], **at), "config": {}}


def swept(bench, means=MEANS, base=26.0, **at):
    made = [cell(bench, mean, eval_protocol="elf", front=front, rear=rear, **at) for (front, rear), mean in means.items()]
    return [cell(bench, base, eval_protocol="baseline", **at), *made]


def read(made, reported=(), **looks):
    return _read({"name": "fig", "title": "Weights", "kind": "heatmap", "cells": made, **LOOKS, **looks}, "demo", "all", list(reported))


def words(axis):
    return {
        (round(one.get_position()[0]), round(one.get_position()[1])): one.get_text()
        for one in axis.texts
        if not one.get_text().startswith("±")
    }


def test_every_cell_has_its_place_its_number_and_its_colour(bench):
    made = swept(bench)
    made[2]["scaled"] = ["dataset digits"]
    made[3]["scores"] = ["nowhere.json"]
    drawn = read(made)
    with styled():
        figure = heatmap(drawn)
    axis, bar = figure.axes
    assert [one.get_text() for one in axis.get_xticklabels()] == ["0.1", "1", "10"]
    assert [one.get_text() for one in axis.get_yticklabels()] == ["1", "10"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("λ front", "λ rear")
    assert words(axis) == {(0, 0): "30.0", (0, 1): "32.0†", (1, 0): "not run", (1, 1): "36.0", (2, 0): "31.0", (2, 1): "no cell"}
    grid = axis.images[0].get_array()
    assert (
        grid[0, 0] == pytest.approx(30)
        and grid[1, 0] == pytest.approx(32)
        and grid.mask.tolist() == [[False, True, False], [False, False, True]]
    )
    assert axis.images[0].get_clim() == pytest.approx((26, 36)), "the baseline belongs to the range"
    assert [one.get_text() for one in axis.texts if one.get_fontweight() == "bold"] == ["36.0"]
    assert [one.get_ydata()[0] for one in bar.lines if one.get_linewidth() > 2] == pytest.approx([26.0])
    assert any("baseline 26.0" in one.get_text() for one in bar.texts)
    said = " ".join(one.get_text() for one in figure.texts).replace("\n", " ")
    assert "Baseline, with protocol baseline: 26.0 ± 1.0." in said and "† demo: dataset digits." in said


def test_a_better_baseline_is_marked_too(bench):
    figure = heatmap(read(swept(bench, base=50.0)))
    assert figure.axes[0].images[0].get_clim() == pytest.approx((30, 50))


def test_table_and_csv(bench):
    path = bench.reported(
        {"dataset": "cifar10", "ipc": 10, "method": "dm", "eval_network": "convnet3_in", "eval_protocol": "baseline", "mean": 25.0}
    )
    rows = load_reported(path)
    made = swept(bench)
    drawn = read([made[0], *reversed(made[1:])], rows)
    sheet = heat_sheet(drawn)
    assert sheet.columns == ["λ rear", "λ front 0.1", "λ front 1", "λ front 10"]
    assert sheet.rows == [["1", "30.0 ± 1.0", "38.0 ± 1.0", "31.0 ± 1.0"], ["10", "32.0 ± 1.0", "36.0 ± 1.0", "no cell"]]
    assert "Baseline, with protocol baseline: 26.0 ± 1.0 (paper 25, +1.0)." in sheet.notes
    lines = list(csv.DictReader(io.StringIO(long_csv(drawn))))
    assert len(lines) == 6 and (lines[0]["front"], lines[0]["eval_protocol"]) == ("", "baseline")
    assert OVER_CELLS["heatmap"] == (heat_sheet, heatmap) and "heatmap" not in LONG


def test_panels_share_their_colours_and_have_their_own_baselines(bench):
    made = [*swept(bench, method="dm"), *swept(bench, {(1.0, 1.0): 70.0}, base=60.0, method="mtt")]
    drawn = read(made, panel=["method"])
    figure = heatmap(drawn)
    grids = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title(loc="left") for axis in grids] == ["method dm", "method mtt"]
    assert [axis.images[0].get_clim() for axis in grids] == [pytest.approx((26, 70))] * 2
    sheet = heat_sheet(drawn)
    assert sheet.rows[-1][:4] == ["mtt", "1", "no cell", "70.0 ± 1.0"]
    assert [note for note in sheet.notes if note.startswith("Baseline")] == [
        "Baseline, with protocol baseline, method dm: 26.0 ± 1.0.", "Baseline, with protocol baseline, method mtt: 60.0 ± 1.0.",
    ]  # fmt: skip


def test_nothing_run_and_no_baseline_are_drawn_all_the_same(bench):
    made = swept(bench)[1:]
    for one in made:
        one["scores"] = ["nowhere.json"]
    artifact = {"name": "fig", "title": "Weights", "kind": "heatmap", "cells": made, "x": "front", "rows": ["rear"]}
    draw_paper(bench.job(artifact), bench.root / "out")
    assert {path.suffix for path in (bench.root / "out").glob("fig.*")} == {".csv", ".md", ".png", ".pdf"}


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ({"x": None}, "needs x, and one coordinate in rows"),
        ({"rows": []}, "needs x, and one coordinate in rows"),
        ({"rows": ["rear", "ipc"]}, "needs x, and one coordinate in rows"),
        ({"baseline": {}}, "has no front and no rear and is no baseline"),
        ({"rows": ["ipc"]}, "two cells stand at front 0.1, ipc 10"),
    ],
)
def test_what_cannot_be_drawn_is_named(bench, looks, said):
    with pytest.raises(ConfigError, match=said):
        heatmap(read(swept(bench), **looks))


def test_two_baselines_in_one_panel_and_nothing_but_baselines_are_named(bench):
    made = [*swept(bench, method="dm"), *swept(bench, {(5.0, 5.0): 50.0}, method="mtt")]
    with pytest.raises(ConfigError, match="2 of them in one panel"):
        heat_sheet(read(made))
    with pytest.raises(ConfigError, match="all of its cells are baselines"):
        heatmap(read(swept(bench)[:1]))
