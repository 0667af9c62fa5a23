"""Maps of class evidence and images of steps: from a paper file to jobs and to what is drawn."""

from pathlib import Path

import pytest
import yaml

from dd.config import digest, hashed, parse
from dd.config.stages import AnalyseConfig
from dd.errors import ConfigError
from dd.plan import Plan
from dd.plan.command import arguments
from dd.plan.cost import estimate
from dd.plan.papers import Settings

WORKFLOW = Path("workflow")
MATRIX = {
    "dataset": ["cifar10"],
    "ipc": [1],
    "method": ["dm"],
    "step": [0, 500, 1000],
    "eval_network": ["convnet3_in"],
    "eval_protocol": ["dc"],
}


@pytest.fixture
def make(tmp_path):
    """Return a function that plans a paper of one figure."""
    for part in ("scales", "reported"):
        (tmp_path / part).symlink_to((WORKFLOW / part).resolve())
    (tmp_path / "papers").mkdir()

    def plan(scale="paper", overrides=(), **look):
        artifact = {"title": "T", "kind": "cams", "matrix": MATRIX, "x": "step", **look}
        steps = {"when": {"method": "dm"}, "set": {"recipe.steps": [0, 500], "recipe.iterations": 1000}}
        paper = {"paper": "p", "title": "P", "claims": False, "axes": {"step": "step"}, "defaults": {"sets": 2, "nets": 1},
                 "overrides": [steps, *overrides], "artifacts": {"a": artifact}}  # fmt: skip
        (tmp_path / "papers/p.yaml").write_text(yaml.safe_dump(paper, sort_keys=False))
        return Plan(parse(Settings, {"scale": scale, "papers": ["p"]}, "config.yaml"), tmp_path, only=["p"])

    return plan


ANALYSIS = {"kind": "cams", "network": "resnet18_bn", "epochs": [0, 20], "labels": [3, 5]}


def test_maps_of_every_step_look_through_the_network_before_and_after_its_training(make):
    plan = make(analysis=ANALYSIS)
    jobs = plan.stage("analyse")
    assert [job.config.get("step") for job in jobs] == [0, 500, None]
    assert [Path(job.inputs[0]).name for job in jobs] == ["0.safetensors", "500.safetensors", "distilled.safetensors"]
    for job in jobs:
        assert (job.config["epoch"], job.config["earlier"], job.config["labels"]) == (20, [0], [3, 5])
        assert [Path(path).parent.name for path in job.facts["checkpoints"]] == ["epoch0", "epoch20"]
        assert set(job.facts["checkpoints"]) < set(job.inputs) and "dd.analysis.cams" in job.modules
        assert "/cams-" in job.outputs[0] and sum(item.endswith(".safetensors") for item in arguments(job)) == 4
        assert 0 < estimate(job, 1e9)[0] < 60
    made = [(job.facts["previous_epoch"], job.facts["epoch"]) for job in plan.stage("pretrain")]
    assert sorted(made) == [(0, 0), (0, 20)]
    cells = plan.drawing("p")["artifacts"][0]["cells"]
    assert [cell["analysis"] for cell in cells] == [job.outputs[0] for job in jobs]
    assert "published" not in cells[0], "only where steps are drawn: other papers' drawings stay as they are"


def test_one_epoch_is_one_network_and_a_scale_caps_each(make):
    (one,) = {job.config["epoch"] for job in make(analysis={**ANALYSIS, "epochs": 20}).stage("analyse")}
    assert one == 20 and all("earlier" not in job.config for job in make(analysis={**ANALYSIS, "epochs": [20]}).stage("analyse"))
    small = make("demo", analysis=ANALYSIS)
    most = small.scale.cap.get("analysis.epochs", small.scale.cap["recipe.extractor.epochs"])
    assert {(tuple(job.config.get("earlier", ())), job.config["epoch"]) for job in small.stage("analyse")} == {((0,), most)}
    assert any("analysis epochs" in said for cell in small.cells["p"]["a"] for said in cell.point.scaled)


@pytest.mark.parametrize(
    ("analysis", "said"),
    [
        ({**ANALYSIS, "epochs": []}, "epochs \\[\\]: must be a whole number from 0, or a list"),
        ({**ANALYSIS, "epochs": [0, "20"]}, "must be a whole number from 0, or a list"),
        ({"kind": "embeddings", "epochs": [0, 20]}, "several epochs belong to kind 'cams'"),
        ({"kind": "cam", "epochs": 20}, "kind"),
        ({"kind": "cams"}, "epochs is missing; its keys are"),
    ],
)
def test_mistakes_are_named(make, analysis, said):
    with pytest.raises(ConfigError, match=said):
        make(analysis=analysis)


def test_a_step_that_is_picked_from_results_cannot_be_analysed(make):
    matrix = {key: value for key, value in MATRIX.items() if key != "step"}
    rule = {"when": {"method": "dm"}, "set": {"step": {"split": "test"}}}
    with pytest.raises(ConfigError, match="the step of this point is picked from results"):
        make(analysis=ANALYSIS, overrides=[rule], matrix=matrix, x=None)


def test_images_of_steps_are_drawn_from_the_files_of_the_plan(make):
    plan = make(kind="transition", matrix={**MATRIX, "step": [1000]}, x=None, rows=["method"], fields={"steps": "published", "labels": [1]})
    (cell,) = plan.drawing("p")["artifacts"][0]["cells"]
    assert cell["published"] == [0, 500] and cell["manifest"] == "data/prepared/cifar10/manifest.json"
    made = {path for job in plan.stage("distill") for path in job.outputs}
    assert {f"{cell['sets'][0]}/steps/{step}.safetensors" for step in cell["published"]} < made


def test_ids_of_older_analyses_stay_as_they_were():
    about = {"distilled": "0123abcd", "network": "convnet3_in", "pretrained": "89abcdef", "epoch": 20}
    ids = [
        digest(hashed(parse(AnalyseConfig, {**about, **more}, "t"))) for more in ({}, {"kind": "models", "models": 5}, {"kind": "accuracy"})
    ]
    assert ids == ["1c419136", "e3388679", "a0ebd795"]
