"""CAFE+DSA: CAFE with DSA's augmentation (Wang et al., CVPR 2022).

The method of `dd.recipes.cafe`, where everything is said. Real and synthetic images of a class meet one augmentation in matching;
the networks are trained with another for each mini-batch, with values for each image. Probes are not augmented.
"""

from __future__ import annotations

from typing import Literal

from dd.recipes import cafe
from dd.recipes.cafe import build, defaults, needs, work

__all__ = ["Config", "build", "defaults", "needs", "work"]


class Config(cafe.Config):
    """Fields of CAFE, with augmentation."""

    augment: Literal["oneof", "none"] = "oneof"
