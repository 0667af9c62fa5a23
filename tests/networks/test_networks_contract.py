"""Every registered name keeps the contract of `dd.types.Network`."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dd import networks
from dd.errors import ConfigError
from dd.networks._layers import Dropout, reseed
from dd.plan.cost import flops
from dd.rng import stream

CLASSES = 7


def side_of(name: str) -> int:
    return max(16, networks.smallest(name))


def images(n: int = 3, channels: int = 3, side: int = 16) -> Tensor:
    return torch.randn(n, channels, side, side, generator=stream(0, "images"))


def make(name: str, seed: int = 0, channels: int = 3, side: int | None = None) -> nn.Module:
    side = side_of(name) if side is None else side
    return networks.build(name, channels, (side, side), CLASSES, seed, "test")


def without_dropout(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
    return network


@pytest.mark.parametrize("name", networks.names())
@pytest.mark.parametrize("channels", [1, 3])
def test_stages_embed_rear_and_forward_agree(name: str, channels: int) -> None:
    network, x = make(name, channels=channels), images(channels=channels, side=side_of(name))
    again = partial(reseed, network, 0, "masks")  # every call of a network with dropout has masks of its own
    (_, logits), (_, stages), (_, embedding) = (again(), network(x)), (again(), network.stages(x)), (again(), network.embed(x))
    assert logits.shape == (3, CLASSES)
    assert len(stages) >= 2
    assert embedding.ndim == 2
    torch.testing.assert_close(stages[-1].flatten(1), embedding, rtol=0, atol=0)
    torch.testing.assert_close(network.head(embedding), logits, rtol=0, atol=0)
    for index, stage in enumerate(stages):
        again()
        torch.testing.assert_close(network.rear(stage, index), logits, rtol=0, atol=0)
    for absent in (-1, len(stages)):
        with pytest.raises(ConfigError, match=f"0 to {len(stages) - 1}"):
            network.rear(stages[-1], absent)


@pytest.mark.parametrize("name", networks.names())
def test_every_parameter_and_the_images_get_a_gradient(name: str) -> None:
    network, x = make(name), images(side=side_of(name)).requires_grad_()
    reseed(network, 0, "masks")
    F.cross_entropy(network(x), torch.tensor([0, 1, 2])).backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        if parameter.ndim > 1:  # the bias of a convolution before a norm has none but rounding
            assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", networks.names())
def test_weights_are_a_function_of_the_seed_and_names(name: str) -> None:
    before = torch.get_rng_state()
    one, same, other = (make(name, seed).state_dict() for seed in (5, 5, 6))
    renamed = networks.build(name, 3, (side_of(name), side_of(name)), CLASSES, 5, "elsewhere").state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)
    assert not all(torch.equal(one[key], renamed[key]) for key in one)


@pytest.mark.parametrize("name", [name for name in networks.names() if networks.parse(name).get("norm") != "bn"])
def test_training_and_evaluation_agree_without_batch_norm_and_dropout(name: str) -> None:
    network, x = without_dropout(make(name)), images(side=side_of(name))
    assert not list(network.buffers())
    trained = network.train()(x)
    assert torch.equal(trained, network.eval()(x))
    torch.testing.assert_close(network(x[:1]), trained[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", networks.names())
def test_the_smallest_size_is_the_smallest(name: str) -> None:
    least = networks.smallest(name)
    network, x = without_dropout(make(name, side=least)), images(4, side=least)
    embedding = network.embed(x)
    assert embedding.isfinite().all()
    assert (embedding - embedding[0]).abs().max() > 1e-6  # it still sees something
    if least > 1:
        with pytest.raises(ConfigError, match=rf"{name}.*smallest size it takes is {least}x{least}"):
            make(name, side=least - 1)


@pytest.mark.parametrize("name", ["convnet3_in_w16_nopool", "convnet4_in", "resnet18_in_w16", "vit_w48_d4", "mlp_w32"])
def test_sides_may_differ(name: str) -> None:
    network = networks.build(name, 3, (16, 36), CLASSES, 0)
    assert network(torch.randn(2, 3, 16, 36, generator=stream(1))).shape == (2, CLASSES)


@pytest.mark.parametrize("name", ["convnet3_in_w16_leaky", "resnet18_in_w16", "mlp_w32", "vit_w48_d4"])
def test_second_derivatives_exist(name: str) -> None:
    network, x = make(name), images().requires_grad_()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = F.cross_entropy(network(x), torch.tensor([0, 1, 2]))
    gradients = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
    (again,) = torch.autograd.grad(sum((g**2).sum() for g in gradients), x)
    assert again.isfinite().all()
    assert again.abs().sum() > 0


@pytest.mark.parametrize("name", networks.names())
def test_the_planner_counts_operations_and_parameters_without_numbers(name: str) -> None:
    before, side = torch.get_rng_state(), side_of(name)
    operations, parameters = flops(name, 3, (side, side), CLASSES)
    assert torch.equal(torch.get_rng_state(), before)
    assert parameters == sum(p.numel() for p in make(name).parameters())
    matrices = sum(m.weight.numel() for m in make(name).modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    assert operations >= 2 * matrices  # each weight is used once at least
