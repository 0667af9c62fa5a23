"""What every protocol fixes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from dd.config import added
from dd.train.config import Positive, Training
from dd.types import Need

if TYPE_CHECKING:
    from dd.evaluation.elf import Lessons
    from dd.evaluation.sre2l import Taught
    from dd.train.supervised import Fetch

Optimizer = Literal["sgd", "adamw"]


class Protocol(Training):
    """Training of a fresh network on a set, and its tests: one shape for all, run by one loop.

    extra_passes: passes beyond `epochs` (the DC lineage counts 0..E). readings: how often the network is tested, evenly spaced
    and the last time at the end. strategy: null is the dataset's own, without flips where a mirrored image changes its class
    (digits, MNIST, SVHN); the published exceptions are in the protocols' own words. learned_lr: train with the step size that the
    set itself learned, in the place of `lr` and under the same schedule, as MTT evaluates; a set without one is trained with `lr`.
    replicas: batch normalisation as on so many GPUs under DataParallel, whatever the device (see `dd.evaluation.replicas`).
    ema: above 0, every reading is that of the average of the weights after each epoch so far, with at most this decay (see
    `dd.train.ema`); 0 reads the network itself. optimizer: `adamw` (betas 0.9 and 0.999) does not look at `momentum`.
    """

    epochs: Positive
    extra_passes: int = Field(default=0, ge=0)
    readings: Positive = 1
    learned_lr: bool = added(False)
    replicas: int = added(1, ge=1)
    ema: float = added(0.0, ge=0, lt=1)
    optimizer: Optimizer = added("sgd")

    @model_validator(mode="after")
    def _mixes_in_one_place(self) -> Protocol:
        if self.replicas > 1 and self.cutmix > 0:
            raise ValueError(f"replicas: value {self.replicas}: is not for training with cutmix ({self.cutmix}); allowed: 1, or cutmix 0")
        return self

    def needs(self, dataset: str, lineage: str, split: str) -> list[Need]:
        """Return what must be there before a set can be judged: nothing.

        dataset, lineage: of the set. split: which of its real images may be trained on, `train` or `fit`.
        """
        return []

    def check(self, network: str, shape: tuple[int, int, int], classes: int) -> None:
        """Check that a network can be trained so on (c, h, w) images; raise ConfigError if not. Most take any."""

    def lessons(self, files: Sequence[Sequence[Path]], facts: dict[str, Any], fetch: Fetch, n: int, device: str) -> Lessons | Taught | None:
        """Return what students learn from beside images and labels: nothing.

        files: of what `needs` named. facts: the dataset's manifest. fetch: un-augmented, normalised images of the set, n in all.
        """
        return None
