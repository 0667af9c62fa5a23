"""How a generator is measured. Read by the planner: nothing heavy at the top."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dd.config import Frozen
from dd.config.stages import Dataset
from dd.train.config import Training

Positive = Annotated[int, Field(ge=1)]


class Quality(Frozen):
    """How a generator is measured (`dd.analysis.gan_quality.quality`).

    network, epochs, training: the classifier that all measures look through, seed 0, trained on the real train split. samples: how many
    images the generator makes, evenly over the classes; at least 8 a class. score, score_epochs: the network of the classification
    accuracy score, and its training. images: real images of train that are compared, at most, evenly over the classes: all of them,
    but of the largest datasets.
    """

    network: str = "convnet3_in"
    epochs: Positive = 20
    training: Training = Training(batch=64)
    samples: Positive = 2000
    score: str = "convnet3_in_w16"
    score_epochs: Positive = 5
    images: Positive = 60_000


class QualityConfig(Frozen):
    """The measures of one milestone of a generator. generator, classifier: ids of their trainings; the rest: see `Quality`."""

    stage: Literal["quality"] = "quality"
    version: int = 1
    dataset: Dataset
    generator: str
    epoch: int = Field(ge=0)
    classifier: str
    classifier_epoch: Positive
    samples: Positive
    score: str
    score_epochs: Positive
    images: Positive
