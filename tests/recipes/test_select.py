"""Coresets against naive loops."""

import math

import pytest
import torch

from dd import select
from dd.errors import ConfigError
from dd.rng import stream

CLASSES, EACH, D = 3, 12, 4


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(1)
    return torch.randn(CLASSES * EACH, D, generator=g), torch.arange(CLASSES).repeat(EACH)


def distance(a, b):
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def class_mean(f, members):
    return [sum(float(f[i][d]) for i in members) / len(members) for d in range(D)]


@pytest.mark.parametrize("ipc", [1, 5])
def test_herding_equals_the_naive_loop(data, ipc):
    f, y = data
    expected = []
    for c in range(CLASSES):
        members = [i for i in range(len(y)) if y[i] == c]
        mean, chosen = class_mean(f, members), []
        for k in range(1, ipc + 1):
            target = [k * mean[d] - sum(float(f[i][d]) for i in chosen) for d in range(D)]
            chosen.append(min((i for i in members if i not in chosen), key=lambda i: distance(f[i], target)))
        expected += chosen
    assert select.herding(f, y, CLASSES, ipc).tolist() == expected


@pytest.mark.parametrize("ipc", [1, 5])
def test_kcenter_equals_the_naive_loop(data, ipc):
    f, y = data
    expected = []
    for c in range(CLASSES):
        members = [i for i in range(len(y)) if y[i] == c]
        mean = class_mean(f, members)
        chosen = [min(members, key=lambda i: distance(f[i], mean))]
        while len(chosen) < ipc:
            chosen.append(max((i for i in members if i not in chosen), key=lambda i: min(distance(f[i], f[j]) for j in chosen)))
        expected += chosen
    assert select.kcenter(f, y, CLASSES, ipc).tolist() == expected


def test_herding_and_kcenter_agree_at_one_image(data):
    assert torch.equal(select.herding(*data, CLASSES, 1), select.kcenter(*data, CLASSES, 1))


def test_kcenter_never_picks_twice_even_among_duplicates():
    f, y = torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64)
    assert sorted(select.kcenter(f, y, 1, 5).tolist()) == [0, 1, 2, 3, 4]


def test_random_is_balanced_without_repetition_and_a_function_of_its_stream(data):
    _, y = data
    picked = select.random(y, CLASSES, 4, stream(0, "init"))
    assert y[picked].tolist() == sorted([0, 1, 2] * 4)
    assert len(set(picked.tolist())) == 12
    assert torch.equal(picked, select.random(y, CLASSES, 4, stream(0, "init")))
    assert not torch.equal(picked, select.random(y, CLASSES, 4, stream(1, "init")))


def test_too_many_images_are_refused_by_name(data):
    _, y = data
    with pytest.raises(ConfigError, match=r"ipc: value 13 is larger than class 0, which has 12 images; allowed: 1 to 12"):
        select.random(y, CLASSES, 13, stream(0, "init"))
