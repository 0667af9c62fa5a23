"""The learned step size: a group of its own, a floor, and a state."""

import math

import pytest
import torch

from dd.parameterizations.multiformation import MultiFormation
from dd.parameterizations.pixels import Pixels
from dd.parameterizations.step_size import StepSize

LABELS = torch.tensor([1, 0])


def made(initial=0.01, lr=1e-5, value=0.0):
    return StepSize(Pixels(torch.full((2, 1, 4, 4), value), LABELS, 100.0), initial, lr)


def test_images_are_those_of_what_it_wraps_and_the_step_size_has_a_rate_of_its_own():
    one = made(value=3.0)
    groups = one.parameters()
    assert [group["lr"] for group in groups] == [100.0, 1e-5]
    assert groups[1]["params"][0] is one.alpha and one.alpha.shape == ()
    index = torch.tensor([1])
    assert torch.equal(one.decode(index), torch.full((1, 1, 4, 4), 3.0)) and one.labels(index).tolist() == [0]
    assert one.value == pytest.approx(0.01)


@pytest.mark.parametrize(("pushed", "kept"), [(-5.0, 1e-6), (0.0, 1e-6), (1e-7, 1e-6), (1e-6, 1e-6), (0.02, 0.02)])
def test_it_is_never_below_its_floor(pushed, kept):
    one = made()
    with torch.no_grad():
        one.alpha.fill_(pushed)
    assert one.value == pytest.approx(kept, rel=1e-6) and one.value >= 1e-6 * (1 - 1e-6)
    one.project_()
    assert one.alpha.item() == pytest.approx(kept, rel=1e-6)


def test_a_step_size_that_is_no_number_is_not_hidden():
    one = made()
    with torch.no_grad():
        one.alpha.fill_(math.nan)
    one.project_()
    assert math.isnan(one.value)


def test_projecting_reaches_what_is_wrapped():
    images = MultiFormation(torch.full((2, 1, 4, 4), 3.0), LABELS, 1.0, factor=2)
    one, calls = StepSize(images, 0.1, 0.1), []
    images.project_ = lambda: calls.append(1)
    one.project_()
    assert calls == [1]


def test_the_state_has_both_and_is_taken_back_in_place():
    one, other = made(0.5, value=2.0), made()
    held, state = other.alpha, one.state_dict()
    with torch.no_grad():
        one.alpha.fill_(7.0)
    assert set(state) == {"images", "step_size"}
    other.load_state_dict(state)
    assert other.alpha is held and held.item() == 0.5
    assert torch.equal(other.decode(torch.arange(2)), torch.full((2, 1, 4, 4), 2.0))


def test_one_optimizer_moves_both_at_their_rates():
    one = made(1.0, lr=0.1)
    optimizer = torch.optim.SGD(one.parameters(), momentum=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        (one.decode(torch.arange(2)).sum() + 2 * one.alpha).backward()
        optimizer.step()
    assert one.alpha.item() == pytest.approx(1 - 0.1 * 2 * (1 + 1.5))
    assert one.decode(torch.arange(2)).unique().tolist() == [-250.0]
