"""Draws of real images."""

import time

import pytest
import torch

from dd.data.pool import RealPool
from dd.errors import ConfigError
from dd.rng import stream

COUNTS = [7, 5, 9]


@pytest.fixture
def pool():
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))[torch.randperm(21, generator=g)]
    images = torch.randint(0, 256, (21, 2, 4, 3), generator=g, dtype=torch.uint8)
    return RealPool(images, labels, 3, [0.4, 0.5], [0.2, 0.3])


@pytest.mark.parametrize("per_class", [1, 3, 5])
def test_draw_is_without_replacement_inside_a_class(pool, per_class):
    seen = set()
    for n in range(60):
        index = pool.draw(stream(n), per_class)
        assert index.shape == (3, per_class) and index.dtype == torch.int64
        for c, row in enumerate(index):
            assert len(set(row.tolist())) == per_class and set(pool.labels[row].tolist()) == {c}
        seen.update(index.flatten().tolist())
    assert seen == set(range(21))


def test_draw_is_uniform(pool):
    counts = torch.zeros(21)
    for n in range(3000):
        counts.scatter_add_(0, pool.draw(stream(1, n), 2).flatten(), torch.ones(6))
    expected = torch.tensor([3000 * 2 / COUNTS[c] for c in pool.labels])
    assert float(((counts - expected) ** 2 / expected).sum()) < 45  # chi square, 18 degrees of freedom, p = 0.0004


def test_uniform_is_uniform(pool):
    counts = torch.bincount(pool.uniform(stream(2), 21_000), minlength=21).float()
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 46  # chi square, 20 degrees of freedom, p = 0.0008


def test_draw_is_a_function_of_the_generator_alone(pool):
    first = pool.draw(stream(3, "x"), 4)
    torch.manual_seed(5)
    pool.draw(stream(9), 2), torch.rand(3)
    assert torch.equal(pool.draw(stream(3, "x"), 4), first) and not torch.equal(pool.draw(stream(4, "x"), 4), first)
    assert torch.equal(pool.uniform(stream(3), 9), pool.uniform(stream(3), 9))


@pytest.mark.parametrize("per_class", [0, 6])
def test_draw_refuses_more_than_the_smallest_class_has(pool, per_class):
    with pytest.raises(ConfigError, match=f"value {per_class}: the smallest class, 1, has 5 images; allowed: 1 to 5"):
        pool.draw(stream(0), per_class)


def test_uniform_and_of_class(pool):
    index = pool.uniform(stream(0), 2000)
    assert index.shape == (2000,) and set(index.tolist()) == set(range(21))
    for c in range(3):
        assert pool.of_class(c).tolist() == [n for n in range(21) if pool.labels[n] == c]


def test_images_against_a_naive_loop(pool):
    index = pool.uniform(stream(0), 5)
    raw, x = pool.raw(index), pool.x(index)
    assert raw.dtype == x.dtype == torch.float32 and torch.equal(pool.y(index), pool.labels[index])
    for row, n in enumerate(index.tolist()):
        for c, (mean, std) in enumerate(((0.4, 0.2), (0.5, 0.3))):
            for i in range(4):
                for j in range(3):
                    value = int(pool.images[n, c, i, j]) / 255
                    assert abs(float(raw[row, c, i, j]) - value) < 1e-6
                    assert abs(float(x[row, c, i, j]) - (value - mean) / std) < 1e-5


def test_floats_are_raw_units_already():
    stored = torch.randn(4, 1, 3, 3, generator=stream(0)) * 5 - 4
    pool = RealPool(stored, torch.tensor([0, 0, 1, 1]), 2, [-4.0], [2.5])
    index = torch.tensor([2, 0, 2])
    assert torch.equal(pool.raw(index), stored[index]) and torch.allclose(pool.x(index), (stored[index] + 4) / 2.5)
    pool.raw(index).zero_()  # a copy
    assert torch.equal(pool.raw(index), stored[index])


def test_draw_is_fast():
    pool = RealPool(torch.zeros(50_000, 1, 1, 1, dtype=torch.uint8), torch.arange(50_000) % 10, 10, [0.0], [1.0])
    generator, seconds = stream(0), []
    for _ in range(20):
        began = time.perf_counter()
        pool.draw(generator, 256)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 5e-3  # about 0.3 ms; a permutation of everything, or a loop over images, is slower
