"""Readers of official .npz archives. Nothing is unpickled: arrays of objects are refused."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dd.data.readers import SPLITS, RawSplit
from dd.errors import DataError

SHARDS = tuple(f"train_data_batch_{n}.npz" for n in range(1, 11))
VAL = "val_data.npz"
LARGEST = 2_000_000_000  # bytes of one array; the largest has 393 million


def pathmnist(root: Path, size: int = 32) -> tuple[RawSplit, RawSplit]:
    """Read train and test of MedMNIST's pathmnist.npz, enlarged from 28x28 to `size` x `size`. Its val split is not used.

    Arrays: {split}_images (n, 28, 28, 3) uint8 and {split}_labels (n, 1) integers from 0.

    Enlarged by Pillow's bilinear filter: pixel centres, edges clamped, each of the two passes (rows, then columns) rounded to 8 bits.
    Antialiasing, which Pillow always does, changes nothing where images grow.

    Differs from the paper: CLoM does not say how its ConvNet, which has a classifier for 32x32, took images of 28x28.

    Raises:
        DataError: missing, truncated or damaged; an array is missing, pickled, or of another type or shape.
    """
    from PIL import Image

    file = root / "pathmnist.npz"
    parts = []
    for split in SPLITS:
        small = _array(file, f"{split}_images")
        if small.dtype != np.uint8 or small.shape[1:] != (28, 28, 3):
            raise DataError(f"{file}: {split}_images is {small.dtype} {small.shape}; must be uint8 (images, 28, 28, 3)")
        images = np.empty((len(small), 3, size, size), dtype=np.uint8)
        for row, image in enumerate(small):
            images[row] = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        parts.append(RawSplit(images, _labels(file, f"{split}_labels")))
    return parts[0], parts[1]


def imagenet32(root: Path) -> tuple[RawSplit, RawSplit]:
    """Read the downsampled ImageNet at 32x32: train_data_batch_1.npz to train_data_batch_10.npz, and val_data.npz as test.

    Arrays: data (n, 3072) uint8, all red pixels of an image, then green, then blue, row by row; labels (n,) integers from 1 to 1000,
    which become 0 to 999. `mean` is not used. The images are held once, and one file beside them.

    Raises:
        DataError: a file is missing, truncated or damaged; an array is missing, pickled, or of another type, shape or range.
    """
    if missing := [name for name in (*SHARDS, VAL) if not (root / name).is_file()]:
        raise DataError(
            f"{root}: holds no {missing[0]}; must hold {SHARDS[0]} to {SHARDS[-1]} and {VAL}, the npz files of the downsampled ImageNet at "
            "32x32 (https://image-net.org, which needs a login)"
        )
    return _joined([root / name for name in SHARDS]), _joined([root / VAL])


def _joined(files: list[Path]) -> RawSplit:
    labels = [_labels(file, "labels") for file in files]
    images = np.empty((sum(map(len, labels)), 3, 32, 32), dtype=np.uint8)
    start = 0
    for file, mine in zip(files, labels, strict=True):
        strange = np.flatnonzero((mine < 1) | (mine > 1000))
        if len(strange):
            raise DataError(f"{file}: labels: value {mine[strange[0]]} (image {strange[0]}) is out of range; allowed: 1 to 1000")
        data = _array(file, "data")
        if data.dtype != np.uint8 or data.shape != (len(mine), 3072):
            raise DataError(f"{file}: data is {data.dtype} {data.shape}; must be uint8 ({len(mine)}, 3072), one row for each label")
        images[start : start + len(mine)] = data.reshape(-1, 3, 32, 32)
        start += len(mine)
    return RawSplit(images, np.concatenate(labels) - 1)


def _labels(file: Path, name: str) -> NDArray[np.int64]:
    labels = _array(file, name)
    if labels.dtype.kind not in "iu" or labels.size != len(labels):
        raise DataError(f"{file}: {name} is {labels.dtype} {labels.shape}; must be one integer for each image")
    return labels.reshape(-1).astype(np.int64)


def _array(file: Path, name: str) -> NDArray[Any]:
    """Return one array of an archive, at least 1-dimensional; only this one is read."""
    if not file.exists():
        raise DataError(f"{file}: no such file")
    if not zipfile.is_zipfile(file):
        raise DataError(f"{file}: is truncated, damaged or no .npz archive; delete it and get it again")
    size = 0
    try:
        with np.load(file, allow_pickle=False) as archive:
            if name not in archive.files:
                raise DataError(f"{file}: holds no array {name}; its arrays: {', '.join(sorted(archive.files)) or '(none)'}")
            members = {member.filename: member for member in archive.zip.infolist()}
            member = members[name if name in members else f"{name}.npy"]
            size = member.file_size
            if size > LARGEST:
                raise DataError(f"{file}: {name}: has {size} bytes, too many; allowed: {LARGEST}")
            with archive.zip.open(member) as opened:
                if _stated(opened) > size:  # before memory is asked for
                    raise DataError(f"{file}: {name}: is damaged: it says that it is larger than its {size} bytes")
            array: NDArray[Any] = np.atleast_1d(archive[name])
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{file}: {name}: has {size} bytes and finds no place in memory") from None
    except Exception as error:  # numpy raises anything on damaged files
        raise DataError(f"{file}: {name}: is damaged, or pickled, which is never read ({error})") from None
    return array


def _stated(opened: zipfile.ZipExtFile) -> int:
    """Return how many bytes an array says that it has; 0 for something that is no array."""
    if not opened.peek(6).startswith(np.lib.format.MAGIC_PREFIX):
        return 0
    old = np.lib.format.read_magic(opened) == (1, 0)
    shape, _, dtype = np.lib.format.read_array_header_1_0(opened) if old else np.lib.format.read_array_header_2_0(opened)
    return math.prod(shape) * int(dtype.itemsize)
