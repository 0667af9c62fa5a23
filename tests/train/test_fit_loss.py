"""What `fit` minimises and looks at: the cross-entropy or another loss, positions, and how its augmentation resamples."""

from __future__ import annotations

import pytest
import torch

from dd import networks
from dd.augment.policies import make
from dd.networks._layers import Dropout
from dd.rng import stream
from dd.train.config import Training
from dd.train.supervised import accuracy, cross_entropy, fit

SHAPE, CLASSES, N = (1, 8, 12), 3, 10  # sides differ: only then does align_corners make a difference beyond rounding


def images(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N, *SHAPE, generator=generator, dtype=dtype), torch.randint(CLASSES, (N,), generator=generator)


def network(name="convnet3_bn_w8", dtype=torch.float64):
    return networks.build(name, 1, SHAPE[1:], CLASSES, 0).to(dtype)


def run(net, training, epochs=2, **more):
    x, y = images(next(net.parameters()).dtype)
    return fit(net, lambda i: (x[i], y[i]), N, training, **{"seed": 3, "names": ("test",), "first_epoch": 0, "last_epoch": epochs,
               "shape": SHAPE, "flip": True, **more})  # fmt: skip


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def naive(net, x, y, index):
    logits = net(x)
    log = logits - logits.exp().sum(1, keepdim=True).log()
    return -sum(log[b, label] for b, label in enumerate(y.tolist())) / len(y), logits


@pytest.mark.parametrize("augment", ["none", "oneof", "stack"])
def test_the_default_is_the_cross_entropy(augment):
    training = Training(batch=4, augment=augment, lr=0.05)
    silent, named, by_hand = network(), network(), network()
    fitted = run(silent, training)
    explicit = run(named, training, loss=cross_entropy)
    assert (explicit.loss, explicit.accuracy) == (fitted.loss, fitted.accuracy)
    assert same(silent, named)
    other = run(by_hand, training, loss=naive)
    assert other.loss == pytest.approx(fitted.loss, rel=1e-9)
    assert other.accuracy == fitted.accuracy
    for a, b in zip(silent.state_dict().values(), by_hand.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


def test_another_loss_is_what_is_minimised_and_told():
    """SGD by hand on the square of the logits, whose labels and accuracy then say nothing of the loss."""
    x, _ = images()
    mine, other = network("convnet3_in_w8"), network("convnet3_in_w8")
    training = Training(batch=N, lr=0.05, momentum=0.0, weight_decay=0.0)

    def square(net, augmented, labels, index):
        logits = net(augmented)
        return (logits**2).sum() / len(labels), logits

    fitted = run(mine, training, 1, loss=square)
    logits = other(x)
    loss = (logits**2).sum() / N
    assert fitted.loss == pytest.approx(loss.item(), rel=1e-9)
    assert fitted.accuracy == (logits.argmax(1) == images()[1]).double().mean().item()
    for p, g, moved in zip(other.parameters(), torch.autograd.grad(loss, list(other.parameters())), mine.parameters(), strict=True):
        torch.testing.assert_close(moved, p - 0.05 * g)


def test_a_loss_is_called_with_the_network_what_was_fetched_and_the_positions():
    x, y = images()
    seen = []

    def spy(net, augmented, labels, index):
        assert torch.equal(augmented, x[index]), "not augmented here: as fetched, in the same order"
        assert torch.equal(labels, y[index])
        assert index.dtype == torch.int64
        assert index.device == next(net.parameters()).device
        assert net.training
        seen.append(index.tolist())
        return cross_entropy(net, augmented, labels, index)

    net, plain = network(), network()
    run(net, Training(batch=4), loss=spy)
    assert [len(index) for index in seen] == [4, 4, 2, 4, 4, 2]
    first, second = ([k for batch in part for k in batch] for part in (seen[:3], seen[3:]))
    assert sorted(first) == sorted(second) == list(range(N))
    assert seen[:3] != seen[3:]
    run(plain, Training(batch=4))
    assert same(net, plain)


def test_positions_and_networks_are_on_one_device_and_what_is_fetched_too():
    """On the meta device nothing is computed, and a position on the CPU would be seen as one."""
    net = networks.build("convnet3_in_w8", 1, SHAPE[1:], CLASSES, 0).to("meta")
    seen = []

    class Enough(Exception):
        pass

    def fetch(index):
        seen.append(index.device.type)
        return torch.empty(len(index), *SHAPE, device="meta"), torch.zeros(len(index), dtype=torch.int64, device="meta")

    def spy(net, augmented, labels, index):
        seen.append(index.device.type)
        raise Enough

    with pytest.raises(Enough):
        fit(net, fetch, N, Training(batch=4), seed=0, names=(), first_epoch=0, last_epoch=1, shape=SHAPE, flip=True, loss=spy)
    assert seen == ["meta", "meta"]


def test_a_loss_sees_augmented_images_of_un_augmented_positions():
    x, _ = images()
    changed = []

    def spy(net, augmented, labels, index):
        changed.append(not torch.equal(augmented, x[index]))
        return cross_entropy(net, augmented, labels, index)

    run(network(), Training(batch=4, augment="oneof", strategy="color"), loss=spy)
    assert all(changed)


def test_under_cutmix_another_loss_is_not_asked():
    def never(net, augmented, labels, index):
        raise AssertionError

    mine, other = network(), network()
    training = Training(batch=4, cutmix=0.5)
    run(mine, training, loss=never)
    run(other, training)
    assert same(mine, other)


def test_parameters_that_a_loss_does_not_reach_stay_as_they_are():
    net, before = network("convnet3_in_w8"), network("convnet3_in_w8")

    def front(net, augmented, labels, index):
        outputs = net.stages(augmented)
        return (outputs[0] ** 2).mean(), net.rear(outputs[-1], len(outputs) - 1).detach()

    fitted = run(net, Training(batch=4), loss=front)
    assert fitted.diverged is None
    assert not torch.equal(net.blocks[0].conv.weight, before.blocks[0].conv.weight)
    assert torch.equal(net.blocks[1].conv.weight, before.blocks[1].conv.weight)
    assert torch.equal(net.head.weight, before.head.weight)
    assert set(fitted.momentum) == {"blocks.0.conv.weight", "blocks.0.conv.bias", "blocks.0.norm.weight", "blocks.0.norm.bias"}


@pytest.mark.parametrize("augment", ["oneof", "stack"])
def test_align_corners_reaches_the_augmentation(augment):
    x, _ = images()
    results = {}
    for aligned in (False, True):
        pictures = []

        def keep(net, augmented, labels, index, pictures=pictures):
            pictures.append((index, augmented))
            return cross_entropy(net, augmented, labels, index)

        training = Training(batch=N, augment=augment, strategy="rotate", align_corners=aligned)
        run(network(), training, 1, loss=keep)
        ((index, picture),) = pictures
        generator = stream(3, "test", "epoch", 0)
        order = torch.randperm(N, generator=generator)
        policy = make(augment, "rotate", aligned)
        wanted = policy.apply(x[order], policy.draw(generator, N, SHAPE, shared=False), torch.arange(N))
        assert torch.equal(index, order)
        assert torch.equal(picture, wanted)
        results[aligned] = picture
    assert (results[True] - results[False]).abs().max() > 0.01


def test_align_corners_is_off_where_nothing_is_said():
    quiet, off = network(), network()
    run(quiet, Training(batch=4, augment="oneof", strategy="rotate"))
    run(off, Training(batch=4, augment="oneof", strategy="rotate", align_corners=False))
    assert same(quiet, off)


def test_dropout_draws_anew_every_epoch_as_a_function_of_seed_names_and_epoch():
    x = torch.randn(N, 1, 32, 32, generator=stream(0, "x"))
    y = torch.arange(N) % CLASSES
    training = Training(batch=5, lr=0.01)
    build = lambda: networks.build("vgg11_in_w2_imagenet", 1, (32, 32), CLASSES, 0)  # noqa: E731
    fetch = lambda i: (x[i], y[i])  # noqa: E731

    def go(net, first, last, momentum=None, seed=3, **more):
        return fit(net, fetch, N, training, seed=seed, names=("test",), first_epoch=first, last_epoch=last, shape=(1, 32, 32), flip=True,
                   momentum=momentum, **more)  # fmt: skip

    whole, parts, tested, other = (build() for _ in range(4))
    go(whole, 0, 3)
    go(parts, 1, 3, go(parts, 0, 1).momentum)
    assert same(whole, parts), "a training that is continued is the same"
    go(tested, 0, 3, on_epoch=lambda epoch: accuracy(tested, fetch, N, CLASSES))
    assert same(whole, tested), "nor does a test in between change it"
    go(other, 0, 3, seed=4)
    assert not same(whole, other)
    starts = []

    def spy(net, augmented, labels, index):
        layer = next(module for module in net.modules() if isinstance(module, Dropout))
        starts.append(layer.generator.get_state().numpy().tobytes())
        return cross_entropy(net, augmented, labels, index)

    go(build(), 0, 3, loss=spy)
    assert len(set(starts)) == 6, "every mini-batch of every epoch has masks of its own"
