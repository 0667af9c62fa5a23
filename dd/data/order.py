"""The order of images, which follows from their content alone: pixels, or the samples of a sound."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def pixel_keys(content: NDArray[np.uint8], salt: bytes = b"") -> list[bytes]:
    """Return a sha256 of every image's content, (n, ...), preceded by `salt`."""
    flat = np.ascontiguousarray(content).reshape(len(content), -1)
    return [hashlib.sha256(salt + row.tobytes()).digest() for row in flat]


def sorted_by_class(content: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[int]:
    """Return the positions of the images sorted by (label, sha256 of the content)."""
    keys = pixel_keys(content)
    return sorted(range(len(labels)), key=lambda i: (labels[i], keys[i]))


def held_out(content: NDArray[np.uint8], labels: NDArray[np.int64], share: float = 0.1) -> NDArray[np.int64]:
    """Return the positions of a stratified share of the images (at least one of each class), chosen by a hash of the content."""
    keys = pixel_keys(content, b"holdout")
    chosen: list[int] = []
    for c in np.unique(labels):
        members: list[int] = np.flatnonzero(labels == c).tolist()
        chosen += sorted(members, key=keys.__getitem__)[: max(1, round(share * len(members)))]
    return np.sort(np.asarray(chosen, dtype=np.int64))
