"""Protocols that need networks: from a paper file to jobs, seconds and mistakes."""

import json
from pathlib import Path

import pytest
import yaml

from dd.config import parse
from dd.plan import Plan
from dd.plan.command import arguments
from dd.plan.cost import estimate
from dd.plan.fits import misfits
from dd.plan.papers import Settings

WORKFLOW = Path("workflow")
BASE = {"dataset": ["cifar10"], "ipc": [10], "method": ["dm"], "eval_network": ["resnet18_in"], "eval_protocol": ["elf"]}


@pytest.fixture
def make(tmp_path):
    """Return a function that plans a paper of one table, with settings of ELF."""
    for part in ("scales", "reported"):
        (tmp_path / part).symlink_to((WORKFLOW / part).resolve())
    (tmp_path / "papers").mkdir()

    def plan(matrix=BASE, overrides=(), scale="paper", sets=1, **elf):
        paper = {"paper": "p", "title": "P", "claims": False, "overrides": list(overrides), "defaults": {"sets": sets, "nets": 5, "protocol": {"elf": elf}},
                 "artifacts": {"a": {"title": "T", "kind": "table", "matrix": matrix, "columns": ["method"]}}}  # fmt: skip
        (tmp_path / "papers/p.yaml").write_text(yaml.safe_dump(paper, sort_keys=False))
        return Plan(parse(Settings, {"scale": scale, "papers": ["p"]}, "config.yaml"), tmp_path, only=["p"])

    return plan


def only(plan, stage):
    (job,) = plan.stage(stage)
    return job


def test_the_feature_network_is_trained_once_and_handed_to_every_evaluation(make):
    plan = make(sets=3, features={"epochs": 30})
    trained = only(plan, "pretrain")
    assert (trained.facts["network"], trained.facts["epoch"], trained.facts["seeds"]) == ("convnet3_in_w512", 30, (0,))
    assert trained.config["training"] | {"schedule": "halfway_reset", "epochs": 200, "augment": "oneof", "align_corners": True} == trained.config["training"]
    judged = plan.stage("evaluate")
    assert len(judged) == 3
    for job in judged:
        assert trained.outputs[0] in job.inputs
        assert arguments(job)[-4:-2] == ["--need", trained.outputs[0]]
        assert job.config["inputs"] == [trained.facts["id"]]
        assert {"dd.networks.convnet", "dd.networks.resnet", "dd.evaluation.protocols.elf"} < set(job.modules)
    assert trained in plan.of(["p"])


def test_other_protocols_hash_as_before_and_get_nothing(make):
    job = only(make({**BASE, "eval_protocol": ["dc"]}), "evaluate")
    assert not {"inputs", "split"} & set(job.config)
    assert not {"replicas", "align_corners", "learned_lr"} & set(job.config["settings"])
    assert len(job.inputs) == 2


@pytest.mark.parametrize("changed", [{"front": 0.5}, {"distance": "mse"}, {"features": {"epochs": 50}}, {"stage": 8}, {"replicas": 4}])
def test_whatever_changes_the_result_changes_the_id(make, changed):
    assert only(make(**changed), "evaluate").facts["id"] != only(make(), "evaluate").facts["id"]


def test_whitened_sets_get_features_of_whitened_images(make):
    mtt = {**BASE, "method": ["mtt"]}
    white = make(mtt, [{"when": {"method": "mtt"}, "set": {"recipe.zca": True}}])
    plain = make(mtt, [{"when": {"method": "mtt"}, "set": {"recipe.zca": False}}])
    assert only(white, "pretrain").config["lineage"] == "zca"
    assert "data/prepared/cifar10/zca.safetensors" in only(white, "pretrain").inputs
    assert "lineage" not in only(plain, "pretrain").config
    assert only(white, "pretrain").facts["id"] != only(plain, "pretrain").facts["id"]


def test_a_scale_maps_and_caps_the_feature_network(make):
    plan = make(scale="demo")
    assert (only(plan, "pretrain").facts["network"], only(plan, "pretrain").facts["epoch"]) == ("convnet3_in_w64", 1)
    said = plan.cells["p"]["a"][0].point.scaled
    assert "protocol.features.network convnet3_in_w64" in said
    assert "protocol.features.epochs 1" in said


def test_a_cell_knows_where_the_seconds_of_its_features_stand(make):
    plan = make()
    (cell,) = plan.drawing("p")["artifacts"][0]["cells"]
    folder = only(plan, "pretrain").outputs[0].rpartition("/")[0]
    assert cell["run_files"]["features"] == [{"run": f"{folder}/seed0.run.json", "share": 1.0}]
    assert cell["run_files"]["guides"] == []
    json.dumps(cell)
    (cell,) = make({**BASE, "eval_protocol": ["dc"]}).drawing("p")["artifacts"][0]["cells"]
    assert cell["run_files"]["features"] == []


def test_elf_costs_more_than_the_protocol_that_it_is_built_on(make):
    elf, dc = (estimate(only(make({**BASE, "eval_protocol": [name]}), "evaluate"), 1e12)[0] for name in ("elf", "dc"))
    assert dc < elf < 2 * dc


def test_features_that_do_not_fit_are_found_before_anything_is_trained(make):
    assert list(misfits(make(), "p.yaml")) == []
    (wrong,) = misfits(make(features={"network": "convnet3_in"}), "p.yaml")
    for part in ("p.yaml: on cifar10", "resnet18_in", "convnet3_in are 128x4x4", "512x4x4"):
        assert part in wrong, wrong
    (wrong,) = misfits(make(stage=6), "p.yaml")
    assert "stage: value 6" in wrong and "fit: 7, 8" in wrong, wrong
