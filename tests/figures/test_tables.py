"""Tables: ratios, what other papers print, and cells that cannot be made yet. Lines over numbers."""

import csv
import io
import json

import pytest

from dd.errors import ConfigError
from dd.figures.paper import _read, draw_paper
from dd.figures.plots import line
from dd.figures.reported import find, load_reported
from dd.figures.sheets import cells, long_csv
from dd.figures.tables import pivot

EXT = {"artifact": "a_ext", "certainty": "external_probable"}


def with_config(cell, **config):
    return {**cell, "config": {"dataset": cell["at"]["dataset"], "ipc": cell["at"]["ipc"], **config}}


def read(cells_, rows_=(), **looks):
    return _read({"name": "a", "title": "A", "kind": "table", "cells": cells_, **looks}, "paper", "all", list(rows_))


def small(bench, methods=("random", "dm"), datasets=("cifar10", "svhn")):
    return [
        with_config(bench.cell([[0.5]], dataset=dataset, ipc=ipc, method=method))
        for dataset in datasets for ipc in (1, 10) for method in methods
    ]  # fmt: skip


# -- ratios -----------------------------------------------------------------------------------------------------------


def test_a_ratio_stands_in_its_own_column_where_rows_have_ipc(bench):
    whole = with_config(bench.cell([[0.9]], dataset="svhn", ipc="", method="whole"), ipc=0)
    sheet = pivot(read([*small(bench), whole], rows=["dataset", "ipc"], columns=["method"], ratio=True))
    assert sheet.columns[:3] == ["dataset", "ipc", "ratio (%)"]
    assert [row[:3] for row in sheet.rows] == [
        ["cifar10", "1", "0.02"], ["cifar10", "10", "0.2"], ["svhn", "1", "0.014"], ["svhn", "10", "0.14"], ["svhn", "", "100"],
    ]  # fmt: skip


def test_a_ratio_stands_above_the_rows_that_it_is_true_of(bench):
    sheet = pivot(read(small(bench), rows=["dataset", "method"], columns=["ipc"], ratio=True))
    assert [row[:3] for row in sheet.rows] == [
        ["cifar10", "ratio (%)", "0.02"], ["cifar10", "random", "50.0"], ["cifar10", "dm", "50.0"],
        ["svhn", "ratio (%)", "0.014"], ["svhn", "random", "50.0"], ["svhn", "dm", "50.0"],
    ]  # fmt: skip
    plain = pivot(read(small(bench), rows=["dataset", "method"], columns=["ipc"]))
    assert len(plain.rows) == 4 and "Ratio" not in " ".join(plain.notes)


def test_the_ratio_is_that_of_what_was_run(bench):
    cell = {**with_config(bench.cell([[0.5]], ipc=10), dataset="digits"), "scaled": ["dataset digits"]}
    assert pivot(read([cell], rows=["method"], columns=["ipc"], ratio=True)).rows[0] == ["ratio (%)", "7†"]
    unknown = with_config(bench.cell([[0.5]], ipc=10), dataset="mine")
    assert pivot(read([unknown], rows=["ipc"], columns=["method"], ratio=True)).rows[0][:2] == ["10", ""]
    with pytest.raises(ConfigError, match="ratio needs rows"):
        pivot(read([cell], columns=["ipc"], ratio=True))


# -- what other papers print ------------------------------------------------------------------------------------------


def test_what_other_papers_print_is_found_only_where_an_artifact_asks_for_it(bench):
    path = bench.reported(
        {**EXT, "dataset": "cifar10", "ipc": 10, "method": "dm", "mean": 48.9, "std": 0.6},
        {**EXT, "dataset": "cifar10", "ipc": 10, "method": "dsdm", "mean": 1.0},
        {"dataset": "cifar10", "ipc": 10, "method": "dsdm", "mean": 66.5},
        {**EXT, "dataset": "cifar10", "ipc": 10, "method": "m3d", "mean": 63.5, "certainty": "derived_external"},
    )
    at = {"dataset": "cifar10", "ipc": 10, "method": "dm"}
    assert find(load_reported(path), ["a", "a_ext"], at) is None
    rows = load_reported(path, ["a", "a_ext"])
    assert find(rows, ["a"], at) is None
    assert find(rows, ["a", "a_ext"], at).elsewhere
    assert find(rows, ["a_ext", "a"], {**at, "method": "dsdm"}).mean == 66.5, "what the paper itself prints comes first"
    assert find(rows, ["a", "a_ext"], {**at, "method": "m3d"}) is None, "arithmetic is never shown"
    with pytest.raises(ConfigError, match="did you mean 'a_ext'"):
        load_reported(path, ["a_exd"])


def test_what_other_papers_print_is_marked_and_not_counted(bench):
    reported = bench.reported(
        {**EXT, "dataset": "cifar10", "ipc": 10, "method": "dm", "mean": 48.9, "std": 0.6},
        {"dataset": "cifar10", "ipc": 10, "method": "dsdm", "mean": 49.0, "certainty": "recovered_internal"},
    )
    two = [bench.cell([[0.5]], method=method) for method in ("dm", "dsdm")]
    artifact = {"name": "a", "title": "A", "kind": "table", "cells": two, "rows": ["method"], "reported": ["a", "a_ext"]}
    draw_paper(bench.job(artifact, reported=reported), bench.root / "out")
    text = (bench.root / "out/a.md").read_text()
    assert "| dm | 50.0 (elsewhere 48.9 ± 0.6, +1.1) |" in text and "| dsdm | 50.0 (paper [49], +1.0) |" in text
    assert "other papers print it of the same baseline (external_probable)" in text and "recovered_internal (see" in text
    counts = json.loads((bench.root / "out/paper.json").read_text())["counts"]
    assert (counts["reported"], counts["compared"], counts["within"]) == (1, 1, 1)
    drawn = read(two, load_reported(reported, ["a_ext"]), reported=["a", "a_ext"])
    assert cells(drawn).rows[0][-2] == "elsewhere 48.9 ± 0.6"


def test_coordinates_are_looked_up_as_the_reported_file_writes_them(bench):
    rows = load_reported(bench.reported({"dataset": "cifar10", "ipc": 10, "method": "dm", "eval_protocol": "baseline", "mean": 49}))
    both = [bench.cell([[0.5]], eval_protocol=name) for name in ("dc", "idc")]
    assert read(both, rows).reported == [None, None]
    both = [{**cell, "printed": {**cell["at"], "eval_protocol": "baseline"}} for cell in both]
    sheet = pivot(read(both, rows, rows=["method"], columns=["ipc", "eval_protocol"]))
    assert sheet.columns == ["method", "ipc 10, protocol dc", "ipc 10, protocol idc"]
    assert sheet.rows == [["dm", "50.0 (paper 49, +1.0)", "50.0 (paper 49, +1.0)"]]


# -- cells that cannot be made yet ------------------------------------------------------------------------------------


def waiting(bench):
    at = {"dataset": "cifar10", "ipc": 10, "method": "dc", "eval_network": "convnet3_in"}
    later = [{"at": {**at, "ipc": ipc}, "reason": "method dc: needs second order", "place": place} for ipc, place in ((1, 1), (10, 3))]
    rows = load_reported(bench.reported({**EXT, "dataset": "cifar10", "ipc": 10, "method": "dc", "mean": 44.9, "std": 0.5}), ["a_ext"])
    return read(small(bench, datasets=["cifar10"]), rows, reported=["a_ext"], pending=later, rows=["ipc"], columns=["method"], ratio=True)


def test_a_cell_that_cannot_be_made_keeps_its_place_with_what_is_printed(bench):
    sheet = pivot(waiting(bench))
    assert sheet.columns == ["ipc", "ratio (%)", "method random", "method dc", "method dm"]
    assert [row[3] for row in sheet.rows] == ["-", "- (elsewhere 44.9 ± 0.5)"]
    assert "-: not available yet: method dc: needs second order." in sheet.notes


def test_the_csv_has_a_line_for_it_too(bench):
    rows = list(csv.DictReader(io.StringIO(long_csv(waiting(bench)))))
    last = rows[-1]
    assert (last["method"], last["mean"], last["n"], last["reported"], last["pending"]) == ("dc", "", "0", "44.9", "method dc: needs second order")
    assert all(row["pending"] == "" for row in rows[:4])


# -- lines over numbers -----------------------------------------------------------------------------------------------


def curve(bench, values, **looks):
    found = [bench.cell([[0.4, 0.5], [0.5, 0.6]], **{"lr_img": value}) for value in values]
    return _read({"name": "a", "title": "A", "kind": "line", "x": "lr_img", "cells": found, **looks}, "paper", "all", [])


@pytest.mark.parametrize(("axis", "wanted"), [("even", [0, 1, 2, 3]), ("linear", [0.01, 10, 50, 100]), ("log", [-2, 1, 1.69897, 2])])
def test_numbers_stand_where_the_axis_says(bench, axis, wanted):
    (plotted,) = line(curve(bench, [50, 0.01, 100, 10], axis=axis)).axes
    assert plotted.lines[0].get_xdata() == pytest.approx(wanted)
    assert [label.get_text() for label in plotted.get_xticklabels()] == ["0.01", "10", "50", "100"]


def test_names_of_crowded_numbers_give_way_but_every_number_has_its_mark(bench):
    values = [0, 100, *range(1000, 11_000, 1000)]
    (plotted,) = line(curve(bench, values, axis="linear")).axes
    names = [label.get_text() for label in plotted.get_xticklabels()]
    assert (names[0], names[-1]) == ("0", "10000") and "9000" in names and "100" not in names
    assert sorted([*plotted.get_xticks(), *plotted.get_xticks(minor=True)]) == sorted(values)


@pytest.mark.parametrize(
    ("values", "looks", "said"),
    [
        ([1, "all"], {"axis": "linear"}, "values 1, all; they must be numbers"),
        ([1, None], {"axis": "linear"}, r"\(none\)"),
        ([0, 1], {"axis": "log"}, "value 0; must be above 0"),
    ],
)
def test_what_has_no_place_on_an_axis_is_named(bench, values, looks, said):
    with pytest.raises(ConfigError, match=said):
        line(curve(bench, values, **looks))


def test_bars_stand_evenly(bench):
    from dd.figures.plots import bars

    with pytest.raises(ConfigError, match="stands evenly"):
        bars(curve(bench, [1, 2], axis="log", kind="bars"))


def test_a_name_leaves_out_what_a_series_does_not_have(bench):
    found = [bench.cell([[0.5]], method="dm"), bench.cell([[0.5]], method="dsdm", factor=2)]
    one = _read({"name": "a", "title": "A", "kind": "line", "x": "ipc", "hue": ["method", "factor"], "cells": found}, "paper", "all", [])
    assert [text.get_text() for text in line(one).legends[0].get_texts()] == ["dm", "dsdm, factor 2"]
