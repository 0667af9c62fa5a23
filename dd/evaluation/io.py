"""Sets and scores, to and from disk."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dd.artifacts import load_tensors, read_json, save_tensors, write_json
from dd.config import digest
from dd.data.load import manifest
from dd.errors import ArtifactError
from dd.types import DistilledSet, Score

DIGITS = 6  # of accuracies in score files


def write_distilled(path: Path, distilled: DistilledSet) -> None:
    """Write a set: `images`, `labels`, `mean`, `std`; `indices` where images were selected (`images` may be empty then); `stored`.

    The metadata have `step_size`, null also where a distillation that diverged left none that is a number, and `zca` where it is true.
    """
    tensors = {"images": distilled.images.float(), "labels": distilled.labels, "mean": distilled.mean, "std": distilled.std}
    if distilled.indices is not None:
        tensors["indices"] = distilled.indices
    if distilled.stored is not None:
        tensors["stored"] = distilled.stored.float()
    size = distilled.step_size
    meta = {**distilled.meta, "step_size": size if size is not None and math.isfinite(size) else None}
    save_tensors(path, tensors, {**meta, "zca": True} if distilled.zca else meta)


def read_distilled(path: Path, dataset: Path | None = None) -> DistilledSet:
    """Read a set; with `dataset`, check that it was made from these very images.

    Raises:
        ArtifactError: missing, damaged, or made from other images.
    """
    tensors, meta = load_tensors(path)
    try:
        distilled = DistilledSet(
            tensors["images"], tensors["labels"], tensors["mean"], tensors["std"], tensors.get("indices"), meta.pop("step_size"), meta,
            tensors.get("stored"), meta.pop("zca", False),
        )  # fmt: skip
    except KeyError as error:
        raise ArtifactError(f"{path}: is not a distilled set: it has no {error}") from None
    if not distilled.labels.ndim or not distilled.images.ndim:
        raise ArtifactError(f"{path}: is not a distilled set: its labels are {tuple(distilled.labels.shape)}, must be one for each image")
    stored = distilled.images if len(distilled.images) or distilled.indices is None else distilled.indices
    if len(stored) != len(distilled.labels):
        raise ArtifactError(f"{path}: holds {len(stored)} images, but {len(distilled.labels)} labels")
    if dataset is not None:
        facts = manifest(dataset)
        if meta.get("fingerprint") != facts["fingerprint"]:
            raise ArtifactError(f"{path}: was made from other images than those in {dataset} (fingerprints differ); distil again")
        if not len(distilled.images) and distilled.indices is not None:
            distilled.images = torch.empty(0, facts["channels"], *facts["size"])
    return distilled


def check_identity(path: Path, id_: str) -> None:
    """Check that the configuration stored with a set is the one that its id names.

    Args:
        path: a set, `distilled.safetensors` or `steps/{n}.safetensors`. id_: the 8 hex digits that the consumer was promised.

    Raises:
        ArtifactError: config.json is missing, damaged, or hashes to something else.
    """
    file = (path.parent.parent if path.parent.name == "steps" else path.parent) / "config.json"
    try:
        found = digest(read_json(file))
    except ArtifactError as error:  # no job asks for this file: deleted alone, it would not come back
        raise ArtifactError(f"{file}: {str(error).removeprefix(f'{file}: ').partition('; ')[0]}; delete its folder and run again") from None
    except ValueError as error:  # NaN, or half of a surrogate pair: no configuration of ours has them
        raise ArtifactError(f"{file}: is no configuration ({error}); delete its folder and run again") from None
    if found != id_:
        raise ArtifactError(f"{file}: hashes to {found}, its results are asked for as {id_}: changed; delete its folder and run again")


def write_scores(path: Path, config: dict[str, Any], scores: list[Score]) -> None:
    """Write scores as canonical JSON, accuracies to six digits."""
    plain = json.loads(json.dumps([asdict(score) for score in scores]), parse_float=lambda text: round(float(text), DIGITS))
    write_json(path, {"config": config, "scores": plain})


def read_scores(path: Path) -> list[Score]:
    """Read scores.

    Raises:
        ArtifactError: missing or damaged.
    """
    try:
        scores = [Score(**score) for score in read_json(path)["scores"]]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: is not a file of scores ({error})") from None
    for number, score in enumerate(scores):
        if strange := [value for value in (score.accuracy_last, score.accuracy_best_on_test) if not isinstance(value, (int, float))]:
            raise ArtifactError(f"{path}: is not a file of scores: number {number} has an accuracy of {strange[0]!r}")
    return scores
