"""The protocol of CLoM's released code, for comparison with the printed numbers.

SGD 0.01, momentum 0.9, weight decay 5e-4, batches of 256, 1000 epochs, one operation of DSA's augmentation a mini-batch with per-image
parameters. The test split is read every 50 epochs, 20 times; the code reports the best of them, which here is a column of its own, as
always; the last one is the result.

The paper says that the rate is a tenth after epoch 500. In the code it never is: the milestone is given as the text "500", of which the
scheduler counts the characters, and no epoch equals a character. So this protocol is `constant`, and the paper's own words are the
protocol `dc`, which is what the results of CLoM and CCLoM are judged by. The difference is usually a few tenths of a percent upward.
"""

from __future__ import annotations

from dd.evaluation.protocols._protocol import Protocol
from dd.train.config import Policy, Positive


class ClomValidate(Protocol):
    """CLoM's validation: E = 1000, one rate, 20 readings."""

    epochs: Positive = 1000
    batch: Positive = 256
    augment: Policy = "oneof"
    readings: Positive = 20


PROTOCOLS = {"clom_validate": ClomValidate}
