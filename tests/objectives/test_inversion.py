"""Inversion of a network: against a naive float64 version, value and gradient; and that blocks do not see each other."""

import math

import pytest
import torch
from torch import nn

from dd import networks
from dd.errors import ConfigError
from dd.objectives.inversion import Inversion, deviation, norms, recorded
from dd.types import Batch


class Shown:
    """Batches with the views that a test gives."""

    def __init__(self, images, labels, blocks, views):
        self._batch, self._blocks, self._views = Batch(images, labels), blocks, views

    def synthetic(self, n=None):
        return self._batch

    def blocks(self):
        yield from zip(self._blocks, self._views, strict=True)


def small(dtype=torch.float64):
    """Return two convolutions with batch normalisation whose statistics, scales and shifts are not those of the start."""
    g = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=g).abs() + 0.1 if tensor.ndim == 1 else torch.randn(tensor.shape, generator=g))
    return net.to(dtype).eval().requires_grad_(False)


def naive(net, images, labels, blocks, views, weight, first):
    """Return the loss, image by image and channel by channel, from the definition."""
    conv1, bn1, _, conv2, bn2, _, head = net
    total = 0
    for block, view in zip(blocks, views, strict=True):
        x = view(images[block])
        h1 = conv1(x)
        a1 = torch.relu((h1 - bn1.running_mean.view(1, -1, 1, 1)) / (bn1.running_var.view(1, -1, 1, 1) + bn1.eps).sqrt()
                        * bn1.weight.view(1, -1, 1, 1) + bn1.bias.view(1, -1, 1, 1))  # fmt: skip
        h2 = conv2(a1)
        a2 = ((h2 - bn2.running_mean.view(1, -1, 1, 1)) / (bn2.running_var.view(1, -1, 1, 1) + bn2.eps).sqrt()
              * bn2.weight.view(1, -1, 1, 1) + bn2.bias.view(1, -1, 1, 1))  # fmt: skip
        logits = a2.flatten(1) @ head.weight.T + head.bias
        for row, label in zip(logits, labels[block], strict=True):
            total = total + (row.exp().sum().log() - row[label]) / len(block)
        for h, bn, m in ((h1, bn1, first), (h2, bn2, 1.0)):
            means, variances = 0, 0
            for c in range(h.shape[1]):
                values = h[:, c].reshape(-1)
                mean = values.sum() / len(values)
                means = means + (mean - bn.running_mean[c]) ** 2
                variances = variances + (((values - mean) ** 2).sum() / len(values) - bn.running_var[c]) ** 2
            total = total + weight * m * (means**0.5 + variances**0.5)
    return total


@pytest.mark.parametrize(("weight", "first"), [(0.3, 10.0), (2.0, 1.0), (0.0, 10.0)])
def test_value_and_gradient_are_those_of_the_definition(weight, first):
    g = torch.Generator().manual_seed(1)
    net, labels = small(), torch.tensor([0, 1, 2, 3, 4, 4])
    blocks = [torch.tensor([0, 2, 5]), torch.tensor([4, 1, 3])]
    views = [lambda x: x.flip(3), lambda x: x.roll(1, 2) * 2]
    images = torch.randn(6, 2, 6, 6, generator=g, dtype=torch.float64)
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    term = Inversion(weight, first)
    loss = term(Shown(ours * 1.5, labels, blocks, views), net)  # what decodes the images has a gradient of its own
    expected = naive(net, theirs * 1.5, labels, blocks, views, weight, first)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    (3 * loss).backward()
    (3 * expected).backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
    assert ours.grad.abs().sum() > 0
    assert loss.item() == pytest.approx(2 * (term.facts["cross_entropy"] + weight * term.facts["deviation"]).item())


def test_statistics_are_of_the_input_biased_and_the_network_is_left_as_it_was():
    net, x = small(), torch.randn(3, 2, 6, 6, dtype=torch.float64)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    layers = norms(net)
    with recorded(layers) as seen:
        net(x)
    values = net[0](x).transpose(0, 1).flatten(1)
    assert torch.allclose(seen[0][0], values.mean(1)) and torch.allclose(seen[0][1], values.var(1, unbiased=False))
    assert not torch.allclose(seen[0][1], values.var(1))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(layer._forward_pre_hooks for layer in layers)


def test_what_matches_is_at_no_distance_and_has_a_finite_gradient():
    net = nn.Sequential(nn.BatchNorm2d(2)).eval()
    x = torch.tensor([[[[-1.0, 1.0]], [[1.0, -1.0]]]], requires_grad=True)  # mean 0 and variance 1, as a new layer remembers
    layers = norms(net)
    with recorded(layers) as seen:
        net(x)
    value = deviation(layers, seen, 10.0)
    value.backward()
    assert value.item() == 0 and bool(x.grad.isfinite().all())
    layers[0].running_mean += torch.tensor([3.0, 4.0])
    assert deviation(layers, seen, 10.0).item() == pytest.approx(50.0), "a norm that is not squared, ten times"


def test_blocks_do_not_see_each_other():
    net, labels = small(), torch.tensor([0, 1, 2, 3])
    blocks, views = [torch.tensor([0, 1]), torch.tensor([2, 3])], [lambda x: x] * 2
    gradients = []
    for other in (0.0, 5.0):
        x = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        x[2:] += other
        x.requires_grad_()
        Inversion(0.5, 10.0)(Shown(x, labels, blocks, views), net).backward()
        gradients.append(x.grad)
    assert torch.equal(gradients[0][:2], gradients[1][:2]) and not torch.equal(gradients[0][2:], gradients[1][2:])


def test_the_first_layer_is_the_stems_and_a_resnet_has_twenty():
    net = networks.build("resnet18_bn_w8", 1, (16, 16), 10, 0)
    layers = norms(net)
    assert len(layers) == 20 and layers[0] is net.blocks[0][1]
    with pytest.raises(ConfigError, match="no batch normalisation"):
        norms(networks.build("convnet3_in_w8", 1, (16, 16), 10, 0))


def test_a_teacher_that_diverged_gives_no_number():
    net = small()
    net[1].running_var[0] = math.nan
    loss = Inversion(0.1, 10.0)(Shown(torch.zeros(2, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1]), [torch.arange(2)], [lambda x: x]), net)
    assert not loss.isfinite()
