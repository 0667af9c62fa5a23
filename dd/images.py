"""Distilled sets as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dd.artifacts import atomic

if TYPE_CHECKING:
    from torch import Tensor

GAP = 2  # pixels between images


def write_grid(path: Path, images: Tensor, labels: Tensor, columns: int = 10) -> None:
    """Write a PNG with one row of up to `columns` images for every class (up to 10 classes).

    Args:
        images: (n, c, h, w), clipped to [0, 1]; non-finite pixels (of a run that diverged) are shown grey.
        labels: (n,) class ids, or (n, k) probabilities.
    """
    from PIL import Image

    ids = labels if labels.ndim == 1 else labels.argmax(1)
    rows = [images[ids == c][:columns] for c in ids.unique()[:10]]
    h, w = images.shape[2:]
    zoom = max(1, round(48 / h))
    cell_h, cell_w = h * zoom + GAP, w * zoom + GAP
    widest = max(len(row) for row in rows)
    sheet = np.full((len(rows) * cell_h + GAP, widest * cell_w + GAP, 3), 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        pixels = (row.nan_to_num(0.5, 1.0, 0.0).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for j, image in enumerate(pixels):
            big = np.repeat(np.repeat(image, zoom, 0), zoom, 1)
            top, left = GAP + i * cell_h, GAP + j * cell_w
            sheet[top : top + h * zoom, left : left + w * zoom] = big  # one channel broadcasts to three
    with atomic(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
