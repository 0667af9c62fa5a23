"""Distilled sets as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dd.artifacts import atomic

if TYPE_CHECKING:
    from torch import Tensor

GAP = 2  # pixels between images


def write_grid(path: Path, images: Tensor, labels: Tensor, columns: int = 10, *, span: Sequence[float | None] = (0.0, 1.0)) -> None:
    """Write a PNG with one row of up to `columns` images for every class (up to 10 classes).

    Args:
        images: (n, c, h, w), clipped to `span`; non-finite pixels (of a run that diverged) are shown grey, white or black.
        labels: (n,) class ids, or (n, k) probabilities.
        span: what is black and what is white, in units of `images`: `range` of the dataset's manifest. None is the smallest, or
            largest, finite pixel that is shown.
    """
    from PIL import Image

    ids = labels if labels.ndim == 1 else labels.argmax(1)
    rows = [images[ids == c][:columns] for c in ids.unique()[:10]]
    low, high = _bounds(rows, span)
    h, w = images.shape[2:]
    zoom = max(1, round(48 / h))
    cell_h, cell_w = h * zoom + GAP, w * zoom + GAP
    widest = max(len(row) for row in rows)
    sheet = np.full((len(rows) * cell_h + GAP, widest * cell_w + GAP, 3), 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        grey = ((row - low) / (high - low)).nan_to_num(0.5, 1.0, 0.0).clamp(0, 1)
        pixels = (grey * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for j, image in enumerate(pixels):
            big = np.repeat(np.repeat(image, zoom, 0), zoom, 1)
            top, left = GAP + i * cell_h, GAP + j * cell_w
            sheet[top : top + h * zoom, left : left + w * zoom] = big  # one channel broadcasts to three
    with atomic(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")


def _bounds(rows: list[Tensor], span: Sequence[float | None]) -> tuple[float, float]:
    """Return (black, white), with black below white, whatever the pixels are."""
    low, high = span
    finite = [row[row.isfinite()] for row in rows]
    seen = [part for part in finite if len(part)]
    if low is None:
        low = min((float(part.min()) for part in seen), default=0.0)
    if high is None:
        high = max((float(part.max()) for part in seen), default=low + 1)
    return low, max(high, low + 1e-6)
