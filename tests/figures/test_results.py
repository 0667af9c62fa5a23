import csv
import math
from pathlib import Path

import numpy as np
import pytest

from dd.artifacts import save_tensors
from dd.errors import ArtifactError, ConfigError
from dd.figures.reported import COLUMNS, compare, find, load_reported
from dd.figures.results import Point, read_cell, same


def test_means_and_spreads_equal_numpys(bench):
    values = np.array([[0.50, 0.52, 0.51], [0.47, 0.49, 0.54]])
    point = read_cell(bench.cell(values.tolist()))
    percent = 100 * values
    assert point.mean == pytest.approx(percent.mean())
    assert point.std_all == pytest.approx(percent.std())
    assert point.std_sets == pytest.approx(percent.mean(1).std())
    assert point.std_nets == pytest.approx(math.sqrt((percent.std(1) ** 2).mean()))
    assert point.error == pytest.approx(percent.mean(1).std(ddof=1) / math.sqrt(2))
    assert point.best == pytest.approx(percent.mean() + 1)
    assert (point.n, point.diverged, point.missing) == (6, 0, 0)


def test_a_single_run_has_no_spread_and_no_error(bench):
    point = read_cell(bench.cell([[0.5]]))
    assert (point.std_all, point.std_sets, point.std_nets, point.error) == (None, None, None, None)


def test_one_set_takes_its_error_from_its_networks(bench):
    point = read_cell(bench.cell([[0.5, 0.52]]))
    assert point.error == pytest.approx(np.std([50, 52], ddof=1) / math.sqrt(2))


def test_missing_files_are_counted_not_guessed(bench):
    cell = bench.cell([[0.5, 0.6]])
    cell["scores"].append(str(bench.root / "nowhere.json"))
    point = read_cell(cell)
    assert (point.missing, point.n) == (1, 2)
    cell["scores"] = cell["scores"][1:]
    assert read_cell(cell).mean is None


def test_a_network_that_is_there_twice_is_an_error(bench):
    cell = bench.cell([[0.5]])
    cell["scores"] *= 2
    with pytest.raises(ArtifactError, match="set 0, net 0"):
        read_cell(cell)


def test_a_damaged_score_file_is_named(bench):
    cell = bench.cell([[0.5]])
    (bench.root / "bad.json").write_text('{"scores": [{"set": 0}]}')
    cell["scores"] = [str(bench.root / "bad.json")]
    with pytest.raises(ArtifactError, match=r"bad\.json"):
        read_cell(cell)


def test_runs_of_a_diverged_distillation_count_as_diverged(bench):
    import torch

    cell = bench.cell([[0.1, 0.1], [0.5, 0.5]], diverged=[(1, 0)])
    save_tensors(Path(cell["sets"][0]) / "distilled.safetensors", {"images": torch.zeros(1)}, {"diverged": {"step": 3, "loss": "nan"}})
    save_tensors(Path(cell["sets"][1]) / "distilled.safetensors", {"images": torch.zeros(1)}, {})
    point = read_cell(cell)
    assert [diverged for _, diverged in point.runs] == [True, True, True, False]
    assert point.mean == pytest.approx(30)


def test_coordinates_are_equal_as_numbers_or_text():
    assert same(10, "10") and same(0.5, "0.50") and same(None, "") and not same("10", "50") and not same("a", 1)


def test_reported_files_of_the_project_are_read_and_hold_only_printed_accuracies():
    for name in ("extractors", "elf", "clom", "hpd", "dsdm"):
        path = f"workflow/reported/{name}.csv"
        with open(path, newline="") as file:
            wanted = [
                row for row in csv.DictReader(file)
                if row["metric"] in ("top1_percent", "top1_percent_upper_bound", "top1_percent_lower_bound")
                and row["certainty"] in ("exact", "inferred", "recovered_internal", "doubtful")
            ]  # fmt: skip
        rows = load_reported(path)
        assert len(rows) == len(wanted) > 0
        assert not {row.certainty for row in rows} & {"external_probable", "derived", "derived_external"}


def test_a_printed_number_is_found_by_its_coordinates(bench):
    rows = load_reported(
        bench.reported(
            {"dataset": "cifar10", "ipc": 10, "method": "dm", "mean": 50, "std": 0.5},
            {"artifact": "b", "dataset": "cifar10", "ipc": 10, "method": "dm", "mean": 51},
            {"dataset": "cifar10", "ipc": 50, "method": "dm", "mean": 60},
        )
    )
    at = {"dataset": "cifar10", "ipc": 10, "method": "dm", "eval_network": "convnet3_in"}
    assert find(rows, ["a"], at).mean == 50
    assert find(rows, ["b"], at).mean == 51
    assert find(rows, ["a"], {**at, "ipc": 50}).mean == 60
    assert find(rows, ["a"], {**at, "ipc": 1}) is None
    assert find(rows, ["a"], {**at, "lr_img": 0.1}) is None, "a sweep of ours has no printed number"


def test_a_plain_methods_number_never_stands_beside_its_guided_variant(bench):
    rows = load_reported(
        bench.reported(
            {"dataset": "cifar10", "method": "dm", "mean": 50},
            {"dataset": "cifar10", "method": "dc", "guidance": "clom", "mean": 55},
        )
    )
    at = {"dataset": "cifar10", "method": "dm"}
    assert find(rows, ["a"], at).mean == 50
    assert find(rows, ["a"], {**at, "guidance": "clom"}) is None


@pytest.mark.parametrize("certainty", ["external_probable", "derived", "derived_external"])
def test_what_the_paper_does_not_print_is_never_found(bench, certainty):
    rows = load_reported(bench.reported({"dataset": "cifar10", "mean": 50, "certainty": certainty}))
    assert find(rows, ["a"], {"dataset": "cifar10"}) is None


def test_scaled_cells_are_never_compared(bench):
    (row,) = load_reported(bench.reported({"dataset": "cifar10", "mean": 50, "std": 0.2}))
    point = Point({"dataset": "cifar10"}, 50.9, 50.9, 50.9)
    assert compare(point, row, "all") == (pytest.approx(0.9), True)
    assert compare(Point({}, 52.0, 52.0, 52.0), row, "all") == (pytest.approx(2.0), False)
    assert compare(Point({}, 50.9, 50.9, 50.9, scaled=("dataset digits",)), row, "all") is None
    assert compare(Point({}, None), row, "all") is None


def test_within_a_bound_there_is_no_distance(bench):
    low, high = load_reported(
        bench.reported(
            {"metric": "top1_percent_lower_bound", "mean": 20}, {"metric": "top1_percent_upper_bound", "mean": 20}
        )
    )  # fmt: skip
    assert compare(Point({}, 45.0, 45.0, 45.0), low, "all") == (0.0, True)
    assert compare(Point({}, 45.0, 45.0, 45.0), high, "all") == (25.0, False)
    assert (str(low), str(high)) == (">= 20", "<= 20")


@pytest.mark.parametrize(
    ("row", "said"),
    [({"certainty": "exakt", "mean": 1}, "exact"), ({"mean": "many"}, "must be numbers")],
)
def test_mistakes_in_reported_files_are_named(bench, row, said):
    with pytest.raises(ConfigError, match=said):
        load_reported(bench.reported(row))


def test_the_readme_names_every_column():
    text = " ".join(Path("workflow/reported/README.md").read_text().split())
    assert all(name in text for name in COLUMNS)


def test_a_setting_that_only_some_methods_have_tells_no_cells_apart(bench):
    from dd.figures.paper import _read
    from dd.figures.sheets import notes, varying

    read = lambda *cells: _read({"name": "a", "title": "A", "kind": "table", "cells": list(cells)}, "paper", "all", [])  # noqa: E731
    dm, dsdm = bench.cell([[0.5]]), bench.cell([[0.5]], method="dsdm", n_m=10, extractor_epochs=20)
    drawn = read(dm, dsdm)
    assert varying(drawn) == ["method"]
    assert "Cells to which it applies: pre-trained models 10, pre-training epochs 20." in notes(drawn, ["method"])
    assert varying(read(dm, dsdm, bench.cell([[0.5]], method="dsdm", n_m=5, extractor_epochs=20))) == ["method", "n_m"]
    assert varying(read(dm, bench.cell([[0.5]], guidance="clom"))) == ["guidance"], "nothing else tells these apart"
    assert varying(read(dm, bench.cell([[0.5]], ipc=50, method="dsdm"))) == ["ipc", "method"], "a method is said, whatever goes with it"
