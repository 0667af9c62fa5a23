"""Readers of archives in the form in which their authors publish them. Nothing is unpickled, and nothing is extracted."""

from __future__ import annotations

import gzip
import math
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from dd.data.readers import SPLITS, RawSplit
from dd.errors import DataError

# Where the binary archives keep (train, test). CIFAR-100's records have the coarse label before the fine one.
_CIFAR = {
    10: ([f"cifar-10-batches-bin/data_batch_{n}.bin" for n in range(1, 6)], ["cifar-10-batches-bin/test_batch.bin"], 1),
    100: (["cifar-100-binary/train.bin"], ["cifar-100-binary/test.bin"], 2),
}
_PIXELS = 3 * 32 * 32
LARGEST = 400_000_000  # bytes of one member or variable; CIFAR-100's train has 154 million, SVHN's 225 million


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


class _Bounded(gzip.GzipFile):
    """A .gz that hands out no more at once than a member may have: what a tar says of its sizes and long names may be a lie."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= LARGEST:
            raise tarfile.ReadError(f"a part of it says that it has {size} bytes; allowed: 0 to {LARGEST}")
        return super().read(size)


def _members(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    if not archive.exists():
        raise DataError(f"{archive}: no such file")
    parts: dict[str, bytes] = {}
    before = -1
    try:
        with _Bounded(archive, "rb") as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as tar:
            for member in tar:
                if member.offset <= before or member.size < 0:  # it would be read for ever
                    raise tarfile.ReadError(f"{member.name!r} says that it has {member.size} bytes")
                before = member.offset
                if member.name in wanted and member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    if member.name in parts:
                        raise DataError(f"{archive}: holds {member.name} twice; is it another archive?")
                    if member.size > LARGEST:
                        raise DataError(f"{archive}: {member.name}: has {member.size} bytes, too many; allowed: {LARGEST}")
                    file = tar.extractfile(member)
                    assert file is not None  # a regular file
                    parts[member.name] = file.read()
    except DataError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError, zlib.error) as error:
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


_NUMBERS = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")  # of MATLAB's classes


def svhn_mat(root: Path) -> tuple[RawSplit, RawSplit]:
    """Read {split}_32x32.mat: X (32, 32, 3, n) uint8, y (n, 1) in 1..10, where 10 stands for the digit 0. `extra` is not used.

    Raises:
        DataError: missing or damaged.
    """
    train, test = (_mat(root / f"{split}_32x32.mat") for split in SPLITS)
    return train, test


def _mat(file: Path) -> RawSplit:
    from scipy.io import loadmat, whosmat

    if not file.exists():
        raise DataError(f"{file}: no such file")
    try:
        for name, shape, kind in whosmat(file):  # before memory is asked for
            if name in ("X", "y") and (kind not in _NUMBERS or not 0 <= math.prod(shape) <= LARGEST):
                raise DataError(f"{file}: {name} is {kind} {tuple(shape)}; must be at most {LARGEST} numbers")
        data: dict[str, Any] = loadmat(file, variable_names=["X", "y"])
        for name in "Xy":
            if name not in data:
                raise DataError(f"{file}: holds no variable {name}")
        images, labels = np.asarray(data["X"]), np.asarray(data["y"])
    except DataError:
        raise
    except Exception as error:  # scipy raises anything on damaged files
        raise DataError(f"{file}: is truncated or damaged ({error}); delete it and run again") from None
    if images.dtype != np.uint8 or images.ndim != 4:
        raise DataError(f"{file}: X is {images.dtype} {images.shape}; must be uint8 (height, width, channels, images)")
    if labels.dtype.kind not in "iuf" or labels.size != images.shape[3] or not ((labels >= 1) & (labels <= 10)).all():
        raise DataError(
            f"{file}: y is {labels.dtype} {labels.shape}; must be numbers from 1 to 10, one for each of {images.shape[3]} images"
        )
    labels = labels.reshape(-1).astype(np.int64)
    return RawSplit(np.ascontiguousarray(images.transpose(3, 2, 0, 1)), np.where(labels == 10, 0, labels))
