"""Each op against a naive loop over images and pixels in float64, written from the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dd.augment import dsa_ops, strategies
from dd.rng import stream

SHAPES = [(3, 8, 8), (1, 7, 9), (2, 26, 10)]


def noise(n: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(n, *shape, dtype=torch.float64, generator=stream(0, n, *shape))


def color(x: Tensor, row: list[float]) -> Tensor:
    out, (c, h, w) = x.clone(), x.shape
    for k, i, j in pixels(x):
        out[k, i, j] = x[k, i, j] + row[0] - 0.5
    bright = out.clone()
    for k, i, j in pixels(x):
        gray = sum(float(bright[q, i, j]) for q in range(c)) / c
        out[k, i, j] = (bright[k, i, j] - gray) * 2 * row[1] + gray
    mean = sum(out.flatten().tolist()) / (c * h * w)
    return (out - mean) * (row[2] + 0.5) + mean


def crop(x: Tensor, row: list[float]) -> Tensor:
    out, (_, h, w) = torch.zeros_like(x), x.shape
    for k, i, j in pixels(x):
        a, b = i + int(row[0]), j + int(row[1])
        if 0 <= a < h and 0 <= b < w:
            out[k, i, j] = x[k, a, b]
    return out


def cutout(x: Tensor, row: list[float]) -> Tensor:
    out, (_, h, w) = x.clone(), x.shape
    height, width = int(h * 0.5 + 0.5), int(w * 0.5 + 0.5)
    for i in range(height):
        for j in range(width):  # the clamped indices of the papers' code
            a = min(max(int(row[0]) - height // 2 + i, 0), h - 1)
            b = min(max(int(row[1]) - width // 2 + j, 0), w - 1)
            out[:, a, b] = 0
    return out


def flip(x: Tensor, row: list[float]) -> Tensor:
    out = x.clone()
    for k, i, j in pixels(x):
        out[k, i, j] = x[k, i, x.shape[2] - 1 - j] if row[0] else x[k, i, j]
    return out


def affine(x: Tensor, matrix: list[list[float]], corners: bool) -> Tensor:
    out, (_, h, w) = torch.zeros_like(x), x.shape
    for k, i, j in pixels(x):
        across = 2 * j / (w - 1) - 1 if corners else (2 * j + 1) / w - 1
        down = 2 * i / (h - 1) - 1 if corners else (2 * i + 1) / h - 1
        u = matrix[0][0] * across + matrix[0][1] * down
        v = matrix[1][0] * across + matrix[1][1] * down
        column = (u + 1) / 2 * (w - 1) if corners else ((u + 1) * w - 1) / 2
        line = (v + 1) / 2 * (h - 1) if corners else ((v + 1) * h - 1) / 2
        for a in (math.floor(line), math.floor(line) + 1):
            for b in (math.floor(column), math.floor(column) + 1):
                if 0 <= a < h and 0 <= b < w:
                    out[k, i, j] += x[k, a, b] * (1 - abs(line - a)) * (1 - abs(column - b))
    return out


def scale(x: Tensor, row: list[float], corners: bool = False) -> Tensor:
    return affine(x, [[row[0], 0], [0, row[1]]], corners)


def rotate(x: Tensor, row: list[float], corners: bool = False) -> Tensor:
    angle = row[0] / 180 * math.pi
    return affine(x, [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], corners)


NAIVE = {"color": color, "crop": crop, "cutout": cutout, "flip": flip, "scale": scale, "rotate": rotate}


def pixels(x: Tensor):
    return ((k, i, j) for k in range(x.shape[0]) for i in range(x.shape[1]) for j in range(x.shape[2]))


def test_the_same_ops_are_registered_everywhere() -> None:
    assert tuple(dsa_ops.OPS) == strategies.OPS
    assert set(NAIVE) == set(strategies.OPS)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", strategies.OPS)
def test_op_is_the_formula(name: str, shape: tuple[int, int, int]) -> None:
    op, x = dsa_ops.OPS[name], noise(5, shape)
    values = op.draw(stream(1, name), 5, shape)
    assert len(values) == 5
    expected = torch.stack([NAIVE[name](x[i], values[i].tolist()) for i in range(5)])
    torch.testing.assert_close(op.apply(x, values), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(op.apply(x.float(), values), expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", dsa_ops.RESAMPLED)
def test_op_with_aligned_corners_is_the_formula(name: str) -> None:
    op, x = dsa_ops.OPS[name], noise(3, (2, 7, 6))
    values = op.draw(stream(2, name), 3, (2, 7, 6))
    expected = torch.stack([NAIVE[name](x[i], values[i].tolist(), True) for i in range(3)])  # type: ignore[operator]
    torch.testing.assert_close(op.apply(x, values, align_corners=True), expected, rtol=1e-10, atol=1e-10)
    # Both turn and stretch about the centre, so what a coordinate of 1 means cancels out, but for turning unequal sides.
    assert torch.allclose(op.apply(x, values), expected, atol=1e-3) == (name == "scale")
    square = noise(3, (2, 7, 7))
    torch.testing.assert_close(op.apply(square, values, align_corners=True), op.apply(square, values), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", strategies.OPS)
def test_gradcheck(name: str) -> None:
    op, x = dsa_ops.OPS[name], noise(2, (2, 6, 5)).requires_grad_()
    values = op.draw(stream(3, name), 2, (2, 6, 5))
    assert torch.autograd.gradcheck(lambda z: op.apply(z, values), (x,))


@pytest.mark.parametrize("name", strategies.OPS)
def test_draws_follow_the_generator_alone_and_apply_draws_nothing(name: str) -> None:
    op, x = dsa_ops.OPS[name], noise(4, (3, 8, 8))
    state = torch.get_rng_state()
    first, same, other = (op.draw(stream(seed), 64, (3, 8, 8)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(op.apply(x, first[:4]), op.apply(x, first[:4]))
    assert torch.equal(torch.get_rng_state(), state)


def test_saturation_does_nothing_to_one_channel() -> None:
    x = noise(4, (1, 6, 6))
    values = torch.tensor([[0.5, u, 0.5] for u in (0.0, 0.3, 0.5, 0.99)])  # no brightness, no contrast
    torch.testing.assert_close(dsa_ops.color(x, values), x, rtol=1e-12, atol=1e-12)
    colored = noise(4, (3, 6, 6))
    assert not torch.allclose(dsa_ops.color(colored, values)[0], colored[0], atol=1e-3)


@pytest.mark.parametrize(("side", "k"), [(28, 4), (32, 4), (64, 8), (16, 2)])
def test_crop_reaches_k_both_ways(side: int, k: int) -> None:
    values = dsa_ops.draw_crop(stream(4), 3000, (3, side, 64))
    assert sorted(values[:, 0].unique().tolist()) == list(range(-k, k + 1))
    assert sorted(values[:, 1].unique().tolist()) == list(range(-8, 9))


@pytest.mark.parametrize(("side", "square", "last"), [(28, 14, 28), (32, 16, 32), (26, 13, 25), (16, 8, 16)])
def test_cutout_square_and_centres(side: int, square: int, last: int) -> None:
    values = dsa_ops.draw_cutout(stream(5), 3000, (3, side, side))
    assert sorted(values[:, 0].unique().tolist()) == list(range(last + 1))
    assert sorted(values[:, 1].unique().tolist()) == list(range(last + 1))
    middle = dsa_ops.cutout(torch.ones(1, 1, side, side), torch.tensor([[side // 2, side // 2]]))
    assert int((middle == 0).sum()) == square**2


def test_flip_scale_and_rotate_draw_what_the_paper_says() -> None:
    shape = (3, 8, 8)
    flips = dsa_ops.draw_flip(stream(6), 20000, shape)
    assert flips.float().mean().item() == pytest.approx(0.5, abs=0.015)
    factors = dsa_ops.draw_scale(stream(6), 20000, shape)
    assert factors.min().item() == pytest.approx(1 / 1.2, abs=1e-3)
    assert factors.max().item() == pytest.approx(1.2, abs=1e-3)
    assert factors.mean().item() == pytest.approx((1.2 + 1 / 1.2) / 2, abs=3e-3)
    assert abs(torch.corrcoef(factors.T)[0, 1].item()) < 0.03
    angles = dsa_ops.draw_rotate(stream(6), 20000, shape)
    assert angles.min().item() == pytest.approx(-15, abs=0.01)
    assert angles.max().item() == pytest.approx(15, abs=0.01)


def test_flip_and_crop_leave_the_bits_of_what_they_do_not_change() -> None:
    x = torch.randn(4, 3, 9, 8, generator=stream(7))
    flipped = dsa_ops.flip(x, torch.tensor([[True], [False], [True], [False]]))
    assert torch.equal(flipped[1::2], x[1::2])
    assert torch.equal(flipped[::2], x[::2].flip(3))
    assert torch.equal(dsa_ops.crop(x, torch.zeros(4, 2, dtype=torch.int64)), x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", strategies.OPS)
def test_one_row_for_all_images_gives_the_bits_of_a_row_for_each(name: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """The slices against the indices and masks, in the images and in their gradients, up to the ends of what is drawn."""
    op, weight = dsa_ops.OPS[name], noise(6, shape).to(dtype)
    rows = list(op.draw(stream(4, name), 5, shape).split(1))
    if name == "crop":
        rows += [torch.tensor([[a * int(shape[1] / 8 + 0.5), b * int(shape[2] / 8 + 0.5)]]) for a in (-1, 0, 1) for b in (-1, 1)]
    if name == "cutout":
        rows += [torch.tensor([[a, b]]) for a in (0, shape[1]) for b in (0, shape[2] - 1)]
    if name == "flip":
        rows = [torch.tensor([[True]]), torch.tensor([[False]])]
    for row in rows:
        x, each = (noise(5, shape).to(dtype).requires_grad_() for _ in range(2))
        together, alone = op.apply(x, row), op.apply(each, row.expand(5, -1))
        assert torch.equal(together, alone)
        (together * weight[:5]).sum().backward()
        (alone * weight[:5]).sum().backward()
        assert torch.equal(x.grad, each.grad)


@pytest.mark.parametrize("name", strategies.OPS)
def test_one_row_for_all_is_the_formula_and_leaves_the_images_alone(name: str) -> None:
    op, x = dsa_ops.OPS[name], noise(4, (2, 9, 7))
    for row in op.draw(stream(5, name), 4, (2, 9, 7)).split(1):
        before = x.clone()
        expected = torch.stack([NAIVE[name](image, row[0].tolist()) for image in x])
        torch.testing.assert_close(op.apply(x, row), expected, rtol=1e-10, atol=1e-10)
        assert torch.equal(x, before)
        z = noise(2, (2, 6, 5)).requires_grad_()
        assert torch.autograd.gradcheck(lambda z, row=row: op.apply(z, row), (z,))
