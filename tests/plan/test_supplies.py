"""Guidance, experts, whitening, teachers and choices: from a paper file to jobs."""

import re
from pathlib import Path

import pytest
import yaml

from dd.config import parse
from dd.errors import ConfigError
from dd.plan import Plan
from dd.plan.command import arguments
from dd.plan.cost import estimate
from dd.plan.papers import Settings

WORKFLOW = Path("workflow")
BASE = {"dataset": ["cifar10"], "ipc": [50], "method": ["dsa"], "eval_network": ["vgg11_in"], "eval_protocol": ["dc"]}
GUIDE = {"guidance": ["clom"], "n_m": [3], "extractor": ["convnet3_in+alexnet"], "extractor_epochs": [20]}
AXES = {"guidance": "guidance.kind", "n_m": "guidance.models", "extractor": "guidance.networks", "extractor_mode": None,
        "extractor_epochs": "guidance.epochs", "source_domain": "guidance.source", "alpha": "guidance.alpha"}  # fmt: skip
CHOSEN = {"guidance.epochs": {"candidates": [4, 20], "split": "holdout"}}


@pytest.fixture
def make(tmp_path):
    """Return a function that plans a paper of one table."""
    for part in ("scales", "reported"):
        (tmp_path / part).symlink_to((WORKFLOW / part).resolve())
    (tmp_path / "papers").mkdir()

    def plan(matrix, overrides=(), scale="paper", **settings):
        paper = {"paper": "p", "title": "P", "claims": False, "axes": AXES, "milestones": [4, 20], "defaults": {"sets": 1, "nets": 5},
                 "overrides": list(overrides), "artifacts": {"a": {"title": "T", "kind": "table", "matrix": matrix, "columns": ["method"]}}}  # fmt: skip
        (tmp_path / "papers/p.yaml").write_text(yaml.safe_dump(paper, sort_keys=False))
        return Plan(parse(Settings, {"scale": scale, "papers": ["p"], **settings}, "config.yaml"), tmp_path, only=["p"])

    return plan


def only(plan, stage):
    (job,) = plan.stage(stage)
    return job


def test_guides_are_inputs_of_the_distillation(make):
    plan = make({**BASE, **GUIDE})
    job = only(plan, "distill")
    guidance = job.config["guidance"]
    assert (guidance["networks"], guidance["models"], guidance["epochs"], guidance["alpha"]) == (["convnet3_in", "alexnet"], 3, 20, 1000.0)
    assert len(job.facts["guides"]) == 6 and set(job.facts["guides"]) < set(job.inputs)
    assert [bool(re.search("/epoch20/", path)) for path in job.facts["guides"]] == [True] * 6
    assert arguments(job).count("--need") == 2
    assert {"dd.networks.alexnet", "dd.networks.convnet"} < set(job.modules)
    chain = {(block.facts["network"], block.facts["previous_epoch"], block.facts["epoch"]) for block in plan.stage("pretrain")}
    assert chain == {(network, *span) for network in ("convnet3_in", "alexnet") for span in ((0, 4), (4, 20))}
    plain = make(BASE)
    assert "guidance" not in only(plain, "distill").config  # as it was hashed before there was any
    assert plain.cells["p"]["a"][0].distilled != plan.cells["p"]["a"][0].distilled
    assert estimate(job, 1e9)[0] > estimate(only(plain, "distill"), 1e9)[0]


def test_the_weight_follows_method_and_ipc_unless_it_is_given(make):
    for method, ipc, alpha in (("dc", 50, 5000.0), ("dm", 10, 2000.0)):
        plan = make({**BASE, **GUIDE, "method": [method], "ipc": [ipc]})
        assert only(plan, "distill").config["guidance"]["alpha"] == alpha
    assert only(make({**BASE, **GUIDE, "alpha": [7.0]}), "distill").config["guidance"]["alpha"] == 7.0
    each = make({**BASE, **GUIDE}, [{"when": {"guidance": "clom"}, "set": {"guidance.alpha": [1.0, 2.0]}}])
    assert only(each, "distill").config["guidance"]["alpha"] == [1.0, 2.0]
    with pytest.raises(ConfigError, match=r"alpha is missing: no value is known for method m3d"):
        make({**BASE, **GUIDE, "method": ["m3d"]})


def test_guides_of_other_data_bring_that_dataset(make):
    plan = make({**BASE, **GUIDE, "guidance": ["cclom"], "source_domain": ["cifar100"], "n_m": [1]})
    assert "data/prepared/cifar100/manifest.json" in plan.jobs
    assert {block.config["dataset"]["name"] for block in plan.stage("pretrain")} == {"cifar100"}
    own = make({**BASE, **GUIDE, "source_domain": ["cifar10"]})
    assert own.cells["p"]["a"][0].distilled == make({**BASE, **GUIDE}).cells["p"]["a"][0].distilled
    with pytest.raises(ConfigError, match="source is for cclom"):
        make({**BASE, **GUIDE, "source_domain": ["cifar100"]})


def test_a_scale_maps_and_caps_the_guides(make):
    plan = make({**BASE, **GUIDE}, scale="demo")
    guidance = only(plan, "distill").config["guidance"]
    assert guidance["networks"] == ["convnet3_in_w32", "alexnet_w16"]
    assert (guidance["models"], guidance["epochs"]) == (2, 1)
    scaled = plan.cells["p"]["a"][0].point.scaled
    assert {"guidance.models 2", "guidance.epochs 1"} <= set(scaled)


def test_a_teacher_is_a_file_of_the_users(make):
    matrix = {**BASE, **GUIDE, "dataset": ["imagenette"], "guidance": ["cclom"], "extractor": ["resnet18_tv"], "n_m": [1]}
    matrix |= {"source_domain": ["imagenet1k"], "eval_network": ["convnet6_in"]}
    del matrix["extractor_epochs"]
    plan = make(matrix)
    job = only(plan, "teacher")
    assert (job.outputs, job.inputs) == (["data/teachers/resnet18_tv.safetensors"], [])
    assert job.outputs[0] in only(plan, "distill").inputs
    given = make(matrix, teachers={"resnet18_tv": {"path": "weights.safetensors", "sha256": "a" * 64}})
    assert only(given, "teacher").inputs == ["weights.safetensors"]
    assert given.cells["p"]["a"][0].distilled != plan.cells["p"]["a"][0].distilled  # other weights, another set
    with pytest.raises(ConfigError, match=r"teachers: no teacher 'resnet19'; did you mean 'resnet18_tv'"):
        make(BASE, teachers={"resnet19": {"path": "x"}})


def test_experts_are_made_in_blocks_and_whitening_once(make):
    mtt = {**BASE, "method": ["mtt"], "ipc": [10], "eval_network": ["convnet3_in"]}
    plan = make(mtt)
    blocks = plan.stage("experts")
    assert len(blocks) == 20 and blocks[1].facts["seeds"] == (5, 6, 7, 8, 9)
    assert blocks[0].outputs[4].startswith("results/experts/cifar10/convnet3_in/") and blocks[0].outputs[4].endswith("/expert4.safetensors")
    zca = "data/prepared/cifar10/zca.safetensors"
    for job in (*blocks, only(plan, "distill"), only(plan, "evaluate")):
        assert zca in job.inputs
    assert only(plan, "whiten").inputs == ["data/prepared/cifar10/manifest.json"]
    assert len(only(plan, "distill").facts["groups"][0]) == 100
    # 51 checkpoints of 320,010 numbers, four bytes each, five experts
    assert estimate(blocks[0], 1e12)[1] == 5 * 51 * 320_010 * 4
    plain = make({**mtt, "ipc": [50]})
    assert not plain.stage("whiten") and zca not in only(plain, "distill").inputs
    guided = make({**mtt, **GUIDE, "n_m": [1]})
    assert {block.config["lineage"] for block in guided.stage("pretrain")} == {"zca"}


def test_an_epoch_may_be_chosen_on_images_that_nobody_saw(make):
    plan = make({**BASE, **GUIDE}, [{"when": {"guidance": "clom"}, "set": CHOSEN}])
    choice = only(plan, "choose")
    (chosen,) = [job for job in plan.stage("distill") if job.facts["choice"]]
    candidates = [job for job in plan.stage("distill") if not job.facts["choice"]]
    assert chosen.facts["choice"] == choice.outputs[0] and choice.outputs[0] in chosen.inputs
    assert arguments(chosen)[-4:-2] == ["--choice", choice.outputs[0]]
    assert len(chosen.facts["guides"]) == 2 * 2 * 3  # both architectures, both candidates, three seeds
    assert [job.config["guidance"]["epochs"] for job in candidates] == [4, 20]
    for job in candidates:
        assert job.config["split"] == "fit"
        assert (job.config["guidance"]["networks"], job.config["guidance"]["models"]) == (["convnet3_in"], 1)
    judged = [plan.jobs[path] for path in choice.inputs]
    assert [(job.config["split"], job.config["network"]) for job in judged] == [("holdout", "convnet3_in")] * 2
    assert choice.config["files"] == {"4": [judged[0].outputs[0]], "20": [judged[1].outputs[0]]}
    splits = {(block.config.get("split", "train"), block.facts["network"]) for block in plan.stage("pretrain")}
    assert splits == {("fit", "convnet3_in"), ("train", "convnet3_in"), ("train", "alexnet")}
    assert "split" not in chosen.config


def test_a_choice_on_the_test_split_takes_sets_of_all_images(make):
    on_test = {"guidance.epochs": {"candidates": [4, 20], "split": "test"}}
    plan = make({**BASE, **GUIDE}, [{"when": {"guidance": "clom"}, "set": on_test}])
    candidates = {job.facts["id"] for job in plan.stage("distill") if not job.facts["choice"]}
    single = {**BASE, **GUIDE, "n_m": [1], "extractor": ["convnet3_in"], "extractor_epochs": [4, 20], "eval_network": ["convnet3_in"]}
    assert candidates == {cell.distilled for cell in make(single).cells["p"]["a"]}  # those of a figure over epochs


def test_more_repeats_do_not_choose_anew(make):
    rule = [{"when": {"guidance": "clom"}, "set": CHOSEN}]
    ids = {only(make({**BASE, **GUIDE}, rule, **more), "choose").facts["id"] for more in ({}, {"nets": 20}, {"sets": 1})}
    assert len(ids) == 1
    fewer = make({**BASE, **GUIDE}, [{"when": {"guidance": "clom"}, "set": {"guidance.epochs": {"candidates": [4], "split": "holdout"}}}])
    assert only(fewer, "choose").facts["id"] not in ids


@pytest.mark.parametrize(
    ("change", "overrides", "said"),
    [
        ({"method": ["random"]}, [{"when": {"method": "random"}, "set": {"guidance.alpha": 1.0}}], "random selects real images"),
        ({"guidance": ["cclom"], "source_domain": ["imagenette"]}, [], r"convnet3_in of imagenette takes images of \(3, 224, 224\)"),
        ({"guidance": ["cclom"], "extractor": ["clip_rn50"], "n_m": [1]}, [], r"clip_rn50 of its own data takes images of \(3, 224, 224\)"),
        ({"dataset": ["imagenette"], "eval_network": ["convnet6_in"], "extractor": ["resnet18_tv"], "n_m": [1]}, [],
         "resnet18_tv knows 1000 classes, imagenette has 10; guidance.kind cclom takes it"),
        ({"extractor_epochs": [900]}, [], "value 900 is beyond the 150 epochs"),
        ({"alpha": [-1.0]}, [], "alpha"),
        ({"extractor": ["resnet18_tv"], "guidance": ["cclom"]}, [], "a teacher is one file"),
    ],
)  # fmt: skip
def test_guides_that_cannot_be_are_refused_before_they_are_trained(make, change, overrides, said):
    with pytest.raises(ConfigError, match=said):
        make({**BASE, **GUIDE, **change}, overrides)


def test_an_override_neither_makes_guidance_by_accident_nor_loses_its_weight(make):
    with pytest.raises(ConfigError, match=r"guidance.alpha: set for a point without guidance.kind; add the guidance to `when`"):
        make(BASE, [{"when": {"method": "dsa"}, "set": {"guidance.alpha": 1.0}}])
    plan = make(BASE, [{"when": {"method": "dsa"}, "set": {"guidance.kind": "clom"}}])
    assert only(plan, "distill").config["guidance"]["alpha"] == 1000.0


def test_candidates_are_weighted_as_their_architecture_and_judged_by_as_many_as_the_paper_says(make):
    rule = {"when": {"guidance": "clom"}, "set": {**CHOSEN, "guidance.alpha": [1.0, 2.0]}}
    plan = make({**BASE, **GUIDE}, [rule])
    assert {job.config["guidance"]["alpha"] for job in plan.stage("distill") if not job.facts["choice"]} == {1.0}
    ids = {only(make({**BASE, **GUIDE}, [{**rule, "set": {**rule["set"], "nets": nets}}]), "choose").facts["id"] for nets in (2, 5)}
    assert len(ids) == 2


def test_experts_of_candidates_do_not_see_the_held_out_tenth(make):
    plan = make({**BASE, "method": ["mtt"], **GUIDE}, [{"when": {"guidance": "clom"}, "set": CHOSEN}])
    assert {job.config["split"] for job in plan.stage("experts")} == {"fit", "train"}


def test_what_a_user_cannot_make_keeps_its_place(make):
    plan = make(BASE, leave_out={"p": ["a"]})
    assert not plan.stage("distill") and plan.drawing("p")["artifacts"][0]["absent"] == "left out in config.yaml"
    with pytest.raises(ConfigError, match=r"leave_out.p: no artifact 'b'; did you mean 'a'|leave_out.p: no artifact 'b'; allowed: a"):
        make(BASE, leave_out={"p": ["b"]})
    whole = Plan(parse(Settings, {"scale": "paper", "papers": ["clom"], "leave_out": {"clom": ["table3"]}}, "c"), WORKFLOW, only=["clom"])
    assert not [path for path in whole.of(["clom"])[-1].inputs if "imagenette" in path or "imagefruit" in path]
    assert not whole.stage("teacher")


def test_seconds_of_guides_are_shared_among_those_who_use_them(make):
    plan = make({**BASE, **GUIDE, "n_m": [5]})
    (cell,) = plan.drawing("p")["artifacts"][0]["cells"]
    guides = cell["run_files"]["guides"]
    assert sum(one["share"] for one in guides) == pytest.approx(4)  # two architectures, two stretches, all five seeds of each
    single = make({**BASE, **GUIDE, "n_m": [1], "extractor": ["convnet3_in"]})
    (cell,) = single.drawing("p")["artifacts"][0]["cells"]
    assert [one["share"] for one in cell["run_files"]["guides"]] == [1, 1]  # seed 0 alone is trained
    assert cell["run_files"]["distillation"] == [f"{cell['sets'][0]}/run.json"]
    assert make(BASE).drawing("p")["artifacts"][0]["cells"][0]["run_files"]["guides"] == []
