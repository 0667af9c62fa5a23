"""M3D's loss against loops over pairs of images, in float64."""

import math

import pytest
import torch

from dd import networks
from dd.objectives.distribution import MeanMatch
from dd.objectives.mmd import MMD, squared_mmd
from dd.types import Batch

CLASSES, M, K, D = 3, 4, 5, 6
KERNELS = ("gaussian", "linear", "polynomial", "laplace")


def distance(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def naive(synthetic, real, kernel, attached=False):
    """Return the loss of one class, of lists of lists of 0-dim tensors; the width is a constant unless attached."""
    both = synthetic + real
    width = sum(distance(a, b) for a in both for b in both) / (len(both) ** 2 - len(both))
    width = width if attached else width.detach()
    k = {
        "gaussian": lambda a, b: sum(torch.exp(-distance(a, b) / (width * q)) for q in (0.25, 0.5, 1, 2, 4)),
        "linear": dot,
        "polynomial": lambda a, b: (dot(a, b) + 1) ** 2,
        "laplace": lambda a, b: sum(torch.exp(-g * distance(a, b)) for g in (0.1, 1, 5)),
    }[kernel]

    def block(one, other):
        return sum(k(a, b) for a in one for b in other) / (len(one) * len(other))

    return block(synthetic, synthetic) - 2 * block(synthetic, real) + block(real, real)


def features(seed, n, scale=0.5):
    return scale * torch.randn(CLASSES, n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rows(x):
    return [[x[i, j] for j in range(x.shape[1])] for i in range(x.shape[0])]


@pytest.mark.parametrize("kernel", KERNELS)
def test_value_and_gradient_equal_the_loop(kernel):
    synthetic, real = features(0, M).requires_grad_(True), features(1, K) + 0.3
    found = squared_mmd(synthetic, real, kernel)
    (gradient,) = torch.autograd.grad(found.sum(), synthetic)
    other = synthetic.detach().clone().requires_grad_(True)
    expected = torch.stack([naive(rows(other[c]), rows(real[c]), kernel) for c in range(CLASSES)])
    (wanted,) = torch.autograd.grad(expected.sum(), other)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)
    assert (found > 0).all() and gradient.abs().max() > 1e-4


def test_an_attached_width_would_have_another_gradient():
    synthetic, real = features(0, M).requires_grad_(True), features(1, K) + 0.3
    grads = []
    for attached in (False, True):
        loss = sum(naive(rows(synthetic[c]), rows(real[c]), "gaussian", attached) for c in range(CLASSES))
        grads.append(torch.autograd.grad(loss, synthetic)[0])
    assert (grads[0] - grads[1]).abs().max() > 0.01 * grads[0].abs().max()


@pytest.mark.parametrize("d", [4, 2048])
@pytest.mark.parametrize("value", [0.0, 1e-21, 0.7, 3.1])
@pytest.mark.parametrize("kernel", KERNELS)
def test_equal_features_have_neither_loss_nor_nan(kernel, value, d):
    for m, k in ((1, 5), (3, 5), (4, 32)):
        synthetic = torch.full((2, m, d), value, requires_grad=True)
        found = squared_mmd(synthetic, torch.full((2, k, d), value), kernel)
        found.sum().backward()
        # the polynomial is no function of differences: three sums of d products, squared, agree to the rounding of such sums only
        rounding = 8 * d**0.5 * 1.2e-7 * (d * value**2 + 1) ** 2 if kernel == "polynomial" else 1e-6
        assert found.abs().max() <= rounding and synthetic.grad.isfinite().all()
        assert kernel == "polynomial" or synthetic.grad.abs().max() < 1e-6


@pytest.mark.parametrize("spread", [1.0, 0.01, 1e-3])
@pytest.mark.parametrize("kernel", ["gaussian", "laplace"])
def test_float32_is_accurate_where_features_nearly_coincide(kernel, spread):
    """As behind ReLUs: a large common offset, small differences, and pairs that are closer still."""
    real = 3 + spread * torch.randn(1, 20, 2048, generator=torch.Generator().manual_seed(0))
    synthetic = (real[:, :8] + 0.1 * spread).requires_grad_(True)
    found = squared_mmd(synthetic, real, kernel)
    (gradient,) = torch.autograd.grad(found.sum(), synthetic)
    exact = synthetic.detach().double().requires_grad_(True)
    expected = torch.stack([vectorised(exact[0], real[0].double(), kernel)])
    (wanted,) = torch.autograd.grad(expected.sum(), exact)
    tolerance = 1e-5 if kernel == "gaussian" else 5e-3  # fixed widths far below the spread see the rounding of the diagonal
    assert math.isclose(found.item(), expected.item(), rel_tol=tolerance)
    assert (gradient - wanted).norm() < tolerance * wanted.norm()


def vectorised(synthetic, real, kernel):
    """Return the loss of one class from differences of features, which lose nothing."""
    both = torch.cat([synthetic, real])
    distances = torch.stack([(row - both).square().sum(1) for row in both])
    n, m = len(both), len(synthetic)
    width = distances.sum().detach() / (n * n - n)
    rates = [1 / (width * q) for q in (0.25, 0.5, 1, 2, 4)] if kernel == "gaussian" else [0.1, 1, 5]
    k = sum(torch.exp(-distances * rate) for rate in rates)
    return k[:m, :m].mean() - 2 * k[:m, m:].mean() + k[m:, m:].mean()


class Fixed:
    def __init__(self, synthetic, real):
        self.batch = synthetic, real

    def pair(self, net=None):
        return self.batch


def batches(classes, m, k, dtype=torch.float64):
    """Return synthetic pixels, a way to make batches of them and fixed real images, sorted by class."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(classes * m, 1, 16, 16, dtype=dtype, generator=g)
    real = Batch(torch.randn(classes * k, 1, 16, 16, dtype=dtype, generator=g), torch.arange(classes).repeat_interleave(k))
    return x, lambda images: Fixed(Batch(images, torch.arange(classes).repeat_interleave(m)), real)


def network(classes, name="convnet3_in_w8"):
    return networks.build(name, 1, (16, 16), classes, 0, "t").double().requires_grad_(False)


@pytest.mark.parametrize("kernel", KERNELS)
def test_value_and_pixel_gradient_equal_the_loop(kernel):
    net = network(CLASSES)
    x, of = batches(CLASSES, 2, 3)
    images, others = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    found = MMD(CLASSES, kernel)(of(images), net)
    _, real = of(x).pair()
    expected = sum(looped(net, others[2 * c : 2 * c + 2], real.x[3 * c : 3 * c + 3], kernel) for c in range(CLASSES))
    found.backward()
    expected.backward()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(images.grad, others.grad, rtol=1e-7, atol=1e-9 * float(others.grad.abs().max()))
    assert others.grad.abs().max() > 0


def looped(net, synthetic, real, kernel):
    """Return the loss of one class, an image and a pair at a time."""
    one, other = ([net.embed(image.unsqueeze(0))[0] for image in images] for images in (synthetic, real))
    both = one + other
    width = sum((a - b).square().sum() for a in both for b in both).detach() / (len(both) ** 2 - len(both))
    k = {
        "gaussian": lambda a, b: sum(torch.exp(-(a - b).square().sum() / (width * q)) for q in (0.25, 0.5, 1, 2, 4)),
        "linear": lambda a, b: a @ b,
        "polynomial": lambda a, b: (a @ b + 1) ** 2,
        "laplace": lambda a, b: sum(torch.exp(-g * (a - b).square().sum()) for g in (0.1, 1, 5)),
    }[kernel]

    def block(left, right):
        return sum(k(a, b) for a in left for b in right) / (len(left) * len(right))

    return block(one, one) - 2 * block(one, other) + block(other, other)


@pytest.mark.parametrize("name", ["convnet3_in_w8", "convnet3_bn_w8"])
def test_a_class_has_no_gradient_from_the_pixels_of_another(name):
    """Other real images of class 1 change the gradient of class 1 alone, bit for bit, with batch statistics too."""
    net = network(CLASSES, name).train()
    x, of = batches(CLASSES, 2, 3)
    grads = []
    for add in (0.0, 1.0):
        images = x.clone().requires_grad_(True)
        fixed = of(images)
        fixed.batch[1].x[3:6] += add
        MMD(CLASSES)(fixed, net).backward()
        grads.append(images.grad.view(CLASSES, 2, -1))
    assert torch.equal(grads[0][0], grads[1][0]) and torch.equal(grads[0][2], grads[1][2])
    assert not torch.equal(grads[0][1], grads[1][1])
    assert (grads[0].abs().amax((1, 2)) > 0).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_loss_of_a_class_has_no_gradient_at_the_features_of_another(kernel):
    synthetic, real = features(0, M).requires_grad_(True), features(1, K)
    (gradient,) = torch.autograd.grad(squared_mmd(synthetic, real, kernel)[1], synthetic)
    assert gradient[0].abs().max() == gradient[2].abs().max() == 0 < gradient[1].abs().max()


def test_with_the_linear_kernel_it_is_dms_loss():
    net = network(CLASSES)
    x, of = batches(CLASSES, 2, 3)
    grads, losses = [], []
    for term in (MMD(CLASSES, "linear"), MeanMatch(CLASSES)):
        images = x.clone().requires_grad_(True)
        loss = term(of(images), net)
        loss.backward()
        losses.append(loss.detach())
        grads.append(images.grad)
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-12)
