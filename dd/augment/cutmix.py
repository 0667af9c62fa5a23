"""CutMix (Yun et al., ICCV 2019) as the IDC lineage uses it: one box and one permutation for a mini-batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True, slots=True)
class Mix:
    """The values of one draw.

    whether: mix at all. box: (top, bottom, left, right), ends excluded. permutation: (n,) int64, whose pixels fill the box.
    ratio: share of the image that stays, in [0, 1]; 1 if nothing is mixed.
    """

    whether: bool
    box: tuple[int, int, int, int]
    permutation: Tensor
    ratio: float


def draw(generator: Generator, n: int, size: tuple[int, int], p: float) -> Mix:
    """Draw for a mini-batch of n images of (h, w) pixels.

    With probability p: lambda ~ Beta(1, 1), that is uniform; a box of int(w s) x int(h s) pixels, s = sqrt(1 - lambda),
    around a uniform pixel, clipped to the image; ratio = 1 - clipped area / (h w). As in the papers' code the box reaches
    half its side, rounded down, to both sides of its centre, so a box of odd side is one pixel smaller.
    """
    whether = bool(torch.rand((), generator=generator) < p)
    share = float((1 - torch.rand((), generator=generator)).sqrt())
    spans = []
    for side in size:
        centre = int(torch.randint(side, (), generator=generator))
        half = int(side * share) // 2
        spans.append((max(centre - half, 0), min(centre + half, side)))
    permutation = torch.randperm(n, generator=generator)
    if not whether:
        return Mix(False, (0, 0, 0, 0), permutation, 1.0)
    (top, bottom), (left, right) = spans
    ratio = 1 - (bottom - top) * (right - left) / (size[0] * size[1])
    return Mix(True, (top, bottom, left, right), permutation, ratio)


def apply(x: Tensor, y: Tensor, params: Mix) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return (mixed images, y, y of the images in the box, ratio).

    The loss is ratio CE(y_a) + (1 - ratio) CE(y_b).

    Args:
        x: (n, c, h, w); gradients flow to the images on both sides of the box.
        y: (n,) class ids or (n, k) probabilities.
        params: of `draw`, for n images of this size.
    """
    if not params.whether:
        return x, y, y, 1.0
    top, bottom, left, right = params.box
    permutation = params.permutation.to(x.device)
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x[permutation, :, top:bottom, left:right]
    return mixed, y, y[permutation], params.ratio
