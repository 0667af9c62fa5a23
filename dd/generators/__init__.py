"""Generators by name, such as `mini_w32`, and the range of their images. Importing this imports no torch: plans are checked with it.

A family is one file of this folder. Its top level holds two literals that are read without importing it: `NAME`, a regular
expression with named groups, and `EXAMPLES`, a list of names; and a function `build(channels, size, classes, **fields)`, where
`fields` are the groups that a name fills. What it builds is a `Generator`. A file with neither literal is no family.

GAN range: images lie in [-1, 1], uint8 value v at v / 127.5 - 1, so that the background of digits and clothes is -1.
"""

from __future__ import annotations

import ast
import re
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dd.errors import ConfigError, nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Generator", "build", "from_gan", "module_of", "names", "parse", "to_gan", "to_uint8"]


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


class Family(NamedTuple):
    """What a family's file declares."""

    module: str
    pattern: re.Pattern[str]
    examples: tuple[str, ...]


def names() -> list[str]:
    """Return example names of every family: each option of each family at least once."""
    return [name for family in _families() for name in family.examples]


def module_of(name: str) -> str:
    """Return the module that builds `name`, such as "dd.generators.mini".

    Raises:
        ConfigError: no family has such a name.
    """
    return _match(name)[0]


def parse(name: str) -> dict[str, Any]:
    """Return the fields that `name` spells out, numbers as int: {"width": 32}; defaults are left to the family's `build`.

    Raises:
        ConfigError: no family has such a name; the message has the nearest example and every form.
    """
    return _match(name)[1]


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
    module, fields = _match(name)
    family = import_module(module)
    from dd.rng import seeded

    try:
        with nullcontext() if seed is None else seeded(seed, *names):
            return family.build(channels, (size[0], size[1]), classes, **fields)
    except ConfigError as error:
        raise ConfigError(f"generator {name!r}: {error}") from None


def _match(name: str) -> tuple[str, dict[str, Any]]:
    for family in _families():
        if found := family.pattern.fullmatch(name):
            fields = {key: text for key, text in found.groupdict().items() if text is not None}
            return family.module, {key: int(text) if text.isdecimal() else text for key, text in fields.items()}
    forms = "; ".join(_readable(family.pattern.pattern) for family in _families())
    raise ConfigError(f"generator {name!r} is unknown{nearest(name, names())}; forms, [] optional: {forms}")


def _readable(pattern: str) -> str:
    """Return "mini[_w<width>]" for a family's regular expression."""
    text = re.sub(r"\(\?P<(\w+)>\[[^()]*\)", r"<\1>", pattern)
    text = re.sub(r"\(\?P<\w+>([^()]*)\)", r"(\1)", text)
    return re.sub(r"\(\?:((?:[^()]|\([^()]*\))*)\)\?", r"[\1]", text)


@cache
def _families() -> tuple[Family, ...]:
    files = (path for path in sorted(Path(__file__).parent.glob("*.py")) if path.name != "__init__.py")
    return tuple(family for path in files if (family := _read(path)) is not None)


def _read(path: Path) -> Family | None:
    """Read a family's literals; None for a file without them."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="NAME" | "EXAMPLES" as key)], value=value):
                try:
                    found[key] = ast.literal_eval(value)
                except ValueError:
                    raise ConfigError(f"{path}: {key} must be a plain literal, not an expression") from None
    if not found:
        return None
    if missing := {"NAME", "EXAMPLES"} - set(found):
        raise ConfigError(f"{path}: a generator family must have {' and '.join(sorted(missing))} at its top level")
    try:
        pattern = re.compile(found["NAME"])
    except re.error as error:
        raise ConfigError(f"{path}: NAME {found['NAME']!r} is not a regular expression: {error}") from None
    return Family(f"{__name__}.{path.stem}", pattern, tuple(found["EXAMPLES"]))
