"""The prepared form: the same files from the same images, wherever they came from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dd.artifacts import save_tensors, write_json
from dd.config import canonical
from dd.data import official, readers
from dd.data.config import DatasetConfig, check_paths
from dd.data.digits import digits
from dd.data.order import held_out, sorted_by_class
from dd.data.readers import RawSplit
from dd.data.registry import DATASETS, DatasetSpec, spec
from dd.errors import DataError

Parts = dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]


def prepare(name: str, config: DatasetConfig, raw_dir: Path, out_dir: Path) -> dict[str, Any]:
    """Write {train,holdout,test}.safetensors and, last, manifest.json; return the manifest.

    train and test hold `images` (n, c, h, w) uint8 and `labels` (n,) int64, sorted by (label, sha256 of the pixels). holdout
    holds `indices`, the positions in train of a stratified tenth: train itself stays whole, because the papers train on all of it.

    Args:
        name: a registered dataset, or any other name.
        config: where its images are.
        raw_dir: where `download` put the official files; not used by the other kinds of source.
        out_dir: the folder to write to.

    Raises:
        ConfigError: a path that does not exist. DataError: damaged or inconsistent images, or not those that are pinned.
    """
    known = DATASETS.get(name)
    origin = {"download": raw_dir, "digits": "scikit-learn"}.get(config.source.kind) or getattr(config.source, "path", "")
    where = f"dataset {name} ({origin})"
    train, test = _read(name, config, raw_dir, known)
    classes = _classes(where, known, train, test)
    parts: Parts = {}
    for split, data in (("train", train), ("test", test)):
        _check(f"{where}: {split}", data, train, classes, known)
        parts[split] = sorted_by_class(data.images, data.labels)
    if known:  # before the fingerprint, which would only say that something differs
        _check_counts(where, known, parts)
    fingerprint = _fingerprint(parts, classes)
    for pinned, by in ((config.fingerprint, "config.yaml"), (known.fingerprint if known else None, "dd/data/registry.py")):
        if pinned and pinned != fingerprint:
            raise DataError(f"{where}: not the images that {by} pins: their fingerprint is {fingerprint}, pinned is {pinned}")
    counts = {split: np.bincount(labels, minlength=len(classes)).tolist() for split, (_, labels) in parts.items()}
    manifest = {
        "name": name,
        "classes": classes,
        "channels": int(train.images.shape[1]),
        "size": [int(side) for side in train.images.shape[2:]],
        "counts": counts,
        "smallest_class": min(counts["train"]),
        "fingerprint": fingerprint,
        "lineages": _lineages(where, known, config, parts["train"][0]),
        "flip": known.flip if known else config.flip is not False,
    }
    out_dir = Path(out_dir)
    (out_dir / "manifest.json").unlink(missing_ok=True)  # whoever finds one may rely on all files being of one make
    tensors = {split: {"images": torch.from_numpy(x), "labels": torch.from_numpy(y)} for split, (x, y) in parts.items()}
    tensors["holdout"] = {"indices": torch.from_numpy(held_out(*parts["train"]))}
    for split, content in tensors.items():
        save_tensors(out_dir / f"{split}.safetensors", content, {"dataset": name, "fingerprint": fingerprint, "split": split})
    write_json(out_dir / "manifest.json", manifest)
    return manifest


def _read(name: str, config: DatasetConfig, raw_dir: Path, known: DatasetSpec | None) -> tuple[RawSplit, RawSplit]:
    source = config.source
    if source.kind in ("parquet", "folder", "idx"):
        check_paths({name: config}, "config.yaml: datasets")
        path = Path(source.path)
        if source.kind == "parquet":
            return readers.parquet(path)
        return readers.idx(path) if source.kind == "idx" else readers.folder(path, known.classes if known else ())
    if source.kind == "digits":
        return digits()
    official_files = spec(name)
    if official_files.layout == "cifar":
        return official.cifar_binary(Path(raw_dir) / official_files.downloads[0].file, len(official_files.classes))
    return official.svhn_mat(Path(raw_dir)) if official_files.layout == "svhn" else readers.idx(Path(raw_dir))


def _classes(where: str, known: DatasetSpec | None, train: RawSplit, test: RawSplit) -> list[str]:
    """Return the names of the classes; labels of a registered dataset under the same names in another order are renumbered."""
    if train.class_names and test.class_names and train.class_names != test.class_names:
        raise DataError(f"{where}: train has the classes {train.class_names}, test has {test.class_names}; must be the same")
    names = train.class_names or test.class_names
    for split, data in (("train", train), ("test", test)):
        if len(data.images) != len(data.labels):
            raise DataError(f"{where}: {split}: {len(data.images)} images, but {len(data.labels)} labels")
        if not len(data.labels):
            raise DataError(f"{where}: {split}: has no images")
        # Without names, every class has an image at least: a wild label cannot ask for a billion classes.
        most = names or (known.classes if known else train.labels)
        _check_range(f"{where}: {split}", data.labels, len(most))
    if not known:
        return names or [str(c) for c in range(int(train.labels.max()) + 1)]
    if names and names != list(known.classes) and sorted(names) == sorted(known.classes):
        number = np.array([known.classes.index(name) for name in names])
        train.labels, test.labels = number[train.labels], number[test.labels]
    return list(known.classes)


def _check_range(where: str, labels: NDArray[np.int64], classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        bad = low if low < 0 else high
        row = int(np.flatnonzero(labels == bad)[0])
        raise DataError(f"{where}: label {bad} (image {row}) is out of range; allowed: 0 to {classes - 1}")


def _check(where: str, data: RawSplit, train: RawSplit, classes: list[str], known: DatasetSpec | None) -> None:
    _check_range(where, data.labels, len(classes))
    shape = data.images.shape[1:]
    registered = (known.channels, *known.size) if known else shape
    for other, owner in ((train.images.shape[1:], "those of train"), (registered, "the registered ones")):
        if shape != tuple(other):
            raise DataError(f"{where}: images have (channels, height, width) = {shape}, {owner} have {tuple(other)}")
    empty = sorted(set(range(len(classes))) - set(np.unique(data.labels).tolist()))
    if empty:
        raise DataError(f"{where}: no image of class {classes[empty[0]]!r} (label {empty[0]})")


def _check_counts(where: str, known: DatasetSpec, parts: Parts) -> None:
    for split, expected in (("train", known.train), ("test", known.test)):
        there = len(parts[split][1])
        if there != expected:
            raise DataError(
                f"{where}: {split} has {there} images, {known.name} has {expected}; a part of it needs a name of its own in config.yaml"
            )


def _fingerprint(parts: Parts, classes: list[str]) -> str:
    """Return a sha256 over pixels, labels, shapes, split and class names."""
    digest = hashlib.sha256(canonical(classes).encode())
    for split, (images, labels) in sorted(parts.items()):
        digest.update(f"{split}:{images.shape}".encode())
        digest.update(np.ascontiguousarray(images).tobytes())
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _lineages(where: str, known: DatasetSpec | None, config: DatasetConfig, images: NDArray[np.uint8]) -> dict[str, dict[str, list[float]]]:
    """Return mean and std for each lineage of papers: registered, else configured, else of the pixels of train (6 digits)."""
    if known and known.lineages:
        return {lineage: {"mean": list(mean), "std": list(std)} for lineage, (mean, std) in known.lineages.items()}
    computed = _statistics(images)
    given = {"mean": list(config.mean or computed["mean"]), "std": list(config.std or computed["std"])}
    channels = images.shape[1]
    for key, values in given.items():
        if len(values) != channels:
            raise DataError(f"{where}: {key}: value {values} has {len(values)} numbers, the images have {channels} channels")
    return {"dc": given, "idc": given}


def _statistics(images: NDArray[np.uint8]) -> dict[str, list[float]]:
    """Return mean and std of each channel for images in [0, 1], from exact integer sums; a std is at least 0.001."""
    values = np.arange(256, dtype=np.int64)
    mean, std = [], []
    for c in range(images.shape[1]):
        parts = np.array_split(images[:, c], len(images) // 1000 + 1)  # bincount makes int64 of what it is given
        counts = np.sum([np.bincount(part.ravel(), minlength=256) for part in parts], axis=0)
        n, total, square = int(counts.sum()), int((counts * values).sum()), int((counts * values**2).sum())
        mean.append(round(total / n / 255, 6))
        std.append(max(round((square * n - total * total) ** 0.5 / n / 255, 6), 1e-3))
    return {"mean": mean, "std": std}
