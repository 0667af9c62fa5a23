"""Picking a value from results."""

import json

import pytest

from dd.artifacts import write_json
from dd.choose import choose
from dd.errors import ArtifactError, ConfigError


def scores(path, *accuracies):
    about = {"network": "n", "protocol": "p", "set": 0, "accuracy_best_on_test": 1.0, "per_class": [], "status": "ok", "detail": {}}
    write_json(path, {"config": {}, "scores": [{**about, "net": number, "accuracy_last": value} for number, value in enumerate(accuracies)]})
    return str(path)


def config(**files):
    return {"stage": "choose", "criterion": "largest mean accuracy", "split": "holdout", "files": {key[1:]: value for key, value in files.items()}}


def test_the_largest_mean_over_all_networks_of_all_sets_wins(tmp_path):
    one = [scores(tmp_path / "a", 0.9, 0.1), scores(tmp_path / "b", 0.3, 0.3)]  # 0.4, though it has the best network
    two = [scores(tmp_path / "c", 0.5, 0.5), scores(tmp_path / "d", 0.4, 0.4)]  # 0.45
    choose(config(e4=one, e20=two), tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == {
        "value": 20, "criterion": "largest mean accuracy", "split": "holdout", "candidates": {"4": 0.4, "20": 0.45}}  # fmt: skip


def test_of_equals_the_smallest_wins_by_number(tmp_path):
    same = [scores(tmp_path / "a", 0.5)]
    choose(config(e120=same, e20=same, e4=[scores(tmp_path / "b", 0.4)]), tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["value"] == 20


def test_missing_results_are_an_error_and_nothing_is_written(tmp_path):
    with pytest.raises(ArtifactError, match="no such file"):
        choose(config(e4=[str(tmp_path / "none.json")]), tmp_path / "out.json")
    with pytest.raises(ConfigError, match="names no candidates"):
        choose(config(), tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
