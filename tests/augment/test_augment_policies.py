"""Policies against a loop that applies one op to one image at a time; siamese and per-image behaviour."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from dd.augment import strategies
from dd.augment.dsa_ops import OPS, RESAMPLED
from dd.augment.policies import Drawn, Nothing, OneOf, Stack, make
from dd.errors import ConfigError
from dd.rng import stream

ALL = "color_crop_cutout_flip_scale_rotate"
SHAPE = (3, 9, 8)


def images(n: int, name: str = "x", dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, *SHAPE, generator=stream(0, name, n), dtype=dtype)


def one_by_one(names: tuple[str, ...], x: Tensor, drawn: Drawn, group: Tensor, corners: bool = False) -> Tensor:
    out = []
    for image, g in zip(x, group.tolist(), strict=True):
        name = names[int(drawn.which[g])]
        extra = {"align_corners": corners} if name in RESAMPLED else {}
        out.append(OPS[name].apply(image[None], drawn.values[name][g][None], **extra)[0])
    return torch.stack(out)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("strategy", [ALL, "color_crop_cutout_scale_rotate", *strategies.OPS])
def test_oneof_is_one_op_an_image(strategy: str, corners: bool, shared: bool) -> None:
    for seed in range(4):
        policy, x = OneOf(strategy, corners), images(11)
        group = torch.randint(5, (11,), generator=stream(seed)) if shared else torch.arange(11)
        drawn = policy.draw(stream(seed), 5 if shared else 11, SHAPE, shared=shared)
        assert drawn.which.shape == (5 if shared else 11,)
        expected = one_by_one(strategies.ops_of(strategy), x, drawn, group, corners)
        torch.testing.assert_close(policy.apply(x, drawn, group), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("strategy", [ALL, "color_crop_cutout", "color_crop", "rotate_flip", "cutout"])
def test_stack_applies_its_layers_in_order(strategy: str, shared: bool) -> None:
    listed = strategies.ops_of(strategy)
    order = [["flip"], ["color"], ["crop", "scale", "rotate"], ["cutout"]]
    layers = [tuple(n for n in layer if n in listed) for layer in order]
    layers = [layer for layer in layers if layer]
    for seed in range(4):
        policy, x = Stack(strategy), images(10)
        group = torch.arange(10) // 3 if shared else torch.arange(10)
        drawn = policy.draw(stream(seed), 4 if shared else 10, SHAPE, shared=shared)
        assert len(drawn) == len(layers)
        expected = x
        for names, part in zip(layers, drawn, strict=True):
            expected = one_by_one(names, expected, part, group)
        torch.testing.assert_close(policy.apply(x, drawn, group), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("policy", [make("oneof", ALL), make("stack", ALL), make("oneof", ALL, True), make("none", "none")])
def test_siamese_one_draw_acts_alike_on_batches_of_different_size(policy) -> None:
    drawn = policy.draw(stream(3), 4, SHAPE, shared=True)
    x = images(4)
    real = torch.cat([images(5, "more"), x])
    alone = policy.apply(x, drawn, torch.arange(4))
    together = policy.apply(real, drawn, torch.cat([torch.tensor([2, 2, 0, 1, 3]), torch.arange(4)]))[5:]
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-12)
    state = torch.get_rng_state()
    assert torch.equal(policy.apply(x, drawn, torch.arange(4)), alone)
    assert torch.equal(torch.get_rng_state(), state)


def test_siamese_gives_classes_their_own_op_and_a_class_one_op_with_one_set_of_values() -> None:
    policy = OneOf(ALL)
    drawn = policy.draw(stream(0), 6000, SHAPE, shared=True)
    share = drawn.which.bincount(minlength=6) / 6000
    assert (share - 1 / 6).abs().max() < 0.02
    assert (drawn.which[1:] == drawn.which[:-1]).float().mean() < 0.2  # neighbours are independent
    same = images(1).expand(20, -1, -1, -1)
    out = policy.apply(same, drawn, torch.arange(20) // 10)
    assert (out[:10] == out[:1]).all()
    assert (out[10:] == out[10:11]).all()


def test_without_siamese_there_is_one_op_a_call_and_values_an_image() -> None:
    policy, seen = OneOf(ALL), []
    for seed in range(300):
        drawn = policy.draw(stream(seed), 32, SHAPE, shared=False)
        assert len(drawn.which.unique()) == 1
        assert len(drawn.values) == 1
        (values,) = drawn.values.values()
        assert len(values) == 32
        assert len(values.unique(dim=0)) > 1
        seen.append(int(drawn.which[0]))
    assert torch.tensor(seen).bincount(minlength=6).min() > 25


def test_stack_flips_a_class_as_a_whole_and_chooses_for_each() -> None:
    policy = Stack("flip_crop_scale_rotate")
    flips, choices = policy.draw(stream(1), 3000, SHAPE, shared=True)
    assert flips.values["flip"].float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (choices.which.bincount(minlength=3) / 3000 - 1 / 3).abs().max() < 0.03
    x, flip_only = images(12, dtype=torch.float32), Stack("flip")
    out = flip_only.apply(x, [flips], torch.arange(12) // 4)
    for g in range(3):
        rows = slice(4 * g, 4 * g + 4)
        assert torch.equal(out[rows], x[rows].flip(3) if flips.values["flip"][g] else x[rows])
    _, choices = policy.draw(stream(1), 32, SHAPE, shared=False)
    assert len(choices.which.unique()) == 1


def test_images_of_other_ops_keep_their_bits() -> None:
    policy, x, group = OneOf("flip_crop"), images(40, dtype=torch.float32), torch.arange(40)
    drawn = policy.draw(stream(2), 40, SHAPE, shared=True)
    out = policy.apply(x, drawn, group)
    flipping = drawn.which == 0
    assert 5 < flipping.sum() < 35
    still = flipping & ~drawn.values["flip"][:, 0]
    assert still.any()
    assert torch.equal(out[still], x[still])
    assert torch.equal(out[flipping & ~still], x[flipping & ~still].flip(3))


@pytest.mark.parametrize("policy", [OneOf(ALL), Stack(ALL)])
def test_gradient_flows_to_each_image_alone(policy) -> None:
    x, group = images(6).requires_grad_(), torch.tensor([0, 3, 1, 2, 0, 4])
    drawn = policy.draw(stream(5), 5, SHAPE, shared=True)
    weight = images(6, "weight")
    (together,) = torch.autograd.grad((policy.apply(x, drawn, group) * weight).sum(), x)
    for i in range(6):
        z = x[i : i + 1].detach().requires_grad_()
        (alone,) = torch.autograd.grad((policy.apply(z, drawn, group[i : i + 1]) * weight[i]).sum(), z)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda z: policy.apply(z, drawn, group), (x,))


def test_the_policy_none_does_nothing() -> None:
    policy, x = make("none", ""), images(3)
    assert isinstance(policy, Nothing)
    assert policy.apply(x, policy.draw(stream(0), 3, SHAPE, shared=False), torch.arange(3)) is x


@pytest.mark.parametrize(
    ("policy", "strategy", "complaint"),
    [
        ("one_of", ALL, "policy 'one_of' is unknown; did you mean 'oneof'"),
        ("oneof", "color_cutot", "unknown op 'cutot'; did you mean 'cutout'"),
        ("none", "color_cutot", "unknown op 'cutot'"),
        ("stack", "crop_crop", "op 'crop' is named twice"),
        ("oneof", "none", "use the policy 'none'"),
        ("stack", "", "use the policy 'none'"),
        ("oneof", "color__crop", "unknown op ''"),
    ],
)
def test_mistakes_are_named(policy: str, strategy: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make(policy, strategy)


@pytest.mark.parametrize("cutmix", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_default_strategies_of_the_idc_lineage(flip: bool, cutmix: bool) -> None:
    assert strategies.default_strategy(flip, "idc", "match", cutmix) == "color_crop_cutout"
    assert strategies.default_strategy(flip, "idc", "train", cutmix) == ("color_crop" if cutmix else "color_crop_cutout")
    expected = {
        (True, True): "color_crop_flip_scale_rotate",
        (False, True): "color_crop_scale_rotate",
        (True, False): "color_crop_cutout_flip_scale_rotate",
        (False, False): "color_crop_cutout_scale_rotate",
    }
    assert strategies.default_strategy(flip, "idc", "eval", cutmix) == expected[flip, cutmix]


@pytest.mark.parametrize("use", strategies.USES)
def test_default_strategies_of_the_dc_lineage(use: str) -> None:
    assert strategies.default_strategy(True, "dc", use, False) == ALL
    assert strategies.default_strategy(False, "dc", use, False) == "color_crop_cutout_scale_rotate"


@pytest.mark.parametrize(
    ("lineage", "use", "cutmix", "complaint"),
    [
        ("icd", "match", False, "did you mean 'idc'"),
        ("dc", "matching", False, "did you mean 'match'"),
        ("dc", "eval", True, "no CutMix"),
    ],
)
def test_default_strategy_refuses(lineage: str, use: str, cutmix: bool, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        strategies.default_strategy(True, lineage, use, cutmix)


def test_strategies_are_checked_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from dd.augment import strategies; print(strategies.ops_of('color_crop'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "('color', 'crop')", done.stderr


@pytest.mark.parametrize("policy", [OneOf(ALL), Stack(ALL), OneOf("crop")])
def test_long_runs_of_a_group_give_the_bits_of_images_in_any_order(policy) -> None:
    """Slices group by group, as classes in matching take them, against an index for each image."""
    group = torch.arange(7).repeat_interleave(torch.tensor([8, 20, 9, 12, 8, 16, 30])) % 5  # groups 0 and 1 have two runs
    order = torch.randperm(len(group), generator=stream(0, "order"))
    for seed in range(6):
        drawn = policy.draw(stream(seed, "runs"), 5, SHAPE, shared=True)
        x, mixed = images(len(group), dtype=torch.float32).requires_grad_(), images(len(group), dtype=torch.float32).requires_grad_()
        by_run, by_image = policy.apply(x, drawn, group), policy.apply(mixed[order], drawn, group[order])
        assert torch.equal(by_run[order], by_image)
        by_run.square().sum().backward()
        by_image.square().sum().backward()
        torch.testing.assert_close(x.grad, mixed.grad, rtol=1e-6, atol=1e-7)
