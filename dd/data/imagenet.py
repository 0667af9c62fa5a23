"""Reader of subsets of ImageNet, from a folder in torchvision's layout."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dd.data.readers import IMAGE_SUFFIXES, RawSplit, is_image
from dd.errors import DataError
from dd.progress import Progress


def subset(root: Path, wnids: Sequence[str], size: int) -> tuple[RawSplit, RawSplit]:
    """Read train/WNID/* and val/WNID/* (which is test) of some classes; a label is the position in `wnids`, as in MTT.

    Images become RGB, (3, size, size) uint8; see `square`. They are read one at a time. Folders of other classes are not looked at, so
    all of ImageNet will do, and so will an archive of only these classes if it has ImageNet's own split.

    Differs from the paper: CLoM does not say how images become 224x224. MTT resizes tensors after it normalised them, without
    antialiasing in the torchvision of its time, and to 128x128.

    Args:
        root: the folder that holds train and val.
        wnids: the names of the folders, in the order of the labels.
        size: height and width, in pixels.

    Raises:
        DataError: a missing or empty folder, a val that is not sorted into folders, a file that is no image.
    """
    train, test = (_split(root / name, wnids, size) for name in ("train", "val"))
    return train, test


def _split(base: Path, wnids: Sequence[str], size: int) -> RawSplit:
    files: list[Path] = []
    labels: list[int] = []
    for label, wnid in enumerate(wnids):
        mine = _files(base, wnid)
        files += mine
        labels += [label] * len(mine)
    images = np.empty((len(files), 3, size, size), dtype=np.uint8)
    with Progress(f"{base.name} (images)", len(files)) as progress:
        for row, file in enumerate(files):
            images[row] = square(file.read_bytes(), size, str(file)).transpose(2, 0, 1)
            progress.update(row + 1)
    return RawSplit(images, np.asarray(labels, dtype=np.int64))


def _files(base: Path, wnid: str) -> list[Path]:
    """Return the images of a class, sorted by name."""
    if not base.is_dir():
        raise DataError(f"{base}: no such folder; must hold a folder for each class of ImageNet, such as {base / wnid}")
    if not (base / wnid).is_dir():
        if any(map(is_image, base.iterdir())):
            raise DataError(
                f"{base}: holds images that are not sorted into classes; each must be in the folder of its class, such as {base / wnid}. "
                'torchvision.datasets.ImageNet(FOLDER, split="val") sorts them from ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz'
            )
        raise DataError(f"{base}: has no folder {wnid}; must hold a folder for each class of ImageNet, or for each class of this subset")
    if not (files := sorted(filter(is_image, (base / wnid).iterdir()))):
        raise DataError(f"{base / wnid}: has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return files


def square(data: bytes, size: int, name: str) -> NDArray[np.uint8]:
    """Return (size, size, 3) uint8 of an encoded image: its shorter side is made `size`, and the middle of the longer one is kept.

    The numbers are torchvision's Resize and CenterCrop on an image (not a tensor): the longer side is rounded down; Pillow's bilinear
    filter, which antialiases where images shrink.

    Raises:
        DataError: not an image, or a damaged one; `name` says which.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")  # some are grey, some CMYK
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: is not a readable image ({error})") from None
    short = min(image.size)
    width, height = (size * side // short for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)), dtype=np.uint8)
