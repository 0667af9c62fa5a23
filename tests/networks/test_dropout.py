"""Dropout from named streams: which numbers it drops is a function of (seed, names), its place and the number of the call."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dd import networks
from dd.errors import ConfigError
from dd.networks._layers import Dropout, reseed
from dd.rng import stream
from dd.train.functional import Flat

ONES = torch.ones(50, 400)


def dropped(net: nn.Module, seed: int, *names: object, x: Tensor = ONES) -> Tensor:
    reseed(net, seed, *names)
    return net(x)


def test_masks_are_a_function_of_seed_names_place_and_call() -> None:
    first, second = Dropout(0.5), Dropout(0.5)
    net = nn.Sequential(first, nn.Linear(400, 400), second)
    expected = torch.rand(50, 400, generator=stream(3, "a", "epoch", 4, "dropout", 0)) >= 0.5
    masks = [expected]
    reseed(net, 3, "a", "epoch", 4)
    torch.testing.assert_close(first(ONES), 2.0 * expected, rtol=0, atol=0)
    masks += [second(ONES) > 0, first(ONES) > 0]  # another place, another call
    for seed, names in ((4, ("a", "epoch", 4)), (3, ("b", "epoch", 4)), (3, ("a", "epoch", 5))):
        reseed(net, seed, *names)
        masks.append(first(ONES) > 0)
    assert all(0.4 < (mask != other).float().mean() < 0.6 for i, mask in enumerate(masks) for other in masks[:i])
    assert torch.equal(dropped(net, 3, "x"), dropped(net, 3, "x"))
    assert torch.equal(dropped(copy.deepcopy(net), 3, "x"), dropped(net, 3, "x"))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_dropped_or_scaled_so_that_the_mean_stays(p: float, dtype: torch.dtype) -> None:
    x = torch.rand(400, 500, generator=stream(0), dtype=dtype) + 1
    found = dropped(Dropout(p), 0, p, x=x)
    assert found.dtype == dtype
    kept = found != 0
    torch.testing.assert_close(found[kept], x[kept] / (1 - p), rtol=4 * torch.finfo(dtype).eps, atol=0)
    assert kept.double().mean().item() == pytest.approx(1 - p, abs=0.005)
    assert found.mean().item() == pytest.approx(x.mean().item(), rel=0.02)
    assert kept.double().mean(0).std() < 0.05  # no unit and no image is always dropped
    assert kept.double().mean(1).std() < 0.05


def test_gradients_go_where_numbers_were_kept() -> None:
    x = torch.randn(4, 30, generator=stream(1)).requires_grad_()
    found = dropped(Dropout(0.25), 0, x=x)
    found.sum().backward()
    torch.testing.assert_close(x.grad, (found != 0) / 0.75)


def test_evaluation_and_p_0_are_the_identity_and_draw_nothing() -> None:
    layer = Dropout(0.5)
    assert layer.eval()(ONES) is ONES
    assert Dropout(0.0)(ONES) is ONES
    reseed(layer, 0)
    before = layer.generator.get_state()
    assert layer(ONES) is ONES
    assert torch.equal(layer.generator.get_state(), before)


def test_the_global_generator_is_neither_read_nor_written() -> None:
    before, found = torch.get_rng_state(), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        found.append(dropped(Dropout(0.5), 0))
        assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)
    assert torch.equal(*found)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_what_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ConfigError, match=f"dropout: value {p}"):
        Dropout(p)


def tiny() -> nn.Module:
    return networks.build("vgg11_bn_w1_imagenet", 3, (32, 32), 4, 0, "tiny")


def test_training_mode_without_a_stream_is_refused_and_says_what_to_do() -> None:
    net, x = tiny(), torch.randn(4, 3, 32, 32, generator=stream(0))
    refused = pytest.raises(ConfigError, match=r"without a random stream.*name one without dropout.*reseed\(net, seed, \*names\)")
    with refused:
        net(x)
    net.eval()
    net(x)
    for change in (lambda: net.train(), lambda: net.eval().train(), lambda: net.requires_grad_(False).train()):
        net.train()
        reseed(net, 0)
        net(x)
        change()  # whoever sets the mode starts anew: the rest of another training's stream is nobody's
        with refused:
            net(x)
    flat = Flat(net)  # unrolled methods: a call is a function of its arguments
    theta = flat.flatten(net)
    with refused:
        flat(theta, x)
    assert torch.equal(flat(theta, x, train=False), net.eval()(x))


def test_networks_without_dropout_are_left_alone() -> None:
    net = networks.build("convnet2_bn_w2", 3, (8, 8), 4, 0)
    before = [dict(vars(module)) for module in net.modules()]
    reseed(net, 0, "epoch", 1)
    assert [dict(vars(module)) for module in net.modules()] == before


def trained(epochs: range, state: dict[str, Tensor] | None = None) -> list[dict[str, Tensor]]:
    """Train a little, as the supervised loop does, and return the weights after each epoch."""
    net, kept = tiny(), []
    if state is not None:
        net.load_state_dict(state)
    x, y = torch.randn(8, 3, 32, 32, generator=stream(0)), torch.arange(8) % 4
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for epoch in epochs:
        reseed(net, 5, "pretrain", "epoch", epoch)
        for index in torch.randperm(8, generator=stream(5, "pretrain", "epoch", epoch)).split(4):
            optimizer.zero_grad()
            F.cross_entropy(net(x[index]), y[index]).backward()
            optimizer.step()
        kept.append({key: value.clone() for key, value in net.state_dict().items()})
        net.eval()  # as an evaluation between two epochs does
        net(x)
        net.train()
    return kept


def test_a_training_that_is_continued_equals_an_uninterrupted_one() -> None:
    whole = trained(range(3))
    resumed = trained(range(1, 3), whole[0])[-1]
    assert all(torch.equal(resumed[key], value) for key, value in whole[-1].items())
    assert all(not torch.equal(a["blocks.9.1.weight"], b["blocks.9.1.weight"]) for a, b in pairwise(whole))


def test_the_state_dict_knows_no_dropout() -> None:
    assert not [key for key in tiny().state_dict() if "blocks.8.3" in key]
    assert "Dropout(p=0.5)" in repr(tiny())
