"""scikit-learn's handwritten digits at 16x16: real images that need no download."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dd.data.order import pixel_keys
from dd.data.readers import RawSplit

TEST = 360


def digits() -> tuple[RawSplit, RawSplit]:
    """Return (train, test): 1,437 and 360 images, (1, 16, 16), a stratified split by the hash of the pixels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = upsample(data.images.astype(np.int64))[:, None]
    labels = data.target.astype(np.int64)
    keys = pixel_keys([images], b"split")
    test: list[int] = []
    shares = _shares(np.bincount(labels), TEST)
    for c, share in enumerate(shares):
        members = np.flatnonzero(labels == c)
        test += members[np.argsort(keys[members], kind="stable")][:share].tolist()
    mask = np.zeros(len(labels), dtype=bool)
    mask[test] = True
    return RawSplit(images[~mask], labels[~mask]), RawSplit(images[mask], labels[mask])


def _shares(counts: NDArray[np.int64], total: int) -> list[int]:
    """Return how many of each class go to the test split: proportional, largest remainders first, exactly `total`."""
    exact = counts * total / counts.sum()
    shares = np.floor(exact).astype(int)
    for c in np.argsort(shares - exact, kind="stable")[: total - shares.sum()]:
        shares[c] += 1
    return shares.tolist()


def upsample(images: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return (n, 16, 16) in 0..255 from (n, 8, 8) in 0..16: bilinear, in integers, so that every machine makes the same bytes.

    At factor 2 (pixel centres, edges clamped) each new pixel is 1/4 and 3/4 of two neighbours in each direction.
    """
    rows = _double(images, 1)
    both = _double(rows, 2)  # 16 times the value
    return ((both * 255 * 2 + 16 * 16) // (2 * 16 * 16)).astype(np.uint8)  # rounded half up


def _double(x: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    before = np.concatenate([x.take([0], axis), x.take(range(x.shape[axis] - 1), axis)], axis)
    after = np.concatenate([x.take(range(1, x.shape[axis]), axis), x.take([-1], axis)], axis)
    pair = np.stack([before + 3 * x, 3 * x + after], axis + 1)
    shape = list(x.shape)
    shape[axis] *= 2
    return pair.reshape(shape)
