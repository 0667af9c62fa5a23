"""Reader of ImageNet and of subsets of it, from a folder in torchvision's layout."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dd.data.readers import FORMATS, IMAGE_SUFFIXES, RawSplit, is_image
from dd.data.registry import DatasetSpec
from dd.data.resumable import decoded
from dd.errors import DataError

WNID = re.compile(r"n\d{8}")
_CLASSES = 1000


def read(root: Path, known: DatasetSpec, resume: Path, where: str) -> tuple[RawSplit, RawSplit]:
    """Read train/WNID/* and val/WNID/* (which is test) of a dataset whose images are ImageNet's.

    A label is the position of WNID in the registry's list, as in MTT (folders of other classes are not looked at, so all of ImageNet
    will do, and so will an archive of only these classes if it has ImageNet's own split), and images become (3, size, size) by
    `square`. So do those of a dataset with a list of positions, which count the sorted folders of all 1,000 classes from 0: all must be
    there, but only files of the listed classes are looked at. A dataset without a list is all of ImageNet: a label is the position
    among the sorted folders, as in torchvision's ImageFolder, and images become (3, size, size) by `squeezed`.

    The images are uint8 and mapped from files in `resume`: see `dd.data.resumable`. All files are listed, and counted, before the first
    is decoded.

    Differs from the paper: CLoM does not say how images become 224x224. MTT, GLaD and H-PD resize tensors after they normalised them,
    which torchvision did not antialias in their time, and MTT to 128x128. ELF and TESLA resize images to 64x64 as `squeezed` does.

    Args:
        root: the folder that holds train and val.
        known: the dataset.
        resume: a folder for what is decoded; who calls deletes it in the end.
        where: names the dataset in errors.

    Raises:
        DataError: a missing or empty folder, a val that is not sorted into folders, another number of folders or images than
            the dataset has, a file that is no image.
    """
    wnids = known.wnids or _all(root, known)
    listed = {split: [(wnid, _files(root / folder, wnid)) for wnid in wnids] for split, folder in (("train", "train"), ("test", "val"))}
    for split, files in listed.items():
        known.check_count(where, split, sum(len(names) for _, names in files))
    train, test = (_split(root / folder, listed[split], known, resume) for split, folder in (("train", "train"), ("test", "val")))
    return train, test


def _split(base: Path, files: Sequence[tuple[str, list[str]]], known: DatasetSpec, resume: Path) -> RawSplit:
    form: Callable[..., NDArray[np.uint8]] = square if known.wnids or known.positions else squeezed
    size = known.size[0]
    names = [f"{wnid}/{name}" for wnid, mine in files for name in mine]
    decode = partial(_planes, form, size)
    images = decoded(base, names, (3, size, size), decode, resume / f"{base.name}.u8", f"{form.__name__} {size}")
    return RawSplit(images, np.repeat(np.arange(len(files), dtype=np.int64), [len(mine) for _, mine in files]))


def _planes(form: Callable[..., NDArray[np.uint8]], size: int, data: bytes, name: str) -> NDArray[np.uint8]:
    return form(data, size, name).transpose(2, 0, 1)


def _all(root: Path, known: DatasetSpec) -> tuple[str, ...]:
    """Return the names of the folders of all classes, sorted, or those at `known.positions`; train and val must have the same."""
    expected = _CLASSES if known.positions else len(known.classes)
    found = {}
    for base in (root / "train", root / "val"):
        _must_be_sorted(base, "n01440764")
        found[base] = sorted(entry.name for entry in os.scandir(base) if entry.is_dir() and WNID.fullmatch(entry.name))
    (train, wnids), (val, others) = found.items()
    if len(wnids) != expected:
        why = f"; {known.name} finds its own by counting them; those of other classes may be empty" if known.positions else ""
        raise DataError(f"{train}: has {len(wnids)} folders of classes (called like n01440764), all of ImageNet has {expected}{why}")
    if differ := sorted(set(wnids) ^ set(others)):
        there, absent = (train, val) if differ[0] in wnids else (val, train)
        raise DataError(f"{absent}: has no folder {differ[0]}, but {there} has; both must have a folder for each class of ImageNet")
    return tuple(wnids[position] for position in known.positions or range(expected))


def _files(base: Path, wnid: str) -> list[str]:
    """Return the names of the images of a class, sorted."""
    _must_be_sorted(base, wnid)
    if not (base / wnid).is_dir():
        raise DataError(f"{base}: has no folder {wnid}; must hold a folder for each class of ImageNet, or for each class of this subset")
    if not (names := sorted(name for name in os.listdir(base / wnid) if is_image(Path(name)))):
        raise DataError(f"{base / wnid}: has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return names


def _must_be_sorted(base: Path, wnid: str) -> None:
    if not base.is_dir():
        raise DataError(f"{base}: no such folder; must hold a folder for each class of ImageNet, such as {base / wnid}")
    if not (base / wnid).is_dir() and any(map(is_image, base.iterdir())):
        raise DataError(
            f"{base}: holds images that are not sorted into classes; each must be in the folder of its class, such as {base / wnid}. "
            'torchvision.datasets.ImageNet(FOLDER, split="val") sorts them from ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz'
        )


def square(data: bytes, size: int, name: str) -> NDArray[np.uint8]:
    """Return (size, size, 3) uint8 of an encoded image: its shorter side is made `size`, and the middle of the longer one is kept.

    The numbers are torchvision's Resize and CenterCrop on an image (not a tensor): the longer side is rounded down; Pillow's bilinear
    filter, which antialiases where images shrink.

    Raises:
        DataError: not an image, or a damaged one; `name` says which.
    """
    image, bilinear = _rgb(data, name)
    short = min(image.size)
    width, height = (size * side // short for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.resize((width, height), bilinear).crop((left, top, left + size, top + size)), dtype=np.uint8)


def squeezed(data: bytes, size: int, name: str) -> NDArray[np.uint8]:
    """Return (size, size, 3) uint8 of an encoded image, whose sides are resized each on its own: nothing is cut off.

    The numbers are torchvision's Resize((size, size)) on an image: Pillow's bilinear filter, which antialiases where images shrink.

    Raises:
        DataError: not an image, or a damaged one; `name` says which.
    """
    image, bilinear = _rgb(data, name)
    return np.asarray(image.resize((size, size), bilinear), dtype=np.uint8)


def _rgb(data: bytes, name: str) -> tuple[Any, Any]:
    """Return a Pillow image in RGB, and Pillow's bilinear filter."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            return opened.convert("RGB"), Image.Resampling.BILINEAR  # some are grey, some CMYK
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: is not a readable image ({error})") from None
