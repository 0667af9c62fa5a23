"""The protocol of GLaD and H-PD: a slow warm-up, one cosine, and a running average of the weights, which is what is tested.

SGD 0.001, momentum 0.9, weight decay 5e-4, batches of 256, E = 1000 epochs of hard labels. The rate rises in a straight line from a
ten-millionth of itself to all of it in E/2 epochs, and then falls to 0 along half a cosine: at E = 1000 it is 1e-10 in epoch 0, 5e-4 in
250, 1e-3 in 500 and in 501, 5.03e-4 in 750 and 4e-8 in 999. One operation of DSA's augmentation a mini-batch, per-image parameters,
resampled with align_corners. After every epoch the average takes the weights in, with a decay of at most 0.995 (`dd.train.ema`); the
averaged network is tested once, after the last epoch, on the whole test split. `glad_short` is the same shape with E = 200, for work on
two cores; its numbers are lower, for every method.

VGG-11 is trained with a tenth of the rate. A protocol does not look at the network's name, so this is a paper file's to say, in its
`overrides`: `{when: {eval_protocol: glad, eval_network: vgg11_in}, set: {protocol.lr: 0.0001}}`.

Differs from the released code: during distillation that trains students at every 100th iteration and keeps, for each architecture, the
best of them on the test split; here a set is judged when it is finished.
"""

from __future__ import annotations

from pydantic import Field

from dd.evaluation.protocols._protocol import Protocol
from dd.train.config import Policy, Positive, Schedule


class Glad(Protocol):
    """GLaD, H-PD: E = 1000, the average is tested."""

    lr: float = Field(default=0.001, gt=0)
    epochs: Positive = 1000
    batch: Positive = 256
    augment: Policy = "oneof"
    schedule: Schedule = "warmup_cosine"
    align_corners: bool = True
    ema: float = Field(default=0.995, ge=0, lt=1)


class GladShort(Glad):
    """The same with E = 200."""

    epochs: Positive = 200


PROTOCOLS = {"glad": Glad, "glad_short": GladShort}
