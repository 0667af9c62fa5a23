"""The configurations that ids are hashed from, one for each stage. Read by the planner: nothing heavy at the top."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dd.config import Frozen, added


class Dataset(Frozen):
    """Which images: the name, and the fingerprint of the prepared set where it is known beforehand.

    given: mean, std and flip that config.yaml gives a dataset which is not registered; they decide what networks see.
    """

    name: str
    fingerprint: str | None = None
    given: dict[str, Any] | None = added(None)


class DistillConfig(Frozen):
    """One distillation, but for its seed. recipe: the method's own fields; inputs: ids of what it needs."""

    stage: Literal["distill"] = "distill"
    version: int = 1
    dataset: Dataset
    method: str
    ipc: int = Field(ge=0)
    recipe: dict[str, Any]
    inputs: tuple[str, ...] = ()


class EvaluateConfig(Frozen):
    """One evaluation of a distilled set. step: which published step; null is the final set."""

    stage: Literal["evaluate"] = "evaluate"
    version: int = 1
    distilled: str
    step: int | None = None
    network: str
    protocol: str
    settings: dict[str, Any]


class AnalyseConfig(Frozen):
    """Features of one class of a distilled set and of real images, under one pre-trained network.

    label: the class. real: how many real images. network, pretrained, epoch: the checkpoint to look through.
    """

    stage: Literal["analyse"] = "analyse"
    version: int = 1
    kind: Literal["embeddings"] = "embeddings"
    distilled: str
    network: str
    pretrained: str
    epoch: int
    label: int = 0
    real: int = 200
