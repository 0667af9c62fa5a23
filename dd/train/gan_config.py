"""How a small generator is trained. Read by the planner: nothing heavy at the top."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dd import generators
from dd.config import Frozen
from dd.config.stages import Dataset
from dd.errors import ConfigError

Rate = Annotated[float, Field(gt=0)]
Positive = Annotated[int, Field(ge=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class GanTraining(Frozen):
    """Adam on the non-saturating logistic loss, with lazy R1, and an average of the generator's weights.

    lr, beta1, beta2: of both networks. batch: real images in an update; 256 suits a GPU, 32 a CPU. The 16x16 digits want lr 5e-3,
    batch 32, r1_every 8 and r1_gamma 0.1: after 14 epochs (one seed) every gate of `dd.analysis.gan_quality` was passed, that of the
    spread in pixels with 0.64 barely; with r1_gamma 0.01 it was 0.61.
    r1_gamma, r1_every: every so many updates the discriminator takes one on r1_every * r1_gamma / 2 * ||gradient||^2.
    ema_half_life: in images, of the average; ema_ramp: it is never more than this part of the images seen so far.
    augment: `none`; `flip`: real images are mirrored with probability 1/2, so that the generator learns mirrored ones too;
    `translation`: what the discriminator sees, real or not, is moved by up to 1/8 of its side, for when it overfits.
    """

    lr: Rate = 2.5e-3
    beta1: Decay = 0.0
    beta2: Decay = 0.99
    batch: Positive = 256
    r1_gamma: Rate = 0.01
    r1_every: Positive = 16
    ema_half_life: Rate = 20000.0
    ema_ramp: Rate = 0.05
    augment: Literal["none", "flip", "translation"] = "none"


class GanConfig(Frozen):
    """A generator trained on real images; seed and epoch are elements of the path, not of the id.

    There is no lineage: a generator's images are in [-1, 1], whoever looks at them normalises them. split: `train`, or `fit`, which
    lacks the held-out tenth.
    """

    stage: Literal["generator"] = "generator"
    version: int = 1
    dataset: Dataset
    generator: str = "mini"
    training: GanTraining = GanTraining()
    split: Literal["train", "fit"] = "train"

    @field_validator("generator")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        try:
            generators.parse(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None  # pydantic gathers these and adds the key
        return value
