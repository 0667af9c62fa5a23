"""Unrolled students in float64: three ways with one gradient, which is that of finite differences; and TESLA's, against its formula."""

import weakref

import pytest
import torch
import torch.nn.functional as F

from dd import networks
from dd.augment.policies import make
from dd.batches import UnrolledBatches
from dd.data.pool import RealPool
from dd.objectives.unroll import UNROLLS, adjoint, checkpoint, frozen, full
from dd.parameterizations.pixels import Pixels
from dd.train.functional import Flat

OPS = "color_crop_cutout_flip_scale_rotate"
N, CLASSES = 7, 3
ALPHA = 0.3  # large, so that what an early step does to later ones counts


class Problem:
    """Seven images of 8x8 pixels, a tiny network at two points, and mini-batches."""

    def __init__(self, batch=3, policy="oneof", name="convnet2_in_w4", seed=0):
        g = torch.Generator().manual_seed(seed)
        self.images = torch.randn(N, 1, 8, 8, dtype=torch.float64, generator=g)
        self.labels = torch.arange(N) % CLASSES
        pool = RealPool(torch.zeros(CLASSES, 1, 8, 8), torch.arange(CLASSES), CLASSES, [0.0], [1.0])
        pixels = Pixels(self.images, self.labels, 1.0)
        self.batches = UnrolledBatches(pool, pixels, N, make(policy, OPS, align_corners=True), batch, seed, 5)
        net = networks.build(name, 1, (8, 8), CLASSES, seed).double()
        self.net = Flat(net)
        self.start = self.net.flatten(net)
        self.target = self.start + 0.1 * torch.randn(self.net.size, dtype=torch.float64, generator=g)

    def loss(self, i, theta, images):
        batch = self.batches.minibatch(i, images, self.labels)
        return F.cross_entropy(self.net(theta, batch.x), batch.y)

    def value(self, unroll, steps, images=None, alpha=ALPHA):
        """Return the loss of trajectory matching."""
        images = self.images if images is None else images
        end = unroll(self.loss, images, self.start, torch.as_tensor(alpha, dtype=torch.float64), steps)
        return (end - self.target).square().sum() / (self.start - self.target).square().sum()

    def gradient(self, unroll, steps, alpha=ALPHA):
        """Return (loss, gradient of the images, of alpha)."""
        images, alpha = self.images.clone().requires_grad_(True), torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
        loss = self.value(unroll, steps, images, alpha)
        loss.backward()
        return loss.detach(), images.grad, alpha.grad


def naive(problem, steps, detach=False, alpha=ALPHA):
    """The loss and its gradients, written out; `detach` freezes the places where gradients are taken."""
    images, alpha = problem.images.clone().requires_grad_(True), torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    theta = problem.start.clone()
    for i in range(steps):
        at = theta.detach().requires_grad_(True) if detach or not theta.requires_grad else theta
        (g,) = torch.autograd.grad(problem.loss(i, at, images), at, create_graph=True)
        theta = theta - alpha * g
    loss = (theta - problem.target).square().sum() / (problem.start - problem.target).square().sum()
    return loss.detach(), *torch.autograd.grad(loss, (images, alpha))


def close(found, expected, tolerance=1e-12):
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= tolerance * max(1.0, other.abs().max().item())


@pytest.mark.parametrize(("batch", "steps"), [(None, 4), (3, 7), (2, 3), (100, 2)])
@pytest.mark.parametrize("policy", ["oneof", "none"])
@pytest.mark.parametrize("name", ["convnet2_in_w4", "convnet2_bn_w4"])
def test_the_exact_ways_are_one(batch, steps, policy, name):
    problem = Problem(batch, policy, name)
    expected = naive(problem, steps)
    assert expected[1].abs().max() > 1e-4 and expected[2].abs() > 1e-4
    for unroll in UNROLLS.values():
        close(problem.gradient(unroll, steps), expected)
    assert set(UNROLLS.values()) == {full, checkpoint, adjoint}


@pytest.mark.parametrize("unroll", [full, checkpoint, adjoint])
def test_finite_differences_agree(unroll):
    problem = Problem(3, "oneof", "convnet2_in_w4_sigmoid")
    steps, eps = 5, 1e-5
    _, of_images, of_alpha = problem.gradient(unroll, steps)
    rise = (problem.value(full, steps, alpha=ALPHA + eps) - problem.value(full, steps, alpha=ALPHA - eps)) / (2 * eps)
    assert of_alpha.item() == pytest.approx(rise.item(), rel=1e-6)
    strongest = of_images.abs().flatten().topk(4).indices
    for place in [*strongest.tolist(), 0, 200]:
        moved = []
        for sign in (1, -1):
            images = problem.images.clone()
            images.view(-1)[place] += sign * eps
            moved.append(problem.value(full, steps, images))
        assert of_images.view(-1)[place].item() == pytest.approx(((moved[0] - moved[1]) / (2 * eps)).item(), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("unroll", [full, checkpoint, adjoint, frozen])
def test_a_gradient_reaches_a_start_that_asks_for_it(unroll):
    problem = Problem()
    start = problem.start.clone().requires_grad_(True)
    end = unroll(problem.loss, problem.images, start, torch.tensor(ALPHA, dtype=torch.float64), 3)
    (found,) = torch.autograd.grad(end @ problem.target, start)
    if unroll is frozen:
        assert torch.equal(found, problem.target)
    else:
        eps, way = 1e-6, problem.target / problem.target.norm()
        ends = [full(problem.loss, problem.images, problem.start + s * eps * way, torch.tensor(ALPHA), 3) for s in (1, -1)]
        assert (found @ way).item() == pytest.approx(((ends[0] - ends[1]) @ problem.target / (2 * eps)).item(), rel=1e-4)


@pytest.mark.parametrize("unroll", [full, checkpoint, adjoint, frozen])
def test_no_steps_is_a_loss_of_one(unroll):
    problem = Problem()
    assert problem.value(unroll, 0).item() == 1.0
    assert torch.equal(unroll(problem.loss, problem.images, problem.start, torch.tensor(ALPHA), 0), problem.start)


@pytest.mark.parametrize("unroll", [full, checkpoint, adjoint, frozen])
def test_without_a_step_size_images_get_no_gradient_but_the_step_size_does(unroll):
    problem = Problem()
    loss, of_images, of_alpha = problem.gradient(unroll, 4, alpha=0.0)
    assert loss.item() == 1.0 and of_images.abs().max() == 0 and of_alpha.abs() > 1e-6
    small, large = (problem.gradient(unroll, 4, alpha=alpha)[1].norm() for alpha in (1e-6, 1e-3))
    assert 0 < small < 0.01 * large


@pytest.mark.parametrize(("batch", "steps"), [(None, 3), (3, 7)])
@pytest.mark.parametrize("name", ["convnet2_in_w4", "convnet2_in_w4_sigmoid"])
def test_teslas_gradient_is_its_formula(batch, steps, name):
    """Section 3.1 of the paper: v = alpha (theta* - theta_0) + alpha^2 G, and 2 v / D times the Jacobian of each g_i."""
    problem = Problem(batch, name=name)
    found = problem.gradient(frozen, steps)
    close(found, naive(problem, steps, detach=True))
    thetas, gradients = [problem.start], []
    for i in range(steps):
        at = thetas[-1].clone().requires_grad_(True)
        gradients.append(torch.autograd.grad(problem.loss(i, at, problem.images), at)[0])
        thetas.append(thetas[-1] - ALPHA * gradients[-1])
    total, way = sum(gradients), problem.target - problem.start
    distance = way.square().sum()
    v = ALPHA * way + ALPHA**2 * total
    of_images = torch.zeros_like(problem.images)
    for i in range(steps):
        x, at = problem.images.clone().requires_grad_(True), thetas[i].clone().requires_grad_(True)
        (g,) = torch.autograd.grad(problem.loss(i, at, x), at, create_graph=True)
        of_images += torch.autograd.grad(2 * (v * g).sum() / distance, x)[0]
    of_alpha = 2 / distance * (ALPHA * total @ total + way @ total)
    close(found, ((thetas[-1] - problem.target).square().sum() / distance, of_images, of_alpha))
    exact = problem.gradient(adjoint, steps)
    close(found[:1], exact[:1])
    assert (found[1] - exact[1]).norm() > 0.01 * exact[1].norm(), "it is not MTT's gradient"
    assert (found[2] - exact[2]).abs() > 1e-3 * exact[2].abs()


def test_the_two_gradients_meet_where_the_steps_are_small():
    problem = Problem()
    gaps = []
    for alpha in (1e-1, 1e-3):
        (_, one, _), (_, other, _) = problem.gradient(frozen, 5, alpha), problem.gradient(full, 5, alpha)
        gaps.append(((one - other).norm() / other.norm()).item())
    assert gaps[1] < 0.02 * gaps[0]


def test_the_factor_is_of_the_images_only():
    problem = Problem()
    whole = problem.gradient(frozen, 4)
    half = problem.gradient(lambda *args: frozen(*args, factor=0.5), 4)
    assert torch.equal(half[1], whole[1] * 0.5)
    assert torch.equal(half[0], whole[0]) and torch.equal(half[2], whole[2])


@pytest.mark.parametrize("unroll", [full, checkpoint, adjoint, frozen])
def test_the_global_generator_is_left_alone(unroll):
    problem = Problem()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = problem.gradient(unroll, 3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(4)
    assert all(torch.equal(one, other) for one, other in zip(first, problem.gradient(unroll, 3), strict=True))


class Box:
    def __init__(self, tensor):
        self.tensor = tensor


@pytest.mark.parametrize("unroll", [full, adjoint, frozen])
def test_what_stays_alive_between_the_passes(unroll):
    """`full` holds the graph of every step, the others one parameter vector; for `checkpoint` see benchmarks/unroll_memory.py."""
    sizes, problem = {}, Problem(None, "none")
    for steps in (2, 8):
        held = []

        def pack(tensor, held=held):
            box = Box(tensor)
            held.append(weakref.ref(box))
            return box

        images = problem.images.clone().requires_grad_(True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
            end = unroll(problem.loss, images, problem.start, torch.tensor(ALPHA, dtype=torch.float64, requires_grad=True), steps)
        alive = {box.tensor.data_ptr(): box.tensor.numel() for box in (ref() for ref in held) if box is not None}
        sizes[steps] = sum(alive.values())
        end.sum().backward()
    grown = (sizes[8] - sizes[2]) / 6
    assert grown > 3 * problem.net.size if unroll is full else grown == problem.net.size
