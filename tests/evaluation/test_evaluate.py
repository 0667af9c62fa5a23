"""Evaluation: fresh networks on a set, tested on the prepared test split."""

import dataclasses
import json
import math
import shutil

import pytest
import torch

from dd import evaluation, networks
from dd.config import parse
from dd.data.load import indices, load, manifest
from dd.data.pool import RealPool
from dd.data.whiten import whiten
from dd.errors import ArtifactError
from dd.evaluation.run import evaluate
from dd.rng import stream
from dd.train.supervised import accuracy, fit
from dd.types import DistilledSet

NET = "convnet3_in_w8"


@pytest.fixture(scope="module")
def digits(digits_dir):
    facts = manifest(digits_dir)
    stats = facts["lineages"]["dc"]
    return RealPool(*load(digits_dir, "train"), 10, **stats), RealPool(*load(digits_dir, "test"), 10, **stats)


def random_set(digits, ipc, *, images=True, seed=0):
    train, _ = digits
    index = train.draw(stream(seed, "test"), ipc).flatten()
    x = train.raw(index) if images else torch.empty(0, 1, 16, 16)
    return DistilledSet(x, train.y(index), *train.statistics, indices=index)


def settings(name="dc", **fields):
    return parse(evaluation.config_of(name), fields, "test")


def score(distilled, digits_dir, protocol, nets=(0,), name="dc", set_=0, network=NET, needs=()):
    return evaluate(distilled, network, name, protocol, digits_dir, set_, nets, needs=needs)


@pytest.mark.parametrize("name", evaluation.names())
def test_ten_random_images_a_class_teach_something(name, digits, digits_dir, narrow, supply):
    protocol = settings(name, epochs=60, lr=0.05, **narrow(name))
    made = score(random_set(digits, 10), digits_dir, protocol, name=name, needs=supply(protocol))
    assert made[0].accuracy_last > 0.4
    assert made[0].status == "ok"
    assert (made[0].network, made[0].protocol, made[0].set, made[0].net) == (NET, name, 0, 0)


@pytest.mark.parametrize(("name", "passes"), [("dc", 5), ("idc", 4)])
def test_it_is_the_supervised_loop_with_the_students_augmentation(digits, digits_dir, name, passes):
    distilled = random_set(digits, 2)
    protocol = settings(name, epochs=4)
    (made,) = score(distilled, digits_dir, protocol, nets=[5], set_=3, name=name)
    net = networks.build(NET, 1, (16, 16), 10, 3, "evaluate", NET, 5)
    train, test = digits
    x = (distilled.images - train.statistics[0].view(1, 1, 1, 1)) / train.statistics[1].view(1, 1, 1, 1)
    strategy = {"dc": "color_crop_cutout_scale_rotate", "idc": "color_crop_scale_rotate"}[name]  # digits are not to be mirrored
    written_out = protocol.model_copy(update={"strategy": strategy})
    fitted = fit(net, lambda i: (x[i], distilled.labels[i]), 20, written_out, seed=3, names=("evaluate", NET, 5), first_epoch=0,
                 last_epoch=passes, shape=(1, 16, 16), flip=True)  # fmt: skip
    value, per_class = accuracy(net, lambda i: (test.x(i), test.y(i)), len(test), 10)
    assert (made.accuracy_last, made.per_class) == (value, per_class)
    assert made.accuracy_best_on_test >= value
    assert made.accuracy_best_on_test == value or name == "idc"
    assert made.detail == {"train_loss": round(fitted.loss, 6)}


def test_equal_calls_give_equal_scores_and_blocks_of_nets_do_not_matter(digits, digits_dir):
    distilled, protocol = random_set(digits, 1), settings("idc", epochs=4)
    together = score(distilled, digits_dir, protocol, nets=range(3))
    assert together == score(distilled, digits_dir, protocol, nets=range(3))
    apart = [*score(distilled, digits_dir, protocol, nets=[2]), *score(distilled, digits_dir, protocol, nets=[0, 1])]
    assert sorted(apart, key=lambda made: made.net) == together
    losses = {made.detail["train_loss"] for made in [*together, *score(distilled, digits_dir, protocol, set_=1)]}
    assert len(losses) == 4, "networks and sets differ"


def test_idc_reads_the_test_split_four_times_and_keeps_last_and_best_apart(digits, digits_dir, monkeypatch):
    from dd.evaluation import run

    epochs, values = [], iter([0.1, 0.8, 0.3, 0.2])

    def told(*args, on_epoch, **named):
        return fit(*args, **named, on_epoch=lambda epoch: (epochs.append(epoch), on_epoch(epoch)))

    read_at = []

    def reading(net, fetch, n, classes):
        read_at.append(epochs[-1])
        return next(values), [0.5] * classes

    monkeypatch.setattr(run, "fit", told)
    monkeypatch.setattr(run, "accuracy", reading)
    (made,) = score(random_set(digits, 1), digits_dir, settings("idc", epochs=8), name="idc")
    assert read_at == [2, 4, 6, 8]
    assert (made.accuracy_last, made.accuracy_best_on_test) == (0.2, 0.8)


def test_per_class_accuracies_are_weighted_to_the_whole(digits, digits_dir):
    (made,) = score(random_set(digits, 5), digits_dir, settings(epochs=20))
    _, test = digits
    counts = torch.bincount(test.labels, minlength=10).tolist()
    assert len(made.per_class) == 10
    assert made.accuracy_last == pytest.approx(sum(a * n for a, n in zip(made.per_class, counts, strict=True)) / sum(counts))
    assert len(set(made.per_class)) > 1


def test_a_set_of_positions_equals_the_set_of_their_images(digits, digits_dir):
    protocol = settings(epochs=3, batch=7)
    stored, positions = (score(random_set(digits, 2, images=images), digits_dir, protocol) for images in (True, False))
    assert stored == positions


def test_positions_are_never_made_float_at_once(digits, digits_dir, monkeypatch):
    largest, x = [], RealPool.x
    monkeypatch.setattr(RealPool, "x", lambda self, index: (largest.append(len(index)), x(self, index))[1])
    train, _ = digits
    whole = DistilledSet(torch.empty(0, 1, 16, 16), train.labels, *train.statistics, indices=torch.arange(len(train)))
    score(whole, digits_dir, settings(epochs=1))
    assert max(largest) <= 500


def test_the_sets_own_statistics_normalise_both_sides(digits, digits_dir):
    distilled, protocol = random_set(digits, 3), settings(epochs=10)
    base = score(distilled, digits_dir, protocol)
    other = dataclasses.replace(distilled, mean=torch.tensor([0.5]), std=torch.tensor([0.25]))
    assert score(other, digits_dir, protocol) != base
    (made,) = score(other, digits_dir, protocol)
    net = networks.build(NET, 1, (16, 16), 10, 0, "evaluate", NET, 0)
    x = (distilled.images - 0.5) / 0.25
    fit(net, lambda i: (x[i], distilled.labels[i]), 30, protocol, seed=0, names=("evaluate", NET, 0), first_epoch=0, last_epoch=11,
        shape=(1, 16, 16), flip=False, use="eval")  # fmt: skip
    _, test = digits
    value, _ = accuracy(net, lambda i: ((test.raw(i) - 0.5) / 0.25, test.y(i)), len(test), 10)
    assert made.accuracy_last == value


def test_soft_labels(digits, digits_dir):
    distilled = random_set(digits, 3)
    soft = dataclasses.replace(distilled, labels=torch.nn.functional.one_hot(distilled.labels, 10).float())
    (hard_score,), (soft_score,) = (score(made, digits_dir, settings(epochs=5)) for made in (distilled, soft))
    assert soft_score.detail["train_loss"] == pytest.approx(hard_score.detail["train_loss"], abs=1e-5)
    flat = dataclasses.replace(distilled, labels=torch.full((30, 10), 0.1))
    assert score(flat, digits_dir, settings(epochs=5))[0].detail["train_loss"] >= math.log(10)


def test_a_training_that_diverges_is_a_score(digits, digits_dir):
    (made,) = score(random_set(digits, 2), digits_dir, settings(epochs=9, lr=1e18))
    assert made.status == "diverged"
    assert made.detail["diverged_in"] == "training"
    assert {"epoch", "step", "loss", "grad_norm"} < set(made.detail)
    assert 0 <= made.accuracy_last <= made.accuracy_best_on_test <= 1
    assert len(made.per_class) == 10
    json.dumps(dataclasses.asdict(made), allow_nan=False)


def test_images_of_nan_are_a_score(digits, digits_dir):
    distilled = random_set(digits, 2)
    distilled.images.fill_(math.nan)
    (made,) = score(distilled, digits_dir, settings("idc", epochs=4), name="idc")
    assert made.status == "diverged"
    assert made.detail == {"diverged_in": "training", "epoch": 0, "step": 0, "loss": "nan", "grad_norm": "nan"}
    assert (made.accuracy_last, made.per_class) == (0, [0] * 10)


def test_a_set_whose_distillation_diverged_says_so(digits, digits_dir):
    distilled = random_set(digits, 2)
    distilled.meta["diverged"] = {"step": 20, "loss": "inf", "grad_norm": "nan"}
    (made,) = score(distilled, digits_dir, settings(epochs=2))
    assert made.status == "diverged"
    assert made.detail == {"diverged_in": "distillation", "step": 20, "loss": "inf", "grad_norm": "nan"}
    distilled.images.fill_(math.nan)
    (broken,) = score(distilled, digits_dir, settings(epochs=2))
    assert broken.accuracy_last == 0
    assert broken.detail["diverged_in"] == "distillation"


@pytest.fixture(scope="module")
def whitened(digits_dir, tmp_path_factory):
    """Return prepared digits with their whitening; not to be changed."""
    copy = tmp_path_factory.mktemp("whitened") / "digits"
    shutil.copytree(digits_dir, copy)
    whiten(copy, copy / "zca.safetensors")
    return copy


@pytest.mark.parametrize("images", [True, False])
def test_a_set_that_says_zca_is_whitened_with_the_transform_of_train_and_so_is_test(digits, whitened, images):
    distilled = dataclasses.replace(random_set(digits, 3, images=images), zca=True)
    protocol = settings(epochs=12, augment="none", lr=0.1)
    (made,) = score(distilled, whitened, protocol)
    raw = load(whitened, "train")[0].flatten(1).double() / 255
    mean = raw.mean(0)
    u, s, _ = torch.linalg.svd(torch.cov(raw.T))
    transform = u @ torch.diag((s + 0.1) ** -0.5) @ u.T
    white = lambda x: ((x.double().flatten(1) - mean) @ transform).view_as(x).float()  # noqa: E731
    train, test = digits
    x, y = white(train.raw(distilled.indices)), distilled.labels
    net = networks.build(NET, 1, (16, 16), 10, 0, "evaluate", NET, 0)
    fitted = fit(net, lambda i: (x[i], y[i]), 30, protocol, seed=0, names=("evaluate", NET, 0), first_epoch=0, last_epoch=13,
                 shape=(1, 16, 16), flip=False, use="eval")  # fmt: skip
    value, _ = accuracy(net, lambda i: (white(test.raw(i)), test.y(i)), len(test), 10)
    assert made.accuracy_last == pytest.approx(value, abs=1.5 / 360)
    assert made.detail["train_loss"] == pytest.approx(fitted.loss, abs=1e-3)
    (plain,) = score(dataclasses.replace(distilled, zca=False), whitened, protocol)
    assert abs(plain.detail["train_loss"] - fitted.loss) > 0.01
    assert accuracy(net, lambda i: (test.x(i), test.y(i)), len(test), 10)[0] < value - 0.02, "not whitened, the test differs"
    other = dataclasses.replace(distilled, mean=torch.tensor([0.9]), std=torch.tensor([9.0]))
    assert score(other, whitened, protocol) == [made], "mean and std are not looked at"


def test_a_whitened_set_needs_the_whitening(digits, digits_dir):
    for images in (True, False):
        with pytest.raises(ArtifactError, match=r"zca\.safetensors.*whiten"):
            score(dataclasses.replace(random_set(digits, 1, images=images), zca=True), digits_dir, settings(epochs=1))


def test_the_held_out_tenth_can_be_the_test(digits, digits_dir):
    distilled, protocol = random_set(digits, 2), settings(epochs=15)
    (made,) = evaluate(distilled, NET, "dc", protocol, digits_dir, 0, [0], split="holdout")
    net = networks.build(NET, 1, (16, 16), 10, 0, "evaluate", NET, 0)
    train, _ = digits
    x = (distilled.images - train.statistics[0].view(1, 1, 1, 1)) / train.statistics[1].view(1, 1, 1, 1)
    fit(net, lambda i: (x[i], distilled.labels[i]), 20, protocol, seed=0, names=("evaluate", NET, 0), first_epoch=0, last_epoch=16,
        shape=(1, 16, 16), flip=False, use="eval")  # fmt: skip
    held = indices(digits_dir)
    assert made.accuracy_last == accuracy(net, lambda i: (train.x(held[i]), train.y(held[i])), len(held), 10)[0]
    assert score(distilled, digits_dir, protocol)[0].detail == made.detail, "the training does not depend on it"
    positions = random_set(digits, 2, images=False)
    assert evaluate(positions, NET, "dc", protocol, digits_dir, 0, [0], split="holdout") == [made], "positions stay those in train"


def test_the_sets_own_step_size_takes_the_place_of_the_rate_and_of_nothing_else(digits, digits_dir):
    plain, learned = settings(epochs=8), settings(epochs=8, learned_lr=True)
    distilled = random_set(digits, 2)
    sized = dataclasses.replace(distilled, step_size=0.037)
    with_it = score(sized, digits_dir, learned)
    assert with_it == score(distilled, digits_dir, settings(epochs=8, lr=0.037)), "with the same drop after half"
    assert with_it != score(distilled, digits_dir, plain)
    assert score(sized, digits_dir, plain) == score(distilled, digits_dir, plain), "nobody asked for it"
    assert score(distilled, digits_dir, learned) == score(distilled, digits_dir, plain), "there is none"
    for size in (0.0, -0.01, math.nan):
        with pytest.raises(ArtifactError, match=r"step_size: value .*above 0"):
            score(dataclasses.replace(distilled, step_size=size), digits_dir, learned)


def test_sets_that_do_not_fit_are_refused(digits, digits_dir):
    good = random_set(digits, 2)
    for message, change in [
        ("images", {"images": torch.rand(20, 3, 16, 16)}),
        ("images", {"images": torch.rand(19, 1, 16, 16)}),
        ("images", {"images": torch.empty(0, 1, 16, 16), "indices": None}),
        ("labels", {"labels": good.labels + 1}),
        ("labels", {"labels": torch.full((20, 9), 1 / 9)}),
        ("positions", {"images": torch.empty(0, 1, 16, 16), "indices": good.indices + 1437}),
        ("positions", {"images": torch.empty(0, 1, 16, 16), "indices": good.indices[1:]}),
        ("no images", {"images": torch.empty(0, 1, 16, 16), "indices": good.indices[:0], "labels": good.labels[:0]}),
    ]:
        with pytest.raises(ArtifactError, match=message):
            score(dataclasses.replace(good, **change), digits_dir, settings(epochs=1))
