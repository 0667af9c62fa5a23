"""The paper hpd: what its points are at scale paper."""

import collections
from pathlib import Path

import pytest
from plans import whole

from dd.figures.reported import find, load_reported


@pytest.fixture(scope="module")
def cells():
    """Return (artifact, coordinates, configuration, cell) of all points."""
    return [(name, cell.point.at, cell.point.config, cell) for name, found in whole().cells["hpd"].items() for cell in found]


def test_pixels_glad_and_hpd_have_as_many_updates_where_selection_is_equal(cells):
    updates = collections.defaultdict(set)
    for name, at, config, _ in cells:
        if at.get("selection") == "equal" and "updates" not in at:
            updates[name, at["dataset"], at["ipc"], at["base"]].add(config["recipe"]["iterations"])
    assert len(updates) > 100 and {len(found) for found in updates.values()} == {1}
    assert updates["table1", "imagenet_a", 1, "tesla"] == {1200} and updates["table1", "imagenet_a", 1, "dm"] == {240}
    assert updates["table4", "cifar10", 1, "dsa"] == {400} and updates["table2", "tiny_imagenet", 10, "sre2l"] == {4000}
    assert updates["table11", "imagenet_e", 1, "dsa"] == {1500}


def test_the_images_of_hpd_are_chosen_once_for_all_networks_that_are_trained_on_them(cells):
    for table in ("table3", "table4", "table5", "table11"):
        chosen = collections.defaultdict(set)
        for name, at, _, cell in cells:
            if name == table and at["space"] == "hpd":
                chosen[at["dataset"], at["base"], at["selection"]].add(cell.choice)
        assert chosen and {len(found) for found in chosen.values()} == {1}, table
        assert None not in set().union(*chosen.values())


def test_what_is_best_on_test_is_judged_by_the_five_networks_what_is_held_out_by_the_distillations_own(cells):
    plan = whole()
    for name, at, _, cell in cells:
        if (name, at["dataset"], at["base"], at["space"]) == ("table5", "imagenet_b", "dsa", "hpd") and at["eval_network"] == "vgg11_in":
            files = plan.jobs[cell.choice].config["files"]
            jobs = [plan.jobs[path] for path in files["600"]]
            rates = {job.config["network"]: job.config["settings"]["lr"] for job in jobs}
            assert list(files) == [str(100 * k) for k in range(1, 13)]
            if at["selection"] == "printed":
                names = ("convnet5_in", "alexnet", "resnet18_in", "vgg11_in_pool7", "vit_p16_none_d10")
                assert rates == {name: 0.0001 if "vgg" in name else 0.001 for name in names}
            else:
                assert rates == {"convnet5_in": 0.001} and {job.config["split"] for job in jobs} == {"holdout"}
            assert plan.jobs[cell.scores[0]].config["settings"]["lr"] == 0.0001


def test_layers_and_updates_of_a_space_are_those_of_the_tables(cells):
    found = {(at["layers"], at["updates"]): config["recipe"] for name, at, config, _ in cells if name == "table12"}
    spaces = {1: list(range(1, 26)), 2: list(range(1, 24, 2)), 4: [1, 5, 9, 13, 17, 21]}
    assert {key: recipe["cuts"] for key, recipe in found.items()} == {(m, n): spaces[m] for m in spaces for n in (50, 100, 200)}
    assert all(recipe["iterations"] == len(spaces[m]) * n for (m, n), recipe in found.items())


def test_components_differ_in_what_their_names_say(cells):
    found = {at.get("form"): config for name, at, config, _ in cells if (name, at["dataset"], at["base"]) == ("table10", "imagenet_a", "dm")}
    assert found["unfixed_space;no_selection"]["recipe"]["keep"] == "last" and found["unfixed_space;no_selection"].get("step") is None
    by_search = {at["form"]: config for name, at, config, _ in cells if (name, at["dataset"], at["base"]) == ("table15", "imagenet_a", "dm")}
    assert {form: config["recipe"]["keep"] for form, config in by_search.items()} == {
        "search=none": "last", "search=loss": "loss", "search=feature_distance": "feature_distance",
    }  # fmt: skip
    assert all(config["step"]["split"] == "holdout" for config in by_search.values())
    glad = {(at.get("form"), config["recipe"]["average"]) for name, at, config, _ in cells if name == "table16"}
    assert glad == {(None, 0), ("avg_init", 1000)}
    hpd = {(at["form"], config["recipe"]["average"]) for name, at, config, _ in cells if name == "table17"}
    assert hpd == {("no_avg_init", 0), ("avg_init", 1000)}


def test_no_deviation_of_table_3_is_shown_as_printed():
    drawing = whole().drawing("hpd")
    rows = load_reported(Path(drawing["reported"]))
    (table,) = [one for one in drawing["artifacts"] if one["name"] == "table3"]
    printed = [find(rows, ["table3"], cell["printed"]) for cell in table["cells"] if cell["at"]["eval_network"] == "mean_of_4_unseen"]
    assert len(printed) == 60 and all(row is not None and row.std is None for row in printed)
