"""Readers of archives in the form in which their authors publish them. Nothing is unpickled, and nothing is extracted."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dd.data.readers import SPLITS, RawSplit
from dd.errors import DataError

# Where the binary archives keep (train, test). CIFAR-100's records have the coarse label before the fine one.
_CIFAR = {
    10: ([f"cifar-10-batches-bin/data_batch_{n}.bin" for n in range(1, 6)], ["cifar-10-batches-bin/test_batch.bin"], 1),
    100: (["cifar-100-binary/train.bin"], ["cifar-100-binary/test.bin"], 2),
}
_PIXELS = 3 * 32 * 32


def cifar_binary(archive: Path, classes: int) -> tuple[RawSplit, RawSplit]:
    """Read the binary CIFAR archive: records of 1 label byte (CIFAR-10) or 2 (CIFAR-100, the second counts) and 3,072 pixels.

    Members are read in place, and only regular files of exactly the expected names: links and paths that lead out mean nothing.

    Raises:
        DataError: missing members, a truncated archive, or records of the wrong length.
    """
    train, test, label_bytes = _CIFAR[classes]
    parts = _members(archive, {*train, *test})
    first, second = (_records(archive, {name: parts[name] for name in names}, label_bytes) for names in (train, test))
    return first, second


def _members(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    if not archive.exists():
        raise DataError(f"{archive}: no such file")
    parts: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.name in wanted and member.isreg():
                    file = tar.extractfile(member)
                    assert file is not None  # a regular file
                    parts[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: is truncated or damaged ({error}); delete it and run again") from None
    if missing := sorted(wanted - set(parts)):
        raise DataError(f"{archive}: holds no regular file {missing[0]}; is it another archive?")
    return parts


def _records(archive: Path, parts: dict[str, bytes], label_bytes: int) -> RawSplit:
    record = label_bytes + _PIXELS
    for name, data in parts.items():
        if len(data) % record:
            raise DataError(f"{archive}: {name}: {len(data)} bytes are no whole number of records of {record}")
    rows = np.frombuffer(b"".join(parts.values()), dtype=np.uint8).reshape(-1, record)
    return RawSplit(rows[:, label_bytes:].reshape(-1, 3, 32, 32), rows[:, label_bytes - 1].astype(np.int64))


def svhn_mat(root: Path) -> tuple[RawSplit, RawSplit]:
    """Read {split}_32x32.mat: X (32, 32, 3, n) uint8, y (n, 1) in 1..10, where 10 stands for the digit 0. `extra` is not used.

    Raises:
        DataError: missing or damaged.
    """
    train, test = (_mat(root / f"{split}_32x32.mat") for split in SPLITS)
    return train, test


def _mat(file: Path) -> RawSplit:
    from scipy.io import loadmat

    if not file.exists():
        raise DataError(f"{file}: no such file")
    try:
        data: dict[str, Any] = loadmat(file, variable_names=["X", "y"])
    except Exception as error:  # scipy raises anything on damaged files
        raise DataError(f"{file}: is truncated or damaged ({error}); delete it and run again") from None
    for name in "Xy":
        if name not in data:
            raise DataError(f"{file}: holds no variable {name}")
    images: NDArray[np.uint8] = data["X"]
    labels: NDArray[np.int64] = data["y"].reshape(-1).astype(np.int64)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise DataError(f"{file}: X is {images.dtype} {images.shape}; must be uint8 (height, width, channels, images)")
    return RawSplit(np.ascontiguousarray(images.transpose(3, 2, 0, 1)), np.where(labels == 10, 0, labels))
