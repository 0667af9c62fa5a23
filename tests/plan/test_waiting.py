"""Points that cannot be made yet, analyses, and how printed coordinates are looked up."""

import shutil
from pathlib import Path

import pytest
import yaml

from dd import recipes
from dd.config import parse
from dd.config.stages import AnalyseConfig
from dd.errors import ConfigError
from dd.plan import Plan
from dd.plan.command import arguments
from dd.plan.cost import estimate
from dd.plan.papers import Settings

WORKFLOW = Path(__file__).resolve().parents[2] / "workflow"
MATRIX = {"dataset": ["cifar10"], "ipc": [1, 10], "method": ["random", "dc", "dm"], "eval_network": ["convnet3_in"], "eval_protocol": ["dc", "idc"]}
WAITS = {"method": {"dc": "second order", "dsa": "likewise"}}


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a function that plans a paper of one artifact. No method is called dc or dsa, whatever there is by now."""
    shutil.copytree(WORKFLOW, tmp_path / "workflow")
    names = [name for name in recipes.names() if name not in ("dc", "dsa")]
    monkeypatch.setattr(recipes, "names", lambda: names)

    def plan(scale="paper", cap=None, more=None, **artifact):
        artifact = {"title": "T", "kind": "table", "matrix": MATRIX, "rows": ["ipc"], "columns": ["method", "eval_protocol"], **artifact}
        paper = {"paper": "p", "title": "P", "claims": False, "artifacts": {"a": artifact}, **(more or {})}
        (tmp_path / "workflow/papers/p.yaml").write_text(yaml.safe_dump(paper, sort_keys=False))
        if cap:
            path = tmp_path / f"workflow/scales/{scale}.yaml"
            data = yaml.safe_load(path.read_text())
            path.write_text(yaml.safe_dump({**data, "cap": {**data.get("cap", {}), **cap}}))
        return Plan(parse(Settings, {"scale": scale, "papers": ["p"]}, "config.yaml"), tmp_path / "workflow", only=["p"])

    return plan


def drawn(plan):
    return plan.drawing("p")["artifacts"][0]


# -- points that wait -------------------------------------------------------------------------------------------------


def test_a_pending_value_makes_no_points_and_keeps_its_place_under_all_other_axes(make):
    plan = make(pending=WAITS)
    cells = plan.cells["p"]["a"]
    assert {cell.point.at["method"] for cell in cells} == {"random", "dm"} and len(cells) == 8
    found = drawn(plan)["pending"]
    assert len(found) == 8
    # in the order of the matrix: (ipc, method, protocol), and dsa, which does not stand in it, at the end of its axis
    order = [(one["place"], one["at"]["ipc"], one["at"]["method"], one["at"]["eval_protocol"]) for one in found]
    assert order == [
        (2, 1, "dc", "dc"), (2, 1, "dc", "idc"), (4, 1, "dsa", "dc"), (4, 1, "dsa", "idc"),
        (6, 10, "dc", "dc"), (6, 10, "dc", "idc"), (8, 10, "dsa", "dc"), (8, 10, "dsa", "idc"),
    ]  # fmt: skip
    assert found[0]["reason"] == "method dc: second order"


def test_pending_networks_and_methods_combine_and_exclude_takes_them_too(make):
    plan = make(
        pending={**WAITS, "eval_network": {"lenet9": "not written"}}, exclude=[{"method": "dc", "ipc": 10}],
        include=[{"method": ["dsa"], "ipc": [50]}],
    )  # fmt: skip
    found = drawn(plan)["pending"]
    waits = lambda **at: [one for one in found if all(one["at"][key] == value for key, value in at.items())]  # noqa: E731
    assert len(waits(method="random")) == len(waits(method="dm")) == 4 and len(waits(method="dc", ipc=1)) == 4
    assert not waits(method="dc", ipc=10) and {one["at"]["ipc"] for one in waits(method="dsa")} == {50}
    assert waits(method="dc", eval_network="lenet9")[0]["reason"] == "method dc: second order; eval_network lenet9: not written"


def test_a_scale_keeps_pending_points_as_it_keeps_others(make):
    plan = make(pending=WAITS)
    scale = plan.folder / "scales/demo.yaml"
    scale.write_text(scale.read_text().replace("keep:\n", "keep:\n  - {paper: p, points: {ipc: [10]}}\n"))
    assert {one["at"]["ipc"] for one in drawn(make("demo", pending=WAITS))["pending"]} == {10}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pending": {"method": {"dc": "x", "herding": "x"}}}, r"pending\.method\.herding: is registered by now.*move it into matrix\.method"),
        ({"pending": {"method": {"dc": "x"}, "eval_network": {"mlp": "x"}}}, r"eval_network\.mlp: is registered by now"),
        ({"pending": {"method": {"dc": " "}}}, "needs the reason"),
        ({"pending": {"methods": {"dc": "x"}}}, "axis 'methods'.*did you mean 'method'"),
        ({"pending": {"ipc": {"1": "x"}}}, "axis 'ipc' is of nothing that is registered"),
        ({"pending": WAITS, "kind": "grid"}, "only a table keeps places"),
        ({"pending": WAITS, "matrix": {**MATRIX, "method": ["dc"]}}, "no points left"),
    ],
)
def test_what_is_not_pending_is_named(make, change, said):
    with pytest.raises(ConfigError, match=said):
        make(**change)


def test_printed_coordinates_are_what_the_reported_file_writes(make):
    more = {"printed": {"eval_protocol": {"dc": "baseline", "idc": "baseline"}, "ipc": {"1": None}}}
    found = drawn(make(pending=WAITS, more=more))
    assert {(one["at"]["eval_protocol"], one["printed"]["eval_protocol"]) for one in [*found["cells"], *found["pending"]]} == {
        ("dc", "baseline"), ("idc", "baseline"),
    }  # fmt: skip
    assert {(one["at"]["ipc"], one["printed"]["ipc"]) for one in found["cells"]} == {(1, None), (10, 10)}
    with pytest.raises(ConfigError, match=r"p\.yaml: printed: unknown axis 'eval_protokol'; did you mean 'eval_protocol'"):
        make(matrix={**MATRIX, "method": ["random"]}, more={"printed": {"eval_protokol": {}}})


# -- analyses ---------------------------------------------------------------------------------------------------------

LOOK = {"kind": "models", "network": "convnet3_in", "epochs": 20, "models": 6, "lineage": "idc", "training": {"augment": "stack"}, "label": 2}
ONE = {**MATRIX, "ipc": [10], "method": ["dm"], "eval_protocol": ["dc"]}


def test_an_analysis_looks_through_networks_of_all_seeds(make):
    plan = make(kind="models", matrix=ONE, analysis=LOOK)
    (job,) = plan.stage("analyse")
    assert job.config["models"] == 6 and job.config["epoch"] == 20 and job.modules[0] == "dd.analysis.models"
    files = job.inputs[2:]
    assert [Path(file).name for file in files] == [f"seed{seed}.safetensors" for seed in range(6)]
    blocks = [plan.jobs[file] for file in files]
    assert all(block.stage == "pretrain" and block.config["lineage"] == "idc" and block.facts["epoch"] == 20 for block in blocks)
    assert arguments(job) == ["--dataset", "data/prepared/cifar10", "--distilled", job.inputs[0], "--checkpoint", *files, "--out", job.outputs[0]]
    assert plan.cells["p"]["a"][0].point.scaled == []
    few = make(kind="models", matrix=ONE, analysis={**LOOK, "draws": 1}).stage("analyse")[0]
    assert estimate(job, 1e9)[0] > estimate(few, 1e9)[0] > 0


def test_a_scale_caps_networks_epochs_and_batch(make):
    plan = make("demo", {"analysis.epochs": 3}, kind="models", matrix=ONE, analysis=LOOK | {"batch": 64})
    (job,) = plan.stage("analyse")
    assert (job.config["models"], job.config["epoch"], job.config["batch"], job.config["network"]) == (2, 3, 32, "convnet3_in_w32")
    scaled = plan.cells["p"]["a"][0].point.scaled
    assert {"analysis models 2", "analysis epochs 3", "analysis batch 32", "analysis network convnet3_in_w32"} <= set(scaled)


def test_the_default_batch_is_capped_as_well(make):
    (job,) = make("demo", kind="models", matrix=ONE, analysis=LOOK).stage("analyse")
    assert job.config["batch"] == 32


def test_an_analysis_of_a_step_looks_at_the_set_of_that_step(make):
    matrix = {**ONE, "step": [100, 200]}
    more = {"axes": {"step": "step"}, "defaults": {"recipe": {"dm": {"iterations": 200, "steps": [100, 200]}}}}
    jobs = make(kind="tsne", matrix=matrix, more=more, analysis={"network": "mlp", "epochs": 1}).stage("analyse")
    assert [(Path(job.inputs[0]).name, job.config.get("step")) for job in jobs] == [("100.safetensors", 100), ("distilled.safetensors", None)]


@pytest.mark.parametrize(
    ("analysis", "said"),
    [
        ({"network": "mlp"}, r"p\.yaml: artifacts\.a: analysis: epochs is missing"),
        ({"network": "mlp", "epochs": "3"}, "epochs '3': must be a whole number"),
        ({"network": "mlp", "epochs": 3, "modells": 3}, "modells: unknown key; did you mean 'models'"),
        ({"network": "mlp", "epochs": 3, "models": 3}, "belong to kind 'models'"),
        ({"network": "mlq", "epochs": 3}, "'mlq' is unknown"),
        ({"network": "mlp", "epochs": 3, "lineage": "idk"}, "lineage: value 'idk'"),
        ({"network": "mlp", "epochs": 3, "training": {"lrr": 1.0}}, "did you mean 'lr'"),
    ],
)
def test_mistakes_in_an_analysis_are_named_with_their_file(make, analysis, said):
    with pytest.raises(ConfigError, match=said) as error:
        make(kind="tsne", matrix=ONE, analysis=analysis)
    assert "p.yaml: artifacts.a" in str(error.value)


def test_old_analyses_keep_their_ids():
    fields = {"kind": "embeddings", "distilled": "d", "network": "mlp", "pretrained": "p", "epoch": 1, "label": 0, "real": 200}
    from dd.config import hashed

    assert hashed(parse(AnalyseConfig, fields, "a")) == {"stage": "analyse", "version": 1, **fields}
