"""Pixels that are optimised directly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dd.types import Inputs, Parameterization


class Pixels:
    """One stored image is one image; the pixels live in the networks' (normalised) input space and are never clamped.

    This is the pixel space of DC, DSA and DM.

    images: (n, c, h, w) float32, normalised. labels: (n,) int64. lr: the rate of the pixels, in normalised units.
    """

    def __init__(self, images: Tensor, labels: Tensor, lr: float) -> None:
        self.images = images.detach().clone().requires_grad_(True)
        self._labels = labels
        self._lr = lr

    def parameters(self) -> list[dict[str, Any]]:
        """Return the one optimizer group."""
        return [{"params": [self.images], "lr": self._lr}]

    def decode(self, index: Tensor) -> Tensor:
        """Return the images at `index`, (m, c, h, w), differentiable."""
        return self.images[index]

    def labels(self, index: Tensor) -> Tensor:
        """Return the labels at `index`, (m,)."""
        return self._labels[index]

    def project_(self) -> None:
        """Do nothing: this lineage has no feasible set."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the pixels."""
        return {"images": self.images.detach().clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take the pixels back, in place, so that the optimizer keeps its hold of them."""
        with torch.no_grad():
            self.images.copy_(state["images"])


def stored(inputs: Inputs, images: Tensor, labels: Tensor, lr: float) -> Parameterization:
    """Return what a method optimises: pixels that start as `images`, or what `inputs.parameterize` puts in their place."""
    return Pixels(images, labels, lr) if inputs.parameterize is None else inputs.parameterize(labels)
