"""Each family against the papers' parameter counts and against a plain float64 version written from the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dd import networks
from dd.errors import ConfigError
from dd.networks._layers import norm
from dd.rng import stream


def count(name: str, channels: int, side: int, classes: int) -> int:
    return sum(p.numel() for p in networks.build(name, channels, (side, side), classes).parameters())


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=stream(3, *shape))


def naive_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            pixels = x[i, c].flatten().tolist()
            mean = sum(pixels) / len(pixels)
            variance = sum((p - mean) ** 2 for p in pixels) / len(pixels)
            out[i, c] = (x[i, c] - mean) / math.sqrt(variance + 1e-5) * weight[c] + bias[c]
    return out


@pytest.mark.parametrize(
    ("name", "channels", "side", "classes", "expected"),
    [
        ("convnet3_in", 3, 32, 10, 320_010),
        ("convnet3_bn", 3, 32, 10, 320_010),
        ("convnet3_in", 1, 28, 10, 317_706),
        ("convnet3_in", 3, 32, 100, 504_420),
        ("convnet4_in", 1, 64, 8, 461_448),
        ("convnet4_in", 3, 64, 200, 857_160),
        ("convnet3_in", 3, 64, 200, 1_938_120),
        ("convnet3_in_w256", 3, 32, 100, 1_598_564),
        ("convnet3_in_w512", 3, 32, 10, 4_818_954),
        ("convnet4_in_w256", 3, 64, 200, 2_598_856),
        ("convnet5_in", 3, 128, 10, 615_690),
        ("convnet6_in", 3, 224, 10, 754_570),
        ("resnet18_in", 3, 32, 10, 11_173_962),
        ("resnet18_bn", 3, 32, 10, 11_173_962),
        ("mlp", 3, 32, 10, 3072 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10),
        ("mlp", 1, 28, 10, 784 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10),
    ],
)
def test_parameter_counts(name: str, channels: int, side: int, classes: int, expected: int) -> None:
    assert count(name, channels, side, classes) == expected


@pytest.mark.parametrize(("name", "dim", "depth"), [("vit", 192, 12), ("vit_w48_d4", 48, 4), ("vit_d2", 192, 2)])
def test_vit_parameter_count(name: str, dim: int, depth: int) -> None:
    block = 2 * 2 * dim + (dim * 3 * dim + 3 * dim) + (dim * dim + dim) + (dim * 4 * dim + 4 * dim) + (4 * dim * dim + dim)
    tokens = 3 * 16 * dim + dim + dim + (64 + 1) * dim
    assert count(name, 3, 32, 10) == tokens + depth * block + 2 * dim + dim * 10 + 10


@pytest.mark.parametrize(
    ("depth", "channels", "side", "shapes"),
    [
        (3, 3, 32, [(128, 16, 16), (128, 8, 8), (128, 4, 4)]),
        (3, 1, 28, [(128, 16, 16), (128, 8, 8), (128, 4, 4)]),
        (3, 3, 28, [(128, 14, 14), (128, 7, 7), (128, 3, 3)]),
        (4, 3, 64, [(128, 32, 32), (128, 16, 16), (128, 8, 8), (128, 4, 4)]),
        (4, 1, 64, [(128, 34, 34), (128, 17, 17), (128, 8, 8), (128, 4, 4)]),
        (3, 1, 16, [(128, 8, 8), (128, 4, 4), (128, 2, 2)]),
    ],
)
def test_convnet_stages(depth: int, channels: int, side: int, shapes: list[tuple[int, ...]]) -> None:
    network = networks.build(f"convnet{depth}_in", channels, (side, side), 10, 0)
    x = torch.zeros(2, channels, side, side)
    assert [tuple(stage.shape[1:]) for stage in network.stages(x)] == shapes
    assert network.embed(x).shape == (2, math.prod(shapes[-1]))
    assert network(x).shape == (2, 10)


def test_resnet_stages_are_fine_enough_for_elf() -> None:
    network = networks.build("resnet18_in", 3, (32, 32), 10, 0)
    shapes = [tuple(stage.shape[1:]) for stage in network.stages(torch.zeros(1, 3, 32, 32))]
    groups = [(64, 32, 32)] * 3 + [(128, 16, 16)] * 2 + [(256, 8, 8)] * 2 + [(512, 4, 4)] * 2
    assert shapes == [*groups, (512,)]


def test_instance_norm_is_the_formula() -> None:
    module = norm("in", 3).double()
    with torch.no_grad():
        module.weight.copy_(noise(3))
        module.bias.copy_(noise(3))
    x = noise(2, 3, 5, 4) * 3 + 1
    expected = naive_norm(x, module.weight.detach(), module.bias.detach())
    torch.testing.assert_close(module(x).detach(), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(module.float()(x.float()).detach(), expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "side", "activation", "pool"),
    [
        ("convnet3_in_w4", 16, F.relu, F.avg_pool2d),
        ("convnet2_in_w4_sigmoid_max", 9, torch.sigmoid, F.max_pool2d),
        ("convnet2_in_w4_leaky_nopool", 5, lambda h: torch.where(h > 0, h, 0.01 * h), None),
        ("convnet2_in_w3", 28, F.relu, F.avg_pool2d),
    ],
)
def test_convnet_is_the_formula(name: str, side: int, activation, pool) -> None:
    channels = 1 if side == 28 else 2
    network = networks.build(name, channels, (side, side), 3, 1).double()
    weights = iter([p.detach() for p in network.parameters()])
    x = noise(2, channels, side, side)
    h = x
    for index in range(networks.parse(name)["depth"]):
        padding = 3 if side == 28 and index == 0 else 1
        h = F.conv2d(h, next(weights), next(weights), padding=padding)
        h = activation(naive_norm(h, next(weights), next(weights)))
        h = pool(h, 2) if pool else h
    expected = h.flatten(1) @ next(weights).T + next(weights)
    torch.testing.assert_close(network(x).detach(), expected, rtol=1e-10, atol=1e-10)


def test_mlp_is_the_formula() -> None:
    network = networks.build("mlp_w6", 2, (3, 4), 5, 1).double()
    w1, b1, w2, b2, w3, b3 = (p.detach() for p in network.parameters())
    x = noise(4, 2, 3, 4)
    first = (x.reshape(4, 24) @ w1.T + b1).clamp(min=0)
    second = (first @ w2.T + b2).clamp(min=0)
    torch.testing.assert_close(network.embed(x).detach(), second, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(network(x).detach(), second @ w3.T + b3, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["in", "bn"])
def test_resnet_is_the_formula(kind: str) -> None:
    network = networks.build(f"resnet18_{kind}_w4", 3, (16, 16), 5, 1).double()
    weights = iter([p.detach() for p in network.parameters()])

    def conv_norm(h: Tensor, stride: int, padding: int) -> Tensor:
        h = F.conv2d(h, next(weights), stride=stride, padding=padding)
        weight, bias = next(weights), next(weights)
        if kind == "in":
            return naive_norm(h, weight, bias)
        variance, mean = torch.var_mean(h, (0, 2, 3), correction=0, keepdim=True)
        return (h - mean) / (variance + 1e-5).sqrt() * weight[:, None, None] + bias[:, None, None]

    x = noise(2, 3, 16, 16)
    h = conv_norm(x, 1, 1).relu()
    for group in range(4):
        for block in range(2):
            stride = 2 if group and not block else 1
            inner = conv_norm(conv_norm(h, stride, 1).relu(), 1, 1)
            h = (inner + (conv_norm(h, stride, 0) if stride == 2 else h)).relu()
    expected = h.mean((2, 3)) @ next(weights).T + next(weights)
    torch.testing.assert_close(network(x).detach(), expected, rtol=1e-9, atol=1e-9)


def test_vit_is_the_formula() -> None:
    network = networks.build("vit_w24_d2", 2, (8, 12), 5, 1).double()
    state = {key: value.detach() for key, value in network.state_dict().items()}

    def linear(h: Tensor, key: str) -> Tensor:
        return h @ state[f"{key}.weight"].T + state[f"{key}.bias"]

    def layer_norm(h: Tensor, key: str) -> Tensor:
        mean = h.mean(-1, keepdim=True)
        deviation = (((h - mean) ** 2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return (h - mean) / deviation * state[f"{key}.weight"] + state[f"{key}.bias"]

    x = noise(3, 2, 8, 12)
    patches = [x[:, :, r : r + 4, c : c + 4].flatten(1) for r in range(0, 8, 4) for c in range(0, 12, 4)]
    kernel = state["blocks.0.patch.weight"].flatten(1)
    tokens = [state["blocks.0.class_token"][:, 0].expand(3, -1)]
    tokens += [patch @ kernel.T + state["blocks.0.patch.bias"] for patch in patches]
    h = torch.stack(tokens, 1) + state["blocks.0.position"]
    for block in ("blocks.1", "blocks.2"):
        q, k, v = linear(layer_norm(h, f"{block}.norm1"), f"{block}.qkv").split(24, -1)
        heads = []
        for at in range(0, 24, 2):
            scores = q[..., at : at + 2] @ k[..., at : at + 2].transpose(1, 2) / math.sqrt(2)
            weight = scores.exp() / scores.exp().sum(-1, keepdim=True)
            heads.append(weight @ v[..., at : at + 2])
        h = h + linear(torch.cat(heads, -1), f"{block}.out")
        inner = linear(layer_norm(h, f"{block}.norm2"), f"{block}.mlp.0")
        h = h + linear(inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))), f"{block}.mlp.2")
    embedding = layer_norm(h[:, 0], "blocks.3.norm")
    torch.testing.assert_close(network.embed(x).detach(), embedding, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network(x).detach(), linear(embedding, "head"), rtol=1e-9, atol=1e-9)


def test_vit_refuses_what_does_not_divide() -> None:
    with pytest.raises(ConfigError, match="width 50 must be a multiple of its 12 heads; nearest allowed: 48 and 60"):
        networks.build("vit_w50", 3, (32, 32), 10)
    with pytest.raises(ConfigError, match="multiples of 4 pixels, not 30x32"):
        networks.build("vit", 3, (30, 32), 10)


def test_initialisation_is_pytorchs() -> None:
    network = networks.build("convnet3_in", 3, (32, 32), 10, 0)
    for key, parameter in network.named_parameters():
        if ".norm." in key:
            assert torch.equal(parameter, torch.full_like(parameter, float(key.endswith("weight"))))
        elif key.endswith("weight"):
            bound = 1 / math.sqrt(parameter[0].numel())
            assert parameter.abs().max().item() <= bound
            assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
