"""The six ops of differentiable siamese augmentation (Zhao & Bilen, DSA, ICML 2021), drawn apart from being applied.

An op is a pair: `draw(generator, n, (c, h, w))` returns values for n images, one row each, on the CPU; `apply(x, values)`
returns the (n, c, h, w) images transformed, each with its own row, and draws nothing. A single row stands for all images: that
takes slices where rows of their own take an index or a mask for each image, and gives the same numbers. Images are in the networks'
input space: the 0 that crop, cutout, scale and rotate fill in is the data's mean colour. All are differentiable in x.

Differs from the code of the paper: values come from a generator, not from the wall clock; crop, cutout and the affine matrices
are made for all images at once. Distributions and arithmetic are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

Shape = tuple[int, int, int]
CROP, CUTOUT, SCALE, DEGREES = 0.125, 0.5, 1.2, 15.0


def draw_color(generator: Generator, n: int, shape: Shape) -> Tensor:
    """Draw (n, 3) in [0, 1): for brightness, saturation and contrast."""
    return torch.rand(n, 3, generator=generator)


def color(x: Tensor, values: Tensor) -> Tensor:
    """Apply brightness, saturation and contrast, in this order, for values (u, v, w).

    x + (u - 0.5); then (x - m) 2v + m, m the mean over channels at each pixel (so nothing for one channel); then
    (x - m)(w + 0.5) + m, m the mean of the image.
    """
    u, v, w = _placed(values, x)[:, :, None, None, None].unbind(1)
    x = x + (u - 0.5)
    gray = x.mean(1, keepdim=True)
    x = (x - gray).mul_(2 * v).add_(gray)
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean).mul_(w + 0.5).add_(mean)


def draw_crop(generator: Generator, n: int, shape: Shape) -> Tensor:
    """Draw (n, 2) whole shifts, rows and columns, uniform in [-k, k], k = int(side / 8 + 0.5)."""
    reach = [int(side * CROP + 0.5) for side in shape[1:]]
    return torch.cat([torch.randint(-k, k + 1, (n, 1), generator=generator) for k in reach], 1)


def crop(x: Tensor, values: Tensor) -> Tensor:
    """Shift: y[i, j] = x[i + a, j + b] for values (a, b), 0 where that lies outside."""
    n, c, h, w = x.shape
    if len(values) == 1:
        down, right = values[0].tolist()
        return F.pad(x, (-right, right, -down, down))  # a negative width cuts off
    values = values.to(x.device, non_blocking=True)
    rows = torch.arange(h, device=x.device) + values[:, :1]
    columns = torch.arange(w, device=x.device) + values[:, 1:]
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None]
    # Wrapping around makes the index a permutation: the gradient's scatter meets each pixel once, in any order the same.
    index = (rows % h * w)[:, :, None] + (columns % w)[:, None]
    moved = x.flatten(2).gather(2, index.view(n, 1, h * w).expand(n, c, h * w)).view(n, c, h, w)
    return moved.masked_fill(~inside[:, None], 0)


def draw_cutout(generator: Generator, n: int, shape: Shape) -> Tensor:
    """Draw (n, 2) centres, row and column, uniform in [0, side), or [0, side] where the square's side is even."""
    ends = [side + 1 - _square(side) % 2 for side in shape[1:]]
    return torch.cat([torch.randint(0, end, (n, 1), generator=generator) for end in ends], 1)


def cutout(x: Tensor, values: Tensor) -> Tensor:
    """Fill a square of side s = int(side / 2 + 0.5) with 0, as far as it lies inside.

    Rows a - s // 2 to a - s // 2 + s - 1 for values (a, b), and likewise columns.
    """
    if len(values) == 1:
        (top, bottom), (left, right) = (_reach(at, side) for at, side in zip(values[0].tolist(), x.shape[2:], strict=True))
        x = x.clone()
        x[:, :, top:bottom, left:right] = 0
        return x
    values = values.to(x.device, non_blocking=True)
    spans = []
    for axis, side in enumerate(x.shape[2:]):
        first = values[:, axis : axis + 1] - _square(side) // 2
        at = torch.arange(side, device=x.device)
        spans.append((at >= first) & (at < first + _square(side)))
    return x.masked_fill((spans[0][:, :, None] & spans[1][:, None])[:, None], 0)


def _reach(centre: int, side: int) -> tuple[int, int]:
    """Return where the square begins and ends along an axis, end excluded, inside the image."""
    first = centre - _square(side) // 2
    return max(first, 0), max(first + _square(side), 0)


def _square(side: int) -> int:
    return int(side * CUTOUT + 0.5)


def draw_flip(generator: Generator, n: int, shape: Shape) -> Tensor:
    """Draw (n, 1) bool, true with probability 0.5."""
    return torch.rand(n, 1, generator=generator) < 0.5


def flip(x: Tensor, values: Tensor) -> Tensor:
    """Mirror left and right where the value is true."""
    if len(values) == 1:
        return x.flip(3) if values.item() else x
    return torch.where(values.to(x.device, non_blocking=True)[:, :, None, None], x.flip(3), x)


def draw_scale(generator: Generator, n: int, shape: Shape) -> Tensor:
    """Draw (n, 2) factors, horizontal and vertical, uniform in [1 / 1.2, 1.2)."""
    return torch.rand(n, 2, generator=generator) * (SCALE - 1 / SCALE) + 1 / SCALE


def scale(x: Tensor, values: Tensor, align_corners: bool = False) -> Tensor:
    """Sample bilinearly at diag(a, b) (x, y) for values (a, b), coordinates in [-1, 1]; above 1 shrinks what is seen."""
    return _affine(x, torch.diag_embed(_placed(values, x)), align_corners)


def draw_rotate(generator: Generator, n: int, shape: Shape) -> Tensor:
    """Draw (n, 1) angles in degrees, uniform in [-15, 15)."""
    return (torch.rand(n, 1, generator=generator) * 2 - 1) * DEGREES


def rotate(x: Tensor, values: Tensor, align_corners: bool = False) -> Tensor:
    """Sample bilinearly at [[cos, -sin], [sin, cos]] (x, y), coordinates in [-1, 1]."""
    angle = torch.deg2rad(_placed(values, x)[:, 0])
    cos, sin = angle.cos(), angle.sin()
    return _affine(x, torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2), align_corners)


def _affine(x: Tensor, matrix: Tensor, align_corners: bool) -> Tensor:
    grid = F.affine_grid(F.pad(matrix, (0, 1)), [len(matrix), *x.shape[1:]], align_corners=align_corners)
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), mode="bilinear", padding_mode="zeros", align_corners=align_corners)


def _placed(values: Tensor, x: Tensor) -> Tensor:
    """Return drawn values as `x` has its own, without waiting for the device."""
    return values.to(x.device, x.dtype, non_blocking=True)


class Op(NamedTuple):
    """A transformation: its randomness and its arithmetic."""

    draw: Callable[[Generator, int, Shape], Tensor]
    apply: Callable[..., Tensor]


OPS = {
    "color": Op(draw_color, color),
    "crop": Op(draw_crop, crop),
    "cutout": Op(draw_cutout, cutout),
    "flip": Op(draw_flip, flip),
    "scale": Op(draw_scale, scale),
    "rotate": Op(draw_rotate, rotate),
}
RESAMPLED = ("scale", "rotate")  # these take `align_corners`
