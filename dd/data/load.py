"""Prepared datasets, back from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dd.artifacts import load_tensors, read_json
from dd.data.normalise import EPS, ZCA, Normalisation
from dd.data.pool import RealPool
from dd.errors import ArtifactError, ConfigError, nearest

KEYS = ("name", "classes", "channels", "size", "counts", "smallest_class", "fingerprint", "lineages", "flip")
WHITENING = "zca.safetensors"
LATER = {"range": [0.0, 1.0], "augment": True}  # keys that older manifests, which are all of images, do not have
SPLITS = ("train", "test", "holdout", "fit")


def manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a prepared dataset; see `dd.data.prepare`.

    Raises:
        ArtifactError: missing or damaged.
    """
    path = Path(folder) / "manifest.json"
    data = read_json(path)
    missing = sorted(set(KEYS) - set(data if isinstance(data, dict) else ()))
    if missing:
        raise ArtifactError(f"{path}: has no {', '.join(missing)}; delete it and prepare the dataset again")
    return LATER | data


def load(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Return (images (n, c, h, w) uint8, or float32 of sounds, labels (n,) int64) of a split.

    split: `train` and `test`, as published; `holdout`, the held-out tenth of train, and `fit`, train without it, for choosing between
    settings. All are in the prepared order, sorted by class.

    On the CPU, train and test are mapped from their files (`dd.artifacts.load_tensors`): they are read once, to check them, but the
    15.7 GB of imagenet64 need not be in memory. `holdout` and `fit` are copies in memory, and so is what a pool moves to a GPU.

    Raises:
        ConfigError: another split. ArtifactError: missing, damaged, or not of this manifest.
    """
    if split not in SPLITS:
        raise ConfigError(f"split: value {split!r}{nearest(split, SPLITS)}")
    whole = "test" if split == "test" else "train"
    tensors = _tensors(Path(folder), whole, {"images", "labels"})
    images, labels = tensors["images"], tensors["labels"]
    if split == whole:
        return images, labels
    kept = positions(folder, split)
    return images[kept], labels[kept]


def positions(folder: Path, split: str) -> Tensor:
    """Return where in train the images of a part of it are, (n,) int64, sorted: `train`, `fit` or `holdout`; see `load`.

    Raises:
        ConfigError: another split. ArtifactError: missing, damaged, or not of this manifest.
    """
    parts = tuple(name for name in SPLITS if name != "test")
    if split not in parts:
        raise ConfigError(f"split: value {split!r}{nearest(split, parts)}")
    n = sum(manifest(folder)["counts"]["train"])
    if split == "train":
        return torch.arange(n)
    if split == "holdout":
        return indices(folder)
    kept = torch.ones(n, dtype=torch.bool)
    kept[indices(folder)] = False
    return kept.nonzero().squeeze(1)


def pool(folder: Path, split: str, lineage: str, device: str = "cpu", *, first: int | None = None) -> RealPool:
    """Return the images of a split, normalised or whitened as `lineage` says; see `load` and `normalisation` for errors.

    first: only so many of each class, in the prepared order; a class that has fewer gives all. None: all.
    """
    images, labels = load(folder, split)
    classes, norm = len(manifest(folder)["classes"]), normalisation(folder, lineage)
    if first is not None:
        kept = torch.cat([(labels == c).nonzero().squeeze(1)[:first] for c in range(classes)])
        images, labels = images[kept], labels[kept]
    if isinstance(norm, ZCA):
        channels = images.shape[1]
        return RealPool(images, labels, classes, [0.0] * channels, [1.0] * channels, device, zca=norm)
    return RealPool(images, labels, classes, norm.mean.tolist(), norm.std.tolist(), device)


def normalisation(folder: Path, lineage: str) -> Normalisation | ZCA:
    """Return how images of a prepared dataset reach the networks' input space.

    lineage: `zca` is the whitening that `dd.data.whiten` fitted; all others are a mean and std in the manifest.

    Raises:
        ConfigError: the manifest has no such lineage. ArtifactError: the manifest or the whitening is missing, damaged, or the whitening
            was fitted on other images.
    """
    facts = manifest(folder)
    if lineage == "zca":
        return _zca(Path(folder), facts)
    if lineage not in facts["lineages"]:
        raise ConfigError(f"lineage: value {lineage!r}{nearest(lineage, [*facts['lineages'], 'zca'])}")
    return Normalisation(facts["lineages"][lineage]["mean"], facts["lineages"][lineage]["std"])


def _zca(folder: Path, facts: dict[str, Any]) -> ZCA:
    path = folder / WHITENING
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file: the whitening of {facts['name']} is not fitted yet; make it with `python -m dd whiten`")
    tensors, meta = load_tensors(path)
    side = int(facts["channels"]) * int(facts["size"][0]) * int(facts["size"][1])
    shapes = {"mean": (side,), "transform": (side, side), "inverse": (side, side)}
    for key, wanted in (("fingerprint", facts["fingerprint"]), ("eps", EPS)):
        if meta.get(key) != wanted:
            raise ArtifactError(f"{path}: {key}: is {meta.get(key)!r}, the dataset beside it needs {wanted!r}; delete it and whiten again")
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
        raise ArtifactError(f"{path}: does not hold mean, transform and inverse of images of {side} numbers; delete it and whiten again")
    return ZCA.from_state(tensors)


def indices(folder: Path) -> Tensor:
    """Return the positions in train of the held-out tenth, (n,) int64, sorted.

    Raises:
        ArtifactError: missing, damaged, or not of this manifest.
    """
    return _tensors(Path(folder), "holdout", {"indices"})["indices"]


def _tensors(folder: Path, split: str, names: set[str]) -> dict[str, Tensor]:
    path, facts = folder / f"{split}.safetensors", manifest(folder)
    try:
        tensors, meta = load_tensors(path)
    except ArtifactError as error:  # jobs ask for the manifest, and the file would not come back alone
        what = str(error).removeprefix(f"{path}: ").partition("; ")[0]
        raise ArtifactError(f"{path}: {what}; delete {folder / 'manifest.json'} and run again") from None
    if set(tensors) != names or (meta.get("fingerprint"), meta.get("split")) != (facts["fingerprint"], split):
        raise ArtifactError(
            f"{path}: is not the {split} split of the dataset that manifest.json describes; delete {folder / 'manifest.json'} and run again"
        )
    return tensors
