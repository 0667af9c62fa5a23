"""Matching trajectories: the loss against arithmetic written here, an expert's own batches, mini-batches, soft labels."""

from dataclasses import dataclass

import pytest
import torch

from dd import networks
from dd.augment.policies import make
from dd.augment.strategies import default_strategy
from dd.batches import UnrolledBatches
from dd.config.stages import Dataset
from dd.data.load import pool as real_pool
from dd.data.pool import RealPool
from dd.objectives.trajectory import TrajectoryMatch, target_labels
from dd.objectives.unroll import UNROLLS, frozen, full
from dd.parameterizations.pixels import Pixels
from dd.parameterizations.soft_labels import SoftLabels
from dd.rng import stream
from dd.sources.trajectories import Segment, Trajectories
from dd.train.config import ExpertConfig, ExpertTraining
from dd.train.experts import experts
from dd.train.functional import Flat
from dd.types import Batch

NET = "convnet2_in_w4"


def unrolled(n=7, batch=3, policy="none", strategy="crop", seed=0, step=0, images=None):
    if images is None:  # an image's pixels are its number, a third of which is its class
        images = torch.arange(n, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    pool = RealPool(torch.arange(12.0).view(-1, 1, 1, 1).expand(-1, 1, 8, 8), torch.arange(12) // 4, 3, [0.0], [1.0])
    pixels = Pixels(images, torch.arange(n) // 3, 1.0)
    return UnrolledBatches(pool, pixels, n, make(policy, strategy), batch, seed, step), pixels


def numbers(batches, pixels, count):
    """Return the images of each of the first mini-batches, by number."""
    found = [batches.minibatch(i, pixels.images, torch.arange(len(pixels.images))) for i in range(count)]
    assert all(batch.x[:, 0, 0, 0].int().tolist() == batch.y.tolist() for batch in found), "labels line up"
    return [batch.y.tolist() for batch in found]


def test_every_image_is_seen_once_before_any_is_again_and_the_short_piece_comes_first():
    found = numbers(*unrolled(), 9)
    assert [len(one) for one in found] == [1, 3, 3] * 3
    sweeps = [[n for piece in found[k : k + 3] for n in piece] for k in (0, 3, 6)]
    assert all(sorted(sweep) == list(range(7)) for sweep in sweeps)
    assert len(set(map(tuple, sweeps))) > 1, "shuffled anew"
    order = torch.randperm(7, generator=stream(0, "chunks", 0, 0)).tolist()
    assert found[:3] == [order[6:], order[3:6], order[:3]]


@pytest.mark.parametrize("batch", [None, 7, 100])
def test_all_images_are_one_batch_by_default(batch):
    found = numbers(*unrolled(batch=batch), 3)
    assert all(sorted(one) == list(range(7)) for one in found)


def test_a_minibatch_is_a_function_of_seed_step_and_number():
    def look(**given):
        batches, pixels = unrolled(policy="oneof", strategy="color", **given)
        return batches.minibatch(1, pixels.images.detach(), torch.arange(7))

    one = look()
    assert torch.equal(one.x, look().x) and torch.equal(one.y, look().y)
    for other in (look(seed=1), look(step=1)):
        assert not torch.equal(one.x, other.x)
    batches, pixels = unrolled(policy="oneof", strategy="color")
    later, first = (batches.minibatch(i, pixels.images, torch.arange(7)) for i in (4, 1))
    assert torch.equal(first.x, one.x), "whatever was asked before"
    assert not torch.equal(later.x, first.x)


def test_one_operation_a_batch_with_values_for_each_image():
    images = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(7, 1, 8, 8)
    batches, pixels = unrolled(batch=None, policy="oneof", strategy="color_crop", images=images)
    ops = set()
    for i in range(12):
        x = batches.minibatch(i, pixels.images.detach(), torch.arange(7)).x
        assert len({tuple(image.flatten().tolist()) for image in x}) > 1
        cropped = [set(image.flatten().tolist()) <= {0.0, *images[0].flatten().tolist()} for image in x]
        assert all(cropped) or not any(cropped)
        ops.add(all(cropped))
    assert ops == {True, False}


def test_gradients_reach_the_chosen_images_only():
    batches, pixels = unrolled()
    batch = batches.minibatch(1, pixels.images, torch.arange(7))
    batch.x.sum().backward()
    assert pixels.images.grad.flatten(1).any(1).nonzero().squeeze(1).tolist() == sorted(batch.y.tolist())


def test_guidance_finds_what_it_looks_at():
    batches, pixels = unrolled(policy="oneof", strategy="color")
    assert torch.equal(batches.synthetic().x, pixels.images) and batches.synthetic(2).y.tolist() == [0, 0]
    assert batches.synthetic().x.requires_grad
    a, b = batches.real(50), batches.real(50)
    assert not torch.equal(a.x, b.x), "a new draw in each call"
    assert torch.equal(a.y, a.x[:, 0, 0, 0].long() // 4) and set(a.x[:, 0, 0, 0].tolist()) == set(map(float, range(12)))
    again = unrolled(policy="oneof", strategy="color")[0]
    again.minibatch(0, pixels.images, torch.arange(7))
    assert torch.equal(a.x, again.real(50).x)


@dataclass
class Plain:
    """Batches in float64 that are not augmented: mini-batch i is images i and i + 1."""

    x: torch.Tensor
    y: torch.Tensor

    def synthetic(self, n=None):
        return Batch(self.x[:n], self.y[:n])

    def minibatch(self, i, images, labels):
        return Batch(images[i : i + 2], labels[i : i + 2])


def problem(seed=0, name=NET):
    g = torch.Generator().manual_seed(seed)
    net = networks.build(name, 1, (8, 8), 3, seed).double()
    flat = Flat(net)
    start = flat.flatten(net)
    target = start + 0.1 * torch.randn(flat.size, dtype=torch.float64, generator=g)
    images = torch.randn(5, 1, 8, 8, dtype=torch.float64, generator=g, requires_grad=True)
    return net, Segment(flat, start, target), Plain(images, torch.tensor([0, 1, 2, 0, 1]))


def by_hand(net, segment, batches, labels, steps, alpha):
    """Train the module itself; return the loss of the trajectory."""
    with torch.no_grad():
        for i in range(steps):
            with torch.enable_grad():
                logp = net(batches.x[i : i + 2].detach()).log_softmax(1)
                y = labels[i : i + 2]
                loss = -(logp * (y if y.ndim == 2 else torch.eye(3, dtype=torch.float64)[y])).sum(1).mean()
                gradients = torch.autograd.grad(loss, list(net.parameters()))
            for p, gradient in zip(net.parameters(), gradients, strict=True):
                p -= alpha * gradient
    end = torch.cat([p.detach().flatten() for p in net.parameters()])
    return (((end - segment.target) ** 2).sum() / ((segment.start - segment.target) ** 2).sum()).item()


@pytest.mark.parametrize("unroll", [*UNROLLS.values(), frozen])
def test_the_loss_is_the_distance_of_a_network_that_was_trained_by_hand(unroll):
    net, segment, batches = problem()
    alpha = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    term = TrajectoryMatch(unroll, 3, alpha)
    loss = term(batches, segment)
    assert loss.item() == pytest.approx(by_hand(net, segment, batches, batches.y, 3, 0.2), rel=1e-12)
    assert term.facts["step_size"].item() == 0.2
    loss.backward()
    assert batches.x.grad.abs().max() > 0 and alpha.grad.abs() > 0
    assert batches.x.grad.flatten(1).any(1).tolist() == [True] * 4 + [False], "the steps saw four of the five"
    assert TrajectoryMatch(unroll, 0, alpha)(batches, segment).item() == 1.0


def test_soft_labels_are_those_of_the_target_on_plain_images():
    net, segment, batches = problem()
    target = networks.build(NET, 1, (8, 8), 3, 0).double()
    target.load_state_dict(segment.network.unflatten(segment.target))
    with torch.no_grad():
        logits = target.eval()(batches.x)
        expected = logits.exp() / logits.exp().sum(1, keepdim=True)
    found = target_labels(segment, batches.x)
    assert not found.requires_grad and (found - expected).abs().max() < 1e-12
    given = []

    def relabel(seen, images):
        assert seen is segment and not images.requires_grad
        given.append(target_labels(seen, images))
        return given[-1]

    loss = TrajectoryMatch(full, 3, torch.tensor(0.2, dtype=torch.float64), relabel)(batches, segment)
    assert len(given) == 1
    assert loss.item() == pytest.approx(by_hand(net, segment, batches, expected, 3, 0.2), rel=1e-12)


def test_images_are_labelled_in_eval_mode():
    _, segment, batches = problem(name="convnet2_bn_w4")
    with torch.no_grad():
        modes = {train: segment.network(segment.target, batches.x, train=train).softmax(1) for train in (True, False)}
    assert not torch.allclose(modes[True], modes[False])
    assert torch.equal(target_labels(segment, batches.x), modes[False])


def test_many_images_are_labelled_in_pieces():
    _, segment, _ = problem()
    images = torch.randn(1203, 1, 8, 8, dtype=torch.float64)
    found = target_labels(segment, images)
    assert found.shape == (1203, 3)
    assert (found[[0, 501, 1202]] - target_labels(segment, images[[0, 501, 1202]])).abs().max() < 1e-12


def test_labels_are_kept_with_the_images():
    images, labels = torch.zeros(3, 1, 8, 8), torch.tensor([0, 2, 1])
    one, other = (SoftLabels(Pixels(images, labels, 1.0), labels, 3) for _ in range(2))
    every = torch.arange(3)
    assert torch.equal(one.labels(every), torch.eye(3)[labels])
    before = one.labels(every)
    given = torch.rand(3, 3).softmax(1)
    one.assign(given)
    assert torch.equal(before, torch.eye(3)[labels]) and torch.equal(one.labels(torch.tensor([2])), given[2:])
    state = one.state_dict()
    one.assign(torch.eye(3))
    assert torch.equal(state["labels"], given), "a state is a copy"
    other.load_state_dict(state)
    assert torch.equal(other.labels(every), given) and set(state) == {"images", "labels"}
    assert [len(group["params"]) for group in one.parameters()] == [1], "labels are not optimised"


class Replayed:
    """The very batches that `dd.train.supervised.fit` shows to expert 0, from epoch `first` on."""

    def __init__(self, pool, training, first):
        self.pool, self.training, self.first, self.n = pool, training, first, len(pool)
        self.per_epoch = -(-self.n // training.batch)
        self.augment = make("oneof", default_strategy(False, "dc", "train", cutmix=False))

    def synthetic(self, n=None):
        every = torch.arange(self.n)
        return Batch(self.pool.x(every), self.pool.y(every))

    def minibatch(self, i, images, labels):
        epoch, wanted = divmod(i, self.per_epoch)
        generator = stream(0, "expert", "convnet3_in_w8", "epoch", self.first + epoch)
        for index in list(torch.randperm(self.n, generator=generator).split(self.training.batch))[: wanted + 1]:
            params = self.augment.draw(generator, len(index), tuple(images.shape[1:]), shared=False)
        return Batch(self.augment.apply(images[index], params, torch.arange(len(index))), labels[index])


@pytest.mark.parametrize("unroll", [UNROLLS["checkpoint"], frozen])
def test_a_student_with_the_experts_own_batches_is_the_expert(unroll, digits_dir, tmp_path):
    training = ExpertTraining(lr=0.05, batch=16)
    config = ExpertConfig(dataset=Dataset(name="digits"), network="convnet3_in_w8", epochs=3, images=6, training=training)
    experts(config, digits_dir, [0], [tmp_path / "expert0.safetensors"])
    flat = Flat(networks.build("convnet3_in_w8", 1, (16, 16), 10, 0))
    source = Trajectories([tmp_path / "expert0.safetensors"], 2, 2, 0, flat, {"lineage": "dc"})
    starts = {int(torch.randint(2, (), generator=stream(0, "start", step))): step for step in range(40)}
    pool = real_pool(digits_dir, "train", "dc", first=6)
    for first in (0, 1):
        batches = Replayed(pool, training, first)
        steps = 2 * batches.per_epoch
        assert (batches.per_epoch, batches.n) == (4, 60)
        segment = source.draw(starts[first])
        assert TrajectoryMatch(unroll, steps, torch.tensor(0.05))(batches, segment).item() < 1e-8
        assert TrajectoryMatch(unroll, steps - 1, torch.tensor(0.05))(batches, segment).item() > 1e-4
        assert TrajectoryMatch(unroll, steps, torch.tensor(0.04))(batches, segment).item() > 1e-4


def test_a_network_with_attention_has_its_second_derivative():
    from dd import networks
    from dd.objectives.unroll import UNROLLS

    network = Flat(networks.build("vit_w24_d2", 1, (16, 16), 3, 0))
    start = torch.randn(network.size, generator=torch.Generator().manual_seed(0)) * 0.05
    images = torch.randn(7, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    segment = Segment(network, start, start + 0.01)
    for unroll in UNROLLS.values():
        batches, pixels = unrolled(images=images)
        TrajectoryMatch(unroll, 2, torch.tensor(0.1), None)(batches, segment).backward()
        assert pixels.images.grad is not None and float(pixels.images.grad.abs().sum()) > 0


def test_every_update_augments_anew():
    one, other = (unrolled(images=torch.rand(7, 1, 8, 8), policy="oneof", strategy="crop", batch=None, step=step)[0] for step in (0, 1))
    still = torch.arange(64.0).view(1, 1, 8, 8).expand(7, -1, -1, -1)
    shown = [{tuple(x.flatten().tolist()) for x in batches.minibatch(0, still, torch.arange(7)).x} for batches in (one, other)]
    assert shown[0] != shown[1]
