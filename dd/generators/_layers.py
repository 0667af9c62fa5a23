"""What generators and their discriminator share: layers with equalised learning rates (Karras et al., ICLR 2018; StyleGAN2, CVPR 2020).

Weights are stored with unit variance and scaled where they are used, so that Adam moves every layer at the same relative rate.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd.errors import ConfigError

GAIN = math.sqrt(2.0)  # after a leaky ReLU, so that the variance stays about 1
SIDES = {16: 16, 28: 32, 32: 32, 64: 64}  # side of a dataset's images: side that networks which start from 4x4 work at


def activate(x: Tensor) -> Tensor:
    """Return leaky ReLU (slope 0.2 below zero) times sqrt(2)."""
    return F.leaky_relu(x, 0.2) * GAIN


def unit(x: Tensor) -> Tensor:
    """Return rows (n, d) with a mean square of 1: x * rsqrt(mean(x^2) + 1e-8)."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def working_side(size: tuple[int, int]) -> int:
    """Return the side at which images of `size` are made and judged; the border that this adds has the background's value, -1.

    Raises:
        ConfigError: not square, or no side in `SIDES`.
    """
    if size[0] != size[1] or size[0] not in SIDES:
        allowed = ", ".join(f"{side}x{side}" for side in SIDES)
        raise ConfigError(f"images of {size[0]}x{size[1]} pixels cannot be made; allowed: {allowed}")
    return SIDES[size[0]]


class Linear(nn.Module):
    """y = x (W m / sqrt(inputs))^T + m b, with W of unit variance times 1 / m at the start.

    multiplier: m; it slows the layer's learning without changing what it computes at first. bias: m b at the start.
    """

    def __init__(self, inputs: int, outputs: int, multiplier: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / multiplier))
        self.multiplier, self.scale = multiplier, multiplier / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, outputs) of (n, inputs)."""
        return F.linear(x, self.weight * self.scale, self.bias * self.multiplier)


class Conv(nn.Module):
    """A convolution of side k with W / sqrt(inputs k^2) and a bias; pixels keep their places (k odd)."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.padding = 1.0 / math.sqrt(inputs * side * side), side // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, outputs, h, w) of (n, inputs, h, w)."""
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)
