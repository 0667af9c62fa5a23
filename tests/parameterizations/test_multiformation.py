"""Both decodes and both initialisations against pixel-by-pixel loops."""

import math

import pytest
import torch

from dd.data.normalise import Normalisation
from dd.data.pool import RealPool
from dd.parameterizations.multiformation import MultiFormation, draws, mix
from dd.rng import stream


def bilinear(part, height, width):
    """Enlarge (h, w) to (height, width), half-pixel centres, edges repeated: a loop over pixels."""
    h, w = part.shape
    out = torch.zeros(height, width, dtype=part.dtype)
    for i in range(height):
        for j in range(width):
            y, x = max((i + 0.5) * h / height - 0.5, 0), max((j + 0.5) * w / width - 0.5, 0)
            y0, x0 = min(int(y), h - 1), min(int(x), w - 1)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            dy, dx = y - y0, x - x0
            out[i, j] = (part[y0, x0] * (1 - dy) * (1 - dx) + part[y0, x1] * (1 - dy) * dx
                         + part[y1, x0] * dy * (1 - dx) + part[y1, x1] * dy * dx)  # fmt: skip
    return out


def naive(image, factor, order, fill, time_only):
    """Return the list of decoded images of one (c, h, w) image."""
    c, h, w = image.shape
    down = 1 if time_only else factor
    rows, columns = math.ceil(h / down), math.ceil(w / factor)
    canvas = torch.full((c, rows * down, columns * factor), fill, dtype=image.dtype)
    canvas[:, :h, :w] = image
    places = [(i, j) for i in range(down) for j in range(factor)]
    if order == "columns":
        places = [(i, j) for j in range(factor) for i in range(down)]
    cut = [canvas[:, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns] for i, j in places]
    return [torch.stack([bilinear(channel, h, w) for channel in part]) for part in cut]


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("order", ["rows", "columns"])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 4)])
@pytest.mark.parametrize("time_only", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_decode_equals_a_loop_over_pixels(factor, order, size, time_only, raw):
    images = torch.rand(3, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    normalisation = Normalisation([0.4, 0.6], [0.2, 0.3]) if raw else None
    made = MultiFormation(
        images, torch.tensor([0, 1, 1]), 0.1, factor=factor, order=order, normalisation=normalisation, time_only=time_only
    )
    index = torch.tensor([2, 0])
    expected = [part for k in index.tolist() for part in naive(images[k], factor, order, 0.5 if raw else 0.0, time_only)]
    expected = torch.stack(expected)
    if raw:
        expected = (expected - torch.tensor([0.4, 0.6]).view(1, 2, 1, 1)) / torch.tensor([0.2, 0.3]).view(1, 2, 1, 1)
    torch.testing.assert_close(made.decode(index), expected, rtol=1e-6, atol=1e-6)
    each = factor if time_only else factor**2
    assert made.labels(index).tolist() == [1] * each + [0] * each


def test_the_gradient_is_the_adjoint():
    images = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    made = MultiFormation(images, torch.tensor([0, 1]), 0.1, factor=2)
    assert torch.autograd.gradcheck(made.expand, (images.clone().requires_grad_(True),))
    made.decode(torch.tensor([1])).sum().backward()
    assert made.images.grad[0].abs().sum() == 0
    torch.testing.assert_close(made.images.grad[1].sum(), torch.tensor(4 * 36.0, dtype=torch.float64))  # bilinear weights sum to one


def test_bounds_are_kept_and_absent_bounds_do_nothing():
    images = torch.tensor([-0.5, 0.5, 1.5]).view(3, 1, 1, 1)
    labels = torch.arange(3)
    both = MultiFormation(images, labels, 0.1, low=0.0, high=1.0)
    below = MultiFormation(images, labels, 0.1, low=0.0)
    free = MultiFormation(images, labels, 0.1)
    for made in (both, below, free):
        made.project_()
    assert both.images.flatten().tolist() == [0, 0.5, 1]
    assert below.images.flatten().tolist() == [0, 0.5, 1.5]
    assert free.images.flatten().tolist() == [-0.5, 0.5, 1.5]


@pytest.fixture
def pool():
    images = torch.randint(0, 256, (2 * 9, 3, 8, 8), generator=torch.Generator().manual_seed(1)).byte()
    return RealPool(images, torch.arange(2).repeat_interleave(9), 2, [0.5] * 3, [0.25] * 3)


def test_mix_keeps_every_second_pixel_of_the_first_images_in_block_order(pool):
    ipc = 2
    stored = mix(pool, ipc, 2)
    for c in range(2):
        for k in range(ipc):
            for part, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
                original = pool.images[9 * c + part * ipc + k].float() / 255
                assert torch.equal(stored[c * ipc + k, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4], original[:, ::2, ::2])


def test_mix_then_decode_returns_the_shrunk_and_enlarged_originals(pool):
    stored = mix(pool, 1, 2)
    decoded = MultiFormation(stored, torch.arange(2), 0.1, factor=2).decode(torch.tensor([1]))
    for part in range(4):
        small = (pool.images[9 + part].float() / 255)[:, ::2, ::2]
        torch.testing.assert_close(decoded[part], torch.stack([bilinear(channel, 8, 8) for channel in small]))


def test_mix_takes_random_images_if_asked_and_begins_again_where_there_are_too_few(pool):
    assert not torch.equal(mix(pool, 2, 2), mix(pool, 2, 2, stream(0, "init")))
    assert torch.equal(mix(pool, 2, 2, stream(0, "init")), mix(pool, 2, 2, stream(0, "init")))
    stored = mix(pool, 3, 2)  # 12 of 9 images
    assert torch.equal(stored[0, :, 4:, 4:], (pool.images[0].float() / 255)[:, ::2, ::2])  # the tenth is the first


def test_draws_are_two_by_two_means_of_random_images(pool):
    stored = draws(pool, 1, 2, stream(3, "init"))
    means = pool.x(torch.arange(18)).unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    for c in range(2):
        for i in range(2):
            for j in range(2):
                corner = stored[c, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
                near = [k for k in range(18) if torch.allclose(means[k], corner, atol=1e-5)]
                assert len(near) == 1 and near[0] // 9 == c


def test_halves_along_time(pool):
    stored = mix(pool, 1, 2, time_only=True)
    assert torch.equal(stored[0, :, :, :4], (pool.images[0].float() / 255)[:, :, ::2])
    assert torch.equal(stored[0, :, :, 4:], (pool.images[1].float() / 255)[:, :, ::2])


def test_odd_sizes_have_mosaics_of_their_own_size():
    images = torch.randint(0, 256, (8, 1, 7, 5)).byte()
    pool = RealPool(images, torch.zeros(8, dtype=torch.int64), 1, [0.5], [0.25])
    assert mix(pool, 2, 2).shape == (2, 1, 7, 5)
    assert draws(pool, 2, 2, stream(0, "init")).shape == (2, 1, 7, 5)


def test_factor_one_is_the_image_itself(pool):
    assert torch.equal(mix(pool, 3, 1), pool.raw(torch.tensor([0, 1, 2, 9, 10, 11])))


def test_a_factor_below_one_is_refused():
    with pytest.raises(ValueError, match="factor must be at least 1"):
        MultiFormation(torch.zeros(1, 1, 2, 2), torch.zeros(1), 0.1, factor=0)


def test_the_parts_of_a_mosaic_are_draws_of_their_own(pool):
    """With ipc 2 the four corners of an image come from one draw each: not all from the same real image."""
    means = pool.x(torch.arange(18)).unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    stored = draws(pool, 2, 2, stream(0, "init"))
    for image in stored:
        corners = [image[:, i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)]
        origin = [next(k for k in range(18) if torch.allclose(means[k], corner, atol=1e-5)) for corner in corners]
        if len(set(origin)) > 1:
            return
    raise AssertionError("all parts of every image are of one real image")
