"""MTT put together: published settings, what it asks for, its run on digits, and whether it learns."""

import shutil

import pytest
import torch

from dd import recipes
from dd.artifacts import load_tensors
from dd.config import hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.load import manifest
from dd.data.load import pool as real_pool
from dd.data.whiten import whiten
from dd.distill import distill
from dd.errors import ArtifactError, ConfigError
from dd.evaluation import config_of
from dd.evaluation.io import read_distilled
from dd.evaluation.run import evaluate
from dd.recipes import mtt, tesla
from dd.train.config import ExpertConfig, expert_need
from dd.train.experts import experts
from dd.types import Inputs

EXPERTS = {"network": "convnet3_in_w8", "count": 3, "epochs": 3, "images": 10, "training": {"batch": 20, "lr": 0.05}}
SMALL = {"iterations": 4, "syn_steps": 3, "expert_span": 1, "max_start": 3, "batch_syn": 7, "step_size": 0.05, "experts": EXPERTS}


def configure(method="mtt", ipc=2, small=SMALL, **fields):
    recipe = recipes.load(method)
    return DistillConfig(
        dataset=Dataset(name="digits"), method=method, ipc=ipc, recipe=hashed(parse(recipe.Config, {**small, **fields}, method))
    )


def make_experts(digits_dir, folder, about, **more):
    files = [folder / f"expert{n}.safetensors" for n in range(about["count"])]
    given = {key: value for key, value in about.items() if key != "count"} | more
    experts(parse(ExpertConfig, {"dataset": {"name": "digits"}, **given}, "experts"), digits_dir, range(about["count"]), files)
    return files


@pytest.fixture(scope="module")
def trained(digits_dir, tmp_path_factory):
    return make_experts(digits_dir, tmp_path_factory.mktemp("experts"), EXPERTS)


def build(trained, digits_dir, recipe=mtt, ipc=2, seed=0, **fields):
    facts = manifest(digits_dir)
    inputs = Inputs(digits_dir, facts, ipc, seed, "cpu", [trained], lambda: real_pool(digits_dir, "train", "dc"))
    return recipe.build(parse(recipe.Config, {**SMALL, **fields}, ""), inputs)


def update(run, step):
    """Take one step as the loop does; return its loss."""
    run.parameterization.project_()
    net = run.source.draw(step)
    loss = run.term(run.batches(step), net)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    run.optimizer.step()
    return loss.item()


@pytest.mark.parametrize(
    ("dataset", "ipc", "row"),
    [
        ("cifar10", 1, (50, 2, 2, 100, 1e-7, 0.01, None, True)),
        ("cifar10", 10, (30, 2, 20, 100, 1e-5, 0.001, None, True)),
        ("cifar10", 50, (30, 2, 40, 1000, 1e-5, 0.001, None, False)),
        ("cifar100", 1, (20, 3, 20, 1000, 1e-5, 0.01, None, True)),
        ("cifar100", 10, (20, 2, 20, 1000, 1e-5, 0.01, None, False)),
        ("cifar100", 50, (80, 2, 40, 1000, 1e-5, 0.01, 125, True)),
        ("tiny_imagenet", 1, (10, 2, 10, 10_000, 1e-4, 0.01, None, False)),
        ("tiny_imagenet", 10, (20, 2, 40, 10_000, 1e-4, 0.01, 200, False)),
        ("tiny_imagenet", 50, (20, 2, 40, 10_000, 1e-4, 0.01, 300, False)),
        ("cifar10", 5, (50, 2, 2, 100, 1e-7, 0.01, None, True)),
        ("cifar10", 30, (30, 2, 20, 100, 1e-5, 0.001, None, True)),
        ("cifar10", 100, (30, 2, 40, 1000, 1e-5, 0.001, None, False)),
        ("svhn", 1, (50, 2, 2, 100, 1e-7, 0.01, None, False)),
        ("digits", 10, (30, 2, 20, 100, 1e-5, 0.001, None, False)),
        ("digits", 31, (30, 2, 40, 1000, 1e-5, 0.001, None, False)),
    ],
)
def test_settings_are_the_published_or_the_nearest(dataset, ipc, row):
    config = parse(mtt.Config, mtt.defaults(dataset, ipc), "mtt")
    assert (
        config.syn_steps,
        config.expert_span,
        config.max_start,
        config.lr_img,
        config.lr_lr,
        config.step_size,
        config.batch_syn,
        config.zca,
    ) == row
    assert (config.iterations, config.momentum, config.init, config.augment, config.unroll) == (5000, 0.5, "real", "oneof", "adjoint")
    assert config.experts.network == ("convnet4_in" if dataset == "tiny_imagenet" else "convnet3_in")
    assert (config.experts.count, config.experts.epochs, config.experts.training.lr, config.experts.training.momentum) == (100, 50, 0.01, 0)
    assert mtt.lineage(config) == ("zca" if config.zca else "dc")
    assert mtt.needs(config, dataset) == [expert_need(config.experts, dataset, mtt.lineage(config))]


def test_the_defaults_are_the_middle_row_without_whitening():
    assert parse(mtt.Config, {}, "") == parse(mtt.Config, {**mtt.defaults("cifar10", 10), "zca": False}, "")


def test_sounds_are_not_augmented():
    config = parse(mtt.Config, mtt.defaults("mini_speech_commands", 10), "mtt")
    assert (config.augment, config.experts.network) == ("none", "convnet4_in")


def test_experts_that_are_too_short_are_refused_before_they_are_trained():
    with pytest.raises(
        ConfigError, match=r"mtt: experts: .*experts\.epochs is 40: with max_start 40 and expert_span 2, .* 41 epochs or more"
    ):
        parse(mtt.Config, {"max_start": 40, "experts": {"epochs": 40}}, "mtt")
    with pytest.raises(ConfigError, match="60 epochs or more"):  # those that are not mentioned, too
        parse(mtt.Config, {"max_start": 60, "expert_span": 1}, "mtt")
    parse(mtt.Config, {"max_start": 40, "experts": {"epochs": 41}}, "mtt")


def test_work_counts_the_students_steps():
    config = parse(mtt.Config, {"iterations": 10, "syn_steps": 4, "batch_syn": 30}, "mtt")
    assert mtt.work(config, 10, 50_000, 10) == {"convnet3_in": 10 * 4 * 30 * 10}
    assert mtt.work(config, 10, 50_000, 1) == {"convnet3_in": 10 * 4 * 10 * 10}
    assert mtt.work(config.model_copy(update={"unroll": "full", "batch_syn": None}), 10, 50_000, 5) == {"convnet3_in": 10 * 4 * 50 * 7}


def test_the_ways_of_unrolling_make_the_same_images(trained, digits_dir):
    made = {}
    for unroll in ("full", "checkpoint", "adjoint"):
        run = build(trained, digits_dir, unroll=unroll)
        losses = [update(run, step) for step in range(3)]
        made[unroll] = run.finish()
        assert losses[0] > 0
    start = build(trained, digits_dir).finish()
    for unroll in ("checkpoint", "adjoint"):
        assert (made[unroll].images - made["full"].images).abs().max() < 1e-4
        assert made[unroll].step_size == pytest.approx(made["full"].step_size, abs=1e-7)
    assert (made["full"].images - start.images).abs().max() > 1e-2
    assert made["full"].step_size != pytest.approx(0.05, abs=1e-7), "the step size is learned"


def test_an_update_is_what_the_fields_say(trained, digits_dir):
    """The loss by hand: three steps of seven of the twenty images each; and then the optimizer's."""
    run = build(trained, digits_dir)
    segment, batches = run.source.draw(0), run.batches(0)
    every, labels = run.parameterization.decode(torch.arange(20)).detach(), torch.arange(10).repeat_interleave(2)
    theta = segment.start
    for i in range(3):
        at = theta.clone().requires_grad_(True)
        batch = batches.minibatch(i, every, labels)
        assert len(batch.y) == (6 if i == 0 else 7)
        logp = segment.network(at, batch.x).log_softmax(1)
        (gradient,) = torch.autograd.grad(-logp[torch.arange(len(batch.y)), batch.y].mean(), at)
        theta = theta - 0.05 * gradient
    expected = (theta - segment.target).square().sum() / (segment.start - segment.target).square().sum()
    assert update(run, 0) == pytest.approx(expected.item(), rel=1e-5)
    assert [(group["lr"], group["momentum"], group["weight_decay"]) for group in run.optimizer.param_groups] == [
        (100, 0.5, 0),
        (1e-5, 0.5, 0),
    ]
    rows = torch.stack([load_tensors(file)[0]["trajectory"] for file in trained])
    assert ((rows[:, :3] == segment.start).all(2) & (rows[:, 1:] == segment.target).all(2)).sum() == 1, "one epoch of one expert"


def test_students_see_augmented_images_unless_they_may_not(trained, digits_dir):
    for fields, plain in (({}, False), ({"augment": "none"}, True)):
        run = build(trained, digits_dir, batch_syn=None, **fields)
        every = run.parameterization.decode(torch.arange(20)).detach()
        seen = [run.batches(step).minibatch(0, every, torch.arange(20)) for step in range(4)]
        assert all(torch.equal(batch.x, every[batch.y]) for batch in seen) == plain


def test_the_start_is_real_images_and_the_set_is_in_raw_units(trained, digits_dir):
    run = build(trained, digits_dir, step_size=0.02)
    found, pool = run.finish(), real_pool(digits_dir, "train", "dc")
    everything = pool.raw(torch.arange(len(pool)))
    assert found.labels.tolist() == [c for c in range(10) for _ in range(2)]
    for image, label in zip(found.images, found.labels, strict=True):
        distance = (everything - image).abs().amax((1, 2, 3))
        assert distance.min() < 1e-5 and pool.labels[distance.argmin()] == label
    assert found.step_size == pytest.approx(0.02) and not found.zca
    assert all(torch.equal(one, other) for one, other in zip((found.mean, found.std), pool.statistics, strict=True))
    noise = build(trained, digits_dir, init="noise").parameterization.decode(torch.arange(20)).detach()
    assert noise.mean().abs() < 0.1 and noise.std() == pytest.approx(1, abs=0.1)


def test_the_step_size_stays_above_zero_whatever_its_rate(trained, digits_dir, tmp_path):
    config = configure(lr_lr=1e4, iterations=6, steps=[1, 3])
    distill(config, digits_dir, [trained], 0, tmp_path / "set")
    names = ["steps/1.safetensors", "steps/3.safetensors", "distilled.safetensors"]
    sizes = [read_distilled(tmp_path / "set" / name, digits_dir).step_size for name in names]
    assert all(size is None or size >= 1e-6 for size in sizes), sizes
    run, lowest = build(trained, digits_dir), []
    for step in range(6):
        with torch.no_grad():
            run.parameterization.alpha.sub_(1.0)
        update(run, step)
        lowest.append(run.term.facts["step_size"].item())
        assert run.finish().step_size >= 1e-6
    assert lowest == pytest.approx([1e-6] * 6)


def test_the_curve_has_the_step_size(trained, digits_dir, tmp_path):
    distill(configure(), digits_dir, [trained], 0, tmp_path)
    lines = (tmp_path / "curve.csv").read_text().splitlines()
    assert lines[0] == "step,loss,grad_norm,step_size" and lines[1].endswith(",0.05")


def test_whitened_sets_say_so_and_come_back_to_raw_units(trained, digits_dir, tmp_path):
    folder = tmp_path / "digits"
    shutil.copytree(digits_dir, folder)
    with pytest.raises(ArtifactError, match="whiten"):
        distill(configure(zca=True), folder, [trained], 0, tmp_path / "no")
    whiten(folder, folder / "zca.safetensors")
    with pytest.raises(ArtifactError, match=r"lineage: is 'dc' of this expert, the method needs 'zca'"):
        distill(configure(zca=True), folder, [trained], 0, tmp_path / "no")
    own = make_experts(folder, tmp_path, EXPERTS, lineage="zca")
    distill(configure(zca=True, iterations=0), folder, [own], 0, tmp_path / "set")
    found = read_distilled(tmp_path / "set/distilled.safetensors", folder)
    assert found.zca and torch.equal(found.mean, torch.zeros(1)) and torch.equal(found.std, torch.ones(1))
    assert found.images.min() > -1e-3 and found.images.max() < 1 + 1e-3
    distill(configure(zca=True), folder, [own], 0, tmp_path / "moved")
    assert not torch.equal(read_distilled(tmp_path / "moved/distilled.safetensors", folder).images, found.images)


def test_experts_of_another_network_are_refused(trained, digits_dir, tmp_path):
    other = {**EXPERTS, "network": "convnet3_in_w16"}
    with pytest.raises(ArtifactError, match=r"expert0\.safetensors: network: is 'convnet3_in_w8' of this expert"):
        distill(configure(experts=other), digits_dir, [trained], 0, tmp_path)


def test_the_files_are_not_changed(trained, digits_dir, tmp_path):
    before = [file.read_bytes() for file in trained]
    distill(configure(), digits_dir, [trained], 0, tmp_path)
    assert before == [file.read_bytes() for file in trained]
    assert all(load_tensors(file)[0]["trajectory"].shape[0] == 4 for file in trained)


@pytest.mark.slow
def test_both_beat_random_selection(digits_dir, tmp_path):
    """At one image per class, over six sets, p < 0.01 (Welch); 4 experts of 40 images a class."""
    from scipy.stats import ttest_ind

    about = {"network": "convnet3_in_w16", "count": 4, "epochs": 4, "images": 40, "training": {"batch": 32, "lr": 0.05}}
    trained = make_experts(digits_dir, tmp_path, about)
    protocol = config_of("dc_short")(epochs=60)
    fields = {
        "iterations": 25,
        "syn_steps": 8,
        "expert_span": 1,
        "max_start": 3,
        "lr_img": 500.0,
        "lr_lr": 1e-3,
        "step_size": 0.03,
        "experts": about,
    }
    means = {}
    for method, given in (("mtt", {**fields, "unroll": "adjoint"}), ("tesla", {**fields, "lr_img": 1000.0}), ("random", {})):
        means[method] = []
        for seed in range(6):
            out = tmp_path / method / str(seed)
            distill(configure(method, 1, {}, **given), digits_dir, [trained] if given else [], seed, out)
            scores = evaluate(
                read_distilled(out / "distilled.safetensors", digits_dir),
                about["network"],
                "dc_short",
                protocol,
                digits_dir,
                seed,
                range(2),
            )
            means[method].append(sum(score.accuracy_last for score in scores) / 2)
    for method in ("mtt", "tesla"):
        assert ttest_ind(means[method], means["random"], equal_var=False, alternative="greater").pvalue < 0.01, means
    assert tesla.defaults("digits", 1) == mtt.defaults("digits", 1)
