"""Networks by name, such as `convnet3_in_w256`. Importing this imports no torch: plans are checked with it.

A family is one file of this folder. Its top level holds two literals that are read without importing it: `NAME`, a regular
expression with named groups, and `EXAMPLES`, a list of names; and two functions, `smallest(**fields)` and
`build(channels, size, classes, **fields)`, where `fields` are the groups that a name fills.
"""

from __future__ import annotations

import ast
import re
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dd.errors import ConfigError, nearest

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "describe", "module_of", "names", "parse", "smallest"]


class Family(NamedTuple):
    """What a family's file declares."""

    module: str
    pattern: re.Pattern[str]
    examples: tuple[str, ...]


def names() -> list[str]:
    """Return example names of every family: each option of each family at least once."""
    return [name for family in _families() for name in family.examples]


def module_of(name: str) -> str:
    """Return the module that builds `name`, such as "dd.networks.convnet".

    Raises:
        ConfigError: no family has such a name.
    """
    return _match(name)[0]


def parse(name: str) -> dict[str, Any]:
    """Return the fields that `name` spells out, numbers as int: {"depth": 3, "norm": "in", "width": 256}.

    Options that the name leaves out are left out here too; their defaults stand in the family's `build`.

    Raises:
        ConfigError: no family has such a name; the message has the nearest example and every form.
    """
    return _match(name)[1]


def describe(name: str) -> dict[str, Any]:
    """Return every setting of `name`: what it spells out, the defaults of its family's `build`, and the family's constants.

    Raises:
        ConfigError: no family has such a name.
    """
    module, fields = _match(name)
    settings: dict[str, Any] = {}
    for node in ast.parse((Path(__file__).parent / f"{module.rpartition('.')[2]}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.targets[0], ast.Name):
            settings[node.targets[0].id.lower()] = node.value.value
        elif isinstance(node, ast.FunctionDef) and node.name == "build":
            named = node.args.args[len(node.args.args) - len(node.args.defaults) :]
            settings |= {arg.arg: ast.literal_eval(value) for arg, value in zip(named, node.args.defaults, strict=True)}
    return {**settings, **fields}


def smallest(name: str) -> int:
    """Return the side in pixels of the smallest square image that `name` takes; imports the family.

    Raises:
        ConfigError: no family has such a name.
    """
    module, fields = _match(name)
    return int(import_module(module).smallest(**fields))


def build(name: str, channels: int, size: tuple[int, int], classes: int, seed: int | None = None, *names: object) -> nn.Module:
    """Build a network for (n, channels, *size) images, on the CPU, in training mode, with PyTorch's default initialisation.

    Args:
        name: as in `names()`.
        channels: of an image.
        size: (height, width) in pixels.
        classes: number of logits.
        seed: the weights are a function of (seed, *names). None draws them from torch's global generator: for
            networks whose weights are loaded next.
        names: of the random stream.

    Returns:
        A module with the methods of `dd.types.Network`.

    Raises:
        ConfigError: unknown name, an image too small for it, or fields that do not go together.
    """
    module, fields = _match(name)
    family = import_module(module)
    from dd.rng import seeded

    try:
        with nullcontext() if seed is None else seeded(seed, *names):
            network: nn.Module = family.build(channels, (size[0], size[1]), classes, **fields)
    except ConfigError as error:
        raise ConfigError(f"network {name!r}: {error}") from None
    return network


def _match(name: str) -> tuple[str, dict[str, Any]]:
    for family in _families():
        if found := family.pattern.fullmatch(name):
            fields = {key: text for key, text in found.groupdict().items() if text is not None}
            return family.module, {key: int(text) if text.isdecimal() else text for key, text in fields.items()}
    forms = "; ".join(_readable(family.pattern.pattern) for family in _families())
    raise ConfigError(f"network {name!r} is unknown{nearest(name, names())}; forms, [] optional: {forms}")


def _readable(pattern: str) -> str:
    """Return "convnet<depth>_(in|bn)[_w<width>]" for a family's regular expression."""
    text = re.sub(r"\(\?P<(\w+)>\[[^()]*\)", r"<\1>", pattern)
    text = re.sub(r"\(\?P<\w+>([^()]*)\)", r"(\1)", text)
    return re.sub(r"\(\?:((?:[^()]|\([^()]*\))*)\)\?", r"[\1]", text)


@cache
def _families() -> tuple[Family, ...]:
    folder = Path(__file__).parent
    return tuple(_read(path) for path in sorted(folder.glob("*.py")) if not path.name.startswith("_"))


def _read(path: Path) -> Family:
    """Read a family's literals. A file whose name starts with an underscore is no family."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="NAME" | "EXAMPLES" as key)], value=value):
                try:
                    found[key] = ast.literal_eval(value)
                except ValueError:
                    raise ConfigError(f"{path}: {key} must be a plain literal, not an expression") from None
    if missing := {"NAME", "EXAMPLES"} - set(found):
        raise ConfigError(f"{path}: a network family must have {' and '.join(sorted(missing))} at its top level")
    try:
        pattern = re.compile(found["NAME"])
    except re.error as error:
        raise ConfigError(f"{path}: NAME {found['NAME']!r} is not a regular expression: {error}") from None
    return Family(f"{__name__}.{path.stem}", pattern, tuple(found["EXAMPLES"]))
