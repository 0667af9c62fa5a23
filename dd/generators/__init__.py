"""Generators by name, such as `mini_w32`, and the range of their images. Importing this imports no torch: plans are checked with it.

A family is one file of this folder, as `dd.families` describes it. What it builds is a `Generator`. A file with neither literal is no
family.

GAN range: images lie in [-1, 1], uint8 value v at v / 127.5 - 1, so that the background of digits and clothes is -1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dd.families import Families

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Generator", "build", "from_gan", "module_of", "names", "parse", "to_gan", "to_uint8"]

FAMILIES = Families("generator", __name__, Path(__file__).parent, strict=False)
names, module_of, parse = FAMILIES.names, FAMILIES.module_of, FAMILIES.parse


class Generator(Protocol):
    """A generator G = G_{K-1} o ... o G_0 that can be entered before any of its K stages: a "cut".

    num_stages: K. num_ws: K + 1, the style of the input and of every stage. z_dim, w_dim: lengths of z and of one w.
    It is deterministic, and image i does not depend on the images beside it. f is what stands between two stages: before stage
    0 at cut 0, the image itself at cut K.
    """

    num_stages: int
    num_ws: int
    z_dim: int
    w_dim: int

    def map(self, z: Tensor, y: Tensor) -> Tensor:
        """Return ws (n, num_ws, w_dim) from z (n, z_dim) and class ids y (n,)."""

    def mean_w(self, y: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return ws (n, num_ws, w_dim), without gradient: for each image the mean of map(z, y) over `count` z of its own.

        The mean is over w. A mean over z would be lost on a mapping network that normalises z.
        """

    def start(self, ws: Tensor) -> Tensor:
        """Return f at cut 0."""

    def advance(self, f: Tensor, ws: Tensor, cut: int, m: int) -> Tensor:
        """Return f at cut + m from f at `cut`, without the output's scale."""

    def decode(self, f: Tensor, ws: Tensor, cut: int) -> Tensor:
        """Return images (n, c, h, w), float32, about [-1, 1] (not clamped), from f at `cut`.

        decode(advance(f, ws, cut, m), ws, cut + m) == decode(f, ws, cut).
        """

    def feature_shape(self, cut: int) -> tuple[int, ...]:
        """Return the shape of f at `cut`, 0 to K, without n."""

    def __call__(self, z: Tensor, y: Tensor) -> Tensor:
        """Return images of z (n, z_dim) and class ids y (n,): decode(start(ws), ws, 0) with ws = map(z, y)."""


def to_gan(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [-1, 1]: v / 127.5 - 1."""
    return images.float().div(127.5).sub(1.0)


def from_gan(x: Tensor) -> Tensor:
    """Return GAN images in raw units, where [-1, 1] becomes [0, 1]; not clamped, so that every pixel keeps its gradient."""
    return (x + 1.0) / 2.0


def to_uint8(x: Tensor) -> Tensor:
    """Return GAN images clamped to [-1, 1] and rounded to uint8, as they are saved and measured; the inverse of `to_gan`."""
    return x.detach().clamp(-1.0, 1.0).add(1.0).mul(127.5).round().byte()


def build(name: str, channels: int, size: tuple[int, int], classes: int, seed: int | None = None, *names: object) -> Any:
    """Build an untrained generator of (n, channels, *size) images, on the CPU.

    Args:
        name: as in `names()`. channels, size, classes: of the dataset; size is (height, width) in pixels.
        seed: the weights are a function of (seed, *names). None draws them from torch's global generator: for generators
            whose weights are loaded next.
        names: of the random stream.

    Returns:
        A torch module that is a `Generator`.

    Raises:
        ConfigError: unknown name, or images that the family cannot make.
    """
    return FAMILIES.build(name, channels, size, classes, seed, *names)
