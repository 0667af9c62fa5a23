"""The configurations that ids are hashed from, one for each stage. Read by the planner: nothing heavy at the top."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from dd.config import Frozen, added


class Dataset(Frozen):
    """Which images: the name, and the fingerprint of the prepared set where it is known beforehand.

    given: mean, std and flip that config.yaml gives a dataset which is not registered; they decide what networks see.
    """

    name: str
    fingerprint: str | None = None
    given: dict[str, Any] | None = added(None)


class DistillConfig(Frozen):
    """One distillation, but for its seed.

    recipe: the method's own fields; inputs: ids of what it needs. guidance: fields of `dd.sources.guides.Guidance`, or none.
    split: which real images there are: all of `train`, or `fit`, without the held-out tenth.
    """

    stage: Literal["distill"] = "distill"
    version: int = 1
    dataset: Dataset
    method: str
    ipc: int = Field(ge=0)
    recipe: dict[str, Any]
    inputs: tuple[str, ...] = ()
    guidance: dict[str, Any] | None = added(None)
    split: Literal["train", "fit"] = added("train")


class ChosenStep(Frozen):
    """A step that is picked from results. choice: id of the job that picks it. last: the number of updates of the final set."""

    choice: str
    last: int


class EvaluateConfig(Frozen):
    """One evaluation of a distilled set.

    step: which published step; null is the final set. split: which images it is tested on. inputs: ids of what the protocol needs.
    """

    stage: Literal["evaluate"] = "evaluate"
    version: int = 1
    distilled: str
    step: int | ChosenStep | None = None
    network: str
    protocol: str
    settings: dict[str, Any]
    split: Literal["test", "holdout"] = added("test")
    inputs: tuple[str, ...] = added(())


class AnalyseConfig(Frozen):
    """Features of one class of a distilled set and of real images, under networks pre-trained on the real ones.

    kind: `embeddings`, under one network; `models`, under several (seeds 0 to models - 1), with the matching loss of every class;
    `accuracy`, what one network says of the distilled images of every class; `cams`, where a network sees evidence of the classes of a few
    distilled images.
    step: which published step of the set; null is the final set. network, pretrained, epoch: the checkpoints to look through.
    label: the class. real: how many real images of it.
    models, batch, draws: of the kind `models`: how many networks, real images a class in a batch (a class that has fewer gives all),
    and how many batches.
    labels, image, earlier: of the kind `cams`: the classes, which image of each, and epochs at which the network is looked through beside
    `epoch`.
    """

    stage: Literal["analyse"] = "analyse"
    version: int = 1
    kind: Literal["embeddings", "models", "accuracy", "cams"] = "embeddings"
    distilled: str
    network: str
    pretrained: str
    epoch: int
    label: int = 0
    real: int = 200
    step: int | None = added(None)
    models: int = added(1, ge=1)
    batch: int = added(256, ge=1)
    draws: int = added(10, ge=1)
    labels: tuple[int, ...] = added((0, 1, 2), min_length=1)
    image: int = added(0, ge=0)
    earlier: tuple[int, ...] = added(())

    @model_validator(mode="after")
    def _says_only_what_matters(self) -> AnalyseConfig:
        if self.kind != "models" and (self.models, self.batch, self.draws) != (1, 256, 10):
            raise ValueError("models, batch and draws belong to kind 'models'")  # else two ids would be one analysis
        if self.kind != "cams" and (self.labels, self.image, self.earlier) != ((0, 1, 2), 0, ()):
            raise ValueError("labels, image and several epochs belong to kind 'cams'")
        if self.kind == "cams" and (self.label, self.real) != (0, 200):
            raise ValueError("label and real mean nothing to kind 'cams'; give labels")
        return self
