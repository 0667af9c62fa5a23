"""How a network is trained. Read by the planner: nothing heavy at the top."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dd.config import Frozen
from dd.config.stages import Dataset


class Training(Frozen):
    """SGD on cross-entropy, in epochs.

    lr, momentum, weight_decay, batch: of SGD; the last partial batch is kept.
    augment: one operation of the strategy a mini-batch (`oneof`, DC lineage), several (`stack`, IDC lineage), or `none`; parameters
    are per image. strategy: the operations; null is the dataset's default for the lineage. cutmix: its probability a mini-batch.
    schedule: `constant`; `halfway_reset`: after pass `epochs // 2 + 1` the rate is a tenth and the optimizer is made anew, so that
    its momentum is lost; `multistep`: a fifth at 2/3 and again at 5/6 of the epochs. epochs: length of the schedule; unused by
    `constant`. A milestone is a point on this schedule: epoch 4 of 150 is not a training of 4 epochs.
    """

    lr: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    batch: int = Field(default=256, ge=1)
    augment: Literal["none", "oneof", "stack"] = "none"
    strategy: str | None = None
    cutmix: float = Field(default=0.0, ge=0, le=1)
    schedule: Literal["constant", "halfway_reset", "multistep"] = "constant"
    epochs: int = Field(default=0, ge=0)


class PretrainConfig(Frozen):
    """Networks trained on the whole train split; seed and epoch are elements of the path, not of the id."""

    stage: Literal["pretrain"] = "pretrain"
    version: int = 1
    dataset: Dataset
    network: str
    training: Training = Training()
