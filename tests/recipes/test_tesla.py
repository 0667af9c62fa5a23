"""TESLA put together: published settings, its factor, its labels and what a resumed run keeps of them."""

import pytest
import torch

from dd.artifacts import load_tensors
from dd.config import hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.load import manifest
from dd.data.load import pool as real_pool
from dd.distill import Stopped, distill
from dd.errors import ConfigError
from dd.evaluation.io import read_distilled
from dd.recipes import mtt, tesla
from dd.train.config import ExpertConfig
from dd.train.experts import experts
from dd.types import Inputs

EXPERTS = {"network": "convnet3_in_w8", "count": 2, "epochs": 2, "images": 10, "training": {"batch": 20, "lr": 0.05}}
SMALL = {"iterations": 4, "syn_steps": 3, "expert_span": 1, "max_start": 2, "batch_syn": 7, "step_size": 0.05, "experts": EXPERTS}


@pytest.fixture(scope="module")
def trained(digits_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    files = [folder / f"expert{n}.safetensors" for n in range(2)]
    given = {key: value for key, value in EXPERTS.items() if key != "count"}
    experts(parse(ExpertConfig, {"dataset": {"name": "digits"}, **given}, "experts"), digits_dir, range(2), files)
    return files


def configure(**fields):
    return DistillConfig(
        dataset=Dataset(name="digits"), method="tesla", ipc=2, recipe=hashed(parse(tesla.Config, {**SMALL, **fields}, "tesla"))
    )


def build(recipe, trained, digits_dir, **fields):
    inputs = Inputs(digits_dir, manifest(digits_dir), 2, 0, "cpu", [trained], lambda: real_pool(digits_dir, "train", "dc"))
    return recipe.build(parse(recipe.Config, {**SMALL, **fields}, ""), inputs)


def gradients(run):
    """Return the loss of the first update, and its gradients to images and step size."""
    loss = run.term(run.batches(0), run.source.draw(0))
    loss.backward()
    (images,), (alpha,) = (group["params"] for group in run.parameterization.parameters())
    return loss.detach(), images.grad, alpha.grad


@pytest.mark.parametrize(
    ("dataset", "ipc", "row", "soft"),
    [
        ("cifar10", 1, (50, 2, 5, 1000, 1e-7, 0.01, None, True), False),
        ("cifar100", 50, (80, 2, 40, 1000, 1e-5, 0.01, 125, True), False),
        ("imagenet64", 1, (10, 3, 10, 10_000, 1e-4, 0.01, 100, False), True),
        ("imagenet64", 10, (10, 3, 10, 10_000, 1e-4, 0.01, 100, False), True),
    ],
)
def test_settings_are_the_published(dataset, ipc, row, soft):
    config = parse(tesla.Config, tesla.defaults(dataset, ipc), "tesla")
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
    assert (config.iterations, config.gradient_factor, config.soft_labels, config.momentum) == (10_000, 0.5, soft, 0.5)
    assert config.experts.network == ("convnet4_in" if dataset == "imagenet64" else "convnet3_in")


@pytest.mark.parametrize(
    ("dataset", "ipc"), [("cifar10", 10), ("cifar10", 50), ("cifar100", 1), ("cifar100", 10), ("digits", 1), ("svhn", 10)]
)
def test_where_nothing_is_published_the_settings_are_mtts(dataset, ipc):
    assert tesla.defaults(dataset, ipc) == mtt.defaults(dataset, ipc)


def test_the_image_gradient_has_the_factor_and_the_step_sizes_has_not(trained, digits_dir):
    released = gradients(build(tesla, trained, digits_dir))
    formula = gradients(build(tesla, trained, digits_dir, gradient_factor=1.0))
    assert torch.equal(released[1], formula[1] * 0.5) and released[1].abs().max() > 0
    assert torch.equal(released[0], formula[0]) and torch.equal(released[2], formula[2])
    exact = gradients(build(mtt, trained, digits_dir, unroll="full"))
    assert exact[0] == pytest.approx(formula[0].item(), rel=1e-5), "one loss"
    assert (formula[1] - exact[1]).norm() > 1e-3 * exact[1].norm(), "and two gradients"
    assert torch.nn.functional.cosine_similarity(formula[1].flatten(), exact[1].flatten(), dim=0) > 0.8


def test_hard_labels_stay_classes(trained, digits_dir, tmp_path):
    distill(configure(), digits_dir, [trained], 0, tmp_path)
    found = read_distilled(tmp_path / "distilled.safetensors", digits_dir)
    assert found.labels.dtype == torch.int64 and found.step_size > 0


def test_soft_labels_are_those_of_the_last_iteration(trained, digits_dir):
    run = build(tesla, trained, digits_dir, soft_labels=True)
    assert torch.equal(run.finish().labels, torch.eye(10).repeat_interleave(2, 0)), "before the first, the classes"
    for step in range(3):
        net, batches = run.source.draw(step), run.batches(step)
        shown = batches.synthetic().x.detach()
        run.optimizer.zero_grad()
        run.term(batches, net).backward()
        run.optimizer.step()
        with torch.no_grad():
            expected = net.network(net.target, shown, train=False).softmax(1)
        assert torch.allclose(run.finish().labels, expected, atol=1e-6)
        assert torch.equal(batches.synthetic().y, run.finish().labels), "and guidance sees them"
        assert not torch.equal(batches.synthetic().x, shown)


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_soft_labels_survive_a_stop(trained, digits_dir, tmp_path, stop_after):
    config = configure(soft_labels=True, steps=[0, 2])
    distill(config, digits_dir, [trained], 0, tmp_path / "whole")
    calls = iter(range(1, 100))
    with pytest.raises(Stopped):
        distill(config, digits_dir, [trained], 0, tmp_path / "parts", stop=lambda: next(calls) == stop_after)
    state, _ = load_tensors(tmp_path / "parts/.resume/state.safetensors")
    assert state["parameterization.labels"].shape == (20, 10) and "parameterization.step_size" in state
    distill(config, digits_dir, [trained], 0, tmp_path / "parts")
    for name in ("distilled.safetensors", "steps/2.safetensors", "curve.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    labels = read_distilled(tmp_path / "whole/distilled.safetensors", digits_dir).labels
    assert labels.shape == (20, 10) and torch.allclose(labels.sum(1), torch.ones(20)) and labels.max() < 1


def test_soft_labels_are_learned_from(trained, digits_dir):
    hard, soft = (gradients(build(tesla, trained, digits_dir, soft_labels=soft)) for soft in (False, True))
    assert hard[0] != soft[0] and not torch.allclose(hard[1], soft[1])


def test_soft_labels_of_a_network_with_running_statistics_are_refused(trained, digits_dir):
    with pytest.raises(ConfigError, match=r"soft_labels: value true: convnet3_bn_w8 .*allowed: false, or experts\.network without"):
        build(tesla, trained, digits_dir, soft_labels=True, experts={**EXPERTS, "network": "convnet3_bn_w8"})


def test_work_counts_the_labels():
    config = parse(tesla.Config, {"iterations": 10, "syn_steps": 4, "batch_syn": 30, "soft_labels": True}, "tesla")
    assert tesla.work(config, 10, 50_000, 10) == {"convnet3_in": 10 * (4 * 30 * 10 + 100)}
