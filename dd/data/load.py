"""Prepared datasets, back from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from dd.artifacts import load_tensors, read_json
from dd.errors import ArtifactError, ConfigError, nearest

KEYS = ("name", "classes", "channels", "size", "counts", "smallest_class", "fingerprint", "lineages", "flip")
LATER = {"range": [0.0, 1.0], "augment": True}  # keys that older manifests, which are all of images, do not have
SPLITS = ("train", "test")


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
    """Return (images (n, c, h, w) uint8, or float32 of sounds, labels (n,) int64) of `train` or `test`.

    Raises:
        ConfigError: another split. ArtifactError: missing, damaged, or not of this manifest.
    """
    if split not in SPLITS:
        raise ConfigError(f"split: value {split!r}{nearest(split, SPLITS)} (the held-out tenth of train: `indices`)")
    tensors = _tensors(Path(folder), split, {"images", "labels"})
    return tensors["images"], tensors["labels"]


def indices(folder: Path) -> Tensor:
    """Return the positions in train of the held-out tenth, (n,) int64, sorted.

    Raises:
        ArtifactError: missing, damaged, or not of this manifest.
    """
    return _tensors(Path(folder), "holdout", {"indices"})["indices"]


def _tensors(folder: Path, split: str, names: set[str]) -> dict[str, Tensor]:
    path = folder / f"{split}.safetensors"
    tensors, meta = load_tensors(path)
    if set(tensors) != names or (meta.get("fingerprint"), meta.get("split")) != (manifest(folder)["fingerprint"], split):
        raise ArtifactError(f"{path}: is not the {split} split of the dataset that manifest.json describes; prepare it again")
    return tensors
