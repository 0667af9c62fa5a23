"""Reader of Tiny ImageNet: the official archive, or the folder that it unpacks to.

Class N is the Nth of the sorted WordNet ids (wnids): what torchvision's ImageFolder makes of the folders of train, and so the labels of
MTT and ELF. `wnids.txt` has another order. The prepared form calls the classes by these numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from dd.data import readers, zips
from dd.data.readers import RawSplit, stack
from dd.errors import DataError

ROOT = "tiny-imagenet-200/"
LARGEST = 10_000_000  # bytes of one member; the largest image has some 20,000, val_annotations.txt has 300,000
ANNOTATIONS = "val/val_annotations.txt"
_WNID = re.compile(r"n\d{8}")
_FILE = re.compile(r"[A-Za-z0-9_]+\.JPEG")
Read = Callable[[str], bytes]


def archive(path: Path, classes: int) -> tuple[RawSplit, RawSplit]:
    """Read tiny-imagenet-200.zip; val, sorted into classes by val/val_annotations.txt, is test. Grey images become RGB.

    Members are read in place, and only regular files of exactly these names: wnids.txt, train/WNID/images/*.JPEG, val/images/*.JPEG,
    val/val_annotations.txt. The archive's own test split has no labels and is not looked at.

    Args:
        path: the archive.
        classes: how many there must be.

    Raises:
        DataError: missing, truncated or damaged; a member is missing; wnids.txt has not the classes; an image is not annotated, an
            annotation is of an unknown file or class; a member that is no image.
    """
    with zips.opened(path) as opened:
        names = [name.removeprefix(ROOT) for name in zips.regular(opened) if name.startswith(ROOT)]
        return _read(f"{path}: {ROOT}", names, lambda name: zips.member(opened, path, ROOT + name, LARGEST), classes)


def folder(root: Path, classes: int) -> tuple[RawSplit, RawSplit]:
    """Read the archive as it unpacks, or any folder with train/CLASS/* and test/CLASS/*. Grey images become RGB.

    It is the archive if it has wnids.txt, val/images or val/val_annotations.txt. Otherwise the folders are wnids, or numbers from 0.

    Raises:
        DataError: see `archive` and `dd.data.readers.folder`.
    """
    if not any((root / name).exists() for name in ("wnids.txt", "val/images", ANNOTATIONS)):
        train, test = readers.folder(root, rgb=True)
        found = train.class_names or []
        if len(found) != classes or not (found == [str(c) for c in range(classes)] or all(map(_WNID.fullmatch, found))):
            raise DataError(
                f"{root / 'train'}: has {len(found)} folders ({', '.join(found[:3])} ...); must have {classes}, called by wnids "
                f"(such as n01443537) or 0 to {classes - 1}"
            )
        return train, test
    names = [name for name in ("wnids.txt", ANNOTATIONS) if (root / name).is_file()]
    for base in (*sorted(root.glob("train/*/images")), root / "val" / "images"):
        names += [f"{base.relative_to(root).as_posix()}/{path.name}" for path in (base.iterdir() if base.is_dir() else ())]
    return _read(f"{root}/", names, lambda name: _bytes(root / name), classes)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _read(where: str, names: Iterable[str], read: Read, classes: int) -> tuple[RawSplit, RawSplit]:
    """Return (train, test); `names` are relative to the folder tiny-imagenet-200, which `where` names, with a slash."""
    train: dict[str, list[str]] = {}
    val: list[str] = []
    texts: set[str] = set()
    for name in names:
        match name.split("/"):
            case ["train", wnid, "images", file] if _WNID.fullmatch(wnid) and _FILE.fullmatch(file):
                train.setdefault(wnid, []).append(name)
            case ["val", "images", file] if _FILE.fullmatch(file):
                val.append(name)
            case ["wnids.txt"] | ["val", "val_annotations.txt"]:
                texts.add(name)
    if missing := [name for name in ("wnids.txt", ANNOTATIONS) if name not in texts]:
        raise DataError(f"{where}{missing[0]}: no such file; is it another dataset, or was it unpacked in part?")
    wnids = sorted(_text(where, "wnids.txt", read).split())
    if strange := next((wnid for wnid in wnids if not _WNID.fullmatch(wnid)), None):
        raise DataError(f"{where}wnids.txt: {strange!r} is no wnid (such as n01443537)")
    if len(wnids) != classes or len(set(wnids)) != classes:
        raise DataError(f"{where}wnids.txt: has {len(set(wnids))} different wnids in {len(wnids)} lines, Tiny ImageNet has {classes}")
    if empty := [wnid for wnid in wnids if wnid not in train]:
        raise DataError(f"{where}train/{empty[0]}/images: has no *.JPEG")
    if unknown := sorted(set(train) - set(wnids)):
        raise DataError(f"{where}train/{unknown[0]}: is not in wnids.txt")
    labels = {name: label for label, wnid in enumerate(wnids) for name in sorted(train[wnid])}
    return _split(where, labels, read), _split(where, _annotated(where, sorted(val), wnids, read), read)


def _split(where: str, labels: Mapping[str, int], read: Read) -> RawSplit:
    images = stack(((f"{where}{name}", read(name)) for name in labels), len(labels), rgb=True)
    return RawSplit(images, np.array(list(labels.values()), dtype=np.int64))


def _annotated(where: str, val: list[str], wnids: list[str], read: Read) -> dict[str, int]:
    """Return the label of every image of val. A line is a file, its wnid and a box, with tabs between."""
    if not val:
        raise DataError(f"{where}val/images: has no *.JPEG; must be as the archive has it")
    labels: dict[str, int] = {}
    there = set(val)
    numbers = {wnid: label for label, wnid in enumerate(wnids)}
    for row, line in enumerate(_text(where, ANNOTATIONS, read).splitlines(), 1):
        if not line.strip():
            continue
        file, wnid, *_ = (*line.split("\t"), "", "")
        name, at = f"val/images/{file}", f"{where}{ANNOTATIONS}: line {row}"
        if name not in there:
            raise DataError(f"{at}: there is no file {name}")
        if wnid not in numbers:
            raise DataError(f"{at}: {file}: {wnid!r} is not in wnids.txt")
        if name in labels:
            raise DataError(f"{at}: {file} has a line before")
        labels[name] = numbers[wnid]
    if absent := [name for name in val if name not in labels]:
        raise DataError(f"{where}{ANNOTATIONS}: has no line for {absent[0]}")
    return labels


def _text(where: str, name: str, read: Read) -> str:
    try:
        return read(name).decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{where}{name}: is not text") from None
