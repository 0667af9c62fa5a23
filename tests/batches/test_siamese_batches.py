"""The batches of a step: shared draws, caps, and what depends on what."""

import pytest
import torch

from dd.augment.policies import make
from dd.batches import SiameseBatches
from dd.data.normalise import ZCA
from dd.data.pool import RealPool
from dd.parameterizations.multiformation import MultiFormation
from dd.parameterizations.pixels import Pixels
from dd.rng import stream

CLASSES = 3


def pool():
    g = torch.Generator().manual_seed(0)
    return RealPool(
        torch.randint(0, 256, (30, 1, 8, 8), generator=g).byte(), torch.arange(CLASSES).repeat_interleave(10), CLASSES, [0.5], [0.25]
    )


def batches(step=0, cap=None, policy="none", ipc=2, seed=0):
    images = torch.arange(CLASSES * ipc, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    made = MultiFormation(images, torch.arange(CLASSES).repeat_interleave(ipc), 0.1, factor=2)
    return SiameseBatches(pool(), made, CLASSES * ipc, make(policy, "color_crop"), 4, seed, step, cap)


def test_a_cap_takes_as_many_of_every_class_without_repetition_and_anew_each_step():
    synthetic, real = batches(cap=5).pair()
    assert synthetic.y.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert real.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for c in range(CLASSES):  # 8 decoded images a class; two stored ones of a constant value each
        values = synthetic.x[synthetic.y == c][:, 0, 0, 0].tolist()
        assert set(values) <= {2.0 * c, 2.0 * c + 1} and max(values.count(v) for v in set(values)) <= 4
    seen = {tuple(batches(step=step, cap=5).pair()[0].x[:, 0, 0, 0].tolist()) for step in range(8)}
    assert len(seen) > 1
    assert torch.equal(batches(cap=5).pair()[0].x, batches(cap=5).pair()[0].x)


def test_no_cap_and_a_wide_cap_give_all_in_order():
    for cap in (None, 8, 100):
        assert batches(cap=cap).pair()[0].x[:, 0, 0, 0].tolist() == [float(v) for v in range(6) for _ in range(4)]


def test_the_look_after_the_update_has_a_draw_of_its_own():
    one = batches(policy="stack")
    first, _ = one.pair()
    after = one.augmented()
    assert torch.equal(first.y, after.y)
    assert not torch.equal(first.x, after.x)
    again = batches(policy="stack")
    again.pair()
    assert torch.equal(after.x, again.augmented().x)


def test_uniform_real_batches_differ_by_call():
    one = batches()
    a, b = one.real(6), one.real(6)
    assert a.x.shape == (6, 1, 8, 8) and not torch.equal(a.x, b.x)


def test_pixels_work_as_well():
    pixels = Pixels(torch.randn(CLASSES, 1, 8, 8), torch.arange(CLASSES), 1.0)
    synthetic, real = SiameseBatches(pool(), pixels, CLASSES, make("oneof", "color_crop"), 2, 0, 0).pair()
    assert synthetic.y.tolist() == [0, 1, 2] and len(real.y) == 6


@pytest.mark.parametrize("policy", ["oneof", "stack"])
def test_real_and_synthetic_images_of_a_class_meet_one_draw_and_classes_differ(policy):
    """Every image is the same before; so it must be the same in both batches after, and not the same in all classes."""
    one = torch.randint(0, 256, (1, 3, 16, 16), generator=torch.Generator().manual_seed(2)).byte()
    same = RealPool(one.expand(8 * 4, -1, -1, -1), torch.arange(8).repeat_interleave(4), 8, [0.5] * 3, [0.25] * 3)
    pixels = Pixels(same.x(torch.arange(0, 32, 4)), torch.arange(8), 1.0)
    synthetic, real = SiameseBatches(same, pixels, 8, make(policy, "color_crop_cutout_flip_scale_rotate"), 3, 0, 5).pair()
    for c in range(8):
        for image in real.x[real.y == c]:
            assert torch.equal(image, synthetic.x[c])
    assert len({tuple(image.flatten().tolist()) for image in synthetic.x}) > 1


def test_real_images_and_augmentation_change_with_step_call_and_seed():
    def first(step=0, seed=0, call=0):
        one = batches(step=step, seed=seed, policy="oneof")
        return [one.pair() for _ in range(call + 1)][-1]

    base = first()
    assert torch.equal(base[1].x, first()[1].x) and torch.equal(base[0].x, first()[0].x)
    for other in (first(step=1), first(seed=1), first(call=1)):
        assert not torch.equal(base[1].x, other[1].x)
    seen = {tuple(first(step=step)[0].x.flatten().tolist()) for step in range(6)}
    assert len(seen) > 1, "the augmentation never changes"


@pytest.mark.parametrize(("policy", "shape"), [("none", (3, 16, 16)), ("oneof", (3, 16, 16)), ("stack", (3, 16, 16)), ("oneof", (1, 9, 7))])
def test_a_pair_is_what_one_pass_over_all_classes_makes(policy, shape):
    """Class by class, in place, against all images at once by the definitions: same bits, and the stored pixels stay as they are."""
    g = torch.Generator().manual_seed(3)
    stored, labels = torch.randint(0, 256, (90, *shape), generator=g).byte(), torch.arange(90) % 3
    mean, std = torch.rand(shape[0], generator=g).tolist(), (torch.rand(shape[0], generator=g) + 0.1).tolist()
    pool, before = RealPool(stored, labels, 3, mean, std), stored.clone()
    pixels = Pixels(torch.randn(6, *shape, generator=g), torch.arange(3).repeat_interleave(2), 1.0)
    augment = make(policy, "color_crop_cutout_flip_scale_rotate")
    for step in range(6):
        synthetic, real = SiameseBatches(pool, pixels, 6, augment, 20, 0, step).pair()
        index = pool.draw(stream(0, "real", step, 0), 20).reshape(-1)
        x = (stored[index].float() / 255 - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)
        params = augment.draw(stream(0, "augment", step, 0), 3, shape, shared=True)
        order = torch.randperm(60, generator=g)  # no runs: each image by itself
        assert torch.equal(real.y, labels[index])
        assert torch.equal(real.x[order], augment.apply(x[order], params, labels[index][order]))
        assert torch.equal(synthetic.x, augment.apply(pixels.images, params, synthetic.y))
    assert torch.equal(stored, before)


def test_whitened_and_float_images_stay_as_they_are_stored():
    g = torch.Generator().manual_seed(4)
    floats = torch.randn(12, 1, 4, 4, generator=g)
    before, index = floats.clone(), torch.arange(0, 12, 2)
    plain = RealPool(floats, torch.arange(12) % 2, 2, [0.3], [0.7])
    assert torch.equal(plain.x(index), (before[index] - 0.3) / 0.7)
    matrix = torch.randn(16, 16, generator=g)
    white = RealPool(floats, torch.arange(12) % 2, 2, [0.0], [1.0], zca=ZCA(torch.randn(16, generator=g), matrix, matrix))
    assert torch.equal(white.x(index), white.normalisation.apply(before[index]))
    assert torch.equal(floats, before)
