r"""ELF: evaluation with distillation features (Zhao et al., AAAI 2024).

"Boosting the Cross-Architecture Generalization of Dataset Distillation through an Empirical Study". A student of any architecture learns
from a distilled set and from what a network of the distillation's architecture, trained on the real images, makes of it. With F the
features that this network has of an image, and a student that is split into front and rear,

.. math:: L = \lambda_{task} L_{CE}(rear(front(x)), y) + \lambda_{front} D(F, front(x)) + \lambda_{rear} L_{CE}(rear(F), y)

(Eqs. 6 to 9, with all weights 1; Table 9 leaves out one or two terms.) x is augmented, F is that of the un-augmented image, made once.
It is tested as ever, on its own. All else is the protocol `dc`: 1,001 passes, the last one counts.

What D and the splits are, see `dd.evaluation.elf`. The feature network: a ConvNet with instance norm whose last block has as many
channels as the student's front, SGD 0.01, momentum 0.9, weight decay 5e-4, batches of 256, DSA's augmentation, a schedule of 200 passes
that lowers the rate after pass 101, of which 30 to 100 are used (Table 10). One network, seed 0, for all sets and students.

Differs from the paper: it sums over images, where code and we take means, to which weights of 1 refer. Its text has the widths of two
feature networks swapped: only W512 at 32x32 and W256 (ResNet-18) at 64x64 fit. Differs from the released code: images of the set and
of the test split, and the feature network's, are all normalised with the mean and std of the set's own method, where it mixes those of
CIFAR-10 and CIFAR-100; it ran on four GPUs, whose batch normalisation sees a quarter of a mini-batch: `replicas: 4`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from dd.config import Frozen, hashed
from dd.errors import ArtifactError
from dd.evaluation.protocols.dc import Dc
from dd.train.config import Policy, Schedule, Training
from dd.types import Need

if TYPE_CHECKING:
    from dd.evaluation.elf import Lessons
    from dd.train.supervised import Fetch


class FeatureTraining(Training):
    """Of the feature network: 200 passes, a tenth of the rate and a new optimizer after pass 101."""

    augment: Policy = "oneof"
    schedule: Schedule = "halfway_reset"
    epochs: int = Field(default=200, ge=0)
    align_corners: bool = True


class Features(Frozen):
    """The feature network: its name, how many epochs of its training it has behind it, and the stage whose output is the feature.

    stage: null is the last block of a ConvNet, and of other families the stage after which ELF splits them.
    """

    network: str = "convnet3_in_w512"
    epochs: int = Field(default=100, ge=0)
    stage: int | None = Field(default=None, ge=0)
    training: FeatureTraining = FeatureTraining()

    def trained(self) -> dict[str, Any]:
        """Return the hashed training of a `pretrain` job: a plain `Training`, of which other fields are left out of ids."""
        return hashed(Training(**self.training.model_dump()))


class Elf(Dc):
    """ELF: E = 1000, all three losses.

    features: the network whose features students learn from. stage: after which stage of the student its front ends; null is the
    published one, of other families the last one that fits. task, front, rear: weights of the three losses; 0 leaves one out.
    distance: D; see `dd.evaluation.elf.distance`.
    """

    features: Features = Features()
    stage: int | None = Field(default=None, ge=0)
    task: float = Field(default=1.0, ge=0)
    front: float = Field(default=1.0, ge=0)
    rear: float = Field(default=1.0, ge=0)
    distance: Literal["ce", "mae", "mse", "cos"] = "ce"
    align_corners: bool = True

    @model_validator(mode="after")
    def _teaches_something(self) -> Elf:
        if self.task == self.front == self.rear == 0:
            raise ValueError("task, front and rear are all 0: nothing to learn from; at least one must be above 0")
        if self.cutmix > 0:
            raise ValueError(f"cutmix: value {self.cutmix}: features are those of whole images; allowed: 0")
        return self

    def needs(self, dataset: str, lineage: str, split: str) -> list[Need]:
        """Return the feature network, trained on the real images of the set's own dataset."""
        one = self.features
        return [Need("pretrained", dataset, one.network, one.trained(), (0,), (one.epochs,), lineage, split)]

    def check(self, network: str, shape: tuple[int, int, int], classes: int) -> None:
        """Check that the features fit the student: raise ConfigError that lists the stages that do, if not."""
        from dd.evaluation.elf import check

        check(self, network, shape, classes)

    def lessons(self, files: Sequence[Sequence[Path]], facts: dict[str, Any], fetch: Fetch, n: int, device: str) -> Lessons:
        """Return what students learn from: the features of the set's images; raise ArtifactError if the file is not the one of `needs`."""
        from dd.evaluation.elf import Lessons

        if [len(group) for group in files] != [1]:
            network, epochs = self.features.network, self.features.epochs
            raise ArtifactError(f"protocol elf: needs one file, {network} pre-trained for {epochs} epochs; given: {len(files)} needs")
        return Lessons(self, files[0][0], facts, fetch, n, device)


PROTOCOLS = {"elf": Elf}
