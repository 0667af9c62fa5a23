"""GLaD's protocol: its numbers, and that what is tested is the average of the weights."""

import copy
import math

import pytest

from dd import evaluation, networks
from dd.config import hashed, parse
from dd.data.load import load, manifest
from dd.data.pool import RealPool
from dd.errors import ConfigError
from dd.evaluation.run import evaluate
from dd.rng import stream
from dd.train.supervised import accuracy, fit, rate
from dd.types import DistilledSet

NET = "convnet3_bn_w8"


@pytest.fixture(scope="module")
def digits(digits_dir):
    stats = manifest(digits_dir)["lineages"]["dc"]
    return RealPool(*load(digits_dir, "train"), 10, **stats), RealPool(*load(digits_dir, "test"), 10, **stats)


@pytest.fixture(scope="module")
def some(digits):
    train, _ = digits
    index = train.draw(stream(0, "test"), 2).flatten()
    return DistilledSet(train.raw(index), train.y(index), *train.statistics, indices=index)


def settings(name="glad", **fields):
    return parse(evaluation.config_of(name), fields, "test")


def score(distilled, digits_dir, protocol, network=NET):
    (made,) = evaluate(distilled, network, "glad", protocol, digits_dir, 1, [2])
    return made


def test_glad_is_the_released_code():
    config = settings()
    assert hashed(config) == {
        "epochs": 1000, "extra_passes": 0, "lr": 0.001, "momentum": 0.9, "weight_decay": 5e-4, "batch": 256, "augment": "oneof",
        "strategy": None, "cutmix": 0.0, "schedule": "warmup_cosine", "readings": 1, "align_corners": True, "ema": 0.995,
    }  # fmt: skip
    assert hashed(settings("glad_short")) == {**hashed(config), "epochs": 200}
    trace = {0: 1e-10, 250: 5e-4, 500: 1e-3, 501: 1e-3, 750: 5.03e-4, 999: 4e-8}
    assert {epoch: rate(config, epoch) for epoch in trace} == pytest.approx(trace, rel=0.02)
    assert rate(settings(lr=1e-4), 500) == 1e-4, "VGG-11's, which a paper file sets"


def test_other_protocols_have_no_average_and_their_ids_know_of_none():
    for name in set(evaluation.names()) - {"glad", "glad_short"}:
        config = evaluation.config_of(name)()
        assert config.ema == 0
        assert "ema" not in hashed(config)
        assert hashed(parse(type(config), {"ema": 0.5}, "test")) == {**hashed(config), "ema": 0.5}


@pytest.mark.parametrize("wrong", [1.0, -0.1, "x"])
def test_what_is_no_decay_is_refused(wrong):
    for name in ("glad", "dc"):
        with pytest.raises(ConfigError, match="here: ema: "):
            parse(evaluation.config_of(name), {"ema": wrong}, "here")


def written_out(distilled, digits, protocol, name=NET):
    """Return (accuracy of the average, of the network) after each epoch; the average is written out in float64."""
    train, test = digits
    net = networks.build(name, 1, (16, 16), 10, 1, "evaluate", name, 2)
    mean, std = (value.view(1, 1, 1, 1) for value in train.statistics)
    x, held, values = (distilled.images - mean) / std, {}, []

    def after(epoch):
        stays = min(protocol.ema, (epoch - 1) / epoch)
        for key, value in net.state_dict().items():
            held[key] = stays * held.get(key, 0) + (1 - stays) * value.double()
        other = copy.deepcopy(net)
        other.load_state_dict({key: value.float() for key, value in held.items()})
        values.append(tuple(accuracy(one, lambda i: (test.x(i), test.y(i)), len(test), 10)[0] for one in (other, net)))

    fit(net, lambda i: (x[i], distilled.labels[i]), len(x), protocol, seed=1, names=("evaluate", name, 2), first_epoch=0,
        last_epoch=protocol.epochs, shape=(1, 16, 16), flip=False, use="eval", on_epoch=after)  # fmt: skip
    return values


@pytest.mark.parametrize(("name", "beta"), [(NET, 0.995), (NET, 0.3), ("vit_p4_ln_d1_w16", 0.995)])
def test_the_average_is_what_is_tested(some, digits, digits_dir, name, beta):
    protocol = settings(epochs=8, lr=0.1, ema=beta, readings=4)
    values = written_out(some, digits, protocol, name)
    made, close = score(some, digits_dir, protocol, name), 2 / len(digits[1])
    assert made.status == "ok"
    assert made.accuracy_last == pytest.approx(values[-1][0], abs=close)
    assert made.accuracy_best_on_test == pytest.approx(max(values[epoch - 1][0] for epoch in (2, 4, 6, 8)), abs=close)
    assert any(abs(average - own) > 4 * close for average, own in values), "the test cannot tell the average from the network"
    plain = score(some, digits_dir, settings(epochs=8, lr=0.1, ema=0.0), name)
    assert plain.accuracy_last == values[-1][1]
    assert plain.detail == made.detail, "averaging does not touch the training"
    assert made == score(some, digits_dir, protocol, name)


def test_it_is_read_once_after_the_last_epoch(some, digits_dir, monkeypatch):
    from dd.evaluation import run

    read = []
    monkeypatch.setattr(run, "accuracy", lambda net, **named: (read.append((net, net.training)), (0.5, [0.5] * 10))[1])
    made = score(some, digits_dir, settings(epochs=3))
    assert (made.accuracy_last, made.accuracy_best_on_test) == (0.5, 0.5)
    assert [training for _, training in read] == [False]
    assert not any(p.requires_grad for p in read[0][0].parameters())


def test_of_a_training_that_diverged_the_network_is_tested(some, digits_dir):
    broken = DistilledSet(some.images.clone().fill_(math.nan), some.labels, some.mean, some.std)
    made = score(broken, digits_dir, settings(epochs=4), "convnet3_in_w8")
    assert made.status == "diverged"
    assert made.detail == {"diverged_in": "training", "epoch": 0, "step": 0, "loss": "nan", "grad_norm": "nan"}
    assert (made.accuracy_last, made.per_class) == (0, [0] * 10), "the average still has the weights of the beginning"


def test_after_one_epoch_the_average_is_the_network(some, digits_dir):
    one, other = (score(some, digits_dir, settings(epochs=1, schedule="constant", lr=0.05, ema=beta)) for beta in (0.995, 0.0))
    assert one == other
