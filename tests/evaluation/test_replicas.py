"""Batch normalisation as under DataParallel, against a loop over shards that is written here."""

import dataclasses
import math

import pytest
import torch

from dd import evaluation, networks
from dd.config import hashed, parse
from dd.data.load import load, manifest
from dd.data.pool import RealPool
from dd.errors import ConfigError
from dd.evaluation.elf import student_loss
from dd.evaluation.protocols.elf import Elf
from dd.evaluation.replicas import Replicas, replicated
from dd.evaluation.run import evaluate
from dd.rng import stream
from dd.train.config import Training
from dd.train.supervised import cross_entropy, fit
from dd.types import DistilledSet

CLASSES = 4
BN = ["convnet3_bn_w8", "resnet18_bn_w4", "vgg11_bn_w2_small"]
BatchNorm = torch.nn.BatchNorm2d


def build(name, dtype=torch.float64):
    return networks.build(name, 3, (16, 16), CLASSES, 0, "replicas").to(dtype)


def data(n):
    generator = stream(0, "data", n)
    contrast = torch.linspace(0.5, 2, n, dtype=torch.float64).view(n, 1, 1, 1)  # so that shards differ
    x = torch.randn(n, 3, 16, 16, dtype=torch.float64, generator=generator) * contrast
    return x, torch.randint(CLASSES, (n,), generator=generator)


def shards(n, count):
    """Return (first, last) of each shard: all have ceil(n / count) images but the last."""
    size = math.ceil(n / count)
    return [(start, min(start + size, n)) for start in range(0, n, size)]


def naive(net, x, count):
    """Return the logits of every shard's own forward pass, and what batch norms then remember of the first."""
    outputs, memory = [], {}
    for number, (first, last) in enumerate(shards(len(x), count)):
        outputs.append(net(x[first:last]))
        if number == 0:
            memory = {key: value.clone() for key, value in net.state_dict().items() if "running" in key}
    return torch.cat(outputs), memory


@pytest.mark.parametrize("name", BN)
@pytest.mark.parametrize("n", [256, 100, 37, 9, 3, 1])
def test_every_shard_has_its_own_statistics_and_the_first_is_remembered(name, n):
    n = n if name == "convnet3_bn_w8" else min(n, 37)
    x, y = data(n)
    mine, other = build(name), build(name)
    value, logits = replicated(cross_entropy, 4)(mine, x, y, torch.arange(n))
    wanted, memory = naive(other, x, 4)
    torch.testing.assert_close(logits, wanted)
    log = wanted - wanted.exp().sum(1, keepdim=True).log()
    naive_value = -sum(log[b, label] for b, label in enumerate(y.tolist())) / n
    assert value.item() == pytest.approx(naive_value.item(), rel=1e-10), "one mean over the mini-batch, whatever the shards' sizes"
    gradients = torch.autograd.grad(value, list(mine.parameters()))
    theirs = torch.autograd.grad(naive_value, list(other.parameters()))
    for own, theirs_ in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(own, theirs_, rtol=1e-6, atol=1e-8)
    state = mine.state_dict()
    assert memory
    for key, remembered in memory.items():
        torch.testing.assert_close(state[key], remembered)
    assert all(module.momentum == 0.1 for module in mine.modules() if isinstance(module, BatchNorm))
    if n > 1:
        assert not torch.allclose(logits, build(name)(x)), "not those of the whole mini-batch"


def test_statistics_of_a_shard_by_hand():
    """One batch norm, 10 images in shards of 3, 3, 3 and 1."""
    net = build("convnet3_bn_w8")
    norm = net.blocks[0].norm
    x, _ = data(10)
    seen = []
    norm.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].detach(), output.detach().clone())))  # the activation writes into it
    Replicas(net, 4).stages(x)
    assert [len(h) for h, _ in seen] == [3, 3, 3, 1]
    for h, output in seen:
        mean = h.sum((0, 2, 3), keepdim=True) / (h.numel() / 8)
        variance = ((h - mean) ** 2).sum((0, 2, 3), keepdim=True) / (h.numel() / 8)
        torch.testing.assert_close(output, (h - mean) / (variance + 1e-5).sqrt())
    first = seen[0][0].movedim(1, 0).flatten(1)
    torch.testing.assert_close(norm.running_mean, 0.1 * first.mean(1))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * first.var(1))


@pytest.mark.parametrize("name", BN)
def test_the_loss_of_elf_has_shards_of_images_and_of_features(name):
    n, stage = 10, 1
    x, y = data(n)
    mine, other = build(name), build(name)
    f = torch.rand_like(build(name).eval().stages(x)[stage])
    index = torch.randperm(n, generator=stream(0, "index"))
    value, logits = replicated(student_loss(f, stage, Elf()), 4)(mine, x, y, index)
    s, z, zf = [], [], []
    for part, through in (("images", x), ("features", f[index])):
        for number, (first, last) in enumerate(shards(n, 4)):
            for module in other.modules():
                if isinstance(module, BatchNorm):
                    module.momentum = 0.0 if number else 0.1
            h = through[first:last]
            for k, block in enumerate(other.blocks):
                if part == "features" and k <= stage:
                    continue
                h = block(h)
                if k == stage:
                    s.append(h)
            (z if part == "images" else zf).append(other.head(h.flatten(1)))
    s, z, zf = map(torch.cat, (s, z, zf))
    cross = lambda out: -out.log_softmax(1)[torch.arange(n), y].mean()  # noqa: E731
    naive_value = cross(z) + cross(zf) - (f[index] * s.log_softmax(1)).sum(1).mean()
    assert value.item() == pytest.approx(naive_value.item(), rel=1e-9)
    torch.testing.assert_close(logits, z)
    for own, theirs in zip(
        torch.autograd.grad(value, list(mine.parameters())), torch.autograd.grad(naive_value, list(other.parameters())), strict=True
    ):
        torch.testing.assert_close(own, theirs, rtol=1e-6, atol=1e-8)
    for key, remembered in other.state_dict().items():
        if "running" in key:
            torch.testing.assert_close(mine.state_dict()[key], remembered)


def test_momentum_comes_back_after_an_error():
    net = build("convnet3_bn_w8")
    net.blocks[0].norm.momentum, net.blocks[1].norm.momentum = 0.3, None
    calls = []

    def third(module, inputs):
        calls.append(module.momentum)
        if len(calls) == 3:
            raise RuntimeError("out of memory")

    net.blocks[0].norm.register_forward_pre_hook(third)
    with pytest.raises(RuntimeError, match="out of memory"):
        Replicas(net, 4)(data(8)[0])
    assert calls == [0.3, 0.0, 0.0]
    assert [block.norm.momentum for block in net.blocks] == [0.3, None, 0.1]


@pytest.mark.parametrize("name", ["convnet3_in_w8", "resnet18_in_w4", "vit_w48_d4", "mlp_w32", "convnet3_none"])
def test_networks_without_batch_norm_do_not_change(name):
    n = 10
    x, y = data(n)
    net = build(name)
    f = torch.rand_like(net.stages(x)[1])
    for loss in (cross_entropy, student_loss(f, 1, Elf())):
        whole, logits = loss(net, x, y, torch.arange(n))
        value, mine = replicated(loss, 4)(net, x, y, torch.arange(n))
        torch.testing.assert_close(mine, logits)
        torch.testing.assert_close(value, whole)


def test_one_replica_is_the_loss_itself():
    assert replicated(cross_entropy, 1) is cross_entropy


def test_training_with_replicas_equals_training_on_shards_and_tests_use_what_the_first_remembered():
    x, y = data(30)
    mine, other = build("convnet3_bn_w8"), build("convnet3_bn_w8")
    training = Training(batch=12, lr=0.05)
    common = {"seed": 0, "names": ("test",), "first_epoch": 0, "last_epoch": 2, "shape": (3, 16, 16), "flip": True}
    fit(mine, lambda i: (x[i], y[i]), 30, training, loss=replicated(cross_entropy, 4), **common)

    def by_hand(net, augmented, labels, index):
        parts = []
        for number, (first, last) in enumerate(shards(len(augmented), 4)):
            for module in net.modules():
                if isinstance(module, BatchNorm):
                    module.momentum = 0.0 if number else 0.1
            parts.append(net(augmented[first:last]))
        logits = torch.cat(parts)
        return -logits.log_softmax(1)[torch.arange(len(labels)), labels].mean(), logits

    fit(other, lambda i: (x[i], y[i]), 30, training, loss=by_hand, **common)
    for key, value in mine.state_dict().items():
        if "tracked" not in key:
            torch.testing.assert_close(value, other.state_dict()[key], rtol=1e-7, atol=1e-9)


# From end to end, on digits.


@pytest.fixture(scope="module")
def some(digits_dir):
    stats = manifest(digits_dir)["lineages"]["dc"]
    train = RealPool(*load(digits_dir, "train"), 10, **stats)
    index = train.draw(stream(0, "test"), 2).flatten()
    return DistilledSet(train.raw(index), train.y(index), *train.statistics, indices=index)


def score(some, digits_dir, network, name="dc", needs=(), **fields):
    protocol = parse(evaluation.config_of(name), {"epochs": 4, **fields}, "test")
    (made,) = evaluate(some, network, name, protocol, digits_dir, 0, [0], needs=needs)
    return made


def test_replicas_change_scores_of_batch_norm_and_not_those_of_instance_norm(some, digits_dir):
    for network in ("convnet3_bn_w8", "convnet3_in_w8"):
        plain = score(some, digits_dir, network, lr=0.05)
        one, four = (score(some, digits_dir, network, lr=0.05, replicas=count) for count in (1, 4))
        assert plain == one
        if "bn" in network:
            assert abs(four.detail["train_loss"] - one.detail["train_loss"]) > 1e-3
        else:
            assert four.detail["train_loss"] == pytest.approx(one.detail["train_loss"], abs=1e-4)
            assert four.accuracy_last == pytest.approx(one.accuracy_last, abs=1.5 / 360)
        assert dataclasses.replace(four, detail={}, accuracy_last=0, accuracy_best_on_test=0, per_class=[]) == dataclasses.replace(
            one, detail={}, accuracy_last=0, accuracy_best_on_test=0, per_class=[]
        )


def test_replicas_change_what_elf_says_of_batch_norm(some, digits_dir, supply, narrow):
    fields = narrow("elf")
    needs = supply(parse(Elf, fields, "test"))
    one, four = (score(some, digits_dir, "convnet3_bn_w8", "elf", needs, **fields, replicas=count) for count in (1, 4))
    assert abs(four.detail["train_loss"] - one.detail["train_loss"]) > 1e-3
    one, four = (score(some, digits_dir, "convnet3_in_w8", "elf", needs, **fields, replicas=count) for count in (1, 4))
    assert four.detail["train_loss"] == pytest.approx(one.detail["train_loss"], abs=1e-3)


@pytest.mark.parametrize("name", evaluation.names())
def test_one_replica_moves_no_id_and_cutmix_is_refused(name):
    model = evaluation.config_of(name)
    plain = hashed(model())
    assert "replicas" not in plain
    assert hashed(parse(model, {"replicas": 1}, "test")) == plain
    assert hashed(parse(model, {"replicas": 4, "cutmix": 0.0}, "test"))["replicas"] == 4
    with pytest.raises(ConfigError, match=r"replicas: value 4: is not for training with cutmix"):
        parse(model, {"replicas": 4, "cutmix": 0.5}, "test")
