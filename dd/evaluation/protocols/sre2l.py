r"""The protocol of SRe2L: students learn a teacher's softened probabilities of mixed images, and see no other labels.

.. math:: L = \frac{1}{n} \sum_{i} KL\big( softmax(t(x_i) / T) \,\|\, softmax(s(x_i) / T) \big)

t is the squeezed network of `dd.recipes.sre2l`, trained once for the recovery and for this; x are images of the set, each in a view of its
own, then mixed with one another. AdamW 0.001, weight decay 0.01, one cosine to 0 over E epochs; one test, after the last.

`sre2l` is the setting of ImageNet-1K, which Table 2 of H-PD (Tiny-ImageNet, ImageNet-1K) is read as: E = 300, batches of 1024, random
resized crops and flips, CutMix with a uniform share, T = 20. `sre2l_cifar` is that of CIFAR-100: E = 400, batches of 128, shifts and flips,
Mixup with Beta(0.8, 0.8), T = 30. `sre2l_short` is the latter with E = 200, for work on two cores; its numbers are lower.

Any set can be judged so, also one of another method; labels of its own, soft or hard, then mean nothing.

Differs from the paper: it stores, for each of the 300 epochs, views, mixtures and the teacher's logits (in half precision) beside the set;
here the teacher is asked when the student is trained, which is the same function of the same images. Differs from the released code:
the teacher is in eval mode, where that of CIFAR-100 is forgotten in training mode, so that it normalises with the batch and its statistics
drift; flips only where a mirrored image keeps its class; shifts are filled with the mean colour instead of black, by up to an eighth of the
side (4 of 32 pixels, as there); boxes of CutMix are those of `dd.augment.cutmix`; sounds are neither cropped nor mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from dd.errors import ArtifactError
from dd.evaluation.protocols._protocol import Optimizer, Protocol
from dd.train.config import Positive, Schedule
from dd.train.squeeze import Squeeze
from dd.types import Need

if TYPE_CHECKING:
    from dd.evaluation.sre2l import Taught
    from dd.train.supervised import Fetch


class Sre2l(Protocol):
    """SRe2L, ImageNet-1K: E = 300.

    teacher: the network that teaches. temperature: T. view: of each image, `crop` (resized, with flips) or `shift` (with flips). mix: how
    the images of a mini-batch are mixed.
    """

    lr: float = Field(default=0.001, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    optimizer: Optimizer = "adamw"
    epochs: Positive = 300
    batch: Positive = 1024
    schedule: Schedule = "cosine"
    teacher: Squeeze = Squeeze()
    temperature: float = Field(default=20.0, gt=0)
    view: Literal["crop", "shift"] = "crop"
    mix: Literal["cutmix", "mixup"] = "cutmix"

    @model_validator(mode="after")
    def _mixes_as_it_says(self) -> Sre2l:
        if self.cutmix > 0:
            raise ValueError(f"cutmix: value {self.cutmix}: is that of hard labels; allowed: 0, since `mix` says how images are mixed")
        if self.augment != "none":
            raise ValueError(f"augment: value {self.augment!r}: images would be changed twice; allowed: none, since `view` says how")
        return self

    def needs(self, dataset: str, lineage: str, split: str) -> list[Need]:
        """Return the teacher, trained on the real images of the set's own dataset."""
        return [self.teacher.need(dataset, lineage, split)]

    def lessons(self, files: Sequence[Sequence[Path]], facts: dict[str, Any], fetch: Fetch, n: int, device: str) -> Taught:
        """Return the teacher; raise ArtifactError if the file is not the one of `needs`."""
        from dd.evaluation.sre2l import Taught

        if [len(group) for group in files] != [1]:
            network, epochs = self.teacher.network, self.teacher.epochs
            raise ArtifactError(f"protocol sre2l: needs one file, {network} pre-trained for {epochs} epochs; given: {len(files)} needs")
        return Taught(self, files[0][0], facts, device)


class Sre2lCifar(Sre2l):
    """SRe2L, CIFAR-100: E = 400."""

    epochs: Positive = 400
    batch: Positive = 128
    temperature: float = Field(default=30.0, gt=0)
    view: Literal["crop", "shift"] = "shift"
    mix: Literal["cutmix", "mixup"] = "mixup"


class Sre2lShort(Sre2lCifar):
    """The same with E = 200."""

    epochs: Positive = 200


PROTOCOLS = {"sre2l": Sre2l, "sre2l_cifar": Sre2lCifar, "sre2l_short": Sre2lShort}
