"""DSDM put together: variants, the ablation's switches, learning rates, what cannot be estimated, resume, learning."""

from pathlib import Path

import pytest
import torch

from dd.artifacts import load_tensors, save_tensors
from dd.config import hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.pool import RealPool
from dd.data.registry import DATASETS
from dd.distill import Stopped, distill
from dd.errors import ConfigError
from dd.evaluation import config_of
from dd.evaluation.io import read_distilled
from dd.evaluation.run import evaluate
from dd.recipes import dsdm
from dd.train.config import PretrainConfig, Training
from dd.train.pretrain import pretrain
from dd.types import Inputs

NETWORK = "convnet3_in_w16"
SMALL = {"iterations": 6, "batch_real": 8, "history_start": 1, "extractor": {"network": NETWORK, "pool": 2, "epochs": 3}}


def config(**fields):
    return parse(dsdm.Config, {**SMALL, **fields}, "dsdm")


def random_inputs(name, ipc=1, shape=None, classes=2, each=3, paths=()):
    """Return inputs with random images of a dataset's shape."""
    c, h, w = shape or (DATASETS[name].channels, *DATASETS[name].size)
    g = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (classes * each, c, h, w), generator=g).byte()
    pool = RealPool(data, torch.arange(classes).repeat_interleave(each), classes, [0.5] * c, [0.25] * c)
    facts = {"name": name, "classes": list(map(str, range(classes))), "channels": c, "size": [h, w], "flip": True}
    return Inputs(Path(), facts, ipc, 0, "cpu", [list(paths)], lambda: pool)


@pytest.fixture(scope="module")
def files(digits_dir, tmp_path_factory):
    """A pool of two networks, trained as the configuration says."""
    (need,) = dsdm.needs(config(), "digits")
    about = PretrainConfig(dataset=Dataset(name="digits"), network=NETWORK, training=parse(Training, need.config, ""), lineage=need.lineage)
    made = [tmp_path_factory.mktemp("pool") / f"{seed}.safetensors" for seed in need.seeds]
    pretrain(about, digits_dir, need.epochs[0], need.seeds, made)
    return made


# -- what is needed, and the numbers of the authors ---------------------------------------------------------------------


def test_the_pool_is_the_authors_and_a_change_of_one_field_keeps_the_rest():
    (need,) = dsdm.needs(dsdm.Config(), "cifar100")
    assert (need.seeds, need.epochs, need.lineage, need.network) == (tuple(range(10)), (20,), "idc", "convnet3_in")
    expected = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "batch": 256, "augment": "stack", "cutmix": 0.5, "schedule": "constant"}
    assert {key: need.config[key] for key in expected} == expected
    one = parse(dsdm.Config, {"extractor": {"pool": 5, "training": {"batch": 64}}}, "dsdm")
    (other,) = dsdm.needs(one, "cifar100")
    assert (other.seeds, other.epochs) == (tuple(range(5)), (20,))
    assert other.config == {**need.config, "batch": 64}
    for wrong in ({"epochs": -1}, {"pool": 0}, {"training": {"cutmix": 2.0}}, {"training": {"augment": "stak"}}):
        with pytest.raises(ConfigError, match=r"^dsdm: extractor\."):
            parse(dsdm.Config, {"extractor": wrong}, "dsdm")


def test_the_authors_settings():
    made = dsdm.Config()
    assert (made.lambda1, made.lambda2, made.alpha, made.history_start) == (50.0, 0.2, 0.99, 2000)
    assert (made.iterations, made.batch_real, made.batch_syn_max, made.factor, made.momentum, made.init) == (
        10_000,
        256,
        256,
        2,
        0.5,
        "mix",
    )
    assert not dsdm.defaults("mnist", 10) and not dsdm.defaults("cifar10", 10) and not dsdm.defaults("fashion_mnist", 10)
    speech = parse(dsdm.Config, dsdm.defaults("mini_speech_commands", 10), "dsdm")
    (need,) = dsdm.needs(speech, "mini_speech_commands")
    assert (need.network, need.config["augment"], need.config["cutmix"], need.epochs) == ("convnet4_in", "none", 0.0, (20,))
    assert (speech.augment, speech.time_only) == ("none", True)


@pytest.mark.parametrize(
    ("dataset", "size", "rates"),
    [
        ("cifar10", 32, (0.01, 0.1, 0.5)),
        ("cifar100", 32, (0.01, 0.1, 0.5)),
        ("svhn", 32, (0.01, 0.1, 0.5)),
        ("mnist", 28, (0.01, 0.1, 0.5)),
        ("fashion_mnist", 28, (0.00766, 0.0766, 0.383)),  # the authors' table of bases knows MNIST by name only
        ("mini_speech_commands", 64, (0.01, 0.1, 0.5)),
    ],
)
def test_the_image_lr_of_both_variants(dataset, size, rates):
    exact = dataset != "fashion_mnist"
    for ipc, printed in zip((1, 10, 50), rates, strict=True):
        assert dsdm.rate(dsdm.Config(), dataset, ipc, (size, size)) == pytest.approx(printed, rel=1e-12 if exact else 1e-3)
        assert dsdm.rate(dsdm.Config(variant="paper"), dataset, ipc, (size, size)) == 0.1
        for variant in ("paper", "code"):
            assert dsdm.rate(dsdm.Config(variant=variant, lr_img=0.3), dataset, ipc, (size, size)) == 0.3


def test_the_image_lr_reaches_the_optimizer():
    for fields, lr in (({}, 0.01), ({"variant": "paper"}, 0.1), ({"lr_img": 0.7}, 0.7)):
        run = dsdm.build(config(**fields), random_inputs("digits"))
        assert [group["lr"] for group in run.optimizer.param_groups] == [pytest.approx(lr)]


def test_the_work_counts_the_look_after_the_update():
    made = dsdm.Config(iterations=100)
    assert dsdm.work(made, 10, 50_000, 10) == {"convnet3_in": 100 * 10 * (256 + 3 * 40 + 40)}
    assert dsdm.work(dsdm.Config(iterations=100, history=False), 10, 50_000, 100) == {"convnet3_in": 100 * 10 * (256 + 3 * 256)}


# -- what a run looks at ------------------------------------------------------------------------------------------------


def look(fields, paths, steps=4):
    """Return the parts of the loss at each step of an unchanging set, and the run."""
    inputs = random_inputs("digits", ipc=1, classes=10, paths=paths)
    run = dsdm.build(config(**fields), inputs)
    rows = []
    for step in range(steps):
        net, batches = run.source.draw(step), run.batches(step)
        run.term(batches, net)
        rows.append({name: fact.item() for name, fact in run.term.facts.items()})
        if run.after is not None:
            run.after(batches, net)
    return rows, run


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_each_switch_of_the_ablation_changes_what_it_should_and_nothing_else(variant, files):
    """The rows of the ablation: random networks, the pool, with covariance, with history."""
    table = (
        {"extractor": {**SMALL["extractor"], "epochs": 0}, "covariance": False, "history": False},
        {"covariance": False, "history": False},
        {"history": False},
        {},
    )
    found = [look({**fields, "variant": variant}, files if number else ()) for number, fields in enumerate(table)]
    rows = [row for row, _ in found]
    assert [list(row[0]) for row in rows] == [["prototypes"]] * 2 + [["prototypes", "covariance"], ["prototypes", "covariance", "history"]]
    values = [[[step[name] for step in row] for name in row[0]] for row in rows]
    assert values[0][0] != values[1][0]
    assert values[1][0] == values[2][0] == values[3][0]
    assert values[2][1] == values[3][1]
    assert [bool(value) for value in values[3][2]] == ([False, True, True, True] if variant == "paper" else [False, False, True, True])
    assert [run.after is not None for _, run in found] == [False, False, False, True]
    for _, run in found[1:]:
        assert torch.equal(run.parameterization.images, found[0][1].parameterization.images)
        assert run.optimizer.param_groups[0]["lr"] == found[0][1].optimizer.param_groups[0]["lr"]
    assert dsdm.needs(config(**table[0]), "digits") == []
    assert len({dsdm.needs(config(**fields), "digits")[0] == dsdm.needs(config(), "digits")[0] for fields in table[1:]}) == 1


def test_random_networks_are_new_in_every_round_and_pooled_ones_come_again(files):
    random = dsdm.build(config(extractor={"network": NETWORK, "epochs": 0}), random_inputs("digits")).source
    pooled = dsdm.build(config(), random_inputs("digits", paths=files, classes=10)).source
    weights = lambda source, step: float(next(source.draw(step).parameters()).sum())  # noqa: E731
    assert len({weights(random, step) for step in range(12)}) == 12
    assert len({weights(pooled, step) for step in range(12)}) == 2


def test_what_the_variant_says_of_the_loss():
    assert dsdm.reading(config(variant="paper")) == {"unbiased": False, "per_feature": False, "start": 0, "first": "zeros"}
    assert dsdm.reading(config()) == {"unbiased": True, "per_feature": True, "start": 1, "first": "prototypes"}
    rows = {variant: look({"variant": variant, "init": "random"}, ())[0] for variant in ("paper", "code")}
    first, last = ({variant: rows[variant][number] for variant in rows} for number in (0, -1))
    assert first["paper"]["prototypes"] == first["code"]["prototypes"]
    assert first["paper"]["covariance"] != first["code"]["covariance"]
    assert last["paper"]["history"] > 100 * last["code"]["history"] > 0


@pytest.mark.parametrize(
    ("name", "network", "shape", "classes"),
    [
        ("cifar10", "convnet3_in_w8", None, 2),
        ("mnist", "convnet3_in_w8", None, 2),
        ("cifar100", "convnet3_in_w8", None, 100),
        ("digits", "convnet3_bn_w8", None, 10),
        ("mini_speech_commands", "convnet4_in_w8", (1, 64, 64), 8),
    ],
)
def test_every_shape_takes_a_step(name, network, shape, classes):
    fields = {**dsdm.defaults(name, 1), "extractor": {"network": network, "epochs": 0}, "batch_real": 256}
    inputs = random_inputs(name, shape=shape, classes=classes)
    run = dsdm.build(config(**fields), inputs)
    loss = run.term(run.batches(0), run.source.draw(0))
    loss.backward()
    gradient = run.parameterization.images.grad
    assert loss.isfinite() and gradient.isfinite().all()
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    run.optimizer.step()
    assert len(run.finish().images) == classes * (2 if name == "mini_speech_commands" else 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"factor": 1},
            r"dsdm: factor 1 at ipc 1: 1 image a class has no covariance; set factor \(or ipc\) to 2 or more, or covariance to false",
        ),
        ({"batch_syn_max": 1}, r"dsdm: batch_syn_max: 1 image .* set batch_syn_max to 2 or more, or covariance to false"),
        ({"batch_real": 1}, r"dsdm: batch_real: 1 image .* set batch_real to 2 or more"),
    ],
)
def test_a_covariance_of_one_image_is_an_error_and_not_nan(fields, message):
    for variant in ("paper", "code"):
        with pytest.raises(ConfigError, match=message):
            dsdm.build(config(variant=variant, **fields), random_inputs("digits"))
    run = dsdm.build(config(covariance=False, **fields, extractor={"network": NETWORK, "epochs": 0}), random_inputs("digits"))
    assert run.term(run.batches(0), run.source.draw(0)).isfinite()
    dsdm.build(config(factor=1), random_inputs("digits", ipc=2))


# -- whole runs ---------------------------------------------------------------------------------------------------------


def distilled(fields, digits_dir, paths, seed, out, **more):
    about = DistillConfig(dataset=Dataset(name="digits"), method="dsdm", ipc=1, recipe=hashed(config(**fields)))
    distill(about, digits_dir, [paths], seed, out, **more)
    return read_distilled(out / "distilled.safetensors", digits_dir)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_a_stopped_run_ends_with_the_same_bytes_if_nothing_is_forgotten(variant, digits_dir, files, tmp_path):
    fields, calls = {"variant": variant}, iter(range(1, 100))
    whole = distilled(fields, digits_dir, files, 0, tmp_path / "whole").images
    with pytest.raises(Stopped):
        distilled(fields, digits_dir, files, 0, tmp_path / "parts", stop=lambda: next(calls) >= 3)
    state = tmp_path / "parts/.resume/state.safetensors"
    tensors, meta = load_tensors(state)
    assert set(tensors) == {"parameterization.images", "optimizer.0.momentum_buffer", "term.history", "term.remembered"}
    content = state.read_bytes()
    for forgotten in ("term.history", "term.remembered", "nothing"):
        changed = {name: torch.zeros_like(value) if name == forgotten else value for name, value in tensors.items()}
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_bytes(content) if forgotten == "nothing" else save_tensors(state, changed, meta)
        assert torch.equal(distilled(fields, digits_dir, files, 0, tmp_path / "parts").images, whole) == (forgotten == "nothing"), forgotten
    assert (tmp_path / "parts/curve.csv").read_bytes() == (tmp_path / "whole/curve.csv").read_bytes()


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_it_beats_random_selection_and_its_own_start(variant, digits_dir, files, tmp_path):
    """At one stored image per class, over five sets: Welch against selection, p < 0.01; paired against no update, p < 0.05."""
    from scipy.stats import ttest_ind, ttest_rel

    protocol, means = config_of("dc_short")(epochs=60), {"dsdm": [], "start": [], "random": []}
    for seed in range(5):
        fields = {"variant": variant, "batch_real": 32, "lr_img": 0.1, "iterations": 80}
        made = {"dsdm": distilled(fields, digits_dir, files, seed, tmp_path / f"dsdm{seed}")}
        made["start"] = distilled({**fields, "iterations": 0}, digits_dir, files, seed, tmp_path / f"start{seed}")
        about = DistillConfig(dataset=Dataset(name="digits"), method="random", ipc=1, recipe={})
        distill(about, digits_dir, [], seed, tmp_path / f"random{seed}")
        made["random"] = read_distilled(tmp_path / f"random{seed}/distilled.safetensors", digits_dir)
        for name, images in made.items():
            scores = evaluate(images, NETWORK, "dc_short", protocol, digits_dir, seed, range(2))
            means[name].append(sum(score.accuracy_last for score in scores) / 2)
    assert ttest_ind(means["dsdm"], means["random"], equal_var=False, alternative="greater").pvalue < 0.01, means
    assert ttest_rel(means["dsdm"], means["start"], alternative="greater").pvalue < 0.05, means
