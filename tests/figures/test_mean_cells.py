"""Means of cells, published steps that were picked, and tables of settings and classes."""

import math

import pytest

from dd.artifacts import write_json
from dd.data.registry import DATASETS
from dd.errors import ConfigError
from dd.figures.listings import class_names, parameters
from dd.figures.paper import _read
from dd.figures.results import read_cell
from dd.figures.tables import pivot


def mean_of(*cells, **at):
    return {**cells[0], "at": {**cells[0]["at"], **at}, "scaled": [], "members": list(cells)}


# -- means ------------------------------------------------------------------------------------------------------------


def test_a_mean_weighs_cells_equally_and_joins_their_errors(bench):
    one = bench.cell([[0.2, 0.4]], eval_network="a")
    other = bench.cell([[0.8, 0.8, 0.8, 0.4]], eval_network="b", scaled=["dataset digits"])
    point = read_cell(mean_of(one, other, eval_network="mean_of_2"))
    assert point.mean == point.low == point.high == pytest.approx((30 + 70) / 2) and point.n == 6
    errors = (math.sqrt(200) / math.sqrt(2), 20 / math.sqrt(4))  # of the mean of each, by hand
    assert point.error == pytest.approx(math.hypot(*errors) / 2)
    assert point.best == pytest.approx(51.0) and point.std_nets is None and point.scaled == ("dataset digits",)
    assert point.at["eval_network"] == "mean_of_2" and point.score_id == "1"


def test_a_mean_with_a_cell_that_was_not_run_is_not_run(bench):
    one, other = bench.cell([[0.2]], eval_network="a"), {**bench.cell([[0.4]], eval_network="b"), "scores": ["nowhere.json"]}
    point = read_cell(mean_of(one, other))
    assert point.mean is None and point.missing == 1 and point.n == 0


def test_a_mean_of_single_runs_has_no_error(bench):
    point = read_cell(mean_of(bench.cell([[0.2]], eval_network="a"), bench.cell([[0.4, 0.6]], eval_network="b")))
    assert point.mean == pytest.approx(35.0) and point.error is None


# -- picked steps -----------------------------------------------------------------------------------------------------


def test_a_picked_step_stands_in_its_cell_not_in_a_column(bench, tmp_path):
    cells = []
    for number, dataset in enumerate(("svhn", "cifar10")):
        path = tmp_path / f"{number}.json"
        write_json(path, {"value": 300 + number, "criterion": "largest mean accuracy", "split": "holdout", "candidates": {"300": 0.1, "301": 0.2}})
        config = {"dataset": dataset, "ipc": 1, "step": {"split": "holdout"}}
        cells.append({**bench.cell([[0.5]], dataset=dataset), "config": config, "choice": str(path)})
    cells.append({**bench.cell([[0.25]], dataset="svhn", method="random"), "config": {"dataset": "svhn", "ipc": 1}})
    sheet = pivot(_read({"name": "a", "title": "A", "kind": "table", "cells": cells, "rows": ["method"], "columns": ["dataset"]}, "paper", "all", []))
    assert sheet.columns == ["method", "dataset svhn", "dataset cifar10"]
    assert sheet.rows == [["dm", "50.0 @300", "50.0 @301"], ["random", "25.0", ""]]
    assert "Chosen: by the largest mean accuracy on holdout, among 300, 301." in sheet.notes


# -- settings and classes ---------------------------------------------------------------------------------------------


def settings(*cells, rows=("method", "dataset"), **fields):
    return {"name": "a", "title": "A", "cells": list(cells), "rows": list(rows), "fields": fields}


def of(bench, dataset, recipe, **at):
    return {**bench.cell([[0.5]], dataset=dataset, **at), "config": {"dataset": dataset, "recipe": recipe}}


def test_settings_are_read_from_the_configurations_equal_rows_as_one(bench):
    cells = [
        of(bench, "svhn", {"lr": 0.5, "steps": 3}), of(bench, "cifar10", {"lr": 0.5, "steps": 3}),
        of(bench, "cifar10", {"lr": 1.0, "settings": {"steps": 7}, "batch": None}, method="glad"),
    ]  # fmt: skip
    sheet = parameters(settings(*cells, rate="recipe.lr", steps=["recipe.settings.steps", "recipe.steps"], batch="recipe.batch"), "paper")
    assert sheet.columns == ["method", "dataset", "rate", "steps", "batch"]
    assert sheet.rows == [["dm", "svhn, cifar10", "0.5", "3", "-"], ["glad", "cifar10", "1", "7", "null"]]


def test_mistakes_in_settings_are_said(bench):
    cell = of(bench, "svhn", {"lr": 0.5})
    with pytest.raises(ConfigError, match=r"fields\.rate: no cell has recipe\.lrr"):
        parameters(settings(cell, rate="recipe.lrr"), "paper")
    with pytest.raises(ConfigError, match="other settings"):
        parameters(settings(cell, of(bench, "svhn", {"lr": 0.7}, ipc=1), rate="recipe.lr"), "paper")
    with pytest.raises(ConfigError, match="needs rows and fields"):
        parameters(settings(cell), "paper")


def test_classes_stand_in_their_own_order():
    sheet = class_names({"name": "a", "cells": [], "fields": {"D": "digits", "F": "fashion_mnist"}})
    assert sheet.columns == ["dataset", *map(str, range(10))]
    assert sheet.rows == [["D", *DATASETS["digits"].classes], ["F", *DATASETS["fashion_mnist"].classes]]
    with pytest.raises(ConfigError, match=r"fields\.D: no dataset 'digit' is registered.*digits"):
        class_names({"name": "a", "cells": [], "fields": {"D": "digit"}})
    with pytest.raises(ConfigError, match="needs them"):
        class_names({"name": "a", "cells": []})
