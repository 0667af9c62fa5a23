"""The prepared form: the same files from the same images, wherever they came from."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dd.artifacts import Stream, save_streams, write_json
from dd.config import canonical
from dd.data import clips, imagenet, npz, official, readers, speech, tiny
from dd.data.config import DatasetConfig, check_paths, kinds
from dd.data.digits import digits
from dd.data.noted import verified
from dd.data.order import blocks, held_out, pixel_keys, sorted_by_class
from dd.data.readers import RawSplit
from dd.data.registry import DATASETS, DatasetSpec, spec
from dd.errors import ConfigError, DataError

RESUME = ".resume"


@dataclass(frozen=True)
class Part:
    """A split in the prepared order, of which no copy is made: `order` says where row n is in `raw`. labels: (n,) int64, in order."""

    raw: RawSplit
    order: NDArray[np.int64]
    labels: NDArray[np.int64]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of all images, (n, c, h, w)."""
        return (len(self.order), *self.raw.images.shape[1:])

    def images(self) -> Iterator[NDArray[Any]]:
        """Yield the images in blocks."""
        return blocks(self.raw.images, self.order)

    def exact(self) -> Iterator[NDArray[np.uint8]]:
        """Yield what `RawSplit.exact` is in blocks."""
        return blocks(self.raw.exact, self.order)


Parts = dict[str, Part]


def prepare(name: str, config: DatasetConfig, raw_dir: Path, out_dir: Path) -> dict[str, Any]:
    """Write {train,holdout,test}.safetensors and, last, manifest.json; return the manifest.

    train and test hold `images` (n, c, h, w) and `labels` (n,) int64, sorted by (label, sha256 of the content). holdout holds
    `indices`, the positions in train of a stratified tenth: train itself stays whole, because the papers train on all of it.
    Images are uint8, and their content is their pixels; spectrograms of sounds are float32 log-magnitudes, and their content is the
    sound (`dd.data.speech.identity`), so that order and fingerprint are the same on machines whose floats differ in the last digit.

    Images are never in memory twice; those that a reader maps from a file are not in memory once. What readers have decoded lies in
    `out_dir`/.resume until the manifest is written: a run that was stopped continues there.

    In the manifest, `range` is [low, high] of pixels in raw units: [0, 1] for images; for sounds the smallest value of train, and null.
    `augment` tells whether images may be augmented. `downloads` are the checksums of files for which nobody publishes one.

    Args:
        name: a registered dataset, or any other name.
        config: where its images are.
        raw_dir: where `download` put the official files; not used by the other kinds of source.
        out_dir: the folder to write to.

    Raises:
        ConfigError: a path that does not exist, or no source of a dataset that cannot be downloaded. DataError: damaged or inconsistent
            images, or not those that are pinned.
    """
    known = DATASETS.get(name)
    origin = {"download": raw_dir, "digits": "scikit-learn"}.get(config.source.kind) or getattr(config.source, "path", "")
    where = f"dataset {name} ({origin})"
    unpinned = [item.file for item in known.downloads if not item.checksum] if known and config.source.kind == "download" else []
    checked = {file: verified(Path(raw_dir) / file) for file in unpinned}
    out_dir = Path(out_dir)
    train, test = _read(where, name, config, raw_dir, known, out_dir / RESUME)
    classes = _classes(where, known, train, test)
    parts: Parts = {}
    for split, data in (("train", train), ("test", test)):
        _check(f"{where}: {split}", data, train, classes, known)
        order = sorted_by_class(pixel_keys(blocks(data.exact)), data.labels)
        parts[split] = Part(data, order, data.labels[order])
    if known:  # before the fingerprint, which would only say that something differs
        for split, part in parts.items():
            known.check_count(where, split, len(part.labels))
    fingerprint = _fingerprint(parts, classes)
    for pinned, by in ((config.fingerprint, "config.yaml"), (known.fingerprint if known else None, "dd/data/registry.py")):
        if pinned and pinned != fingerprint:
            raise DataError(f"{where}: not the images that {by} pins: their fingerprint is {fingerprint}, pinned is {pinned}")
    counts = {split: np.bincount(part.labels, minlength=len(classes)).tolist() for split, part in parts.items()}
    sounds = train.identity is not None
    manifest = {
        "name": name,
        "classes": classes,
        "channels": int(train.images.shape[1]),
        "size": [int(side) for side in train.images.shape[2:]],
        "counts": counts,
        "smallest_class": min(counts["train"]),
        "fingerprint": fingerprint,
        "lineages": _lineages(where, known, config, parts["train"]),
        "flip": known.flip if known else config.flip is not False and not sounds,
        "range": [float(train.images.min()), None] if sounds else [0.0, 1.0],
        "augment": not sounds,
    }
    if checked:
        manifest["downloads"] = checked
    (out_dir / "manifest.json").unlink(missing_ok=True)  # whoever finds one may rely on all files being of one make
    for split, part in parts.items():
        images, labels = Stream(part.shape, part.raw.images.dtype, part.images), _whole(part.labels)
        _save(out_dir, name, fingerprint, split, {"images": images, "labels": labels})
    chosen = held_out(pixel_keys(parts["train"].exact(), b"holdout"), parts["train"].labels)
    _save(out_dir, name, fingerprint, "holdout", {"indices": _whole(chosen)})
    write_json(out_dir / "manifest.json", manifest)
    shutil.rmtree(out_dir / RESUME, ignore_errors=True)
    return manifest


def _whole(array: NDArray[Any]) -> Stream:
    return Stream(array.shape, array.dtype, lambda: [array])


def _save(out_dir: Path, name: str, fingerprint: str, split: str, streams: dict[str, Stream]) -> None:
    save_streams(out_dir / f"{split}.safetensors", streams, {"dataset": name, "fingerprint": fingerprint, "split": split})


def _read(
    where: str, name: str, config: DatasetConfig, raw_dir: Path, known: DatasetSpec | None, resume: Path
) -> tuple[RawSplit, RawSplit]:
    source = config.source
    if source.kind == "digits":
        return digits()
    if source.kind == "download":
        return _official(spec(name), Path(raw_dir))
    check_paths({name: config}, "config.yaml: datasets")
    path, classes = Path(source.path), known.classes if known else ()
    if source.kind == "imagenet":
        return imagenet.read(path, spec(name), resume, where)
    if source.kind == "npz":
        return npz.pathmnist(path, spec(name).size[0]) if spec(name).layout == "pathmnist" else npz.imagenet32(path)
    is_tiny = known is not None and known.layout == "tiny_imagenet"
    if source.kind == "parquet":
        return readers.parquet(path, rgb=is_tiny)
    if source.kind == "idx":
        return readers.idx(path)
    if source.kind == "folder":
        return tiny.folder(path, len(classes)) if is_tiny else readers.folder(path, classes)
    return clips.wav_folder(path, classes)


def _official(known: DatasetSpec, raw_dir: Path) -> tuple[RawSplit, RawSplit]:
    if not known.downloads:
        raise ConfigError(
            f"config.yaml: datasets.{known.name}: source: is missing: {known.obtain}; then write "
            f"{{kind: {kinds(known.name)[0]}, path: that folder}}"
        )
    if known.layout == "pathmnist":
        return npz.pathmnist(raw_dir, known.size[0])
    if known.layout == "tiny_imagenet":
        return tiny.archive(raw_dir / known.downloads[0].file, len(known.classes))
    if known.layout == "cifar":
        return official.cifar_binary(raw_dir / known.downloads[0].file, len(known.classes))
    if known.layout == "speech":
        return clips.speech_zip(raw_dir / known.downloads[0].file, known.classes)
    return official.svhn_mat(raw_dir) if known.layout == "svhn" else readers.idx(raw_dir)


def _classes(where: str, known: DatasetSpec | None, train: RawSplit, test: RawSplit) -> list[str]:
    """Return the names of the classes; labels of a registered dataset under the same names in another order are renumbered.

    So are those under wnids, if the registry has numbers that stand for the sorted wnids.
    """
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
    order = list(known.classes)
    if names and known.numbered and len(names) == len(order) and all(map(imagenet.WNID.fullmatch, names)):
        order = sorted(names)
    if names and names != order and sorted(names) == sorted(order):
        number = np.array([order.index(name) for name in names])
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


def _fingerprint(parts: Parts, classes: list[str]) -> str:
    """Return a sha256 over content, labels, shapes, split and class names; of sounds, also over how they become images."""
    digest = hashlib.sha256(canonical(classes).encode())
    for split, part in sorted(parts.items()):
        digest.update(f"{split}:{part.shape}{'' if part.raw.identity is None else speech.FORM}".encode())
        for block in part.exact():
            digest.update(block.reshape(-1).data)
        digest.update(part.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _lineages(where: str, known: DatasetSpec | None, config: DatasetConfig, train: Part) -> dict[str, dict[str, list[float]]]:
    """Return mean and std for each lineage of papers: registered, else configured, else of the pixels of train (6 digits)."""
    if known and known.lineages:
        return {lineage: {"mean": list(mean), "std": list(std)} for lineage, (mean, std) in known.lineages.items()}
    computed = _statistics(train)
    given = {"mean": list(config.mean or computed["mean"]), "std": list(config.std or computed["std"])}
    channels = train.shape[1]
    for key, values in given.items():
        if len(values) != channels:
            raise DataError(f"{where}: {key}: value {values} has {len(values)} numbers, the images have {channels} channels")
    return {"dc": given, "idc": given}


def _statistics(train: Part) -> dict[str, list[float]]:
    """Return mean and std of each channel in raw units, of uint8 from exact integer sums; a std is at least 0.001."""
    if train.raw.images.dtype != np.uint8:
        return _float_statistics(train.raw.images[train.order])
    values = np.arange(256, dtype=np.int64)
    counts = np.zeros((train.shape[1], 256), dtype=np.int64)
    for block in train.images():
        for c in range(train.shape[1]):
            counts[c] += np.bincount(block[:, c].ravel(), minlength=256)
    mean, std = [], []
    for mine in counts:
        n, total, square = int(mine.sum()), int((mine * values).sum()), int((mine * values**2).sum())
        mean.append(round(total / n / 255, 6))
        std.append(max(round((square * n - total * total) ** 0.5 / n / 255, 6), 1e-3))
    return {"mean": mean, "std": std}


def _float_statistics(images: NDArray[Any]) -> dict[str, list[float]]:
    """Return the mean and std (divided by n) of each channel, in float64; 6 digits, so that the last ones of the pixels do not matter."""
    axes = (0, 2, 3)
    mean = images.mean(axes, dtype=np.float64)
    parts = np.array_split(images, len(images) // 1000 + 1)  # float64 copies of a part at a time
    squares = sum(((part - mean[:, None, None]) ** 2).sum(axes) for part in parts)
    std = np.sqrt(squares / (images.size / images.shape[1]))
    return {"mean": [round(float(m), 6) for m in mean], "std": [max(round(float(s), 6), 1e-3) for s in std]}
