"""Views: crops as a bilinear resize has them, mirror images, rolls; siamese where a group is shared."""

import math

import pytest
import torch
import torch.nn.functional as F

from dd.augment.views import View, Views, _box, _resize
from dd.rng import stream

SHAPE = (3, 12, 16)


def images(n=4):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_nothing_is_the_very_image():
    x, params = images(), Views().draw(stream(0), 1, SHAPE, shared=True)
    assert torch.equal(Views().apply(x, params, torch.zeros(4, dtype=torch.int64)), x)


def test_rolls_are_whole_within_their_ends_and_come_in_on_the_other_side():
    x, views, found = images(1), Views(roll=(-1, 2)), set()
    for seed in range(200):
        seen = views.apply(x, views.draw(stream(seed), 1, SHAPE, shared=True), torch.tensor([0]))
        match = [(a, b) for a in range(-3, 4) for b in range(-3, 4) if torch.equal(seen, x.roll((a, b), (2, 3)))]
        assert len(match) == 1
        found.update(match)
    assert found == {(a, b) for a in range(-1, 3) for b in range(-1, 3)}


def test_half_are_mirrored_left_and_right():
    x, views = images(1), Views(flip=True)
    count = 0
    for seed in range(400):
        seen = views.apply(x, views.draw(stream(seed), 1, SHAPE, shared=True), torch.tensor([0]))
        mirrored = torch.equal(seen, x.flip(3))
        assert mirrored or torch.equal(seen, x)
        count += mirrored
    assert 160 < count < 240


@pytest.mark.parametrize("box", [(0, 0, 12, 16), (2, 3, 5, 9), (11, 15, 1, 1), (0, 4, 12, 2)])
def test_a_crop_is_what_interpolate_makes_of_the_box_in_value_and_gradient(box):
    top, left, height, width = box
    params = View(_resize(12, top, height)[None], _resize(16, left, width)[None])
    ours, theirs = images().double().requires_grad_(), images().double().requires_grad_()
    weights = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1)).double()
    seen = Views().apply(ours, params, torch.zeros(4, dtype=torch.int64))
    wanted = F.interpolate(theirs[:, :, top : top + height, left : left + width], size=SHAPE[1:], mode="bilinear", align_corners=False)
    assert torch.allclose(seen, wanted, atol=1e-6)
    (seen * weights).sum().backward()
    (wanted * weights).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


def test_crops_fit_and_have_the_areas_and_ratios_they_should():
    boxes = [_box(stream(seed, "box"), 64, 64) for seed in range(2000)]
    areas = torch.tensor([h * w / 4096 for _, _, h, w in boxes])
    ratios = torch.tensor([w / h for _, _, h, w in boxes])
    assert all(t >= 0 and t + h <= 64 and le >= 0 and le + w <= 64 for t, le, h, w in boxes)
    assert 0.07 < areas.min() < 0.12 and areas.max() > 0.9
    assert 0.70 < ratios.min() < 0.78 and 1.28 < ratios.max() < 1.42
    assert abs(ratios.log().mean()) < 0.02
    assert abs(areas.mean() - 0.52) < 0.04, "uniform; of the largest some do not fit and are drawn again"


def test_a_ratio_that_never_fits_gives_the_largest_box_in_the_middle():
    assert _box(stream(0), 2, 200) == (0, math.floor((200 - 3) / 2), 2, 3)


def test_every_image_has_the_view_of_its_group_and_a_draw_is_a_function_of_the_stream():
    x, views = images(1).expand(4, -1, -1, -1), Views(crop=True, flip=True, roll=(0, 3))
    params, again = (views.draw(stream(3, "v"), 2, SHAPE, shared=False) for _ in range(2))
    assert torch.equal(params.rows, again.rows) and torch.equal(params.columns, again.columns)
    seen = views.apply(x, params, torch.tensor([0, 1, 1, 0]))
    assert torch.equal(seen[0], seen[3]) and torch.equal(seen[1], seen[2]) and not torch.equal(seen[0], seen[1])
