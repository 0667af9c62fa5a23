"""The trained network whose features coresets select by. Read by the planner: nothing heavy at the top."""

from __future__ import annotations

from pydantic import Field

from dd.config import Frozen, hashed
from dd.train.config import Training
from dd.types import Need


class Features(Frozen):
    """A network trained on the whole train split.

    The papers do not say which network or how long; ConvNet-3 for 20 epochs is our choice (about 75 % on CIFAR-10).
    Every set uses the network of its own seed.
    """

    network: str = "convnet3_in"
    epochs: int = Field(default=20, ge=1)
    training: Training = Training()


def needs(features: Features, dataset: str) -> list[Need]:
    """Return the one checkpoint."""
    return [Need("pretrained", dataset, features.network, hashed(features.training), None, (features.epochs,))]
