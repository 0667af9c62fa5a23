"""What students learn from features: distances and losses against versions written here, in float64, from the paper's equations.

That `rear(stages(x)[i], i)` is `forward(x)`, for every network and stage, is in tests/networks/test_networks_contract.py.
"""

import copy
import math

import pytest
import torch

from dd import networks
from dd.evaluation.elf import distance, published_split, student_loss
from dd.evaluation.protocols.elf import Elf
from dd.networks._layers import reseed
from dd.rng import stream

KINDS = ("ce", "mae", "mse", "cos")
CLASSES = 5
WIDE = 1_000_000  # parameters from which on one distance is enough: each such network has a narrow sibling, that has them all


def places(s):
    """Return (n, places, channels) nested lists of a tensor (n, c), (n, c, h, w), or (n, t, c) of tokens."""
    if s.ndim == 2:
        return [[row.tolist()] for row in s]
    if s.ndim == 3:
        return s.tolist()
    return [[image[:, i, j].tolist() for i in range(s.shape[2]) for j in range(s.shape[3])] for image in s]


def naive_distance(kind, s, f):
    """Return (value, gradient with respect to s as `places` lists it), by loops over images, places and channels."""
    s, f = places(s), places(f)
    n, p, c = len(s), len(s[0]), len(s[0][0])
    every = [(b, i, k) for b in range(n) for i in range(p) for k in range(c)]
    grad = [[[0.0] * c for _ in range(p)] for _ in range(n)]
    value = 0.0
    if kind == "cos":
        dot = sum(s[b][i][k] * f[b][i][k] for b, i, k in every)
        own, other = (math.sqrt(sum(t[b][i][k] ** 2 for b, i, k in every)) for t in (s, f))
        bottom = own * other + 1e-6
        for b, i, k in every:
            grad[b][i][k] = -f[b][i][k] / bottom + dot / bottom**2 * other * s[b][i][k] / own
        return 1 - dot / bottom, grad
    if kind == "ce":
        for b in range(n):
            for i in range(p):
                total = sum(math.exp(value) for value in s[b][i])
                mass = sum(f[b][i])
                for k in range(c):
                    soft = math.exp(s[b][i][k]) / total
                    value -= f[b][i][k] * math.log(soft) / (n * p)
                    grad[b][i][k] = (mass * soft - f[b][i][k]) / (n * p)
        return value, grad
    for b, i, k in every:
        gap = s[b][i][k] - f[b][i][k]
        value += (abs(gap) if kind == "mae" else gap**2) / len(every)
        grad[b][i][k] = (math.copysign(1, gap) if kind == "mae" else 2 * gap) / len(every)
    return value, grad


def features_like(shape, seed=1):
    """Return random features: not negative, with zeros, and not summing to one."""
    return (torch.randn(shape, dtype=torch.float64, generator=stream(seed, "features")) * 2 + 0.5).relu()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 5, 2, 4), (3, 5), (3, 4, 5)], ids=["maps", "vectors", "tokens"])
def test_distances_are_those_of_the_paper(kind, shape):
    s = torch.randn(shape, dtype=torch.float64, generator=stream(0, "s")).requires_grad_()
    f = features_like(shape)
    made = distance(kind, s, f)
    value, gradient = naive_distance(kind, s.detach(), f)
    assert made.shape == ()
    assert made.item() == pytest.approx(value, rel=1e-12)
    (own,) = torch.autograd.grad(made, s)
    torch.testing.assert_close(torch.tensor(places(own), dtype=torch.float64), torch.tensor(gradient, dtype=torch.float64))


def test_cross_entropy_of_a_student_that_knows_nothing_is_the_mass_times_ln_c():
    f = features_like((2, 512, 4, 4))
    value = distance("ce", torch.zeros_like(f), f).item()
    assert value == pytest.approx(f.sum(1).mean().item() * math.log(512), rel=1e-12)
    assert value > 1000, "far above the other losses: features are not made into probabilities"


def test_cosine_is_of_the_whole_mini_batch_as_one_vector():
    s = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    f = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert distance("cos", s, f).item() == pytest.approx(1 - 1 / math.sqrt(20), abs=1e-6), "the mean of each image's would be 1/2"
    assert distance("cos", torch.zeros_like(s), f).item() == 1


def test_cosine_of_a_student_that_says_nothing_has_a_finite_gradient():
    s = torch.zeros(2, 3, requires_grad=True)
    distance("cos", s, torch.ones(2, 3)).backward()
    assert s.grad.isfinite().all()


def student(name):
    """Return a float64 network, images of the smallest side that leaves something to split, and the stage to split after."""
    side = max(8, networks.smallest(name))
    net = networks.build(name, 3, (side, side), CLASSES, 0, "student").double()
    x = torch.randn(4, 3, side, side, dtype=torch.float64, generator=stream(0, "x"))
    stage = published_split(name)
    return net, x, len(net.blocks) // 2 if stage is None else stage


def naive_cross_entropy(z, y):
    """y: class ids or probabilities."""
    log = z - z.exp().sum(1, keepdim=True).log()
    if y.ndim == 1:
        return -sum(log[b, label] for b, label in enumerate(y.tolist())) / len(y)
    return -(y * log).sum() / len(y)


def naive_channels(kind, s, f):
    if kind == "mae":
        return (s - f).abs().sum() / s.numel()
    if kind == "mse":
        return ((s - f) ** 2).sum() / s.numel()
    if kind == "cos":
        return 1 - (s * f).sum() / ((s**2).sum().sqrt() * (f**2).sum().sqrt() + 1e-6)
    axis = 2 if s.ndim == 3 else 1
    log = s - s.exp().sum(axis, keepdim=True).log()
    return -(f * log).sum() * s.shape[axis] / s.numel()


def through(net, h, first, last):
    for block in list(net.blocks)[first:last]:
        h = block(h)
    return h


def naive_loss(net, x, y, f, stage, weights):
    """Return (loss, logits): Eqs. 6 to 9, with front and rear by hand; images first, features second."""
    s = through(net, x, 0, stage + 1)
    z = net.head(through(net, s, stage + 1, None).flatten(1))
    loss = 0
    if weights.task:
        loss = loss + weights.task * naive_cross_entropy(z, y)
    if weights.rear:
        loss = loss + weights.rear * naive_cross_entropy(net.head(through(net, f, stage + 1, None).flatten(1)), y)
    if weights.front:
        loss = loss + weights.front * naive_channels(weights.distance, s, f)
    return loss, z


def running(net):
    """Record the inputs of every batch norm of a network, by name, in the order of the calls."""
    seen = {}
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            seen[name] = []
            module.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0].detach()))
    return seen


def remembered(calls):
    """Return the running (mean, variance) that 0, 1 become after these inputs, with momentum 0.1 and unbiased variances."""
    mean, variance = torch.zeros(calls[0].shape[1], dtype=torch.float64), torch.ones(calls[0].shape[1], dtype=torch.float64)
    for h in calls:
        rows = h.movedim(1, 0).flatten(1)
        centre = rows.sum(1) / rows.shape[1]
        spread = ((rows - centre[:, None]) ** 2).sum(1) / (rows.shape[1] - 1)
        mean, variance = 0.9 * mean + 0.1 * centre, 0.9 * variance + 0.1 * spread
    return mean, variance


def gradients(net, loss):
    return torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)


def compare(given, weights, y):
    """Check one step's loss, gradients and memory against the naive version."""
    (net, x, stage), other = given, copy.deepcopy(given[0])
    f = features_like((6, *net.eval().stages(x)[stage].shape[1:]))
    index = torch.tensor([4, 0, 5, 2])
    net.train()
    reseed(net, 0, "masks")
    value, logits = student_loss(f, stage, weights)(net, x, y, index)
    mine = gradients(net, value)
    state = net.state_dict()
    seen = running(other)
    reseed(other, 0, "masks")
    naive, z = naive_loss(other, x, y, f[index], stage, weights)
    assert value.item() == pytest.approx(naive.item(), rel=1e-9)
    torch.testing.assert_close(logits, z)
    theirs = gradients(other, naive)
    scale = max(float(g.abs().max()) for g in theirs if g is not None)
    for (key, _), own, wanted in zip(net.named_parameters(), mine, theirs, strict=True):
        assert (own is None) == (wanted is None), key
        if own is not None:
            torch.testing.assert_close(own, wanted, rtol=1e-6, atol=1e-9 * scale, msg=key)
    for key, calls in seen.items():
        front = int(key.split(".")[1]) <= stage
        assert len(calls) == state[f"{key}.num_batches_tracked"] == (1 if front or not weights.rear else 2), key
        mean, variance = remembered(calls)
        torch.testing.assert_close(state[f"{key}.running_mean"], mean)
        torch.testing.assert_close(state[f"{key}.running_var"], variance)
    return value.item()


@pytest.mark.parametrize("name", networks.names())
def test_the_loss_of_a_student_is_that_of_the_paper(name):
    given, y = student(name), torch.tensor([0, 4, 2, 2])
    kinds = KINDS[:1] if sum(p.numel() for p in given[0].parameters()) > WIDE else KINDS
    values = {compare((copy.deepcopy(given[0]), *given[1:]), Elf(distance=kind), y) for kind in kinds}
    assert len(values) == len(kinds), "the distance is the protocol's"


@pytest.mark.parametrize("name", ["convnet3_in_w16_leaky", "convnet3_bn_w16_leaky_max", "resnet18_bn_w16", "vgg11_bn_w8_imagenet"])
@pytest.mark.parametrize(
    "weights",
    [{"rear": 0}, {"front": 0}, {"task": 0}, {"front": 0, "rear": 0}, {"task": 0, "rear": 0}, {"task": 0, "front": 0},
     {"task": 0.5, "front": 0.01, "rear": 30.0}],
    ids=str,
)  # fmt: skip
def test_weights_leave_terms_out(name, weights):
    soft = torch.rand(4, CLASSES, dtype=torch.float64, generator=stream(0, "soft")).softmax(1)
    for y in (torch.tensor([1, 1, 0, 3]), soft):
        compare(student(name), Elf(**weights), y)


def test_features_do_not_learn_and_are_those_of_the_images_positions():
    net, x, stage = student("convnet3_in_w16_max")
    f = features_like((6, *net.stages(x)[stage].shape[1:])).requires_grad_(False)
    y = torch.tensor([0, 1, 2, 3])
    loss = student_loss(f, stage, Elf())
    before = f.clone()
    (value, _), (other, _) = (loss(net, x, y, torch.tensor(index)) for index in ([0, 1, 2, 3], [3, 2, 1, 0]))
    value.backward()
    assert torch.equal(f, before)
    assert f.grad is None
    assert value.item() != other.item()
