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
from dd.data import readers
from dd.data.config import DatasetConfig, check_paths
from dd.data.digits import digits
from dd.data.order import held_out, sorted_by_class
from dd.data.readers import RawSplit
from dd.data.registry import DATASETS, DatasetSpec
from dd.errors import DataError


def prepare(name: str, config: DatasetConfig, raw: Path, out: Path) -> dict[str, Any]:
    """Write {train,holdout,test}.safetensors and, last, manifest.json; return the manifest.

    train and test hold `images` (n, c, h, w) uint8 and `labels` (n,) int64, sorted by (label, sha256 of the pixels). holdout holds
    `indices`, the positions in train of a stratified tenth: train itself stays whole, because the papers train on all of it.

    Raises:
        ConfigError: a path that does not exist. DataError: damaged or inconsistent images, or not those that are pinned.
    """
    check_paths({name: config}, "datasets")
    known = DATASETS.get(name)
    train, test = _read(name, config, raw, known)
    classes = _classes(name, known, train, test)
    parts: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]] = {}
    for split, data in (("train", train), ("test", test)):
        _check(f"{name}: {split}", data, train, classes, known)
        parts[split] = sorted_by_class(data.images, data.labels)
    fingerprint = _fingerprint(parts, classes)
    for pinned, where in ((config.fingerprint, "config.yaml"), (known.fingerprint if known else None, "dd/data/registry.py")):
        if pinned and pinned != fingerprint:
            raise DataError(f"dataset {name}: these are not the images that {where} pins: fingerprint {fingerprint}, pinned {pinned}")
    for split, (images, labels) in parts.items():
        save_tensors(out / f"{split}.safetensors", {"images": torch.from_numpy(images), "labels": torch.from_numpy(labels)},
                     {"dataset": name, "fingerprint": fingerprint, "split": split})  # fmt: skip
    save_tensors(out / "holdout.safetensors", {"indices": torch.from_numpy(held_out(*parts["train"]))},
                 {"dataset": name, "fingerprint": fingerprint, "split": "holdout"})  # fmt: skip
    counts = {split: np.bincount(labels, minlength=len(classes)).tolist() for split, (_, labels) in parts.items()}
    manifest = {
        "name": name,
        "classes": classes,
        "channels": int(train.images.shape[1]),
        "size": [int(side) for side in train.images.shape[2:]],
        "counts": counts,
        "smallest_class": min(counts["train"]),
        "fingerprint": fingerprint,
        "lineages": _lineages(known, config, parts["train"][0]),
        "flip": config.flip,
    }
    write_json(out / "manifest.json", manifest)
    return manifest


def _read(name: str, config: DatasetConfig, raw: Path, known: DatasetSpec | None) -> tuple[RawSplit, RawSplit]:
    source = config.source
    if source.kind == "digits":
        return digits()
    if source.kind == "parquet":
        return readers.parquet(Path(source.path), "train"), readers.parquet(Path(source.path), "test")
    if source.kind == "folder":
        names = known.classes if known else ()
        return readers.folder(Path(source.path), "train", names), readers.folder(Path(source.path), "test", names)
    if source.kind == "idx":
        return readers.idx(Path(source.path), "train"), readers.idx(Path(source.path), "test")
    assert known is not None  # load_datasets lets only registered ones download
    if name in ("cifar10", "cifar100"):
        archive = raw / known.downloads[0].file
        return tuple(readers.cifar_binary(archive, split, len(known.classes)) for split in ("train", "test"))  # type: ignore[return-value]
    if name == "svhn":
        return readers.svhn_mat(raw, "train"), readers.svhn_mat(raw, "test")
    return readers.idx(raw, "train"), readers.idx(raw, "test")


def _classes(name: str, known: DatasetSpec | None, train: RawSplit, test: RawSplit) -> list[str]:
    if known:
        return list(known.classes)
    if train.class_names and test.class_names and train.class_names != test.class_names:
        raise DataError(f"dataset {name}: train has classes {train.class_names}, test has {test.class_names}")
    return train.class_names or [str(c) for c in range(int(train.labels.max()) + 1)]


def _check(where: str, data: RawSplit, train: RawSplit, classes: list[str], known: DatasetSpec | None) -> None:
    if not len(data.labels):
        raise DataError(f"dataset {where}: has no images")
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= len(classes):
        bad = low if low < 0 else high
        raise DataError(f"dataset {where}: label {bad} is out of range; allowed: 0 to {len(classes) - 1} ({len(classes)} classes)")
    if data.images.shape[1:] != train.images.shape[1:]:
        raise DataError(f"dataset {where}: images of shape {data.images.shape[1:]}, those of train have {train.images.shape[1:]}")
    if known and data.images.shape[1:] != (known.channels, *known.size):
        raise DataError(f"dataset {where}: images of shape {data.images.shape[1:]}, {known.name} has {(known.channels, *known.size)}")
    empty = sorted(set(range(len(classes))) - set(np.unique(data.labels).tolist()))
    if empty:
        raise DataError(f"dataset {where}: no image of class {classes[empty[0]]!r} (label {empty[0]})")


def _fingerprint(parts: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]], classes: list[str]) -> str:
    """Return a sha256 over pixels, labels, shapes, split and class names."""
    digest = hashlib.sha256(canonical(classes).encode())
    for split, (images, labels) in sorted(parts.items()):
        digest.update(f"{split}:{images.shape}".encode())
        digest.update(np.ascontiguousarray(images).tobytes())
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _lineages(known: DatasetSpec | None, config: DatasetConfig, images: NDArray[np.uint8]) -> dict[str, dict[str, list[float]]]:
    """Return mean and std for each lineage of papers: registered, else configured, else of the pixels of train (6 digits)."""
    if known and known.lineages:
        return {lineage: {"mean": list(mean), "std": list(std)} for lineage, (mean, std) in known.lineages.items()}
    axes = (0, 2, 3)
    count = images.size // images.shape[1]
    total = images.sum(axes, dtype=np.int64)
    square = np.stack([(images[:, c].astype(np.int64) ** 2).sum() for c in range(images.shape[1])])
    mean = total / count / 255
    std = np.sqrt(square / count / 255**2 - mean**2)
    computed = {"mean": [round(float(m), 6) for m in mean], "std": [max(round(float(s), 6), 1e-3) for s in std]}
    given = {"mean": list(config.mean or computed["mean"]), "std": list(config.std or computed["std"])}
    for key, values in given.items():
        if len(values) != images.shape[1]:
            raise DataError(f"{key}: has {len(values)} values, the images have {images.shape[1]} channels")
    return {"dc": given, "idc": given}
