"""CutMix: the ratio is what is really kept, and its distribution is that of the definition."""

from __future__ import annotations

import math
import random

import pytest
import torch

from dd.augment import cutmix
from dd.rng import stream


@pytest.mark.parametrize("size", [(16, 16), (7, 12), (1, 1)])
def test_ratio_is_the_share_of_pixels_that_stay(size: tuple[int, int]) -> None:
    x = torch.arange(1.0, 7)[:, None, None, None].expand(6, 2, *size)  # image i is the constant i + 1
    y = torch.arange(6)
    for seed in range(60):
        params = cutmix.draw(stream(seed), 6, size, 1.0)
        mixed, a, b, ratio = cutmix.apply(x, y, params)
        assert 0 <= ratio <= 1
        assert torch.equal(a, y)
        assert sorted(b.tolist()) == list(range(6))
        for i in range(6):
            inside = mixed[i] == b[i] + 1
            assert (inside | (mixed[i] == i + 1)).all()
            if b[i] != i:
                assert 1 - inside.float().mean().item() == pytest.approx(ratio, abs=1e-6)


def test_it_mixes_with_probability_p_and_else_returns_its_input() -> None:
    x, y = torch.randn(4, 1, 8, 8, generator=stream(0)), torch.arange(4)
    assert not any(cutmix.draw(stream(seed), 4, (8, 8), 0.0).whether for seed in range(50))
    assert sum(cutmix.draw(stream(seed), 4, (8, 8), 0.5).whether for seed in range(2000)) == pytest.approx(1000, abs=90)
    same, a, b, ratio = cutmix.apply(x, y, cutmix.draw(stream(0), 4, (8, 8), 0.0))
    assert same is x
    assert a is y
    assert b is y
    assert ratio == 1


def test_ratio_has_the_distribution_of_the_definition() -> None:
    naive = random.Random(0)
    expected = []
    for _ in range(6000):
        side = math.sqrt(1 - naive.betavariate(1, 1))
        area = 1
        for length in (12, 16):
            cut, centre = int(length * side), naive.randrange(length)
            area *= min(max(centre + cut // 2, 0), length) - min(max(centre - cut // 2, 0), length)
        expected.append(1 - area / (12 * 16))
    got = [cutmix.draw(stream(seed), 2, (12, 16), 1.0).ratio for seed in range(6000)]
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        at = int(6000 * quantile)
        assert sorted(got)[at] == pytest.approx(sorted(expected)[at], abs=0.02)


def test_soft_labels_and_gradients_go_along() -> None:
    x = torch.randn(5, 2, 8, 8, dtype=torch.float64, generator=stream(1)).requires_grad_()
    y = torch.rand(5, 3, generator=stream(2))
    params = next(p for p in (cutmix.draw(stream(s), 5, (8, 8), 1.0) for s in range(50)) if 0.2 < p.ratio < 0.8)
    _, a, b, _ = cutmix.apply(x, y, params)
    assert torch.equal(a, y)
    assert torch.equal(b, y[params.permutation])
    assert torch.autograd.gradcheck(lambda z: cutmix.apply(z, y, params)[0], (x,))
    (gradient,) = torch.autograd.grad(cutmix.apply(x, y, params)[0].sum(), x)
    assert torch.equal(gradient, torch.ones_like(gradient))  # each pixel of the batch is used once
