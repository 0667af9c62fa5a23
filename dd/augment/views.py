"""Random resized crops, mirror images and rolls, as two small matrices for each group of images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

AREA = (0.08, 1.0)  # of a crop, in images
RATIO = (3 / 4, 4 / 3)  # width to height of a crop
TRIES = 10


@dataclass(frozen=True, slots=True)
class View:
    """One draw: rows (groups, h, h) and columns (groups, w, w) float32, on the CPU. A view of x is rows x columns^T."""

    rows: Tensor
    columns: Tensor


class Views:
    r"""A crop that is resized to the whole image, a mirror image with probability 1/2, and a roll, in this order.

    All three mix rows with rows and columns with columns, and each channel alone, so they are :math:`R x C^T`: exact where there is no
    crop, differentiable, and with a fixed order of sums in both directions on every device, which a bilinear resize does not have on GPUs.

    crop: a box of a uniform share (0.08 to 1) of the area and a log-uniform ratio (3:4 to 4:3) of the sides, at a uniform place, resized
    bilinearly (half-pixel centres); after ten boxes that do not fit, the largest in the middle. flip: whether to mirror. roll: the least
    and the greatest whole number of pixels, ends included, for each axis; what leaves on one side comes in on the other.
    """

    def __init__(self, *, crop: bool = False, flip: bool = False, roll: tuple[int, int] = (0, 0)) -> None:
        self._crop, self._flip, self._roll = crop, flip, roll

    def draw(self, generator: Generator, groups: int, shape: tuple[int, int, int], *, shared: bool) -> View:
        """Return a view for each of `groups` groups of (c, h, w) images; `shared` makes no difference."""
        _, h, w = shape
        rows, columns = [], []
        for _ in range(groups):
            top, left, height, width = _box(generator, h, w) if self._crop else (0, 0, h, w)
            row, column = _resize(h, top, height), _resize(w, left, width)
            if self._flip and torch.rand((), generator=generator) < 0.5:
                column = column.flip(0)
            down, right = torch.randint(self._roll[0], self._roll[1] + 1, (2,), generator=generator).tolist()
            rows.append(row.roll(down, 0))
            columns.append(column.roll(right, 0))
        return View(torch.stack(rows), torch.stack(columns))

    def apply(self, x: Tensor, params: View, group: Tensor) -> Tensor:
        """Return (n, c, h, w) images, each seen with the view of its group, (n,) int64; draws nothing."""
        group = group.cpu()
        rows, columns = params.rows[group].to(x)[:, None], params.columns[group].to(x)[:, None]
        return rows @ x @ columns.mT


def _box(generator: Generator, h: int, w: int) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of a random crop."""
    for _ in range(TRIES):
        share, log = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        area = h * w * (AREA[0] + share * (AREA[1] - AREA[0]))
        ratio = math.exp(math.log(RATIO[0]) + log * (math.log(RATIO[1]) - math.log(RATIO[0])))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= w and 0 < height <= h:
            top = int(torch.randint(h - height + 1, (), generator=generator))
            left = int(torch.randint(w - width + 1, (), generator=generator))
            return top, left, height, width
    height, width = min(h, round(w / RATIO[0])), min(w, round(h * RATIO[1]))
    return (h - height) // 2, (w - width) // 2, height, width


def _resize(side: int, first: int, length: int) -> Tensor:
    """Return (side, side) weights by which `length` pixels from `first` on become `side` pixels, linearly between their centres."""
    at = ((torch.arange(side, dtype=torch.float64) + 0.5) * length / side - 0.5).clamp(0, length - 1)
    low = at.floor().long().clamp(max=length - 1)
    high = (low + 1).clamp(max=length - 1)
    weight = at - low
    matrix = torch.zeros(side, side, dtype=torch.float64)
    every = torch.arange(side)
    matrix[every, first + low] += 1 - weight
    matrix[every, first + high] += weight
    return matrix.float()
