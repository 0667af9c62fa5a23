"""What GLaD and H-PD take where nobody says otherwise: by base, dataset, generator and images per class."""

import pytest
import yaml

from dd import generators, recipes
from dd.config import parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.registry import DATASETS
from dd.errors import ConfigError
from dd.generators import depth
from dd.plan import Plan
from dd.plan.cost import estimate
from dd.plan.papers import Settings

BASES = ["dm", "dc", "dsa", "mtt", "tesla"]


def whole(method, dataset="cifar10", ipc=1, **fields):
    """Return the parsed configuration of a method that is given no more than `fields`."""
    recipe = recipes.load(method)
    return parse(recipe.Config, recipe.complete(fields, dataset, ipc), method)


@pytest.mark.parametrize("base", BASES)
def test_published_values_for_stylegan_xl(base):
    glad, hpd = (whole(method, "imagenet_a_128", base=base) for method in ("glad", "hpd"))
    cut, lr_w, lr_f = {"dm": (20, 0.01, 10.0), "dc": (16, 1e-3, 1.0), "dsa": (16, 1e-3, 1.0)}.get(base, (12, 10.0, 1e4))
    for config in (glad, hpd):
        assert (config.generator.name, config.generator.epochs) == ("stylegan_xl_128", 0)
        assert (config.rates, config.lr_w, config.lr_f, config.average) == ("absolute", lr_w, lr_f, 1000)
    assert (glad.cut, glad.iterations) == (cut, 5000 if cut == 12 else 1000)
    assert hpd.cuts == tuple(range(1, 24, 2)) and len(hpd.cuts) == 12
    assert hpd.iterations == 12 * (20 if base == "dm" else 100)
    large = whole("hpd", "imagemeow_256", base=base)
    assert large.generator.name == "stylegan_xl_256" and large.cuts == tuple(range(1, 30, 2)) and len(large.cuts) == 15


def test_the_bases_own_settings_are_glads():
    for base in ("dc", "dsa"):
        for dataset, ipc, network in (
            ("imagenet_a_128", 10, "convnet5_in"),
            ("imagenette_256", 1, "convnet6_in"),
            ("cifar10", 10, "convnet3_in"),
        ):
            found = whole("glad", dataset, ipc, base=base).settings
            assert (found["outer"], found["inner"], found["network"], found["iterations"]) == (1, 1, network, 1000)
    for base in ("mtt", "tesla"):
        found = whole("hpd", "imagenet_a_128", base=base).settings
        assert (found["syn_steps"], found["expert_span"], found["max_start"], found["lr_lr"], found["step_size"]) == (20, 3, 5, 1e-6, 0.01)
        assert {key: found["experts"][key] for key in ("network", "count", "epochs")} == {
            "network": "convnet5_in",
            "count": 200,
            "epochs": 15,
        }
        assert found["iterations"] == 1200
        small = whole("hpd", "cifar10", base=base).settings
        assert not small["zca"] and small["syn_steps"] == 50, "the method's own for that dataset, but for whitening"
    assert whole("glad", "cifar10", base="tesla").settings["gradient_factor"] == 1.0
    assert whole("glad", "imagenet_a_128").settings["extractor"]["network"] == "convnet5_in"


@pytest.mark.parametrize(("dataset", "stages"), [("digits", 6), ("fashion_mnist", 8), ("cifar10", 8), ("tiny_imagenet", 10)])
def test_the_small_generator_is_entered_where_it_has_stages(dataset, stages):
    spec = DATASETS[dataset]
    net = generators.build("mini_w8", spec.channels, spec.size, len(spec.classes), 0)
    assert depth.stages("mini_w8", spec.size[0]) == net.num_stages == stages
    for base in BASES:
        glad, hpd = (whole(method, dataset, base=base) for method in ("glad", "hpd"))
        assert glad.generator.name == "mini" and glad.cut == round({"dm": 20, "dc": 16, "dsa": 16}.get(base, 12) * stages / 26)
        assert hpd.cuts == tuple(range(0, stages, 2)) and hpd.iterations == len(hpd.cuts) * (20 if base == "dm" else 100)
        assert (glad.rates, glad.lr_w, glad.lr_f) == (hpd.rates, hpd.lr_w, hpd.lr_f) == ("relative", 0.005, 0.02)
        for config, cuts in ((glad, (glad.cut,)), (hpd, hpd.cuts)):
            recipes.load("glad" if config is glad else "hpd").needs(config, dataset)
            assert all(net.feature_shape(cut) for cut in cuts)


@pytest.mark.parametrize(
    ("dataset", "epochs", "training"),
    [
        ("digits", 14, {"lr": 5e-3, "batch": 32, "r1_every": 8, "r1_gamma": 0.1, "augment": "none"}),
        ("mnist", 25, {"lr": 2.5e-3, "batch": 256, "r1_every": 16, "r1_gamma": 0.0008, "augment": "none"}),
        ("fashion_mnist", 25, {"batch": 256, "r1_gamma": 0.0008, "augment": "flip"}),
        ("cifar10", 30, {"batch": 256, "r1_gamma": 0.0008, "augment": "flip"}),
        ("svhn", 20, {"augment": "none"}),
        ("tiny_imagenet", 20, {"batch": 256, "r1_gamma": 0.0032, "augment": "flip"}),
        ("a_dataset_of_ones_own", 30, {"batch": 256, "r1_gamma": 0.0008, "augment": "none"}),
    ],
)
def test_how_the_small_generator_is_trained(dataset, epochs, training):
    found = whole("glad", dataset).generator
    assert found.epochs == epochs
    assert {key: getattr(found.training, key) for key in training} == training
    if dataset in DATASETS and dataset != "digits":
        assert 1e6 <= epochs * DATASETS[dataset].train <= 2e6


def test_what_is_given_stays():
    found = whole(
        "hpd", "digits", 10, base="dsa", iterations=7, cuts=[1, 3], lr_f=0.5, average=3, steps=[2],
        generator={"epochs": 5, "training": {"lr": 1e-3}}, settings={"batch_real": 8, "outer": 2},
    )  # fmt: skip
    assert (found.iterations, found.cuts, found.lr_f, found.lr_w, found.average, found.steps) == (7, (1, 3), 0.5, 0.005, 3, (2,))
    assert (found.generator.name, found.generator.epochs) == ("mini", 5)
    assert (found.generator.training.lr, found.generator.training.batch) == (1e-3, 32)
    assert (found.settings["batch_real"], found.settings["outer"], found.settings["inner"]) == (8, 2, 1)
    assert whole("glad", "cifar10", cut=1).cut == 1
    assert whole("hpd", "cifar10", cuts=[0, 3]).iterations == 40
    small = whole("glad", "imagenet_a_128", generator={"name": "mini_w16"})
    assert (small.generator.name, small.rates) == ("mini_w16", "relative")
    published = whole("glad", "cifar10", base="dsa", rates="absolute")
    assert (published.lr_w, published.lr_f) == (1e-3, 1.0)
    relative = whole("glad", "imagenet_a_128", base="dsa", rates="relative")
    assert (relative.lr_w, relative.lr_f, relative.cut) == (0.005, 0.02, 16)


def test_cuts_may_be_stages_a_space_of_whatever_generator():
    xl = {every: whole("hpd", "imagenet_a_128", cuts=every).cuts for every in (1, 2, 4)}
    assert xl == {1: tuple(range(1, 26)), 2: tuple(range(1, 24, 2)), 4: (1, 5, 9, 13, 17, 21)}
    assert [whole("hpd", "digits", cuts=every).cuts for every in (1, 2, 4)] == [(0, 1, 2, 3, 4, 5), (0, 2, 4), (0, 4)]
    assert whole("hpd", "cifar10", cuts=4).iterations == 40
    for wrong in (0, "two", None):
        with pytest.raises(ConfigError, match="cuts"):
            whole("hpd", "digits", cuts=wrong)


def test_images_of_a_class_begin_apart_where_there_are_several():
    assert [whole("glad", "cifar10", ipc).average for ipc in (1, 2, 10)] == [1000, 0, 0]


@pytest.mark.parametrize("method", ["glad", "hpd"])
def test_filling_in_twice_changes_nothing(method):
    recipe = recipes.load(method)
    for dataset, ipc, base in (("digits", 10, "dm"), ("imagenet_b_128", 1, "tesla"), ("cifar10", 1, "dsa")):
        once = recipe.complete({"base": base}, dataset, ipc)
        assert recipe.complete(once, dataset, ipc) == once


@pytest.mark.parametrize(
    ("method", "dataset", "fields", "said"),
    [
        ("glad", "cifar10", {"cut": 9}, "cut: value 9: mini has 8 stages for cifar10; allowed: 0 to 8"),
        ("hpd", "digits", {"cuts": [1, 5, 9, 13]}, "cut: value 9, 13: mini has 6 stages"),
        ("glad", "imagenet_a_128", {"cut": 27}, "stylegan_xl_128 has 26 stages"),
        ("glad", "imagenette", {}, "those of imagenette are 224x224"),
        ("glad", "cifar10", {"generator": {"name": "stylegan_xl_128"}}, "stylegan_xl_128"),
        ("hpd", "imagenet_a_256", {"generator": {"name": "stylegan_xl_128"}}, "stylegan_xl_128"),
    ],
)
def test_cuts_and_generators_that_do_not_fit_are_errors_of_the_plan(method, dataset, fields, said):
    with pytest.raises(ConfigError, match=said):
        recipes.load(method).needs(whole(method, dataset, **fields), dataset)


@pytest.mark.parametrize("base", ["idm", "nothing"])
def test_a_base_that_is_none_is_named(base):
    with pytest.raises(ConfigError, match=r"base|nothing"):
        whole("glad", "cifar10", base=base)


def test_generators_have_seen_all_of_train_also_where_a_set_has_not():
    config = whole("hpd", "cifar10", base="tesla")
    about = DistillConfig(dataset=Dataset(name="cifar10"), method="hpd", ipc=1, recipe=config.model_dump(mode="json"), split="fit")
    own, _ = recipes.needs_of(about, "cifar10")
    assert {need.kind: need.split for need in own} == {"experts": "fit", "generator": "train", "pretrained": "fit"}


# -- plans ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(tmp_path):
    """Return a function that plans one point of a method."""
    for part in ("papers", "scales"):
        (tmp_path / part).mkdir()
    scales = {"paper": {}, "tiny": {"map": {"dataset": {"imagenet_a_128": "digits"}, "network": {"resnet18_tv": "convnet3_in_w8"}},
                                    "cap": {"recipe.iterations": 30, "recipe.steps": 30, "step": 30}}}  # fmt: skip
    for name, scale in scales.items():
        (tmp_path / f"scales/{name}.yaml").write_text(yaml.safe_dump({"scale": name, "title": "T", **scale}))

    def make(scale, method, dataset, **recipe):
        at = {"dataset": [dataset], "ipc": [1], "method": [method], "eval_network": ["convnet3_in"], "eval_protocol": ["dc"]}
        paper = {"paper": "p", "title": "P", "claims": False, "milestones": [], "defaults": {"sets": 1, "nets": 5, "recipe": {method: recipe}},
                 "artifacts": {"a": {"title": "T", "kind": "table", "matrix": at, "columns": ["method"]}}}  # fmt: skip
        (tmp_path / "papers/p.yaml").write_text(yaml.safe_dump(paper, sort_keys=False))
        return Plan(parse(Settings, {"scale": scale, "papers": ["p"]}, "config.yaml"), tmp_path, only=["p"])

    return make


def published_files(job):
    return [path.rpartition("/")[2] for path in job.outputs if "/steps/" in path]


def test_spaces_are_published_at_every_scale(plan):
    big = plan("paper", "hpd", "imagenet_a_128", proxy={"network": "resnet18_tv"})
    (job,) = big.stage("distill")
    assert published_files(job) == [f"{20 * space}.safetensors" for space in range(12)]
    assert list(big.step_lists()) == [tuple(range(0, 240, 20))]
    assert [made.config["teacher"] for made in big.stage("teacher")] == ["resnet18_tv"]
    assert not big.stage("generator") and len(job.facts["groups"]) == 2
    small = plan("tiny", "hpd", "imagenet_a_128", proxy={"network": "resnet18_tv"})
    (job,) = small.stage("distill")
    assert job.config["recipe"]["steps"] == "spaces" and job.config["recipe"]["cuts"] == [0, 2, 4]
    assert published_files(job) == ["0.safetensors", "10.safetensors", "20.safetensors"]
    (made,) = small.stage("generator")
    assert made.facts["epoch"] == 14 and made.config["training"]["batch"] == 32
    assert "convnet3_in_w8" in {made.facts["network"] for made in small.stage("pretrain")} and not small.stage("teacher")


def test_cost_counts_what_the_generator_and_the_proxy_do(plan):
    def seconds(method, **recipe):
        (job,) = plan("paper", method, "cifar10", **recipe).stage("distill")
        return estimate(job, 1e9)[0]

    one = {"iterations": 80, "cuts": [0, 2, 4, 6]}
    without = seconds("hpd", keep="last", **one)
    assert seconds("hpd", **one) > without + 1
    assert seconds("hpd", keep="last", generator={"name": "mini_w8"}, **one) < without - 1
    (xl,) = plan("paper", "hpd", "imagenet_a_128", proxy={"network": "resnet18_tv"}).stage("distill")
    assert estimate(xl, 1e12)[0] > 4 * 240 * 10 * 2.7  # three passes to make an image and one to judge it, seconds
