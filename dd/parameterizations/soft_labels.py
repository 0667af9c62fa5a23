"""Labels that a network gives, in the place of those that the images were made with."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dd.types import Parameterization


class SoftLabels:
    """A parameterization of images whose labels are probabilities, replaced from time to time; they are not optimised.

    images: what is labelled. labels: (n,) int64, the classes, which are certain until the first `assign`. classes: k.
    """

    def __init__(self, images: Parameterization, labels: Tensor, classes: int) -> None:
        self._images = images
        self.probabilities = F.one_hot(labels, classes).float()

    def assign(self, probabilities: Tensor) -> None:
        """Take new labels for all images, (n, k)."""
        self.probabilities.copy_(probabilities)

    def parameters(self) -> list[dict[str, Any]]:
        """Return the groups of the images."""
        return self._images.parameters()

    def decode(self, index: Tensor) -> Tensor:
        """Return the images at `index`."""
        return self._images.decode(index)

    def labels(self, index: Tensor) -> Tensor:
        """Return the probabilities at `index`, (m, k): a copy, which a later `assign` leaves alone."""
        return self.probabilities[index]

    def project_(self) -> None:
        """Put the images back into their feasible set."""
        self._images.project_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the images, and `labels`."""
        return {**self._images.state_dict(), "labels": self.probabilities.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take both back, in place."""
        self._images.load_state_dict({name: value for name, value in state.items() if name != "labels"})
        self.probabilities.copy_(state["labels"])
