"""The network that SRe2L recovers images from and that labels them later. Read by the planner: nothing heavy at the top."""

from __future__ import annotations

from pydantic import Field

from dd.config import Frozen, hashed
from dd.data.registry import DATASETS
from dd.train.config import Policy, Positive, Schedule, Training
from dd.types import Need


class SqueezeTraining(Training):
    """SGD 0.1, momentum 0.9, weight decay 5e-4, batches of 128, a cosine over 200 epochs, shifts and flips.

    strategy: null is the dataset's own, flips only where a mirrored image keeps its class.

    Differs from the released code (CIFAR-100): images are shifted by up to an eighth of their side (4 of 32 pixels, as there), filled with
    the mean colour instead of black.
    """

    lr: float = Field(default=0.1, gt=0)
    batch: Positive = 128
    augment: Policy = "stack"
    schedule: Schedule = "cosine"
    epochs: int = Field(default=200, ge=0)


class Squeeze(Frozen):
    """The squeezed network, which must have batch normalisation: its name, how many epochs it has behind it, and its training.

    Seed 0, one for all sets of a dataset.
    """

    network: str = "resnet18_bn"
    epochs: int = Field(default=200, ge=0)
    training: SqueezeTraining = SqueezeTraining()

    def need(self, dataset: str, lineage: str = "dc", split: str = "train") -> Need:
        """Return what recovery and evaluation both ask for, so that it is trained once.

        Datasets that the registry does not know are not mirrored, unless `training.strategy` says so.
        """
        flip = dataset in DATASETS and DATASETS[dataset].flip
        strategy = self.training.strategy or ("crop_flip" if flip else "crop")
        training = Training(**{**self.training.model_dump(), "strategy": None if self.training.augment == "none" else strategy})
        return Need("pretrained", dataset, self.network, hashed(training), (0,), (self.epochs,), lineage, split)
