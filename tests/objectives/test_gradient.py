"""Gradient matching against a literal loop over classes, layers and rows in float64, and against vectorised gradients."""

import gc
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap

from dd import networks
from dd.fast import plain
from dd.objectives.gradient import DISTANCES, GradientMatch, weight_gradient
from dd.types import Batch

NETWORKS = ["convnet3_in_w8", "convnet3_bn_w8", "convnet3_none_w8_max", "resnet18_in_w8", "resnet18_bn_w8", "mlp_w16", "vit_w24_d2"]


class Fixed:
    """Batches that are the same at every call."""

    def __init__(self, synthetic, real):
        self._pair = (synthetic, real)

    def pair(self, net=None):
        return self._pair


def batches(classes=3, ipc=2, per_class=5, side=16, channels=1):
    g = torch.Generator().manual_seed(0)
    syn = torch.randn(classes * ipc, channels, side, side, generator=g, dtype=torch.float64).requires_grad_(True)
    real = torch.randn(classes * per_class, channels, side, side, generator=g, dtype=torch.float64)
    ys, yr = torch.arange(classes).repeat_interleave(ipc), torch.arange(classes).repeat_interleave(per_class)
    return Batch(syn, ys), Batch(real, yr)


def network(name, classes=3, channels=1, side=16):
    return networks.build(name, channels, (side, side), classes, 0).double().eval()


def naive_distance(name, one, other):
    """Return (distance of two lists of gradients of one class, number of terms), entry by entry."""
    terms = []
    if name == "ours":
        for a, b in zip(one, other, strict=True):
            if a.ndim == 1:
                continue
            for u, v in zip(a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1), strict=True):
                norms = (u @ u).sqrt() * (v @ v).sqrt() if u.any() else 0.0  # the root of zero has no derivative
                terms.append(1 - (u @ v) / (norms + 1e-6))
    elif name == "mse":
        terms = [(a - b).square().sum() for a, b in zip(one, other, strict=True)]
    else:
        u, v = (torch.cat([g.reshape(-1) for g in gs]) for gs in (one, other))
        terms = [1 - (u @ v) / (u.square().sum().sqrt() * v.square().sum().sqrt() + 1e-6)]
    return sum(terms), len(terms)


def naive(name, net, synthetic, real, classes=3):
    total, weights = 0.0, list(net.parameters())
    for c in range(classes):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            losses = [-F.log_softmax(net(batch.x[batch.y == c]), 1)[:, c].mean() for batch in (synthetic, real)]
        found = torch.autograd.grad(losses[0], weights, create_graph=True)
        target = [g.detach() for g in torch.autograd.grad(losses[1], weights)]
        total = total + naive_distance(name, found, target)[0]
    return total


@pytest.mark.parametrize("distance", ["ours", "mse", "cos"])
@pytest.mark.parametrize("name", NETWORKS)
def test_value_and_gradient_equal_a_naive_double_backward(name, distance):
    net, (synthetic, real) = network(name), batches()
    loss = GradientMatch(3, distance)(Fixed(synthetic, real), net)
    (gradient,) = torch.autograd.grad(loss, synthetic.x)
    expected = naive(distance, net, synthetic, real)
    (known,) = torch.autograd.grad(expected, synthetic.x)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, known, rtol=1e-7, atol=1e-9 * float(known.abs().max()))
    assert float(known.abs().max()) > 0


def test_the_gradient_passes_through_what_made_the_images():
    """As it must through an augmentation and a decoder: here a scale and a shift of a smaller parameter."""
    net, (synthetic, real) = network("convnet3_in_w8"), batches()
    small = synthetic.x.detach()[:, :, :8, :8].clone().requires_grad_(True)

    def made():
        return Batch(2 * F.interpolate(small, scale_factor=2, mode="bilinear") + 0.1, synthetic.y)

    GradientMatch(3)(Fixed(made(), real), net).backward()
    (known,) = torch.autograd.grad(naive("ours", net, made(), real), small)
    torch.testing.assert_close(small.grad, known, rtol=1e-7, atol=1e-10)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("name", ["convnet3_in_w8", "convnet3_bn_w8", "mlp_w16"])
def test_per_class_gradients_equal_vectorised_ones(name):
    net, (_, real) = network(name), batches()
    state = {key: value.detach() for key, value in net.state_dict().items()}
    weights = {key: state[key] for key, _ in net.named_parameters()}

    def loss(weights, x, y):
        return F.cross_entropy(functional_call(net, {**state, **weights}, (x,)), y)

    with plain():  # the fast path's own derivatives cannot be vectorised
        expected = vmap(grad(loss), in_dims=(None, 0, 0))(weights, real.x.view(3, 5, 1, 16, 16), real.y.view(3, 5))
    looped = [weight_gradient(net, real.x[real.y == c], real.y[real.y == c]) for c in range(3)]
    for place, key in enumerate(weights):
        torch.testing.assert_close(torch.cat([found[place] for found in looped]), expected[key], rtol=1e-8, atol=1e-12)


def random_gradients(net, classes, seed):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(classes, *p.shape, generator=g, dtype=torch.float64) for p in net.parameters()]


@pytest.mark.parametrize("distance", ["ours", "mse", "cos"])
def test_distances_of_all_classes_at_once_equal_naive_ones(distance):
    net = network("convnet3_in_w8", classes=4)
    one, other = random_gradients(net, 4, 0), random_gradients(net, 4, 1)
    expected = [naive_distance(distance, [g[c] for g in one], [g[c] for g in other])[0] for c in range(4)]
    torch.testing.assert_close(DISTANCES[distance](one, other), torch.stack(expected))


def test_convnet3_has_394_rows_for_ten_classes():
    net = networks.build("convnet3_in", 3, (32, 32), 10, 0)
    gradients = [p.detach().unsqueeze(0) for p in net.parameters()]
    assert naive_distance("ours", [g[0] for g in gradients], [g[0] for g in gradients])[1] == 394
    opposite = DISTANCES["ours"](gradients, [-g for g in gradients])
    torch.testing.assert_close(opposite, torch.tensor([2 * 394.0]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("distance", ["ours", "mse", "cos"])
def test_equal_gradients_have_no_distance_and_only_the_squared_one_sees_their_scale(distance):
    one = random_gradients(network("convnet3_in_w8"), 2, 0)
    other = random_gradients(network("convnet3_in_w8"), 2, 1)
    d = DISTANCES[distance]
    torch.testing.assert_close(d(one, one), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-5)
    larger = d([10 * g for g in one], other)
    if distance == "mse":
        assert (larger > 10 * d(one, other)).all()
    else:
        torch.testing.assert_close(larger, d(one, other), rtol=1e-6, atol=0)


def test_only_the_concatenated_distances_see_biases_and_norms():
    one = random_gradients(network("convnet3_in_w8"), 2, 0)
    changed = [g + 1 if g.ndim == 2 else g for g in one]  # stacked: a vector has two dimensions
    assert sum(g.ndim == 2 for g in one) == 10
    assert DISTANCES["ours"](changed, one).abs().max() < 1e-5
    assert DISTANCES["mse"](changed, one).min() > 1
    assert DISTANCES["cos"](changed, one).min() > 1e-4


def test_a_tiny_gradient_is_damped_by_the_constant():
    tiny = [torch.full((1, 1, 4), 1e-3, dtype=torch.float64)]  # a row of norm 2e-3: its square is 4 times the constant
    assert DISTANCES["ours"](tiny, tiny).item() == pytest.approx(1 - 4 / 5)


def test_rows_that_no_image_reaches_give_no_nan():
    zero = [torch.zeros(1, 3, 4, requires_grad=True)]
    value = DISTANCES["ours"](zero, [torch.ones(1, 3, 4)]).sum()
    (gradient,) = torch.autograd.grad(value, zero)
    assert value.item() == 3.0
    assert gradient.isfinite().all()


def test_a_class_depends_on_its_own_pixels_only():
    net, (synthetic, real) = network("convnet3_in_w8"), batches()
    before = torch.autograd.grad(GradientMatch(3)(Fixed(synthetic, real), net), synthetic.x)[0]
    moved = Batch((synthetic.x.detach() + (synthetic.y == 1).double().view(-1, 1, 1, 1)).requires_grad_(True), synthetic.y)
    after = torch.autograd.grad(GradientMatch(3)(Fixed(moved, real), net), moved.x)[0]
    same = (before == after).flatten(1).all(1)
    assert same.tolist() == [True, True, False, False, True, True]


def test_facts_are_norms_of_whole_gradients():
    net, (synthetic, real) = network("convnet3_in_w8"), batches()
    term = GradientMatch(3)
    term(Fixed(synthetic, real), net)
    for name, batch in (("gradient_norm_syn", synthetic), ("gradient_norm_real", real)):
        norms = []
        for c in range(3):
            gradients = torch.autograd.grad(F.cross_entropy(net(batch.x[batch.y == c]), batch.y[batch.y == c]), list(net.parameters()))
            norms.append(math.sqrt(sum(g.square().sum().item() for g in gradients)))
        assert term.facts[name].item() == pytest.approx(sum(norms) / 3)
        assert not term.facts[name].requires_grad


def kept_at_once(classes):
    """Return the largest number of tensors that the graphs of one step hold on to at any time."""
    net, (synthetic, real) = network("convnet3_in_w8", classes=classes), batches(classes)
    alive, most = weakref.WeakSet(), [0]

    class Kept:
        def __init__(self, value):
            self.value = value
            alive.add(self)
            most[0] = max(most[0], len(alive))

    gc.collect()
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.value):
        GradientMatch(classes)(Fixed(synthetic, real), net)
    return most[0]


def test_memory_does_not_grow_with_the_classes():
    few, many = kept_at_once(2), kept_at_once(6)
    assert few > 20
    assert many <= few + 2
