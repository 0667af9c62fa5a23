"""How a network is trained. Read by the planner: nothing heavy at the top."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from dd.augment.strategies import check
from dd.config import Frozen, added, hashed
from dd.config.stages import Dataset
from dd.errors import ConfigError
from dd.types import Need

# Named, because a sub-class that gives a field another default would lose what `Field` says of it.
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Policy = Literal["none", "oneof", "stack"]
Schedule = Literal["constant", "halfway_reset", "multistep", "thirds", "warmup_cosine", "cosine"]


class Training(Frozen):
    """SGD on cross-entropy, in epochs.

    lr, momentum, weight_decay, batch: of SGD; the last partial batch is kept.
    augment: one operation of the strategy a mini-batch (`oneof`, DC lineage), several (`stack`, IDC lineage), or `none`; parameters
    are per image. strategy: the operations; null is the dataset's default for the lineage. cutmix: its probability a mini-batch.
    schedule: `constant`; `halfway_reset`: after pass `epochs // 2 + 1` the rate is a tenth and the optimizer is made anew, so that
    its momentum is lost; `multistep`: a fifth at 2/3 and again at 5/6 of the epochs; `thirds`: a tenth at 1/3 and again at 2/3
    of them (CLoM's networks: 50 and 100 of 150); `warmup_cosine`: in a straight line from 1e-7 of the rate to all of it at epoch
    `epochs // 2`, and after the next one along half a cosine, which reaches 0 another `epochs // 2` later (GLaD's students); `cosine`:
    half a cosine from the rate in the first epoch to 0 after `epochs`.
    epochs: length of the schedule; unused by `constant`. A milestone is a point on this schedule: epoch 4 of 150 is not a training of
    4 epochs. align_corners: how the augmentation resamples when it scales and rotates (see `dd.augment.policies.OneOf`): the code of
    MTT, TESLA, ELF and GLaD has it, that of DC, DSA and DM has not.
    """

    lr: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    batch: Positive = 256
    augment: Policy = "none"
    strategy: str | None = None
    cutmix: Share = 0.0
    schedule: Schedule = "constant"
    epochs: int = Field(default=0, ge=0, validate_default=True)
    align_corners: bool = added(False)

    @field_validator("strategy")
    @classmethod
    def _has_known_ops(cls, value: str | None, info: ValidationInfo) -> str | None:
        try:
            if value is not None:
                check(info.data.get("augment", "none"), value)
        except ConfigError as error:
            raise ValueError(str(error)) from None  # pydantic gathers these and adds the key
        return value

    @field_validator("epochs")
    @classmethod
    def _is_a_length(cls, value: int, info: ValidationInfo) -> int:
        if value == 0 and info.data.get("schedule", "constant") != "constant":
            raise ValueError(f"the schedule {info.data['schedule']!r} needs its length in epochs; allowed: 1 and more")
        return value


class PretrainConfig(Frozen):
    """Networks trained on the train split; seed and epoch are elements of the path, not of the id.

    lineage: whose mean and std normalise the images; `zca` whitens them. split: `train`, or `fit`, which lacks the held-out tenth.
    """

    stage: Literal["pretrain"] = "pretrain"
    version: int = 1
    dataset: Dataset
    network: str
    training: Training = Training()
    lineage: Literal["dc", "idc", "zca"] = added("dc")
    split: Literal["train", "fit"] = added("train")


class ExpertTraining(Training):
    """MTT's: plain SGD with augmentation; neither momentum nor weight decay."""

    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    augment: Policy = "oneof"
    align_corners: bool = True


class Experts(Frozen):
    """The part of a recipe's configuration that says how its experts were trained.

    count: how many, seeds 0 to count - 1. epochs: of each; the parameters after every one are kept. images: only the first so many
    of each class of the prepared split, for work on two cores (a class that has fewer gives all); null takes all.
    """

    network: str = "convnet3_in"
    count: Positive = 100
    epochs: Positive = 50
    images: Annotated[int, Field(ge=1)] | None = None
    training: ExpertTraining = ExpertTraining()


class ExpertConfig(Frozen):
    """Trajectories of networks trained on the train split; the seed is an element of the path, not of the id. Fields: see `Experts`."""

    stage: Literal["experts"] = "experts"
    version: int = 1
    dataset: Dataset
    network: str = "convnet3_in"
    epochs: Positive = 50
    images: Annotated[int, Field(ge=1)] | None = None
    training: ExpertTraining = ExpertTraining()
    lineage: Literal["dc", "zca"] = "dc"
    split: Literal["train", "fit"] = "train"


def expert_need(experts: Experts, dataset: str, lineage: str) -> Need:
    """Return what a recipe asks for to have its experts: `inputs.paths` then holds their files, in the order of the seeds."""
    config = {key: value for key, value in hashed(experts).items() if key != "count"}
    return Need("experts", dataset, experts.network, config, tuple(range(experts.count)), (experts.epochs,), lineage)
