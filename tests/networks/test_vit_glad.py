"""The transformers of GLaD and DC-BENCH: by count, by shape, and against a float64 version written from the specification."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dd import networks
from dd.errors import ConfigError
from dd.networks._layers import reseed
from dd.rng import stream


def parameters(patch: int, normed: bool, depth: int, side: int, dim: int = 512, channels: int = 3, classes: int = 10) -> int:
    tokens = (side // patch) ** 2 + 1
    embedding = channels * patch**2 * dim + dim + dim + tokens * dim
    attention = dim * 3 * dim + dim * dim + dim
    mlp = 2 * (dim * dim + dim)
    norms = 2 * dim * (2 * depth + 1) if normed else 0
    return embedding + depth * (attention + mlp) + norms + dim * classes + classes


@pytest.mark.parametrize(
    ("name", "arguments", "side", "expected"),
    [
        ("vit_p4_ln_d6", (4, True, 6), 32, 9_523_722),
        ("vit_p16_none_d10", (16, False, 10), 128, 16_176_650),
        ("vit_p8_ln_d1_w64", (8, True, 1), 16, None),
    ],
)
def test_parameter_counts_and_stages(name: str, arguments: tuple[int, bool, int], side: int, expected: int | None) -> None:
    dim = 64 if name.endswith("w64") else 512
    with torch.device("meta"):
        net = networks.build(name, 3, (side, side), 10)
        stages = [tuple(stage.shape[1:]) for stage in net.stages(torch.zeros(2, 3, side, side))]
    counted = sum(p.numel() for p in net.parameters())
    assert counted == parameters(*arguments, side, dim)
    assert expected is None or counted == expected
    patch, normed, depth = arguments
    assert stages == [((side // patch) ** 2 + 1, dim)] * (1 + depth) + [(dim,)]
    assert sum(isinstance(module, nn.LayerNorm) for module in net.modules()) == (2 * depth + 1 if normed else 0)


def naive(x: Tensor, s: dict[str, Tensor], patch: int, depth: int, masks: list[Tensor] | None) -> tuple[Tensor, Tensor]:
    """Return (embedding, logits); masks: uniform numbers in the order of the layers, or None in eval mode."""
    queue = iter(masks or [])

    def drop(h: Tensor) -> Tensor:
        return h if masks is None else torch.where(next(queue) < 0.1, 0.0, h / 0.9)

    def normed(h: Tensor, key: str) -> Tensor:
        if f"{key}.weight" not in s:
            return h
        centred = h - h.mean(-1, keepdim=True)
        return centred / ((centred**2).mean(-1, keepdim=True) + 1e-5).sqrt() * s[f"{key}.weight"] + s[f"{key}.bias"]

    def linear(h: Tensor, key: str) -> Tensor:
        return h @ s[f"{key}.weight"].T + s[f"{key}.bias"]

    dim = s["blocks.0.position"].shape[-1]
    head = dim // 8
    kernel = s["blocks.0.patch.weight"].flatten(1)
    rows = [s["blocks.0.class_token"][:, 0].expand(len(x), -1)]
    for top in range(0, x.shape[2], patch):
        for left in range(0, x.shape[3], patch):
            rows.append(x[:, :, top : top + patch, left : left + patch].flatten(1) @ kernel.T + s["blocks.0.patch.bias"])
    h = drop(torch.stack(rows, 1) + s["blocks.0.position"])
    for number in range(1, depth + 1):
        key = f"blocks.{number}"
        assert f"{key}.qkv.bias" not in s
        q, k, v = (normed(h, f"{key}.norm1") @ s[f"{key}.qkv.weight"].T).split(dim, -1)
        heads = []
        for at in range(0, dim, head):
            scores = q[..., at : at + head] @ k[..., at : at + head].transpose(1, 2) / math.sqrt(head)
            weight = scores.exp() / scores.exp().sum(-1, keepdim=True)
            heads.append(weight @ v[..., at : at + head])
        h = h + drop(linear(torch.cat(heads, -1), f"{key}.out.0"))
        inner = linear(normed(h, f"{key}.norm2"), f"{key}.mlp.0")
        inner = drop(inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))))
        h = h + drop(linear(inner, f"{key}.mlp.3"))
    embedding = normed(h[:, 0], f"blocks.{depth + 1}.norm")
    return embedding, linear(embedding, "head")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "patch"), [("vit_p4_ln_d2_w16", 4), ("vit_p4_none_d2_w16", 4), ("vit_p2_none_d1_w24", 2)])
def test_forward_equals_the_naive_version(name: str, patch: int, training: bool) -> None:
    depth = int(networks.parse(name)["depth"])
    net = networks.build(name, 2, (8, 12), 5, 1, "t").double()
    g = stream(0, name, training)
    for value in net.state_dict().values():  # no norm stays at its default
        if value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=g, dtype=torch.float64) + 0.5)
    x = torch.randn(3, 2, 8, 12, dtype=torch.float64, generator=g)
    dim = net.head.in_features
    tokens = (8 // patch) * (12 // patch) + 1
    masks = [torch.rand(3, tokens, dim, generator=stream(7, "e", "dropout", k)) for k in range(1 + 3 * depth)] if training else None
    state = {key: value.clone() for key, value in net.state_dict().items()}
    embedding, logits = naive(x, state, patch, depth, masks)
    net.train(training)
    reseed(net, 7, "e")
    torch.testing.assert_close(net.embed(x), embedding, rtol=1e-9, atol=1e-9)
    reseed(net, 7, "e")
    torch.testing.assert_close(net(x), logits, rtol=1e-9, atol=1e-9)
    assert logits.std() > 1e-3


def test_the_class_token_and_positions_are_standard_normal() -> None:
    net = networks.build("vit_p4_ln_d1_w64", 3, (32, 32), 10, 0)
    tokens = net.blocks[0]
    assert tokens.position.std().item() == pytest.approx(1, abs=0.05)
    assert tokens.class_token.std().item() == pytest.approx(1, abs=0.3)
    bound = 1 / math.sqrt(3 * 4 * 4)  # that of a linear layer on flattened patches
    assert tokens.patch.weight.abs().max().item() <= bound
    assert tokens.patch.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_what_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'vit_p4_ln_d1_w50': width 50 must be a multiple of its 8 heads; nearest allowed: 48 and 56"):
        networks.build("vit_p4_ln_d1_w50", 3, (32, 32), 10)
    with pytest.raises(ConfigError, match=r"nearest allowed: 8$"):
        networks.build("vit_p4_ln_d1_w5", 3, (32, 32), 10)
    with pytest.raises(ConfigError, match=r"multiples of 16 pixels, not 32x40; the smallest size it takes is 16x16"):
        networks.build("vit_p16_none_d1_w8", 3, (32, 40), 10)


def test_settings_are_described() -> None:
    expected = {"heads": 8, "dropout": 0.1, "width": 512, "patch": 16, "norm": "none", "depth": 10}
    assert expected.items() <= networks.describe("vit_p16_none_d10").items()
