"""The protocol of DC, DSA and DM: long training at a small batch count, last epoch counts.

SGD 0.01, momentum 0.9, weight decay 5e-4, batches of 256 with the last partial one kept. E + 1 passes (0..E); after pass E//2 + 1 the
rate is a tenth and the optimizer is made anew, which loses its momentum: at E = 1000, passes 0..501 at 0.01 and 502..1000 at 0.001.
One operation of DSA's augmentation a mini-batch, per-image parameters. Accuracy once, at the end, on the whole test split.

E is 1000 with augmentation and 300 without (`augment: none`, as DC itself evaluates all but MNIST). `dc_short` is the same shape with
E = 200, for work on two cores; its numbers are lower, for every method. P3, the ceiling of these papers, is this protocol on the set
of the method `whole`.
"""

from __future__ import annotations

from pydantic import Field

from dd.evaluation.protocols._protocol import Protocol
from dd.train.config import Policy, Positive, Schedule


class Dc(Protocol):
    """DC, DSA, DM: E = 1000."""

    epochs: Positive = 1000
    batch: Positive = 256
    augment: Policy = "oneof"
    schedule: Schedule = "halfway_reset"
    extra_passes: int = Field(default=1, ge=0)


class DcShort(Dc):
    """The same with E = 200."""

    epochs: Positive = 200


PROTOCOLS = {"dc": Dc, "dc_short": DcShort}
