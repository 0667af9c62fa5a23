"""Readers of images on disk: each returns (train, test) as uint8 images and int64 labels, and names the file that is wrong.

Here are the forms that anybody's images may have; those that only official archives have are in `dd.data.official`, and sounds in
`dd.data.clips`.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dd.errors import DataError, nearest
from dd.progress import Progress

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # for Pillow: by the bytes it would open others too, and run Ghostscript for some
LARGEST = 2_000_000_000  # bytes of an unpacked idx file; MNIST's largest has 47 million
DENSEST = 1040  # bytes that deflate makes of one, at most
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SPLITS = ("train", "test")


@dataclass
class RawSplit:
    """images: (n, c, h, w) uint8, perhaps memory-mapped, or float32 spectrograms. labels: (n,) int64.

    class_names: where the source knows them.
    identity: (n, 32) uint8, what order and fingerprint follow from where the images are floats; None: they follow from the images.
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]
    class_names: list[str] | None = None
    identity: NDArray[np.uint8] | None = None

    @property
    def exact(self) -> NDArray[np.uint8]:
        """What is equal on every machine and differs from image to image: (n, ...) uint8."""
        return self.images.astype(np.uint8, copy=False) if self.identity is None else self.identity


def decode(data: bytes, name: str, *, rgb: bool = False) -> NDArray[np.uint8]:
    """Return (h, w, c) uint8 of an encoded image: c is 1 for grey-scale, 3 for everything else, and always 3 if `rgb`.

    Raises:
        DataError: not an image, a damaged one, more than 8 bits a channel, or transparent pixels (whose colour nobody knows).
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.mode[0] in "IF":
                raise DataError(f"{name}: has pixels of mode {image.mode}; must have 8 bits a channel: convert it first")
            transparent = "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa")
            if transparent and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
                raise DataError(f"{name}: has transparent pixels; put it on a background first")
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "La") and not rgb else "RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: is not a readable image ({error})") from None
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def stack(named: Iterable[tuple[str, bytes]], count: int, *, rgb: bool) -> NDArray[np.uint8]:
    """Return (n, c, h, w) of `count` encoded images and their names; they are held once.

    Raises:
        DataError: as `decode`, or an image that has not the shape of the first.
    """
    images = np.empty((0, 0, 0, 0), dtype=np.uint8)
    first = ""
    with Progress("decoding images", count) as progress:
        for row, (name, data) in enumerate(named):
            image = decode(data, name, rgb=rgb)
            if not row:
                first, images = name, _empty(name, count, image)
            if image.transpose(2, 0, 1).shape != images.shape[1:]:
                raise DataError(
                    f"{name}: image of {_size(image)}, but {first} has {_size(images[0].transpose(1, 2, 0))}; all images of a dataset "
                    "must have one size and number of channels: resize them first"
                )
            images[row] = image.transpose(2, 0, 1)
            progress.update(row + 1)
    return images


def _empty(name: str, count: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    try:
        return np.empty((count, *image.transpose(2, 0, 1).shape), dtype=np.uint8)
    except MemoryError:
        raise DataError(f"{name}: {count} images of {_size(image)} have no place in memory: resize them first") from None


def _size(image: NDArray[np.uint8]) -> str:
    h, w, c = image.shape
    return f"{w}x{h} with {c} channel{'s' if c > 1 else ''}"


def parquet(folder: Path, *, rgb: bool = False) -> tuple[RawSplit, RawSplit]:
    """Read {split}.parquet or {split}-*.parquet in the Hugging Face layout.

    Images: column `img` or `image`, a struct with `bytes` (PNG, WebP, JPEG ...) or the bytes. Labels: `label`, else
    `fine_label`. rgb: grey images become RGB.

    Raises:
        DataError: missing or damaged files, no image or no label column, images of several sizes.
    """
    train, test = (_parquet_split(_shards(folder, split), rgb) for split in SPLITS)
    return train, test


def _shards(folder: Path, split: str) -> list[Path]:
    files = sorted({*folder.glob(f"{split}.parquet"), *folder.glob(f"{split}-*.parquet")})
    if not files:
        raise DataError(f"{folder}: holds neither {split}.parquet nor {split}-*.parquet")
    numbers: dict[int, set[int]] = {}
    for file in files:
        if stated := re.search(r"-(\d+)-of-(\d+)", file.stem):
            numbers.setdefault(int(stated[2]), set()).add(int(stated[1]))
    if len(numbers) > 1 or (numbers and sum(map(len, numbers.values())) < len(files)):
        raise DataError(f"{folder}: {', '.join(file.name for file in files)} are not the shards of one {split} split")
    for total, there in numbers.items():
        if missing := sorted(set(range(total)) - there):
            raise DataError(f"{folder}: {split}-{missing[0]:05d}-of-{total:05d}.parquet is missing: the others say there are {total}")
    return files


def _parquet_split(files: list[Path], rgb: bool) -> RawSplit:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException, types

    images: list[tuple[str, bytes]] = []
    labels: list[NDArray[np.int64]] = []
    class_names = None
    for file in files:
        try:
            schema = pq.read_schema(file)
            image = _column(file, schema.names, ("img", "image"))
            label = _column(file, schema.names, ("label", "fine_label"))
            table = pq.read_table(file, columns=[image, label])
        except (ArrowException, OSError) as error:
            raise DataError(f"{file}: is truncated, damaged or not parquet ({error})") from None
        column = table.column(label)
        if not types.is_integer(column.type):
            raise DataError(f"{file}: column {label!r} holds {column.type}; must hold the classes' numbers as integers")
        if column.null_count:
            raise DataError(f"{file}: column {label!r}: {column.null_count} labels are empty")
        class_names = class_names or _class_names(schema.metadata or {}, label)
        for row, cell in enumerate(table.column(image).to_pylist()):
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            if not isinstance(data, bytes):
                raise DataError(f"{file}: row {row}: column {image!r} holds no bytes of an image")
            images.append((f"{file}: row {row}", data))
        labels.append(column.to_numpy().astype(np.int64))
    if not images:
        raise DataError(f"{files[0]}: holds no images")
    return RawSplit(stack(images, len(images), rgb=rgb), np.concatenate(labels), class_names)


def _column(file: Path, columns: Sequence[str], wanted: Sequence[str]) -> str:
    for name in wanted:
        if name in columns:
            return name
    raise DataError(f"{file}: has no column {' or '.join(map(repr, wanted))}; its columns: {', '.join(columns) or '(none)'}")


def _class_names(metadata: dict[bytes, bytes], label: str) -> list[str] | None:
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def folder(root: Path, known: Sequence[str] = (), *, rgb: bool = False) -> tuple[RawSplit, RawSplit]:
    """Read train/CLASS/* and test/CLASS/*.

    Labels follow the sorted names of the folders of train; names that are all numbers are sorted as numbers.

    Args:
        root: the folder that holds train and test.
        known: the classes of a registered dataset. Its labels follow these, and its folders must be called so, or 0, 1, 2 ...
        rgb: grey images become RGB.

    Raises:
        DataError: missing folders, other classes than expected, files that are no images, images of several sizes.
    """
    found = _class_folders(root / "train")
    classes = sorted(found, key=int) if all(name.isdecimal() for name in found) else sorted(found)
    if known and set(classes) == set(known):
        classes = list(known)
    elif known and classes != [str(c) for c in range(len(known))]:
        strange = next((name for name in classes if name not in known), None)
        missing = f"no folder {min(set(known) - set(classes))!r}"
        what = f"folder {strange!r} is no class{nearest(strange, known)}" if strange else missing
        raise DataError(f"{root / 'train'}: {what}; folders named 0 to {len(known) - 1} are allowed too")
    if differ := sorted(set(classes) ^ set(_class_folders(root / "test"))):
        raise DataError(f"{root}: {differ[0]!r} is a class in only one of train and test; both must have the same folders")
    train, test = (_folder_split(root / split, classes, rgb) for split in SPLITS)
    return train, test


def _class_folders(base: Path) -> list[str]:
    if not base.is_dir():
        raise DataError(f"{base}: no such folder")
    found = [path.name for path in base.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if not found:
        raise DataError(f"{base}: has no folder for any class")
    return found


def is_image(path: Path) -> bool:
    """Return whether a file is called like an image, and is not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _folder_split(base: Path, classes: list[str], rgb: bool) -> RawSplit:
    files: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        mine = sorted(filter(is_image, (base / name).iterdir()))
        if not mine:
            raise DataError(f"{base / name}: has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        files += mine
        labels += [number] * len(mine)
    images = stack(((str(file), file.read_bytes()) for file in files), len(files), rgb=rgb)
    return RawSplit(images, np.asarray(labels, dtype=np.int64), classes)


def idx(root: Path) -> tuple[RawSplit, RawSplit]:
    """Read idx files under MNIST's names, plain or gzipped.

    Raises:
        DataError: missing, truncated, or not idx.
    """
    train, test = (
        RawSplit(
            _idx_file(root, f"{prefix}-images-idx3-ubyte", 3)[:, None],
            _idx_file(root, f"{prefix}-labels-idx1-ubyte", 1).astype(np.int64),
        )
        for prefix in ("train", "t10k")
    )
    return train, test


def _idx_file(root: Path, name: str, dims: int) -> NDArray[np.uint8]:
    plain, packed = root / name, root / f"{name}.gz"
    file = plain if plain.exists() else packed
    if not file.exists():
        raise DataError(f"{root}: holds neither {name} nor {name}.gz")
    size = 4 + 4 * dims
    try:
        with open(plain, "rb") if file == plain else gzip.open(packed, "rb") as opened:
            header = opened.read(size)
            if len(header) < size or header[:4] != bytes((0, 0, 8, dims)):
                raise DataError(f"{file}: is not an idx file of unsigned bytes with {dims} dimension{'s' if dims > 1 else ''}")
            shape = tuple(int(n) for n in np.frombuffer(header, dtype=">u4", count=dims, offset=4))
            expected = math.prod(shape)
            if expected > min(LARGEST, DENSEST * file.stat().st_size):  # before memory is asked for
                raise DataError(f"{file}: is truncated or damaged: {expected} bytes expected for shape {shape}; allowed: {LARGEST}")
            data = opened.read(expected + 1)  # a file that goes on for ever is too long by now
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: is truncated or damaged ({error}); delete it and get it again") from None
    if len(data) != expected:
        wrong = f"is truncated: {len(data)} bytes of data" if len(data) < expected else "is too long: more bytes of data"
        raise DataError(f"{file}: {wrong}, {expected} expected for shape {shape}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
