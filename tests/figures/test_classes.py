"""Accuracies by class, under both readings."""

import csv
import io

import numpy as np
import pytest
import torch

from dd.artifacts import save_tensors
from dd.errors import ArtifactError, ConfigError
from dd.figures.classes import classes_csv, classes_sheet, heat
from dd.figures.measures import measured
from dd.figures.paper import _read

NETS = ("convnet3_in", "alexnet")
TRAINED = {"convnet3_in": [[0.9, 0.2, 0.5], [0.7, 0.4, 0.5]], "alexnet": [[0.5, 0.6, 0.5], [0.5, 0.8, 0.5]]}
RIGHT = {"convnet3_in": [5, 1, 0], "alexnet": [4, 3, 0]}


def read(made, **looks):
    return _read(
        {"name": "a", "title": "A", "kind": "classes", "cells": made, "rows": ["eval_network"], "panel": ["method"], **looks},
        "paper",
        "all",
        [],
    )


def trained(bench):
    made = []
    for net in NETS:
        rows = {(0, number): row for number, row in enumerate(TRAINED[net])}
        made.append({**bench.cell([[0.5, 0.5]], eval_network=net, per_class=rows), "config": {"dataset": "three"}})
    return made


def pretrained(bench, count=(5, 4, 0)):
    made = []
    for net in NETS:
        path = bench.root / f"{net}.safetensors"
        about = {"classes": ["cat", "dog", "car"]}
        save_tensors(path, {"right": torch.tensor(RIGHT[net]), "count": torch.tensor(count)}, about)
        made.append({**bench.cell([[0.5]], eval_network=net), "analysis": str(path)})
    return made


def test_accuracies_of_trained_networks_are_means_over_them(bench):
    sheet = classes_sheet(read(trained(bench)))
    assert sheet.columns[-3:] == ["0", "1", "2"], "no dataset of this name: classes are numbers"
    assert [row[-3:] for row in sheet.rows] == [["80.0", "30.0", "50.0"], ["50.0", "70.0", "50.0"], ["convnet3_in", "alexnet", "all equal"]]
    assert sheet.rows[-1][:2] == ["dm", "best"] and "networks trained on the set" in sheet.notes[-1]
    rows = list(csv.DictReader(io.StringIO(classes_csv(read(trained(bench))))))
    assert (rows[0]["class"], float(rows[0]["accuracy"]), float(rows[0]["std_all"]), rows[0]["n"]) == ("0", 80, pytest.approx(10), "2")
    named = [{**one, "config": {"dataset": "cifar10"}} for one in trained(bench)]
    assert classes_sheet(read(named)).columns[-1] == "2", "three accuracies are not those of ten classes"


def test_classes_have_the_names_of_their_dataset(bench):
    one = {**bench.cell([[0.5]], per_class={(0, 0): [0.1] * 10}), "config": {"dataset": "cifar10"}}
    assert classes_sheet(read([one])).columns[-10:-8] == ["airplane", "automobile"]


def test_accuracies_on_distilled_images_are_shares_of_each_class(bench):
    drawn = read(pretrained(bench), reading="pretrained")
    sheet = classes_sheet(drawn)
    assert sheet.columns[-3:] == ["cat", "dog", "car"]
    assert [row[-3:] for row in sheet.rows] == [["100.0", "25.0", "–"], ["80.0", "75.0", "–"], ["convnet3_in", "alexnet", ""]]
    assert not any(note.startswith("Test accuracy") for note in sheet.notes)
    rows = list(csv.DictReader(io.StringIO(classes_csv(drawn))))
    assert [(row["class"], row["accuracy"], row["images"]) for row in rows[:3]] == [
        ("cat", "100.0000", "5"),
        ("dog", "25.0000", "4"),
        ("car", "", "0"),
    ]


def test_every_class_is_a_cell_of_its_own_for_claims(bench):
    points = measured(read(trained(bench)), "class_accuracy")
    assert [(point.at["eval_network"], point.at["class"], point.mean) for point in points[:2]] == [
        ("convnet3_in", "0", pytest.approx(80)), ("convnet3_in", "1", pytest.approx(30)),
    ]  # fmt: skip
    assert points[0].error == pytest.approx(np.std([90, 70], ddof=1) / 2**0.5) and points[0].n == 2
    once = measured(read(pretrained(bench), reading="pretrained"), "class_accuracy")
    assert (once[0].mean, once[0].error, once[0].n) == (100, None, 1) and once[2].mean is None
    absent = [{**one, "scores": ["nowhere.json"]} for one in trained(bench)]
    assert [(point.mean, point.n) for point in measured(read(absent), "class_accuracy")] == [(None, 0)] * 2


def test_the_picture_has_a_number_in_every_field_and_the_best_in_bold(bench):
    figure = heat(read(pretrained(bench), reading="pretrained"))
    (axis,) = figure.axes
    shown = {text.get_position(): (text.get_text(), text.get_fontweight()) for text in axis.texts}
    assert shown[0, 0] == ("100.0", "bold") and shown[0, 1] == ("80.0", "normal") and shown[1, 1] == ("75.0", "bold")
    assert shown[2, 0][0] == "–"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["cat", "dog", "car"]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(NETS)


def test_a_row_that_was_not_run_says_so(bench):
    made = trained(bench)
    made[1]["scores"] = ["nowhere.json"]
    assert "not run" in [text.get_text() for text in heat(read(made)).axes[0].texts]
    assert classes_sheet(read(made)).rows[1][-3:] == ["not run"] * 3
    every = [{**one, "scores": ["nowhere.json"]} for one in made]
    assert classes_sheet(read(every)).rows[0] == ["dm", "convnet3_in"] and heat(read(every)).axes


def test_what_does_not_fit_is_named(bench):
    with pytest.raises(ConfigError, match="two cells stand in row convnet3_in"):
        heat(read([trained(bench)[0], bench.cell([[0.5]], ipc=50)]))
    with pytest.raises(ConfigError, match="reading pretrained needs analysis"):
        heat(read(trained(bench), reading="pretrained"))
    save_tensors(bench.root / "other.safetensors", {"real": torch.zeros(1)}, {})
    with pytest.raises(ArtifactError, match="not `right` and `count`"):
        heat(read([{**bench.cell([[0.5]]), "analysis": str(bench.root / "other.safetensors")}], reading="pretrained"))
