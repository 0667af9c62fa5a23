"""M3D's loss against loops over pairs of images, in float64."""

import math

import pytest
import torch

from dd import networks
from dd.objectives.distribution import MeanMatch
from dd.objectives.mmd import BLOCK, MMD, squared_mmd
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
    width = width if attached else float(width)
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


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_class_has_no_gradient_from_another(kernel):
    synthetic, real = features(0, M).requires_grad_(True), features(1, K)
    (gradient,) = torch.autograd.grad(squared_mmd(synthetic, real, kernel)[1], synthetic)
    assert gradient[0].abs().max() == gradient[2].abs().max() == 0 < gradient[1].abs().max()


@pytest.mark.parametrize("kernel", KERNELS)
def test_equal_features_have_neither_loss_nor_nan(kernel):
    synthetic = torch.full((2, 3, 4), 0.7, requires_grad=True)
    found = squared_mmd(synthetic, torch.full((2, 5, 4), 0.7), kernel)
    found.sum().backward()
    assert found.abs().max() < 1e-5 and synthetic.grad.isfinite().all()


def test_float32_is_accurate_where_features_nearly_coincide():
    real = 3 + torch.randn(1, 20, 2048, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    synthetic = real[:, :8] + 1e-3
    exact = squared_mmd(synthetic, real, "gaussian")
    assert math.isclose(float(squared_mmd(synthetic.float(), real.float(), "gaussian")), float(exact), abs_tol=1e-5)


class Fixed:
    def __init__(self, synthetic, real):
        self.batch = synthetic, real

    def pair(self, net=None):
        return self.batch


def test_with_the_linear_kernel_it_is_dms_loss():
    classes = BLOCK + 3  # more than one block
    net = networks.build("convnet3_in_w8", 1, (16, 16), classes, 0, "t").double().requires_grad_(False)
    g = torch.Generator().manual_seed(0)
    grads, losses = [], []
    x = torch.randn(2 * classes, 1, 16, 16, dtype=torch.float64, generator=g)
    real = Batch(torch.randn(3 * classes, 1, 16, 16, dtype=torch.float64, generator=g), torch.arange(classes).repeat_interleave(3))
    for term in (MMD(classes, "linear"), MeanMatch(classes)):
        images = x.clone().requires_grad_(True)
        loss = term(Fixed(Batch(images, torch.arange(classes).repeat_interleave(2)), real), net)
        loss.backward()
        losses.append(loss.detach())
        grads.append(images.grad)
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-12)
