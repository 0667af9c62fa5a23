"""Which published step counts, left to a choice; means of cells; coordinates that are made of others; what a scale does to a generator."""

import shutil
from pathlib import Path

import pytest
import yaml

from dd import evaluation
from dd.artifacts import write_json
from dd.choose import chosen_step
from dd.config import parse
from dd.config.stages import ChosenStep
from dd.errors import ArtifactError, ConfigError
from dd.plan import Plan
from dd.plan.command import arguments
from dd.plan.papers import Settings

WORKFLOW = Path(__file__).resolve().parents[2] / "workflow"
AT = {"dataset": ["cifar10"], "ipc": [1], "method": ["dm"], "eval_network": ["alexnet"], "eval_protocol": ["dc"]}
STEPS = {"recipe.iterations": 60, "recipe.steps": [0, 20, 40]}


@pytest.fixture
def make(tmp_path):
    """Return a function that plans a paper of one artifact; `more` goes beside it."""
    shutil.copytree(WORKFLOW, tmp_path / "workflow")

    def plan(scale="paper", more=None, **artifact):
        artifact = {"title": "T", "kind": "table", "matrix": AT, "rows": ["ipc"], "columns": ["method"], **artifact}
        paper = {"paper": "p", "title": "P", "claims": False, "defaults": {"sets": 2, "nets": 2}, "artifacts": {"a": artifact}, **(more or {})}
        (tmp_path / "workflow/papers/p.yaml").write_text(yaml.safe_dump(paper, sort_keys=False))
        return Plan(parse(Settings, {"scale": scale, "papers": ["p"]}, "config.yaml"), tmp_path / "workflow", only=["p"])

    return plan


def rule(**step):
    return [{"when": {"method": "dm"}, "set": {**STEPS, "step": step}}]


def judged_by(plan):
    """Return the choice, and value -> the evaluations it is judged by."""
    (choice,) = plan.stage("choose")
    return choice, {value: [plan.jobs[path] for path in files] for value, files in choice.config["files"].items()}


# -- a published step is picked ---------------------------------------------------------------------------------------


def test_on_held_out_images_other_runs_compete_and_their_step_is_taken_of_the_runs_on_all_of_train(make):
    plan = make(overrides=rule(split="holdout", judges={"convnet3_in": {"lr": 0.5}}))
    choice, found = judged_by(plan)
    assert list(found) == ["20", "40", "60"] and choice.config["split"] == "holdout"
    for value, jobs in found.items():
        assert [job.facts["set"] for job in jobs] == [0, 1]
        for job in jobs:
            assert job.config["network"] == "convnet3_in" and job.config["split"] == "holdout" and job.config["settings"]["lr"] == 0.5
            name = "distilled.safetensors" if value == "60" else f"steps/{value}.safetensors"
            assert job.inputs[0].endswith(f"seed{job.facts['set']}/{name}")
            assert plan.jobs[f"{Path(job.inputs[0].replace('/steps/', '/')).parent}/distilled.safetensors"].config["split"] == "fit"
    (cell,) = plan.cells["p"]["a"]
    final = plan.jobs[cell.scores[0]]
    assert final.config["settings"]["lr"] == 0.01, "what a judge has of its own is not the cell's"
    assert final.config["step"] == {"choice": choice.facts["id"], "last": 60} and final.config["network"] == "alexnet"
    assert "split" not in final.config and "split" not in plan.jobs[final.inputs[0]].config  # tested on test, distilled from train
    folder = Path(final.inputs[0]).parent
    assert {choice.outputs[0], *(f"{folder}/steps/{step}.safetensors" for step in (0, 20, 40))} <= set(final.inputs)
    assert final.inputs[0] == f"{folder}/distilled.safetensors" and final.inputs[1].endswith("manifest.json")  # the rule counts on it
    assert arguments(final)[-4:-2] == ["--choice", choice.outputs[0]] and cell.choice == choice.outputs[0]
    assert len(plan.stage("distill")) == 4 and not {"--choice", "--need"} & set(arguments(found["20"][0]))


def test_on_the_test_split_the_steps_of_the_sets_themselves_compete_by_the_network_of_the_cell(make):
    plan = make(overrides=rule(split="test"))
    _, found = judged_by(plan)
    assert {job.config["network"] for jobs in found.values() for job in jobs} == {"alexnet"}
    assert len(plan.stage("distill")) == 2 and not any("split" in job.config for job in plan.stage("evaluate"))


def test_a_scale_that_leaves_only_the_final_set_leaves_no_choice(make):
    plan = make(scale="demo", overrides=[{"when": {"method": "dm"}, "set": {**STEPS, "recipe.steps": [60, 61], "recipe.iterations": 70, "step": {"split": "test"}}}])
    assert not plan.stage("choose")
    (cell,) = plan.cells["p"]["a"]
    assert cell.choice is None and plan.jobs[cell.scores[0]].config["step"] is None
    assert "nothing to choose from: the final set" in cell.point.scaled


def test_every_point_says_so_that_a_scale_left_nothing_to_choose(make):
    """Also one whose cell another point of the same configuration made before."""
    twice = {**AT, "dataset": ["cifar10", "svhn"]}  # one dataset at scale demo
    given = [{"when": {"method": "dm"}, "set": {"recipe.iterations": 70, "recipe.steps": [0, 60], "step": {"split": "test"}}}]
    cells = make(scale="demo", matrix=twice, columns=["dataset"], overrides=given).cells["p"]["a"]
    assert len(cells) == 2 and cells[0].scores == cells[1].scores
    assert all("nothing to choose from: the final set" in cell.point.scaled for cell in cells)


@pytest.mark.parametrize(
    ("step", "named"),
    [({"split": "train"}, "holdout, test"), ({"split": "test", "nets": 2}, "unknown key 'nets'"), ({}, "step.split: value None")],
)
def test_a_wrong_rule_is_refused(make, step, named):
    with pytest.raises(ConfigError, match=named):
        make(overrides=rule(**step))


def test_a_method_that_publishes_nothing_leaves_nothing_to_pick_from(make):
    with pytest.raises(ConfigError, match="publishes no steps"):
        make(overrides=[{"when": {"method": "dm"}, "set": {"step": {"split": "test"}}}])


def test_an_unknown_network_that_judges_is_refused(make):
    with pytest.raises(ConfigError, match="alexnett"):
        make(overrides=rule(split="test", judges={"alexnett": {}}))
    with pytest.raises(ConfigError, match="learning"):
        make(overrides=rule(split="test", judges={"alexnet": {"learning": 1}}))
    with pytest.raises(ConfigError, match="must map networks"):
        make(overrides=rule(split="test", judges=["alexnet"]))


def test_several_judges_count_alike_and_a_scale_maps_them_and_their_protocol(make):
    judges = {"convnet3_in": {"lr": 0.01}, "alexnet": {"lr": 0.5}}
    _, found = judged_by(make(overrides=rule(split="test", judges=judges)))
    assert {value: [job.config["network"] for job in jobs] for value, jobs in found.items()}["20"] == ["convnet3_in"] * 2 + ["alexnet"] * 2
    assert [job.config["settings"]["lr"] for job in found["20"]] == [0.01, 0.01, 0.5, 0.5]
    plan = make(scale="demo", overrides=rule(split="test", judges=judges))
    rates = {job.config["network"]: (job.config["protocol"], job.config["settings"]["lr"]) for job in plan.stage("evaluate") if job.facts["choice"] is None}
    usual = evaluation.config_of("dc_short")().lr
    assert rates == {"convnet3_in_w32": ("dc_short", usual), "alexnet_w16": ("dc_short", 0.5)}


def test_a_point_cannot_leave_both_its_guides_and_its_step_to_a_choice(make):
    both = [{"when": {"method": "dm"}, "set": {**STEPS, "step": {"split": "test"}, "guidance.kind": "clom", "guidance.alpha": 1.0,
             "guidance.epochs": {"candidates": [1, 2], "split": "test"}}}]  # fmt: skip
    with pytest.raises(ConfigError, match="both are left to a choice"):
        make(overrides=both)


def test_the_file_of_a_choice_names_the_set(tmp_path):
    final, choice = tmp_path / "seed0/distilled.safetensors", tmp_path / "abcd1234.json"
    step = ChosenStep(choice="abcd1234", last=60)
    for value, wanted in ((40, final.parent / "steps/40.safetensors"), (60, final)):
        write_json(choice, {"value": value})
        assert chosen_step(final, step, choice) == wanted
    assert chosen_step(final, None, None) == final == chosen_step(final, 40, None)
    with pytest.raises(ConfigError, match="--choice"):
        chosen_step(final, step, None)
    with pytest.raises(ConfigError, match="leave it out"):
        chosen_step(final, 40, choice)
    with pytest.raises(ArtifactError, match="is not the choice"):
        chosen_step(final, ChosenStep(choice="00000000", last=60), choice)
    write_json(choice, {"value": None})
    with pytest.raises(ArtifactError, match="not a file of a choice"):
        chosen_step(final, step, choice)


# -- means of cells ---------------------------------------------------------------------------------------------------

MEANS = {"eval_network": {"mean_of_2": ["alexnet", "convnet3_in"]}}
TWO = {**AT, "ipc": [1, 10], "eval_network": ["alexnet", "convnet3_in", "resnet18_in"]}


def test_cells_that_differ_in_nothing_else_stand_once_more_as_their_mean(make):
    cells = make(matrix=TWO, means=MEANS, columns=["eval_network"]).drawing("p")["artifacts"][0]["cells"]
    more = [cell for cell in cells if "members" in cell]
    assert len(cells) == 8 and [cell["at"]["ipc"] for cell in more] == [1, 10]
    for cell in more:
        assert cell["at"]["eval_network"] == cell["printed"]["eval_network"] == "mean_of_2"
        assert [(one["at"]["ipc"], one["at"]["eval_network"]) for one in cell["members"]] == [
            (cell["at"]["ipc"], "alexnet"), (cell["at"]["ipc"], "convnet3_in"),
        ]  # fmt: skip


def test_there_is_no_mean_where_some_of_its_cells_are_left_out(make):
    cells = make(matrix=TWO, means=MEANS, columns=["eval_network"], exclude=[{"ipc": 10, "eval_network": "alexnet"}]).drawing("p")["artifacts"][0]["cells"]
    assert [cell["at"]["ipc"] for cell in cells if "members" in cell] == [1]


def test_a_mean_over_what_no_cell_has_is_refused(make):
    with pytest.raises(ConfigError, match="no point has a coordinate 'eval_net'"):
        make(matrix=TWO, means={"eval_net": {"m": ["alexnet"]}}).drawing("p")


# -- coordinates made of others ---------------------------------------------------------------------------------------


def test_an_implied_value_takes_other_coordinates_in(make):
    more = {"axes": {"variant": None}, "implied": [{"when": {"ipc": [1, 10]}, "set": {"variant": "{method} at {ipc}"}}]}
    cells = make(matrix={**AT, "ipc": [1, 10]}, more=more).cells["p"]["a"]
    assert [cell.point.at["variant"] for cell in cells] == ["dm at 1", "dm at 10"]


def test_an_implied_value_that_names_no_coordinate_is_refused(make):
    more = {"axes": {"variant": None}, "implied": [{"when": {"ipc": 1}, "set": {"variant": "{metod}"}}]}
    with pytest.raises(ConfigError, match="no coordinate 'metod'"):
        make(more=more)


# -- scales and what a recipe completes -------------------------------------------------------------------------------


def test_a_scale_maps_the_dataset_before_a_recipe_completes_what_depends_on_it(make):
    glad = {**AT, "dataset": ["imagenet_a_128"], "method": ["glad"]}
    more = {"overrides": [{"when": {"method": "glad"}, "set": {"recipe.iterations": 30, "recipe.average": 7}}]}
    full = make(matrix=glad, more=more).cells["p"]["a"][0].point.config["recipe"]
    small = make(scale="demo", matrix=glad, more=more).cells["p"]["a"][0].point.config["recipe"]
    assert full["generator"]["name"] == "stylegan_xl_128" and full["rates"] == "absolute" and full["cut"] > 10
    assert small["generator"]["name"] == "mini" and small["rates"] == "relative" and small["cut"] < 6
    assert small["generator"]["training"]["lr"] == 0.005  # what digits take
    assert full["iterations"] == small["iterations"] == 30 and full["average"] == small["average"] == 7


# -- what a scale leaves out --------------------------------------------------------------------------------------------


def test_a_scale_may_leave_an_artifact_out_and_it_keeps_its_place(make, tmp_path):
    path = tmp_path / "workflow/scales/demo.yaml"
    path.write_text(path.read_text().replace("leave_out:\n", "leave_out:\n  p: [a]\n"))
    plan = make(scale="demo")
    (artifact,) = plan.drawing("p")["artifacts"]
    assert plan.cells["p"]["a"] == [] and artifact["absent"] == "left out at scale demo"
    path.write_text(path.read_text().replace("  p: [a]\n", "  p: [b]\n"))
    with pytest.raises(ConfigError, match=r"scale demo: leave_out.p: no artifact 'b'"):
        make(scale="demo")
