"""What generators and their discriminator share: layers with equalised learning rates, and the walk through a generator's stages.

The layers are those of Karras et al. (ICLR 2018) and of StyleGAN2 (CVPR 2020): weights are stored with unit variance and scaled where
they are used, so that Adam moves every layer at the same relative rate.
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


class Staged(nn.Module):
    """What every generator of stages has in common: all but `start` of a `dd.generators.Generator`, where the methods' shapes stand.

    Who inherits sets what is named here. mapping: (z, y) -> w, with a parameter `embedding`. stages: each (f, w) -> f. shapes: of f at the
    cuts 0 to K, (channels, height, width).
    """

    mapping: nn.Module
    stages: nn.ModuleList
    shapes: list[tuple[int, int, int]]
    num_stages: int
    num_ws: int
    z_dim: int
    w_dim: int

    def map(self, z: Tensor, y: Tensor) -> Tensor:
        """Return ws (n, num_ws, w_dim); all of an image are equal. No truncation."""
        return self._everywhere(self.mapping(z, y))

    @torch.no_grad()
    def mean_w(self, y: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return ws (n, num_ws, w_dim): for each image the mean of w over `count` z of its own, drawn on the CPU, image by image.

        Raises:
            ConfigError: `count` below 1.
        """
        if count < 1:
            raise ConfigError(f"mean_w: count: value {count}; allowed: 1 and more")
        rows = []
        for label in y:  # one at a time: 1,000 z for each of many images need not be in memory together
            z = torch.randn(count, self.z_dim, generator=generator).to(self.mapping.get_parameter("embedding"))
            rows.append(self.mapping(z, label.expand(count)).mean(0))
        return self._everywhere(torch.stack(rows))

    def _everywhere(self, w: Tensor) -> Tensor:
        """Return w (n, w_dim) for the input and every stage."""
        return w[:, None].repeat(1, self.num_ws, 1)

    def start(self, ws: Tensor) -> Tensor:
        """Return f at cut 0."""
        raise NotImplementedError

    def advance(self, f: Tensor, ws: Tensor, cut: int, m: int) -> Tensor:
        """Return f after stages cut .. cut + m - 1, without the output's scale; m may be 0.

        Raises:
            ConfigError: stages that the generator does not have.
        """
        if not (m >= 0 and 0 <= cut <= cut + m <= self.num_stages):
            raise ConfigError(f"stages {cut} to {cut + m - 1} do not exist; allowed: 0 to {self.num_stages - 1}")
        for k in range(cut, cut + m):
            f = self.stages[k](f, ws[:, k + 1])
        return f

    def decode(self, f: Tensor, ws: Tensor, cut: int) -> Tensor:
        """Return images of f at `cut`, not clamped; without a scale of the output, cut K is the identity."""
        return self.advance(f, ws, cut, self.num_stages - cut)

    def feature_shape(self, cut: int) -> tuple[int, ...]:
        """Return (channels, height, width) of f at `cut`.

        Raises:
            ConfigError: no such cut.
        """
        if not 0 <= cut <= self.num_stages:
            raise ConfigError(f"cut: value {cut}; allowed: 0 to {self.num_stages}")
        return self.shapes[cut]

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Return images (n, c, h, w) of z (n, z_dim) and class ids y (n,)."""
        ws = self.map(z, y)
        return self.decode(self.start(ws), ws, 0)
