"""IDM put together: published settings, the weight in percent, and whether it learns."""

import pytest
import torch

from dd.config import hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.load import manifest
from dd.distill import _pool, distill
from dd.evaluation import config_of
from dd.evaluation.io import read_distilled
from dd.evaluation.run import evaluate
from dd.recipes import idm
from dd.types import Inputs

SMALL = {"network": "convnet3_in_w16", "batch_real": 32, "train_batch": 32, "train_steps": 2, "grow_every": 10, "size": 10}


@pytest.mark.parametrize(
    ("dataset", "ipc", "expected"),
    [
        ("cifar10", 1, (0.5, 5000, 5, 10, 100)),
        ("cifar10", 10, (0.5, 256, 30, 10, 100)),
        ("cifar10", 50, (0.1, 256, 30, 10, 500)),
        ("cifar100", 10, (0.1, 256, 30, 50, 100)),
        ("svhn", 10, (0.5, 256, 30, 10, 100)),
        ("cifar10", 20, (0.5, 256, 30, 10, 100)),
    ],
)
def test_settings_are_the_published_ones_of_the_nearest_number(dataset, ipc, expected):
    given = idm.defaults(dataset, ipc)
    assert tuple(given[key] for key in ("ce_weight", "batch_real", "grow_every", "train_steps", "reset_every")) == expected


def run_of(digits_dir, **fields):
    facts = manifest(digits_dir)
    config = parse(idm.Config, {**SMALL, **fields}, "idm")
    return idm.build(config, Inputs(digits_dir, facts, 2, 0, "cpu", [], _pool(digits_dir, "dc", "train", "cpu")))


@pytest.mark.parametrize(("scale", "expected"), [("percent", 0.5 * 75.0), ("plain", 0.5)])
def test_the_weight_is_in_percent_as_released(scale, expected, digits_dir):
    run = run_of(digits_dir, ce_scale=scale)
    net = run.source.draw(0)
    (drawn,) = (member for member in run.source.members if member.net is net)
    drawn.right += 3
    drawn.seen = 4
    run.term(run.batches(0), net)
    assert run.term.facts["weight"].item() == pytest.approx(expected)


def test_a_network_that_was_not_trained_classifies_nothing(digits_dir):
    run = run_of(digits_dir)
    run.term(run.batches(0), run.source.draw(0))
    assert run.term.facts["weight"].item() == 0.0


def test_whole_classes_of_different_size_give_as_many_as_the_smallest(digits_dir):
    run = run_of(digits_dir, batch_real=5000)
    _, real = run.batches(0).pair()
    assert torch.bincount(real.y).tolist() == [manifest(digits_dir)["smallest_class"]] * 10


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("init", ["real", "noise"])
def test_it_hands_over_what_networks_saw_in_units_of_black_to_white(factor, init, digits_dir):
    run = run_of(digits_dir, factor=factor, init=init)
    net, batches = run.source.draw(0), run.batches(0)
    run.term(batches, net).backward()
    run.optimizer.step()
    found, seen = run.finish(), run.batches(1).synthetic()
    mean, std = (torch.tensor(manifest(digits_dir)["lineages"]["dc"][key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(found.images, seen.x.detach() * std + mean, rtol=1e-5, atol=1e-5)
    assert found.labels.tolist() == seen.y.tolist() == [c for c in range(10) for _ in range(2 * factor**2)]
    if factor == 1:
        assert found.stored is None
    else:
        torch.testing.assert_close(found.stored, run.parameterization.images.detach() * std + mean, rtol=1e-5, atol=1e-5)
    if init == "noise":
        assert found.images.min() < 0 and found.images.max() > 1, "pixels are not clamped"


def made(method, fields, digits_dir, seed, out):
    recipe = hashed(parse(idm.Config, fields, method)) if method == "idm" else {}
    distill(DistillConfig(dataset=Dataset(name="digits"), method=method, ipc=1, recipe=recipe), digits_dir, [], seed, out)
    return read_distilled(out / "distilled.safetensors", digits_dir)


def test_it_beats_random_selection_and_its_own_start(digits_dir, tmp_path):
    """At one stored image per class, over five sets: Welch against selection, p < 0.01; paired against no update, p < 0.05."""
    from scipy.stats import ttest_ind, ttest_rel

    protocol, means = config_of("dc_short")(epochs=40), {"idm": [], "start": [], "random": []}
    for seed in range(5):
        fields = {**SMALL, "iterations": 50}
        sets = {
            "idm": made("idm", fields, digits_dir, seed, tmp_path / f"i{seed}"),
            "start": made("idm", {**fields, "iterations": 0}, digits_dir, seed, tmp_path / f"s{seed}"),
            "random": made("random", {}, digits_dir, seed, tmp_path / f"r{seed}"),
        }
        for name, one in sets.items():
            scores = evaluate(one, "convnet3_in_w16", "dc_short", protocol, digits_dir, seed, range(2))
            means[name].append(sum(score.accuracy_last for score in scores) / 2)
    assert ttest_ind(means["idm"], means["random"], equal_var=False, alternative="greater").pvalue < 0.01, means
    assert ttest_rel(means["idm"], means["start"], alternative="greater").pvalue < 0.05, means
