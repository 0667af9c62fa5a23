"""The protocol of IDC, M3D and DSDM: small batches, strong augmentation, CutMix, several readings of the test split.

SGD 0.01, momentum 0.9, weight decay 5e-4, batches of 64; a fifth of the rate at 2E/3 and again at 5E/6; E = 1500 (IDC: 1000). Colour and
flip for every image, and one of crop, scale and rotate a mini-batch; CutMix with probability 0.5. The test split is read at E/4, E/2,
3E/4 and E: the papers print the best of the four, which here is a column of its own; the last one is the result.

Published exceptions, to be set by `cutmix: 0.0` and `strategy`: MNIST with factor 2 has no CutMix and `color_crop_scale_rotate`; SVHN
with factor 1 and one image per class has no CutMix and `color_crop_cutout_scale_rotate`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dd.evaluation.protocols._protocol import Protocol


class Idc(Protocol):
    """IDC, M3D, DSDM: E = 1500."""

    epochs: int = 1500
    batch: int = 64
    augment: Literal["none", "oneof", "stack"] = "stack"
    cutmix: float = Field(default=0.5, ge=0, le=1)
    schedule: Literal["constant", "halfway_reset", "multistep"] = "multistep"
    readings: int = 4


PROTOCOLS = {"idc": Idc}
