"""Pixels that stay in the range of real ones."""

from __future__ import annotations

import torch
from torch import Tensor

from dd.parameterizations.pixels import Pixels


class ClampedPixels(Pixels):
    """Pixels in the networks' input space, which `project_` puts back between black and white.

    images, labels, lr: as of `Pixels`. low, high: tensors that broadcast against (n, c, h, w), normalised; infinite where there is no end.
    """

    def __init__(self, images: Tensor, labels: Tensor, lr: float, low: Tensor, high: Tensor) -> None:
        super().__init__(images, labels, lr)
        self._low, self._high = low, high

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the pixels, in place; a pixel that is not a number stays so."""
        self.images.clamp_(self._low, self._high)
