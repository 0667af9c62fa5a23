"""Generators in the graph: their milestones, what is measured of them, strictness, and those from files."""

from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from dd import recipes
from dd.analysis.gan_config import Quality
from dd.config import parse
from dd.config.stages import Dataset, DistillConfig
from dd.errors import ConfigError, DDError
from dd.plan import Plan
from dd.plan.command import arguments
from dd.plan.cost import estimate
from dd.plan.generators import quality_at
from dd.plan.papers import Scale, Settings, load_scale
from dd.plan.summary import run_file
from dd.verbs import people

WORKFLOW = Path("workflow")
POINT = {"dataset": ["digits"], "ipc": [1], "method": ["glad"], "eval_network": ["convnet3_in"], "eval_protocol": ["dc_short"]}
SCALE = {"scale": "little", "title": "Little", "map": {"network": {"convnet3_in": "convnet3_in_w16"}},
         "cap": {"quality.samples": 300, "quality.epochs": 3, "quality.score_epochs": 2, "quality.images": 500}}  # fmt: skip


@pytest.fixture
def make(tmp_path):
    """Return a function that plans a paper of one table, whose points are changed, at scale paper or little."""
    (tmp_path / "reported").symlink_to((WORKFLOW / "reported").resolve())
    (tmp_path / "papers").mkdir()
    (tmp_path / "scales").mkdir()
    for name, text in (("paper", (WORKFLOW / "scales/paper.yaml").read_text()), ("little", yaml.safe_dump(SCALE))):
        (tmp_path / "scales" / f"{name}.yaml").write_text(text)

    def plan(change=None, epochs=3, name="mini_w16", scale="paper", split=None, **settings):
        matrix = {**POINT, "name": [name], "epochs": [epochs] if isinstance(epochs, int) else epochs, **(change or {})}
        axes = {"name": "recipe.generator.name", "epochs": "recipe.generator.epochs"}
        table = {"title": "T", "kind": "table", "matrix": matrix, "columns": ["method"]}
        paper = {
            "paper": "p",
            "title": "P",
            "claims": False,
            "axes": axes,
            "defaults": {"sets": 2, "nets": 1, "recipe": {"glad": {"cut": 1}}},
        }
        (tmp_path / "papers/p.yaml").write_text(yaml.safe_dump({**paper, "artifacts": {"a": table}}))
        return Plan(parse(Settings, {"scale": scale, "papers": ["p"], **settings}, "config.yaml"), tmp_path, only=["p"])

    return plan


def only(plan, stage):
    (job,) = plan.stage(stage)
    return job


def test_a_milestone_that_sets_rest_on_is_measured_and_the_paper_waits_for_it(make):
    plan = make()
    generator, quality = only(plan, "generator"), only(plan, "quality")
    (path,) = generator.outputs
    assert quality.outputs == [path.replace("epoch3.safetensors", "epoch3.quality.json")]
    (classifier,) = [job for job in plan.stage("pretrain") if job.outputs[0] == quality.inputs[1]]
    assert (quality.inputs[0], classifier.config["network"], classifier.facts["seeds"]) == (path, "convnet3_in", (0,))
    assert (classifier.facts["epoch"], classifier.config.get("split", "train")) == (Quality().epochs, "train")
    assert quality.inputs[2] == "data/prepared/digits/manifest.json"
    assert (quality.config["generator"], quality.config["epoch"]) == (generator.facts["id"], 3)
    assert (quality.config["classifier"], quality.config["samples"]) == (classifier.facts["id"], 2000)
    assert quality.outputs[0] in plan.paper_jobs()["p"].inputs
    assert {"dd.analysis.gan_job", "dd.generators.mini", "dd.networks.convnet"} <= set(quality.modules)
    for job in plan.stage("distill"):
        assert path in job.inputs and quality.outputs[0] not in job.inputs
    wildcards = {"dataset": "digits", "generator": "mini_w16", "id": generator.facts["id"], "epoch": "3"}
    assert plan.job("quality", wildcards) is quality and plan.job("generator", wildcards) is generator
    assert run_file(quality) != run_file(generator)
    (cell,) = plan.drawing("p")["artifacts"][0]["cells"]
    assert cell["generators"] == [{"dataset": "digits", "generator": "mini_w16", "epoch": 3, "quality": quality.outputs[0]}]


def test_every_milestone_that_sets_rest_on_is_measured(make):
    plan = make(epochs=[2, 5])
    assert sorted(job.config["epoch"] for job in plan.stage("quality")) == [2, 5]
    assert sorted(job.facts["previous_epoch"] for job in plan.stage("generator")) == [0, 2]
    cells = plan.drawing("p")["artifacts"][0]["cells"]
    assert [one["epoch"] for cell in cells for one in cell["generators"]] == [2, 5]
    assert len([path for path in plan.paper_jobs()["p"].inputs if "quality" in path]) == 2


def test_papers_without_generators_know_nothing_of_it(make):
    plan = make({"method": ["dm"]}, strict=True)
    assert not plan.stage("quality") and not plan.stage("generator") and not plan.stage("pretrain")
    assert plan.drawing("p")["artifacts"][0]["cells"][0]["generators"] == []
    assert "--quality" not in arguments(plan.stage("distill")[0])


def test_strict_makes_sets_wait_for_the_measures_and_moves_no_id(make):
    plain, strict = make(), make(strict=True)
    measures = only(strict, "quality").outputs[0]
    for job in strict.stage("distill"):
        assert measures in job.inputs
        assert arguments(job)[-4:-2] == ["--quality", measures]
    assert plain.jobs.keys() == strict.jobs.keys()
    assert {path: job.text for path, job in plain.jobs.items()} == {path: job.text for path, job in strict.jobs.items()}
    assert plain.drawing_settings(["p"]) == strict.drawing_settings(["p"])
    order = [job.stage for job in strict.of(["p"])]
    assert order.index("quality") < order.index("distill")


def test_a_scale_maps_and_caps_the_measuring(make):
    small, full = only(make(scale="little"), "quality"), only(make(), "quality")
    keys = ("samples", "score_epochs", "images", "classifier_epoch", "score")
    assert [small.config[key] for key in keys] == [300, 2, 500, 3, "convnet3_in_w16"]
    assert [full.config[key] for key in keys] == [2000, 5, 60_000, 20, "convnet3_in_w16"]
    assert small.inputs[1].split("/")[3] == "convnet3_in_w16"
    assert estimate(small, 1e9)[0] < estimate(full, 1e9)[0] < 600
    assert quality_at(load_scale(WORKFLOW, "paper", "test"), {}, "p") == Quality()
    with pytest.raises(ConfigError, match="little: cap: quality"):
        quality_at(Scale(scale="little", title="", cap={"quality.samples": 0}), {}, "p")


def test_a_paper_may_measure_in_another_way_and_its_milestones_are_not_those_of_the_classifier(make):
    given = {"network": "convnet3_in_w16", "epochs": 7}
    assert quality_at(load_scale(WORKFLOW, "paper", "test"), given, "p") == Quality(**given)
    with pytest.raises(ConfigError, match=r"p: quality.*epoch"):
        quality_at(load_scale(WORKFLOW, "paper", "test"), {"epoch": 7}, "p")
    plan = make()
    looked = {path.split("/")[4] for job in plan.stage("quality") for path in job.inputs if "/pretrained/" in path}
    classifiers = [job for job in plan.stage("pretrain") if job.facts["id"] in looked]
    assert classifiers and all(job.facts["epoch"] == 20 and not job.facts["previous"] for job in classifiers)


def test_a_generator_has_seen_all_of_train_also_where_a_set_has_not():
    glad = recipes.load("glad")
    fields = {"base": "mtt", "generator": {"name": "mini_w16", "epochs": 3}, "cut": 1}
    fields = parse(glad.Config, glad.complete(fields, "digits", 1), "test").model_dump(mode="json")
    about = DistillConfig(dataset=Dataset(name="digits"), method="glad", ipc=1, recipe=fields, split="fit")
    own, guides = recipes.needs_of(about, "digits")
    assert guides == []
    assert {need.kind: need.split for need in own} == {"experts": "fit", "generator": "train"}


FILE = {"dataset": ["imagenet_a_128"], "eval_network": ["convnet5_in"]}


def test_a_generator_from_a_file_is_the_users(make):
    plan = make(FILE, epochs=0, name="stylegan_xl_128", strict=True)
    job = only(plan, "generator_file")
    assert (job.outputs, job.inputs) == (["results/generators/files/stylegan_xl_128.safetensors"], [])
    assert plan.job("generator_file", {"name": "stylegan_xl_128"}) is job
    assert not plan.stage("generator") and not plan.stage("quality")
    for one in plan.stage("distill"):
        assert job.outputs[0] in one.inputs and "--quality" not in arguments(one)
    (cell,) = plan.drawing("p")["artifacts"][0]["cells"]
    assert cell["generators"] == [{"dataset": "imagenet_a_128", "generator": "stylegan_xl_128", "epoch": None, "quality": None}]
    assert estimate(job, 1e9)[0] > 0
    given = {"path": "weights.safetensors", "sha256": "a" * 64}
    other = make(FILE, epochs=0, name="stylegan_xl_128", generators={"stylegan_xl_128": given})
    assert only(other, "generator_file").inputs == ["weights.safetensors"]
    assert only(other, "generator_file").config["sha256"] == "a" * 64
    assert other.cells["p"]["a"][0].distilled != plan.cells["p"]["a"][0].distilled  # other weights, another set
    unpinned = make(FILE, epochs=0, name="stylegan_xl_128", generators={"stylegan_xl_128": {"path": "b.safetensors"}})
    assert unpinned.cells["p"]["a"][0].distilled == plan.cells["p"]["a"][0].distilled


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        ({}, "stylegan_xl_128", r"stylegan_xl_128 makes images of \(3, 128, 128\) of ImageNet's classes, those of digits are \(1, 16, 16\)"),
        ({"dataset": ["imagenet_a_256"]}, "stylegan_xl_128", r"those of imagenet_a_256 are \(3, 256, 256\); datasets that it can make: imagenet_a_128"),
        ({"dataset": ["svhn"]}, "stylegan_xl_cifar10", "the classes of CIFAR-10.*can make: cifar10$"),
        ({}, "stylegan_xl_182", r"'stylegan_xl_182' is unknown.*did you mean 'stylegan_xl_128'"),
    ],
)  # fmt: skip
def test_a_generator_that_cannot_make_the_images_is_refused_before_anything_runs(make, change, name, said):
    with pytest.raises(ConfigError, match=said):
        make(change, epochs=0, name=name)


def test_mistakes_in_settings_are_named(make):
    with pytest.raises(
        ConfigError, match=r"config.yaml: generators: no generator from a file is called 'stylegan_128'; did you mean 'stylegan_xl_128'"
    ):
        make(generators={"stylegan_128": {"path": "x"}})
    with pytest.raises(ConfigError, match=r"generators.stylegan_xl_128.path"):
        make(generators={"stylegan_xl_128": {"path": "{x}.safetensors"}})
    with pytest.raises(ConfigError, match="strict"):
        make(strict="perhaps")


def test_check_names_a_file_that_is_not_there(make, tmp_path, monkeypatch, capsys):
    make(FILE, epochs=0, name="stylegan_xl_128")
    monkeypatch.setattr(people, "WORKFLOW", tmp_path)
    settings = tmp_path / "config.yaml"
    settings.write_text("{scale: paper, papers: [p], generators: {stylegan_xl_128: {path: nowhere.safetensors}}}")
    with pytest.raises(
        DDError, match=r"generators.stylegan_xl_128.path: value 'nowhere.safetensors': no such file \(docs/generators.md says"
    ):
        people.check(Namespace(settings=settings, scale=None))
    settings.write_text("{scale: paper, papers: [p]}")
    assert people.check(Namespace(settings=settings, scale=None)) == 0
    assert "no mistakes found" in capsys.readouterr().out
