"""IDM's loss against a loop over classes and images, in float64."""

import pytest
import torch

from dd import networks
from dd.objectives.classify import MatchAndClassify
from dd.parameterizations.multiformation import MultiFormation
from dd.types import Batch

CLASSES, M, K = 3, 4, 5


class Fixed:
    def __init__(self, synthetic, real):
        self.batch = synthetic, real

    def pair(self, net=None):
        return self.batch


def naive(net, x, real, weight):
    """Return the loss of one class after the other, image by image."""
    total = 0.0
    for c in range(CLASSES):
        mine, theirs = x[c * M : (c + 1) * M], real[c * K : (c + 1) * K]
        means = [sum(net.embed(images[i : i + 1])[0] for i in range(len(images))) / len(images) for images in (mine, theirs)]
        total = total + ((means[0] - means[1].detach()) ** 2).sum()
        for i in range(M):
            logits = net(mine[i : i + 1])[0]
            total = total + weight / M * (torch.log(torch.exp(logits).sum()) - logits[c])
    return total


def case(name, channels=1, side=16):
    net = networks.build(name, channels, (side, side), CLASSES, 0, "t").double().eval().requires_grad_(False)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(CLASSES * M, channels, side, side, dtype=torch.float64, generator=g)
    return net, x, torch.randn(CLASSES * K, channels, side, side, dtype=torch.float64, generator=g)


@pytest.mark.parametrize("weight", [0.0, 0.5, 30.0])
@pytest.mark.parametrize("name", ["convnet3_in_w8", "convnet3_bn_w8"])
def test_value_and_pixel_gradient_equal_the_loop(name, weight):
    net, x, real = case(name)
    results = []
    for loss_of in (
        lambda images: MatchAndClassify(CLASSES, lambda: torch.tensor(weight))(
            Fixed(Batch(images, torch.arange(CLASSES).repeat_interleave(M)), Batch(real, torch.arange(CLASSES).repeat_interleave(K))), net
        ),
        lambda images: naive(net, images, real, weight),
    ):
        images = x.clone().requires_grad_(True)
        loss = loss_of(images)
        loss.backward()
        results.append((loss.detach(), images.grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-8, atol=1e-12)


def test_a_class_has_no_gradient_from_another():
    net, x, real = case("convnet3_in_w8")
    other = real.clone()
    other[:K] += 1.0  # the target of class 0
    grads = []
    for target in (real, other):
        images = x.clone().requires_grad_(True)
        labels = torch.arange(CLASSES)
        term = MatchAndClassify(CLASSES, lambda: torch.tensor(1.0))
        term(Fixed(Batch(images, labels.repeat_interleave(M)), Batch(target, labels.repeat_interleave(K))), net).backward()
        grads.append(images.grad)
    assert torch.equal(grads[0][M:], grads[1][M:]) and not torch.equal(grads[0][:M], grads[1][:M])


def enlarged(part, size):
    """Return a float64 (c, h, w) part as (c, size, size), by the formula of bilinear interpolation, a pixel at a time."""
    _, h, w = part.shape

    def two(pixel, side):
        at = max((pixel + 0.5) * side / size - 0.5, 0.0)
        low = min(int(at), side - 1)
        return low, min(low + 1, side - 1), at - int(at)

    rows = []
    for i in range(size):
        top, bottom, down = two(i, h)
        row = []
        for j in range(size):
            left, right, across = two(j, w)
            above = (1 - across) * part[:, top, left] + across * part[:, top, right]
            below = (1 - across) * part[:, bottom, left] + across * part[:, bottom, right]
            row.append((1 - down) * above + down * below)
        rows.append(torch.stack(row, 1))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("weight", [0.5, 0.5 * 60.0])  # plain, and of a network that is right in 60 of 100 cases
def test_the_gradient_of_stored_pixels_equals_the_loop_at_both_factors(factor, weight):
    net, _, real = case("convnet3_in_w8")
    stored = torch.randn(CLASSES * (M // factor**2), 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(CLASSES).repeat_interleave(M // factor**2)

    formation = MultiFormation(stored, labels, 0.2, factor=factor, order="columns")
    index = torch.arange(len(labels))
    batch = Batch(formation.decode(index), formation.labels(index))
    loss = MatchAndClassify(CLASSES, lambda: torch.tensor(weight))(
        Fixed(batch, Batch(real, torch.arange(CLASSES).repeat_interleave(K))), net
    )
    loss.backward()

    pixels, half = stored.clone().requires_grad_(True), 16 // factor
    corners = [(top, left) for left in range(0, 16, half) for top in range(0, 16, half)]
    decoded = torch.stack([enlarged(one[:, top : top + half, left : left + half], 16) for one in pixels for top, left in corners])
    wanted = naive(net, decoded, real, weight)
    wanted.backward()
    torch.testing.assert_close(loss.detach(), wanted.detach(), rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(formation.images.grad, pixels.grad, rtol=1e-7, atol=1e-12)
