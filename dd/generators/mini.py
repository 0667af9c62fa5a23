"""A small conditional StyleGAN2-like generator for images of 16 to 64 pixels. Names: mini[_w{width}], the channels of its first stages.

w = M(z, y): z and an embedding of the label, both normalised, side by side through two linear layers. The input is a learned
constant times a style of w_0. Stage k is a 3x3 convolution whose inputs are scaled by a style of w_{k+1} and whose outputs are
scaled back ("demodulation"), with a bilinear doubling at 8, 16, 32 and 64 pixels; the last stage maps features to colours. There
is no noise input, and no second path that carries colours, so one tensor f is all that stands at a cut.

| side | stages K | z | w | channels at 4, 8, 16, 32, 64 pixels, as parts of the width | width, one channel / three |
|---|---|---|---|---|---|
| 16 | 6 | 32 | 64 | 1, 1, 2/3 | 32 / 32 |
| 32, 64 | 8, 10 | 64 | 128 | one channel: 1, 1, 1/2, 3/8, 1/4; three: 1, 1, 1/2, 1/4, 1/8 | 128 / 256 |

Images of 28x28 pixels are the middle of 32x32: the last stage crops its input, so that everybody outside sees the dataset's own
size, and cut K is 28x28. The discriminator pads what it reads with the background's value (see `dd.generators.discriminator`).

Differs from the paper: hpd distils through StyleGAN-XL, which needs a checkpoint; this one is trained by `dd.train.gan`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd.generators._layers import Linear, Staged, activate, unit, working_side

NAME = r"mini(?:_w(?P<width>[1-9][0-9]*))?"
EXAMPLES = ["mini", "mini_w16"]

EPS = 1e-8  # under the root of the demodulation


def build(channels: int, size: tuple[int, int], classes: int, width: int | None = None) -> Mini:
    """Build a generator; see `dd.generators.build`."""
    return Mini(channels, size, classes, width)


def widths(side: int, channels: int, width: int) -> dict[int, int]:
    """Return the channels at each resolution from 4 to `side`; see the table of the module."""
    if side == 16:
        parts = {4: (1, 1), 8: (1, 1), 16: (2, 3)}
    else:
        parts = {4: (1, 1), 8: (1, 1), 16: (1, 2), 32: (3, 8) if channels == 1 else (1, 4), 64: (1, 4) if channels == 1 else (1, 8)}
    return {at: max(1, width * over // under) for at, (over, under) in parts.items() if at <= side}


class Mapping(nn.Module):
    """z (n, z_dim) and class ids (n,) -> w (n, w_dim)."""

    def __init__(self, z_dim: int, w_dim: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(classes, z_dim))
        self.first = Linear(2 * z_dim, w_dim, multiplier=0.01)
        self.second = Linear(w_dim, w_dim, multiplier=0.01)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Return w; only the direction of z matters."""
        both = torch.cat([unit(z), unit(self.embedding[y])], 1)
        return activate(self.second(activate(self.first(both))))


class Stage(nn.Module):
    """Convolution 3x3 with style and demodulation, bias, leaky ReLU; `up` doubles the sides first.

    With s = affine(w) and V = W / sqrt(9 inputs): out_j = sum_i V_ji * (s_i x_i) / sqrt(sum_{i,k} (V_jik s_i)^2 + 1e-8) + b_j. Scaling
    inputs and outputs is the same as scaling the weights of each image, and needs no grouped convolution.
    """

    def __init__(self, inputs: int, outputs: int, w_dim: int, up: bool) -> None:
        super().__init__()
        self.affine = Linear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.up = 1.0 / math.sqrt(9 * inputs), up

    def forward(self, f: Tensor, w: Tensor) -> Tensor:
        """Return (n, outputs, h, h), h doubled with `up`, of f (n, inputs, h, h) and w (n, w_dim)."""
        style, weight = self.affine(w), self.weight * self.scale
        f = f * style[:, :, None, None]
        if self.up:
            f = F.interpolate(f, scale_factor=2, mode="bilinear", align_corners=False)
        back = (style.square() @ weight.square().sum((2, 3)).t() + EPS).rsqrt()
        return activate(F.conv2d(f, weight, padding=1) * back[:, :, None, None] + self.bias[:, None, None])


class ToColours(nn.Module):
    """The last stage: the middle of the features, then a 1x1 convolution with a style, without demodulation; linear."""

    def __init__(self, inputs: int, channels: int, w_dim: int, crop: int) -> None:
        super().__init__()
        self.affine = Linear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.scale, self.crop = 1.0 / math.sqrt(inputs), crop

    def forward(self, f: Tensor, w: Tensor) -> Tensor:
        """Return images (n, channels, h - 2 crop, h - 2 crop) of f (n, inputs, h, h) and w (n, w_dim)."""
        f = f[:, :, self.crop : f.shape[2] - self.crop, self.crop : f.shape[3] - self.crop]
        return F.conv2d(f * self.affine(w)[:, :, None, None], self.weight * self.scale, self.bias)


class Mini(Staged):
    """The generator; a `dd.generators.Generator`, where the methods' shapes stand.

    width: channels of the first stages; None is the default for the size. crop: pixels that the last stage leaves out on each
    side (2 for images of 28x28, else 0).
    """

    def __init__(self, channels: int, size: tuple[int, int], classes: int, width: int | None = None) -> None:
        super().__init__()
        side = working_side(size)
        small = side == 16
        self.width = width or (32 if small else 128 if channels == 1 else 256)
        self.z_dim, self.w_dim = (32, 64) if small else (64, 128)
        self.channels, self.size, self.classes, self.crop = channels, size, classes, (side - size[0]) // 2
        at = widths(side, channels, self.width)
        self.mapping = Mapping(self.z_dim, self.w_dim, classes)
        self.constant = nn.Parameter(torch.randn(at[4], 4, 4))
        self.affine = Linear(self.w_dim, at[4], bias=1.0)
        stages: list[nn.Module] = [Stage(at[4], at[4], self.w_dim, up=False)]
        self.shapes = [(at[4], 4, 4), (at[4], 4, 4)]
        for here in [resolution for resolution in at if resolution > 4]:
            stages += [Stage(at[here // 2], at[here], self.w_dim, up=True), Stage(at[here], at[here], self.w_dim, up=False)]
            self.shapes += [(at[here], here, here)] * 2
        self.stages = nn.ModuleList([*stages, ToColours(at[side], channels, self.w_dim, self.crop)])
        self.shapes.append((channels, *size))
        self.num_stages, self.num_ws = len(self.stages), len(self.stages) + 1

    def start(self, ws: Tensor) -> Tensor:
        """Return f0, (n, width, 4, 4): the learned constant times a style of w_0."""
        return self.constant * self.affine(ws[:, 0])[:, :, None, None]
