"""CAFE's loss and its gradient against per-class loops in float64 that share no code with it, and what counts as a layer."""

import math

import pytest
import torch

from dd import networks
from dd.objectives import cafe
from dd.objectives.cafe import FeatureAlignment, class_means, layer_weights, layers
from dd.types import Batch

CONVNETS = ["convnet3_in_w4", "convnet3_bn_w4", "convnet2_in_w4_max", "convnet1_none_w4_sigmoid"]
OTHERS = ["convnet3_in_w4_nopool", "mlp_w16", "resnet18_in_w4", "resnet18_bn_w4", "vit_w24_d2"]


class Fixed:
    """Batches that are the same at every call."""

    def __init__(self, synthetic, real):
        self._pair = (synthetic, real)

    def pair(self, net=None):
        return self._pair


def images(classes, each, seed, channels=1, side=16):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(classes * each, channels, side, side, generator=g, dtype=torch.float64)
    return Batch(x, torch.arange(classes).repeat_interleave(each))


def network(name, classes=3, channels=1, side=16):
    return networks.build(name, channels, (side, side), classes, 0).double().requires_grad_(False)


def naive_features(name, net, x):
    """Return what is matched: before each pooling, after the last one, and flat; families without pooling: every stage, and flat."""
    found = []
    if name in CONVNETS:
        for block in net.blocks:
            x = block.activation(block.norm(block.conv(x)))
            found.append(x)
            x = block.pool(x)
        found.append(x)
    else:
        found = net.stages(x)
    return [*found, found[-1].reshape(len(x), -1)]


def naive_weights(count):
    return {3: [1, 1, 1], 4: [0.1, 1, 1, 1], 5: [0.1, 0.1, 1, 1, 1], 11: [0.1] * 8 + [1] * 3}[count]


def naive(name, net, synthetic, real, classes, beta):
    """Return (alignment, discrimination), one class, one image and one pair at a time."""
    seen_real, seen_syn = naive_features(name, net, real.x), naive_features(name, net, synthetic.x)
    alignment, centres = 0, []
    for weight, r, s in zip(naive_weights(len(seen_real)), seen_real, seen_syn, strict=True):
        centres = []
        for c in range(classes):
            rows_real = [r[i] for i in range(len(r)) if real.y[i] == c]
            rows_syn = [s[i] for i in range(len(s)) if synthetic.y[i] == c]
            centres.append(sum(rows_syn) / len(rows_syn))
            difference = sum(rows_real) / len(rows_real) - centres[-1]
            alignment = alignment + weight * (difference**2).sum()
    discrimination = 0
    for row, label in zip(seen_real[-1], real.y, strict=True):
        logits = [(row * centre).sum() for centre in centres]
        most = max(logit.item() for logit in logits)
        total = sum((logit - most).exp() for logit in logits)
        discrimination = discrimination - (logits[label] - most - total.log())
    return alignment, beta * discrimination


@pytest.mark.parametrize("beta", [0.01, 0.0, 3.0])
@pytest.mark.parametrize(
    ("name", "classes", "channels", "side"),
    [(name, 3, 1, 16) for name in CONVNETS[:3] + OTHERS]
    + [(CONVNETS[3], 4, 3, 8), ("convnet3_in_w4", 10, 1, 28), ("convnet3_bn_w4", 10, 1, 28), ("convnet3_in_w4", 3, 3, 32)],
)
def test_loss_and_pixel_gradient_equal_a_naive_loop(name, classes, channels, side, beta):
    net = network(name, classes, channels, side)
    synthetic, real = images(classes, 2, 0, channels, side), images(classes, 5, 1, channels, side)
    synthetic.x.requires_grad_(True)
    term = FeatureAlignment(classes, beta=beta)
    (gradient,) = torch.autograd.grad(term(Fixed(synthetic, real), net), synthetic.x)
    x = synthetic.x.detach().clone().requires_grad_(True)
    alignment, discrimination = naive(name, net, Batch(x, synthetic.y), real, classes, beta)
    (expected,) = torch.autograd.grad(alignment + discrimination, x)
    assert term.facts["alignment"].item() == pytest.approx(alignment.item(), rel=1e-10)
    assert term.facts["discrimination"].item() == pytest.approx(discrimination.item(), rel=1e-10, abs=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-12)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_the_loss_is_right_where_the_logits_are_large():
    net = network("convnet1_none_w4_sigmoid", side=8)
    with torch.no_grad():
        net.blocks[0].conv.weight.mul_(1e3)
    synthetic, real = images(3, 2, 0, side=8), images(3, 5, 1, side=8)
    term = FeatureAlignment(3, beta=1e4)
    assert math.isfinite(term(Fixed(synthetic, real), net))
    expected = naive("convnet1_none_w4_sigmoid", net, synthetic, real, 3, 1e4)[1].item()
    assert term.facts["discrimination"].item() == pytest.approx(expected, rel=1e-10)


# -- layers and their weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28)])
def test_the_released_layers_of_a_convnet3(channels, side):
    net = networks.build("convnet3_in", channels, (side, side), 10, 0)
    shapes = [tuple(f.shape) for f in layers(net, torch.randn(2, channels, side, side))]
    assert shapes == [(2, 128, 32, 32), (2, 128, 16, 16), (2, 128, 8, 8), (2, 128, 4, 4), (2, 2048)]
    assert layer_weights(5, 0.1) == [0.1, 0.1, 1, 1, 1]


def test_layers_of_other_depths_and_families():
    shapes = lambda name, side=16: [tuple(f.shape[1:]) for f in layers(network(name, side=side), images(1, 1, 0, side=side).x)]  # noqa: E731
    assert shapes("convnet1_in_w4") == [(4, 16, 16), (4, 8, 8), (256,)]
    assert shapes("convnet4_in_w4", 64) == [(4, 68, 68), (4, 34, 34), (4, 17, 17), (4, 8, 8), (4, 4, 4), (64,)]
    assert shapes("convnet2_in_w4_nopool") == [(4, 16, 16), (4, 16, 16), (1024,)]
    assert shapes("mlp_w16") == [(16,), (16,), (16,)]
    assert shapes("resnet18_in_w4")[-4:] == [(32, 2, 2), (32, 2, 2), (32,), (32,)]
    assert layer_weights(6, 0.1) == [0.1, 0.1, 0.1, 1, 1, 1]
    assert layer_weights(3, 0.1) == [1, 1, 1]
    assert layer_weights(4, 0.5) == [0.5, 1, 1, 1]


@pytest.mark.parametrize("name", networks.names())
def test_every_network_has_layers_that_end_in_its_embedding_and_keeps_no_hooks(name):
    side = max(32 if name.startswith("resnet") else 16, networks.smallest(name))
    net = networks.build(name, 1, (side, side), 3, 0).eval()
    x = torch.randn(2, 1, side, side)
    found = layers(net, x)
    assert torch.equal(found[-1], net.embed(x))
    assert torch.equal(found[-2], net.stages(x)[-1])
    assert not any(module._forward_pre_hooks for module in net.modules())
    assert len({id(f) for f in found[:-1]}) == len(found) - 1


# -- pieces, constants --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["convnet3_in_w4", "convnet3_bn_w4"])
def test_pieces_change_nothing(name, monkeypatch):
    net, forwarded = network(name, 4), []
    net.blocks[0].register_forward_hook(lambda module, given, made: forwarded.append(len(made)))

    def loss_and_gradient():
        forwarded.clear()
        synthetic, real = images(4, 2, 0), images(4, 6, 1)
        synthetic.x.requires_grad_(True)
        loss = FeatureAlignment(4)(Fixed(synthetic, real), net)
        return loss, *torch.autograd.grad(loss, synthetic.x), list(forwarded)

    loss, gradient, sizes = loss_and_gradient()
    assert sizes == [24, 8]
    monkeypatch.setattr(cafe, "PIECE", 5)
    again, gradient_again, sizes = loss_and_gradient()
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(gradient_again, gradient)
    assert sizes == ([6] * 4 + [4] * 4 if "_in" in name else [24, 8])  # and again for the backward pass


def test_means_of_pieces_are_those_of_their_classes(monkeypatch):
    monkeypatch.setattr(cafe, "PIECE", 4)
    net, batch = network("convnet2_in_w4", 5), images(5, 2, 0)
    means, embedded = class_means(net, batch.x, 5)
    assert torch.allclose(embedded, net.embed(batch.x))
    assert torch.allclose(means[-1], torch.stack([net.embed(batch.x[batch.y == c]).mean(0) for c in range(5)]))


def test_real_features_are_constants_and_the_cross_entropy_that_is_left_out_moves_no_pixel():
    net = network("convnet3_in_w4").requires_grad_(True)
    synthetic, real = images(3, 2, 0), images(3, 5, 1)
    synthetic.x.requires_grad_(True)
    real.x.requires_grad_(True)
    loss = FeatureAlignment(3)(Fixed(synthetic, real), net)
    assert torch.autograd.grad(loss, real.x, allow_unused=True, retain_graph=True) == (None,)
    own = torch.nn.functional.cross_entropy(net(real.x), real.y)
    assert torch.autograd.grad(own, synthetic.x, allow_unused=True) == (None,)


def test_further_facts_are_logged():
    term = FeatureAlignment(3, more=lambda: {"network": torch.tensor(7)})
    loss = term(Fixed(images(3, 2, 0), images(3, 5, 1)), network("mlp_w16"))
    assert set(term.facts) == {"alignment", "discrimination", "network"}
    assert loss.item() == pytest.approx(term.facts["alignment"].item() + term.facts["discrimination"].item())
    assert term.state_dict() == {}
