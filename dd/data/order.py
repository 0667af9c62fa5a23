"""The order of images, which follows from their content alone: pixels, or the samples of a sound.

Images may be memory-mapped and larger than the memory: they are read a block at a time, and never copied as a whole.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 24  # bytes that are in memory at a time


def blocks(content: NDArray[Any], order: NDArray[np.int64] | None = None) -> Iterator[NDArray[Any]]:
    """Yield (n, ...) in blocks of up to BLOCK bytes (at least one image), each C-contiguous; `order`: the rows, in another order."""
    step = max(1, BLOCK // max(1, content.dtype.itemsize * math.prod(content.shape[1:])))
    for start in range(0, len(content), step):
        rows = slice(start, start + step)
        yield np.ascontiguousarray(content[rows if order is None else order[rows]])


def pixel_keys(parts: Iterable[NDArray[np.uint8]], salt: bytes = b"") -> NDArray[np.bytes_]:
    """Return a sha256 of every image's content, preceded by `salt`: (n,) strings of 32 bytes. `parts`: blocks (m, ...) of images."""
    return np.array([hashlib.sha256(salt + row.tobytes()).digest() for part in parts for row in part], dtype="S32")


def sorted_by_class(keys: NDArray[np.bytes_], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of the images sorted by (label, key); equal ones stay in the order in which they are."""
    return np.lexsort((keys, labels))


def held_out(keys: NDArray[np.bytes_], labels: NDArray[np.int64], share: float = 0.1) -> NDArray[np.int64]:
    """Return the positions of a stratified share of the images (at least one of each class): those with the smallest keys."""
    chosen = []
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        chosen.append(members[np.argsort(keys[members], kind="stable")][: max(1, round(share * len(members)))])
    return np.sort(np.concatenate(chosen))
