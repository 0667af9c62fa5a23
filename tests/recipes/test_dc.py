"""DC and DSA put together: published settings, their networks, their augmentation, and whether they learn."""

import pytest
import torch

from dd import networks, recipes
from dd.config import hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.load import manifest
from dd.data.pool import RealPool
from dd.distill import distill
from dd.errors import ConfigError
from dd.evaluation import config_of
from dd.evaluation.io import read_distilled
from dd.evaluation.run import evaluate
from dd.recipes import dc, dsa
from dd.types import Inputs

SMALL = {"network": "convnet3_in_w8", "batch_real": 8, "outer": 3, "inner": 2, "iterations": 6}


@pytest.mark.parametrize(
    ("ipc", "outer", "inner"),
    [(1, 1, 1), (10, 10, 50), (20, 20, 25), (30, 30, 20), (40, 40, 15), (50, 50, 10), (2, 2, 50), (9, 9, 50), (11, 11, 45), (49, 49, 10),
     (51, 50, 10), (100, 50, 10)],
)  # fmt: skip
@pytest.mark.parametrize("recipe", [dc, dsa])
def test_the_loops_follow_the_images_per_class(recipe, ipc, outer, inner):
    given = recipe.defaults("cifar10", ipc)
    assert given == {"iterations": 1000 * outer, "outer": outer, "inner": inner}


def test_the_two_differ_in_start_and_augmentation_only():
    one, other = (hashed(parse(recipe.Config, {}, "")) for recipe in (dc, dsa))
    assert {key for key in one if one[key] != other[key]} == {"init", "augment"}
    assert (one["init"], one["augment"], other["init"], other["augment"]) == ("noise", "none", "real", "oneof")
    assert (one["lr_img"], one["momentum"], one["lr_net"], one["batch_real"], one["batch_train"]) == (0.1, 0.5, 0.01, 256, 256)
    assert one["iterations"] == 10_000 and parse(dc.Config, dc.defaults("cifar10", 10), "") == parse(dc.Config, {}, "")


def test_sounds_are_not_augmented():
    config = parse(dsa.Config, dsa.defaults("mini_speech_commands", 10), "dsa")
    assert (config.network, config.augment) == ("convnet4_in", "none")


def test_an_unknown_distance_is_named():
    with pytest.raises(ConfigError, match=r"distance.*ours"):
        parse(dc.Config, {"distance": "l1"}, "dc")


def test_work_counts_both_loops():
    config = parse(dc.Config, {"iterations": 20, "outer": 10, "inner": 50, "batch_real": 256}, "dc")
    assert dc.work(config, 10, 50_000, 10) == {"convnet3_in": 20 * 10 * (3 * 256 + 7 * 10) + 18 * 50 * 3 * 100}
    assert dc.needs(config, "cifar10") == []


def inputs(digits_dir, ipc=2, **changes):
    facts = manifest(digits_dir)
    pool = RealPool(*_split(digits_dir), len(facts["classes"]), **facts["lineages"]["dc"])
    return Inputs(digits_dir, {**facts, **changes}, ipc, 0, "cpu", [], lambda: pool)


def _split(digits_dir):
    from dd.data.load import load

    return load(digits_dir, "train")


def run_of(recipe, given, **fields):
    return recipe.build(parse(recipe.Config, {**SMALL, **fields}, ""), given)


def step(run, number):
    """Take one step as the loop does; return the weights that it looked through."""
    net, batches = run.source.draw(number), run.batches(number)
    weights = [p.detach().clone() for p in net.parameters()]
    run.optimizer.zero_grad(set_to_none=True)
    run.term(batches, net).backward()
    run.optimizer.step()
    run.source.advance(net, batches)
    return weights


def fresh(number):
    return list(networks.build(SMALL["network"], 1, (16, 16), 10, 0, "trainee", SMALL["network"], number).parameters())


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("recipe", [dc, dsa])
def test_at_one_image_per_class_no_network_is_ever_trained(recipe, digits_dir):
    loops = {key: recipe.defaults("digits", 1)[key] for key in ("outer", "inner")}
    run = run_of(recipe, inputs(digits_dir, ipc=1), **loops)
    for number in range(4):
        assert equal(step(run, number), fresh(number))


@pytest.mark.parametrize("recipe", [dc, dsa])
def test_with_more_images_a_network_learns_for_its_lifetime(recipe, digits_dir):
    run = run_of(recipe, inputs(digits_dir))
    seen = [step(run, number) for number in range(6)]
    assert [equal(seen[number], fresh(number // 3)) for number in range(6)] == [True, False, False] * 2


def test_the_networks_of_dsa_are_trained_with_augmentation_those_of_dc_without(digits_dir):
    """By hand: two epochs over the updated images, all twenty in one batch, so that their order does not matter."""
    for recipe, plain in ((dc, True), (dsa, False)):
        run = run_of(recipe, inputs(digits_dir))
        step(run, 0)
        x, y = run.batches(0).synthetic().x.detach(), torch.arange(10).repeat_interleave(2)
        net = networks.build(SMALL["network"], 1, (16, 16), 10, 0, "trainee", SMALL["network"], 0)
        for _ in range(2):
            gradients = torch.autograd.grad(torch.nn.functional.cross_entropy(net(x), y), list(net.parameters()))
            with torch.no_grad():
                for p, g in zip(net.parameters(), gradients, strict=True):
                    p -= 0.01 * g
        found = list(run.source.draw(1).parameters())
        close = all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, net.parameters(), strict=True))
        assert close == plain
        assert not equal(found, fresh(0))


def test_every_rate_reaches_its_optimizer(digits_dir, monkeypatch):
    seen = {}

    def fit(net, fetch, n, training, **rest):
        seen.update(training=training, n=n, **rest)

    monkeypatch.setattr("dd.sources.trainee.fit", fit)
    monkeypatch.setattr("dd.sources.trainee.statistics", lambda pool, per_class, seed: seen.update(per_class=per_class))
    run = run_of(dsa, inputs(digits_dir), momentum=0.25, lr_img=0.5, lr_net=0.03, batch_train=7)
    (group,) = run.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], seen["per_class"]) == (0.5, 0.25, 0, 16)
    step(run, 0)
    training = seen["training"]
    assert (training.lr, training.momentum, training.weight_decay, training.batch, training.schedule) == (0.03, 0.0, 0.0, 7, "constant")
    assert (seen["first_epoch"], seen["last_epoch"], seen["n"]) == (0, SMALL["inner"], 20)


def test_dsa_shows_real_and_synthetic_images_of_a_class_through_one_draw(digits_dir):
    """With all images of a class equal before, they are equal after; over some steps no image stays as it was in all."""
    given = inputs(digits_dir)
    one = given.pool()
    same = RealPool(one.images[[int(one.of_class(c)[0]) for c in range(10)]].repeat_interleave(8, 0), torch.arange(10).repeat_interleave(8),
                    10, one.normalisation.mean.tolist(), one.normalisation.std.tolist())  # fmt: skip
    shown = Inputs(given.dataset, given.manifest, 2, 0, "cpu", [], lambda: same)
    for recipe in (dc, dsa):
        run, moved = run_of(recipe, shown, init="real"), 0
        for number in range(4):
            batches = run.batches(number)
            synthetic, real = batches.pair()
            before = batches.synthetic()
            for c in range(10):
                assert all(torch.equal(image, synthetic.x[2 * c]) for image in [*real.x[real.y == c], synthetic.x[2 * c + 1]])
            moved += int((synthetic.x != before.x).flatten(1).any(1).sum())
        assert (moved > 20) == (recipe is dsa)


def test_images_start_from_noise_or_from_real_ones(digits_dir):
    given = inputs(digits_dir, ipc=20)
    noise = run_of(dc, given).parameterization.images.detach()
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    pool = given.pool()
    real = pool.x(torch.arange(len(pool))).flatten(1)
    run = run_of(dsa, given)
    labels = run.batches(0).synthetic().y
    for image, label in zip(run.parameterization.images.detach().flatten(1), labels, strict=True):
        found = (real == image).all(1).nonzero().squeeze(1)
        assert len(found) and bool((pool.y(found) == label).any())


def test_it_hands_over_images_in_units_of_black_to_white(digits_dir):
    run = run_of(dc, inputs(digits_dir))
    step(run, 0)
    found = run.finish()
    mean, std = (torch.tensor(manifest(digits_dir)["lineages"]["dc"][key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(found.images, run.parameterization.images.detach() * std + mean, rtol=1e-5, atol=1e-5)
    assert found.labels.tolist() == [c for c in range(10) for _ in range(2)]
    assert found.images.min() < 0 and found.images.max() > 1, "pixels are not clamped"


def test_a_small_class_limits_the_real_batch(digits_dir):
    _, real = run_of(dc, inputs(digits_dir), batch_real=256).batches(0).pair()
    assert torch.bincount(real.y).tolist() == [manifest(digits_dir)["smallest_class"]] * 10


def test_images_that_must_not_be_augmented_are_not(digits_dir):
    run = run_of(dsa, inputs(digits_dir, augment=False))
    for number in range(3):
        batches = run.batches(number)
        assert torch.equal(batches.pair()[0].x, batches.synthetic().x)


@pytest.mark.parametrize("network", ["convnet3_bn_w8", "resnet18_bn_w8", "mlp_w16", "vit_w24_d2"])
def test_other_networks_are_looked_through_and_learn(network, digits_dir):
    run = run_of(dsa, inputs(digits_dir), network=network)
    before = run.parameterization.images.detach().clone()
    for number in range(3):
        step(run, number)
    after = run.parameterization.images.detach()
    assert bool(after.isfinite().all()) and bool((after != before).flatten(1).any(1).all())


def made(method, fields, digits_dir, seed, out):
    recipe = recipes.load(method)
    given = hashed(parse(recipe.Config, fields, method))
    distill(DistillConfig(dataset=Dataset(name="digits"), method=method, ipc=1, recipe=given), digits_dir, [], seed, out)
    return read_distilled(out / "distilled.safetensors", digits_dir)


@pytest.mark.slow
def test_both_beat_random_selection(digits_dir, tmp_path):
    """At one image per class, six sets against twelve: Welch, p < 0.01. Rates and lengths were chosen on sets 20 to 22, not among these."""
    from scipy.stats import ttest_ind

    common = {"network": "convnet3_in_w8", "batch_real": 16, "outer": 1, "inner": 1, "iterations": 40}
    fields = {"dc": {**common, "lr_img": 1.0}, "dsa": {**common, "lr_img": 0.3, "iterations": 30}, "random": {}}
    protocol, means = config_of("dc_short")(epochs=60), {method: [] for method in fields}
    for method, given in fields.items():
        for seed in range(6 if given else 12):
            one = made(method, given, digits_dir, seed, tmp_path / method / str(seed))
            scores = evaluate(one, "convnet3_in_w16", "dc_short", protocol, digits_dir, seed, range(2))
            means[method].append(sum(score.accuracy_last for score in scores) / 2)
    for method in ("dc", "dsa"):
        assert ttest_ind(means[method], means["random"], equal_var=False, alternative="greater").pvalue < 0.01, means
