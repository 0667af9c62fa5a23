"""A network as a function of a flat vector equals the module with these parameters."""

import pytest
import torch

from dd import networks
from dd.train.functional import Flat


def build(name, seed):
    return networks.build(name, 3, (8, 8), 5, seed).double()


@pytest.mark.parametrize("name", ["convnet2_in_w4", "convnet2_bn_w4", "convnet2_none_w4", "mlp_w32", "resnet10_in_w8"])
def test_it_is_the_network_with_these_parameters(name):
    size = (networks.smallest(name),) * 2 if networks.smallest(name) > 8 else (8, 8)
    nets = [networks.build(name, 3, size, 5, seed).double() for seed in (0, 1)]
    flat, theta = Flat(nets[0]), torch.cat([p.detach().flatten() for p in nets[1].parameters()])
    x = torch.randn(3, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flat.flatten(nets[1]), theta) and flat.size == len(theta)
    assert all(torch.equal(flat.unflatten(theta)[key], p) for key, p in nets[1].named_parameters())
    for train in (True, False):
        assert (flat(theta, x, train=train) - nets[1].train(train)(x)).abs().max() < 1e-12 or (not train and flat.remembers)


def test_gradients_reach_the_vector_and_the_images():
    net = build("convnet2_in_w4", 0)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    flat = Flat(net)
    theta = flat.flatten(net).requires_grad_(True)
    found = torch.autograd.grad(flat(theta, x).square().sum(), (theta, x))
    own = torch.autograd.grad(net(x).square().sum(), [*net.parameters(), x])
    assert torch.allclose(found[0], torch.cat([g.flatten() for g in own[:-1]]), atol=1e-12)
    assert torch.allclose(found[1], own[-1], atol=1e-12)


def test_a_call_leaves_no_trace():
    net = build("convnet2_bn_w4", 0)
    flat, before = Flat(net), {name: value.clone() for name, value in net.state_dict().items()}
    theta, x = flat.flatten(net) + 1, torch.randn(4, 3, 8, 8, dtype=torch.float64)
    assert flat.remembers and not Flat(build("convnet2_in_w4", 0)).remembers
    first = flat(theta, x)
    assert torch.equal(first, flat(theta, x))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    labels = flat(theta, x, train=False)
    assert not torch.allclose(first, labels), "eval mode looks at the running statistics"
    assert torch.equal(first, flat(theta, x)), "and students are back in train mode"


def test_another_length_is_refused():
    flat = Flat(build("convnet2_in_w4", 0))
    with pytest.raises(ValueError, match=rf"shape \({flat.size},\)"):
        flat(torch.zeros(flat.size + 1, dtype=torch.float64), torch.zeros(1, 3, 8, 8, dtype=torch.float64))
