"""Networks that learn from the synthetic images: against a plain loop, over lifetimes, and across a resume."""

import pytest
import torch
import torch.nn.functional as F

from dd import networks
from dd.data.pool import RealPool
from dd.rng import stream
from dd.sources.trainee import Trainee, learner, statistics
from dd.train.config import Training
from dd.types import Batch

CLASSES, EACH, SIDE = 3, 4, 16
PLAIN = Training(lr=0.01, momentum=0.0, weight_decay=0.0, batch=5)
STRATEGY = "color_crop_cutout_flip_scale_rotate"


def make(number, name="convnet3_in_w8"):
    return networks.build(name, 1, (SIDE, SIDE), CLASSES, 0, "trainee", number)


def images(step):
    """Return synthetic images that change from step to step, as they do while they are optimised."""
    y = torch.arange(CLASSES).repeat_interleave(EACH)
    return (torch.randn(len(y), 1, SIDE, SIDE, generator=stream(1, step)) + y.view(-1, 1, 1, 1)).requires_grad_(True), y


class Synthetic:
    """Batches that hold the synthetic images after the update of a step, and nothing else."""

    def __init__(self, step):
        self._step = step

    def synthetic(self, n=None):
        return Batch(*images(self._step))


def flat(net):
    return torch.cat([value.flatten().float() for value in net.state_dict().values()])


def source(lifetime=3, epochs=2, training=PLAIN, name="convnet3_in_w8", settle=None, seed=0):
    train = learner(training, epochs, (1, SIDE, SIDE), seed)
    return Trainee(lambda number: make(number, name), lifetime, train, settle)


def run(trainee, steps, first=0):
    """Return the weights and buffers that each step looks through."""
    seen = []
    for step in range(first, steps):
        net = trainee.draw(step)
        assert all(p.requires_grad for p in net.parameters())
        seen.append(flat(net).clone())
        trainee.advance(net, Synthetic(step))
    return seen


def simulate(steps, lifetime, epochs, seed=0):
    """Yield the weights of each step: SGD by hand, over the order of images that the stream of (seed, step, epoch) gives."""
    net = None
    for step in range(steps):
        if step % lifetime == 0:
            net = make(step // lifetime)
        yield flat(net).clone()
        if (step + 1) % lifetime == 0:
            continue
        x, y = (value.detach() for value in images(step))
        for epoch in range(epochs):
            order = torch.randperm(len(y), generator=stream(seed, "inner", step, "epoch", epoch))
            for start in range(0, len(y), PLAIN.batch):
                rows = order[start : start + PLAIN.batch]
                loss = -F.log_softmax(net(x[rows]), 1)[torch.arange(len(rows)), y[rows]].mean()
                gradients = torch.autograd.grad(loss, list(net.parameters()))
                with torch.no_grad():
                    for p, g in zip(net.parameters(), gradients, strict=True):
                        p -= 0.01 * g


@pytest.mark.parametrize(("lifetime", "epochs"), [(1, 1), (3, 2), (4, 1)])
def test_it_equals_a_plain_loop(lifetime, epochs):
    expected = list(simulate(7, lifetime, epochs))
    seen = run(source(lifetime, epochs), 7)
    for one, other in zip(seen, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert (seen[0] - seen[1]).abs().max() > 1e-4, "nothing was learned, or nothing changed"


def test_a_network_of_one_update_is_never_trained():
    for step, seen in enumerate(run(source(lifetime=1), 4)):
        assert torch.equal(seen, flat(make(step)))


def test_every_lifetime_begins_with_a_fresh_network_and_no_training_follows_the_last_update():
    calls = []
    trainee = Trainee(make, 3, lambda net, batch, step: calls.append(step))
    seen = run(trainee, 7)
    assert calls == [0, 1, 3, 4, 6]
    for number in range(3):
        assert torch.equal(seen[3 * number], flat(make(number)))
    assert not torch.equal(seen[0], seen[3])


def test_it_learns_from_detached_images():
    def train(net, batch, step):
        assert not batch.x.requires_grad
        assert torch.equal(batch.x, images(step)[0])
        assert torch.equal(batch.y, images(step)[1])

    run(Trainee(make, 3, train), 3)


def augmented():
    return PLAIN.model_copy(update={"augment": "oneof", "strategy": STRATEGY})


def test_training_is_augmented_where_the_training_says_so():
    plain, other = run(source(), 2), run(source(training=augmented()), 2)
    assert torch.equal(plain[0], other[0])
    assert not torch.equal(plain[1], other[1])


def pool(each=6):
    g = torch.Generator().manual_seed(3)
    return RealPool(torch.randint(0, 256, (CLASSES * each, 1, SIDE, SIDE), generator=g).byte(), torch.arange(CLASSES).repeat_interleave(each),
                    CLASSES, [0.5], [0.25])  # fmt: skip


CASES = {
    "plain": {},
    "augmented": {"training": augmented()},
    "batch normalisation": {"name": "convnet3_bn_w8", "settle": True},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stop", range(1, 7))
def test_a_resumed_one_sees_the_same_bits(case, stop):
    def begin():
        given = dict(CASES[case])
        if given.pop("settle", False):
            given["settle"] = statistics(pool(), 4, 0)
        return source(lifetime=3, **given)

    expected = run(begin(), 7)
    first = begin()
    run(first, stop)
    state = {key: value.clone() for key, value in first.state_dict().items()}
    assert bool(state) == (stop % 3 != 0), "between two lifetimes there is nothing to remember"
    second = begin()
    second.load_state_dict(state)
    assert set(second.state_dict()) == set(state)
    for one, other in zip(run(second, 7, first=stop), expected[stop:], strict=True):
        assert torch.equal(one, other)
    third = begin()
    third.load_state_dict(state)
    third.draw(stop)
    assert set(third.state_dict()) == set(state), "still the middle of a lifetime"


def test_weights_that_are_forgotten_are_missed():
    expected, first = run(source(), 3), source()
    run(first, 2)
    second = source()
    second.load_state_dict({"weights": torch.zeros_like(first.state_dict()["weights"])})
    assert not torch.equal(run(second, 3, first=2)[0], expected[2])


def test_batch_normalisation_sees_real_images_before_each_look_and_then_stands_still():
    settle, real = statistics(pool(), 4, 0), pool()
    trainee = source(lifetime=2, name="convnet3_bn_w8", settle=settle)
    for step in range(4):
        net = trainee.draw(step)
        norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        assert len(norms) == 3 and not any(module.training for module in norms)
        if step % 2 == 0:  # one look at 4 images of each class moves a fresh network's statistics a tenth of the way
            x = real.x(real.draw(stream(0, "statistics", step), 4).reshape(-1))
            expected = 0.1 * F.conv2d(x, net.blocks[0].conv.weight, net.blocks[0].conv.bias, padding=1).mean((0, 2, 3))
            torch.testing.assert_close(norms[0].running_mean, expected, rtol=1e-4, atol=1e-6)
        before = flat(net).clone()
        net(torch.randn(5, 1, SIDE, SIDE))
        assert torch.equal(before, flat(net)), "matching must not move the statistics"
        trainee.advance(net, Synthetic(step))
        assert torch.equal(before, flat(net)) == (step % 2 == 1)
    few = statistics(pool(each=2), 16, 0)  # a class with fewer images limits all
    few(make(0, "convnet3_bn_w8"), 0)


def test_other_networks_are_left_alone():
    net = make(0)
    before = flat(net).clone()
    statistics(pool(), 4, 0)(net, 0)
    assert torch.equal(before, flat(net)) and net.training


def test_a_lifetime_is_at_least_one_step():
    with pytest.raises(ValueError, match="lifetime must be at least 1 step, is 0"):
        source(lifetime=0)
