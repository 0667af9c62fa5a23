"""The protocol of IDC, M3D and DSDM: small batches, strong augmentation, CutMix, several readings of the test split.

SGD 0.01, momentum 0.9, weight decay 5e-4, batches of 64; a fifth of the rate at 2E/3 and again at 5E/6; E = 1500 (IDC: 1000). Colour and
flip for every image, and one of crop, scale and rotate a mini-batch; CutMix with probability 0.5. The test split is read at E/4, E/2,
3E/4 and E: the papers print the best of the four, which here is a column of its own; the last one is the result. `idc_short` is the
same shape with E = 200, for work on two cores; its numbers are lower, for every method.

Exceptions. Where a mirrored image changes its class (the manifest's `flip`: MNIST, SVHN, digits) the default strategy has no flip, as
published: `color_crop_scale_rotate`. SVHN with factor 1 and one image per class has no CutMix: `cutmix: 0.0`, for which the default is
the published `color_crop_cutout_scale_rotate`. MNIST with factor 2 has no CutMix and no cutout either: `cutmix: 0.0` and
`strategy: color_crop_scale_rotate`.
"""

from __future__ import annotations

from dd.evaluation.protocols._protocol import Protocol
from dd.train.config import Policy, Positive, Schedule, Share


class Idc(Protocol):
    """IDC, M3D, DSDM: E = 1500."""

    epochs: Positive = 1500
    batch: Positive = 64
    augment: Policy = "stack"
    cutmix: Share = 0.5
    schedule: Schedule = "multistep"
    readings: Positive = 4


class IdcShort(Idc):
    """The same with E = 200."""

    epochs: Positive = 200


PROTOCOLS = {"idc": Idc, "idc_short": IdcShort}
