"""Readers of images on disk: each returns uint8 images and int64 labels, and says what is wrong by file."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dd.errors import DataError, nearest

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass
class RawSplit:
    """images: (n, c, h, w) uint8. labels: (n,) int64. class_names: where the source knows them."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: list[str] | None = None


def _stack(decoded: Sequence[NDArray[np.uint8]], names: Sequence[str]) -> NDArray[np.uint8]:
    """Return (n, c, h, w) of images that must all have one shape; `names` says where each came from."""
    if not decoded:
        raise DataError("no images")
    for image, name in zip(decoded, names, strict=True):
        if image.shape != decoded[0].shape:
            raise DataError(
                f"{name}: image of size {_size(image)}, but {names[0]} has {_size(decoded[0])}; all images of a dataset must have "
                "one size and number of channels: resize them first"
            )
    return np.stack(decoded).transpose(0, 3, 1, 2)


def _size(image: NDArray[np.uint8]) -> str:
    h, w, c = image.shape
    return f"{w}x{h} with {c} channel{'s' if c > 1 else ''}"


def decode(data: bytes, name: str) -> NDArray[np.uint8]:
    """Return (h, w, c) of an encoded image: c is 1 for grey-scale, 3 for everything else.

    Raises:
        DataError: not an image, or a damaged one.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            grey = image.mode in ("1", "L", "I;16")
            pixels = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{name}: is not a readable image ({error})") from None
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def parquet(folder: Path, split: str) -> RawSplit:
    """Read {split}*.parquet in the Hugging Face layout.

    Raises:
        DataError: no such files, damaged ones, no image or no label column.
    """
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    files = sorted(folder.glob(f"{split}*.parquet"))
    if not files:
        raise DataError(f"{folder}: no {split}*.parquet in it")
    images: list[NDArray[np.uint8]] = []
    names: list[str] = []
    labels: list[NDArray[np.int64]] = []
    class_names = None
    for file in files:
        try:
            schema = pq.read_schema(file)
            image = _column(file, schema.names, ("img", "image"))
            label = _column(file, schema.names, ("label", "fine_label", "labels"))
            table = pq.read_table(file, columns=[image, label])
        except (ArrowException, OSError) as error:
            raise DataError(f"{file}: is damaged or not parquet ({error})") from None
        class_names = class_names or _class_names(schema.metadata or {}, label)
        for row, cell in enumerate(table.column(image).to_pylist()):
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            name = f"{file}, row {row}"
            if not isinstance(data, bytes):
                raise DataError(f"{name}: column {image!r} holds no image bytes")
            images.append(decode(data, name))
            names.append(name)
        column = table.column(label)
        if column.null_count:
            raise DataError(f"{file}: column {label!r} has {column.null_count} empty labels")
        labels.append(np.asarray(column.to_pylist(), dtype=np.int64))
    return RawSplit(_stack(images, names), np.concatenate(labels), class_names)


def _column(file: Path, columns: Sequence[str], wanted: Sequence[str]) -> str:
    for name in wanted:
        if name in columns:
            return name
    raise DataError(f"{file}: has no column {' or '.join(wanted)}{nearest(wanted[0], columns)}")


def _class_names(metadata: dict[bytes, bytes], label: str) -> list[str] | None:
    import json

    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return [str(name) for name in names]


def folder(root: Path, split: str, known: Sequence[str] = ()) -> RawSplit:
    """Read {split}/CLASS/*; classes in the order of `known` where those are the folders' names, otherwise sorted.

    Raises:
        DataError: no folder, no classes, or files that are not images.
    """
    base = root / split
    if not base.is_dir():
        raise DataError(f"{base}: no such folder")
    found = sorted(path.name for path in base.iterdir() if path.is_dir())
    if not found:
        raise DataError(f"{base}: has no folder for any class")
    classes = list(known) if sorted(known) == found else found
    images, names, labels = [], [], []
    for number, name in enumerate(classes):
        files = sorted(path for path in (base / name).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise DataError(f"{base / name}: has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        for file in files:
            images.append(decode(file.read_bytes(), str(file)))
            names.append(str(file))
            labels.append(number)
    return RawSplit(_stack(images, names), np.asarray(labels, dtype=np.int64), classes)


def idx(root: Path, split: str) -> RawSplit:
    """Read idx files under MNIST's names, plain or gzipped.

    Raises:
        DataError: missing, truncated, or not idx.
    """
    prefix = {"train": "train", "test": "t10k"}[split]
    images = _idx_file(root, f"{prefix}-images-idx3-ubyte", 3)
    labels = _idx_file(root, f"{prefix}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise DataError(f"{root}: {prefix}-images has {len(images)} images, {prefix}-labels {len(labels)} labels")
    return RawSplit(images[:, None], labels.astype(np.int64))


def _idx_file(root: Path, name: str, dims: int) -> NDArray[np.uint8]:
    plain, packed = root / name, root / f"{name}.gz"
    file = plain if plain.exists() else packed
    if not file.exists():
        raise DataError(f"{root}: neither {name} nor {name}.gz is in it")
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{file}: is truncated or damaged ({error})") from None
    header = 4 + 4 * dims
    if len(data) < header or data[:4] != bytes((0, 0, 8, dims)):
        raise DataError(f"{file}: is not an idx file of unsigned bytes with {dims} dimensions")
    shape = tuple(int(n) for n in np.frombuffer(data, dtype=">u4", count=dims, offset=4))
    if len(data) - header != int(np.prod(shape)):
        raise DataError(f"{file}: is truncated: {len(data) - header} bytes of data, {int(np.prod(shape))} expected for shape {shape}")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def cifar_binary(archive: Path, split: str, classes: int) -> RawSplit:
    """Read the binary CIFAR archive: records of 1 label byte (CIFAR-10) or 2 (CIFAR-100, the second counts) and 3,072 pixels.

    Members are read in place; nothing is extracted.

    Raises:
        DataError: missing members, a truncated archive, or records of the wrong length.
    """
    if not archive.exists():
        raise DataError(f"{archive}: no such file")
    label_bytes = 1 if classes == 10 else 2
    record = label_bytes + 3072
    wanted = (lambda n: n.startswith("data_batch_")) if classes == 10 else (lambda n: n == "train.bin")
    if split == "test":
        wanted = (lambda n: n == "test_batch.bin") if classes == 10 else (lambda n: n == "test.bin")
    parts: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                base = Path(member.name).name
                if member.isreg() and base.endswith(".bin") and wanted(base):
                    file = tar.extractfile(member)
                    parts[base] = file.read() if file else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{archive}: is truncated or damaged ({error}); delete it and run again") from None
    if not parts:
        raise DataError(f"{archive}: holds no {split} records")
    for name, data in parts.items():
        if len(data) % record:
            raise DataError(f"{archive}: {name}: {len(data)} bytes are no whole number of records of {record}")
    rows = np.frombuffer(b"".join(parts[name] for name in sorted(parts)), dtype=np.uint8).reshape(-1, record)
    return RawSplit(rows[:, label_bytes:].reshape(-1, 3, 32, 32), rows[:, label_bytes - 1].astype(np.int64))


def svhn_mat(root: Path, split: str) -> RawSplit:
    """Read {split}_32x32.mat (MATLAB 5; scipy reads it without unpickling). The label 10 stands for the digit 0.

    Raises:
        DataError: missing or damaged.
    """
    from scipy.io import loadmat

    file = root / f"{split}_32x32.mat"
    if not file.exists():
        raise DataError(f"{file}: no such file")
    try:
        data: dict[str, Any] = loadmat(file, variable_names=["X", "y"])
        images, labels = data["X"], data["y"].reshape(-1).astype(np.int64)
    except Exception as error:  # scipy raises anything on damaged files
        raise DataError(f"{file}: is truncated or damaged ({error}); delete it and run again") from None
    return RawSplit(np.ascontiguousarray(images.transpose(3, 2, 0, 1).astype(np.uint8)), np.where(labels == 10, 0, labels))
