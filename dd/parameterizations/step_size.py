"""A step size that is learned beside the images."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dd.types import Parameterization

LEAST = 1e-6


class StepSize:
    """A parameterization of images, and a scalar of its own: the student's step size alpha, which is at least 1e-6.

    Everything of the images is that of `images`; the optimizer gets one more group. initial: alpha at the start. lr: its rate.

    Differs from the paper, whose code lets alpha become negative, after which evaluation diverges: before every update alpha is set to
    1e-6 where it is less, and `value` is never less.
    """

    def __init__(self, images: Parameterization, initial: float, lr: float, device: str | torch.device = "cpu") -> None:
        self._images = images
        self._lr = lr
        self.alpha = torch.tensor(float(initial), device=device, requires_grad=True)

    @property
    def value(self) -> float:
        """The step size as it stands, at least 1e-6; NaN where it has become that."""
        alpha = self.alpha.item()
        return alpha if math.isnan(alpha) else max(alpha, LEAST)

    def parameters(self) -> list[dict[str, Any]]:
        """Return the groups of the images, and that of the step size."""
        return [*self._images.parameters(), {"params": [self.alpha], "lr": self._lr}]

    def decode(self, index: Tensor) -> Tensor:
        """Return the images at `index`."""
        return self._images.decode(index)

    def labels(self, index: Tensor) -> Tensor:
        """Return the labels that line up with them."""
        return self._images.labels(index)

    def project_(self) -> None:
        """Put images and step size back into their feasible sets."""
        self._images.project_()
        with torch.no_grad():
            self.alpha.clamp_(min=LEAST)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the images, and `step_size`."""
        return {**self._images.state_dict(), "step_size": self.alpha.detach().clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take both back, in place."""
        self._images.load_state_dict({name: value for name, value in state.items() if name != "step_size"})
        with torch.no_grad():
            self.alpha.copy_(state["step_size"])
