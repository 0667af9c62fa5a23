"""Prepared datasets, back from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from dd.artifacts import load_tensors, read_json
from dd.errors import ArtifactError


def manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a prepared dataset.

    Raises:
        ArtifactError: missing or damaged.
    """
    data = read_json(folder / "manifest.json")
    missing = {"name", "classes", "channels", "size", "fingerprint", "lineages", "flip"} - set(data if isinstance(data, dict) else ())
    if missing:
        raise ArtifactError(f"{folder / 'manifest.json'}: has no {', '.join(sorted(missing))}; prepare the dataset again")
    return data


def load(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Return (images (n, c, h, w) uint8, labels (n,) int64) of `train` or `test`.

    Raises:
        ArtifactError: missing, damaged, or not of this manifest.
    """
    tensors, meta = load_tensors(folder / f"{split}.safetensors")
    if meta.get("fingerprint") != manifest(folder)["fingerprint"]:
        raise ArtifactError(f"{folder / split}.safetensors: is not of the dataset that manifest.json describes; prepare it again")
    return tensors["images"], tensors["labels"]


def indices(folder: Path) -> Tensor:
    """Return the positions in train of the held-out tenth, (n,) int64, sorted.

    Raises:
        ArtifactError: missing or damaged.
    """
    return load_tensors(folder / "holdout.safetensors")[0]["indices"]
