"""Instance norm's own derivatives against torch's group norm, and against numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from dd import networks
from dd.fast import active, plain
from dd.networks._instance_norm import InstanceNorm

SHAPES = [(2, 3, 4, 6), (3, 2, 4, 4), (1, 5, 2, 2)]


class Pooled(InstanceNorm):
    """What a ConvNet's block does after its convolution."""

    def forward(self, x):
        return self.pooled(x) if self.takes(x) else F.avg_pool2d(super().forward(x).relu(), 2)


def case(shape, dtype=torch.float64, kind=InstanceNorm):
    generator = torch.Generator().manual_seed(0)
    norm = kind(shape[1]).to(dtype)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    x = torch.randn(shape, generator=generator, dtype=dtype) * 3 + 1
    return norm, x.to(memory_format=torch.channels_last).requires_grad_(True)


def derivatives(norm, x, seed=1):
    """Return output, first derivatives, and those of a random combination of the first ones."""
    generator = torch.Generator().manual_seed(seed)
    random = lambda like: torch.randn(like.shape, generator=generator, dtype=x.dtype)  # noqa: E731
    y = norm(x)
    g = random(y).requires_grad_(True)
    first = torch.autograd.grad(y, [x, norm.weight, norm.bias], g, create_graph=True)
    mixed = sum((one * random(one)).sum() for one in first)
    return [y, *first, *torch.autograd.grad(mixed, [x, g, norm.weight])]


@pytest.mark.parametrize("kind", [InstanceNorm, Pooled])
@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives_are_those_of_the_function(shape, kind):
    norm, x = case(shape, kind=kind)
    call = lambda x, weight, bias: functional_call(norm, {"weight": weight, "bias": bias}, (x,))  # noqa: E731
    assert torch.autograd.gradcheck(call, (x, norm.weight, norm.bias))
    assert torch.autograd.gradgradcheck(call, (x, norm.weight, norm.bias))


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 2e-4)])
@pytest.mark.parametrize("kind", [InstanceNorm, Pooled])
@pytest.mark.parametrize("shape", [*SHAPES, (5, 16, 16, 16), (2, 3, 32, 32)])
def test_both_paths_have_the_same_numbers(shape, kind, dtype, close):
    norm, x = case(shape, dtype, kind)
    fast = derivatives(norm, x)
    with plain():
        slow = derivatives(norm, x.detach().contiguous().requires_grad_(True))
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=close, atol=close)
    assert not all(torch.equal(one, other) for one, other in zip(fast, slow, strict=True)), "one path was taken twice"


def test_a_gradient_may_leave_some_out():
    norm, x = case((2, 3, 4, 4))
    (of_x,) = torch.autograd.grad(norm(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(of_x.square().sum(), x)
    with plain():
        (of_x,) = torch.autograd.grad(norm(x).square().sum(), x, create_graph=True)
        (expected,) = torch.autograd.grad(of_x.square().sum(), x)
    torch.testing.assert_close(second, expected)


def test_a_constant_channel_is_the_bias():
    norm, _ = case((2, 3, 4, 4))
    torch.testing.assert_close(norm(torch.full((2, 3, 4, 4), 7.0, dtype=torch.float64)), norm.bias.view(1, 3, 1, 1).expand(2, 3, 4, 4))


@pytest.mark.parametrize("size", [(16, 16), (12, 18), (15, 9)])
def test_a_convnet_is_the_same_on_both_paths_whatever_the_size(size):
    """Odd sides, which pooling cuts off, are not done in one; they come at 6 and 3 pixels here."""
    net = networks.build("convnet3_in_w8", 3, size, 5, 0).double()
    x = torch.randn(4, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fast = [net(x), *torch.autograd.grad(net(x).square().sum(), list(net.parameters()))]
    with plain():
        slow = [net(x), *torch.autograd.grad(net(x).square().sum(), list(net.parameters()))]
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_whoever_looks_between_norm_and_pooling_sees_what_is_there():
    net = networks.build("convnet3_in_w8", 1, (16, 16), 3, 0)
    x, seen = torch.randn(2, 1, 16, 16), []
    unseen = net(x)
    for block in net.blocks:
        block.pool.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    torch.testing.assert_close(net(x), unseen)
    assert [tuple(h.shape) for h in seen] == [(2, 8, 16, 16), (2, 8, 8, 8), (2, 8, 4, 4)] and all(h.min() == 0 for h in seen)


def test_it_is_group_norm_to_the_outside():
    norm = InstanceNorm(4)
    assert isinstance(norm, nn.GroupNorm) and set(norm.state_dict()) == {"weight", "bias"} and norm.num_groups == 4


def test_plain_ends_with_its_block_and_nests():
    x = torch.zeros(1, 1, 2, 2)
    assert active(x)
    with plain():
        with plain():
            assert not active(x)
        assert not active(x)
    with pytest.raises(ValueError), plain():
        raise ValueError
    assert active(x)
    assert not active(x.to("meta")), "shapes without numbers"


@pytest.mark.parametrize("side", [16, 32])
def test_a_mean_of_many_standard_deviations_loses_no_digits(side):
    """The kernel for this layout takes the variance as a difference of large numbers."""
    norm, _ = case((2, 4, side, side), torch.float32)
    x = torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(0)) + 100
    expected = nn.functional.instance_norm(x.double(), weight=norm.weight.double(), bias=norm.bias.double())
    torch.testing.assert_close(norm(x.to(memory_format=torch.channels_last)).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "channels", "wants_gradient", "last"),
    [
        ("convnet3_in_w8", 3, True, True),
        ("convnet3_in_w8", 1, False, False),
        ("convnet3_bn_w8", 3, False, True),
        ("convnet3_bn_w8", 3, True, False),
        ("resnet18_in_w8", 3, False, False),
    ],
)
def test_a_network_chooses_its_layout_and_keeps_it(name, channels, wants_gradient, last):
    net = networks.build(name, channels, (32, 32), 3, 0)
    x = torch.randn(2, channels, 32, 32, requires_grad=wants_gradient)
    assert all(h.is_contiguous(memory_format=torch.channels_last) == last for h in net.stages(x)[:2])
    with plain():
        assert all(h.is_contiguous() for h in net.stages(x)[:2])
