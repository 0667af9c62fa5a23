"""DM's loss and its gradient against a per-class loop in float64 that shares no code with it."""

import pytest
import torch

from dd import networks
from dd.objectives.distribution import MeanMatch, embed_in_chunks
from dd.types import Batch

NETWORKS = ["convnet3_in_w8", "convnet3_bn_w8", "resnet18_bn_w8", "resnet18_in_w8", "mlp_w16", "vit_w24_d2"]


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


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_loss_and_gradient_equal_a_naive_loop(name, training):
    net = networks.build(name, 1, (16, 16), 3, 0).double().train(training).requires_grad_(False)
    synthetic, real = batches()
    loss = MeanMatch(3)(Fixed(synthetic, real), net)
    (gradient,) = torch.autograd.grad(loss, synthetic.x)

    naive = torch.zeros((), dtype=torch.float64)
    x = synthetic.x.detach().clone().requires_grad_(True)
    f_real, f_syn = net.embed(real.x), net.embed(x)  # whole batches: batch statistics mix classes
    for c in range(3):
        rows_real = [f_real[i] for i in range(len(real.y)) if real.y[i] == c]
        rows_syn = [f_syn[i] for i in range(len(synthetic.y)) if synthetic.y[i] == c]
        for d in range(f_real.shape[1]):
            difference = sum(r[d] for r in rows_real) / len(rows_real) - sum(s[d] for s in rows_syn) / len(rows_syn)
            naive = naive + difference**2
    (expected,) = torch.autograd.grad(naive, x)
    assert loss.item() == pytest.approx(naive.item(), rel=1e-10)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-12)
    assert gradient.abs().sum() > 0


def test_a_class_does_not_move_the_pixels_of_another():
    net = networks.build("convnet3_in_w8", 1, (16, 16), 3, 0).double().requires_grad_(False)
    synthetic, real = batches()
    x = synthetic.x
    f_real, f_syn = net.embed(real.x).reshape(3, 5, -1).mean(1), net.embed(x).reshape(3, 2, -1).mean(1)
    (gradient,) = torch.autograd.grad((f_real[1] - f_syn[1]).square().sum(), x)
    total = MeanMatch(3)(Fixed(synthetic, real), net)
    (whole,) = torch.autograd.grad(total, x)
    assert gradient[:2].abs().max() == 0
    assert gradient[4:].abs().max() == 0
    torch.testing.assert_close(gradient[2:4], whole[2:4])


def test_dm_is_mmd_with_a_linear_kernel():
    net = networks.build("convnet3_in_w8", 1, (16, 16), 3, 0).double().requires_grad_(False)
    synthetic, real = batches()
    loss = MeanMatch(3)(Fixed(synthetic, real), net)
    mmd = 0.0
    for c in range(3):
        s, r = net.embed(synthetic.x[synthetic.y == c]), net.embed(real.x[real.y == c])
        mmd += (s @ s.T).mean() - 2 * (s @ r.T).mean() + (r @ r.T).mean()
    assert loss.item() == pytest.approx(mmd.item(), rel=1e-9)


def test_chunks_change_nothing_and_batch_statistics_are_never_chunked(monkeypatch):
    monkeypatch.setattr("dd.objectives.distribution.CHUNK", 4)
    x = torch.randn(10, 1, 16, 16, dtype=torch.float64)
    for name, training in (("convnet3_in_w8", True), ("convnet3_bn_w8", False), ("convnet3_bn_w8", True)):
        net = networks.build(name, 1, (16, 16), 3, 0).double().train(training)
        torch.testing.assert_close(embed_in_chunks(net, x), net.embed(x), rtol=1e-10, atol=1e-12)


def test_class_features_are_those_of_each_class_alone():
    from dd import networks
    from dd.objectives.distribution import class_features

    x = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for name in ("convnet3_bn_w32", "convnet3_in_w32"):
        net = networks.build(name, 1, (16, 16), 3, 0, "test").train()
        found = class_features(net, x, 3)
        for c in range(3):
            torch.testing.assert_close(found[c], net.embed(x[2 * c : 2 * c + 2]))


def test_pieces_have_the_gradient_of_the_whole(monkeypatch):
    from dd import networks
    from dd.objectives import distribution

    net = networks.build("convnet3_in_w32", 1, (16, 16), 3, 0, "test").requires_grad_(False)
    grads = []
    for chunk in (100, 2):
        monkeypatch.setattr(distribution, "CHUNK", chunk)
        x = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
        distribution.embed_in_chunks(net, x).square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)
