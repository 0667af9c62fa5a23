"""Networks by name, such as `convnet3_in_w256`. Importing this imports no torch: plans are checked with it.

A family is one file of this folder, as `dd.families` describes it; it has a second function, `smallest(**fields)`.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd.families import Families

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "describe", "module_of", "names", "parse", "smallest"]

FAMILIES = Families("network", __name__, Path(__file__).parent)
names, module_of, parse = FAMILIES.names, FAMILIES.module_of, FAMILIES.parse


def describe(name: str) -> dict[str, Any]:
    """Return every setting of `name`: what it spells out, the defaults of its family's `build`, and the family's constants.

    Raises:
        ConfigError: no family has such a name.
    """
    module, fields = FAMILIES.match(name)
    settings: dict[str, Any] = {}
    for node in ast.parse((FAMILIES.folder / f"{module.rpartition('.')[2]}.py").read_text(encoding="utf-8")).body:
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
    module, fields = FAMILIES.match(name)
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
    network: nn.Module = FAMILIES.build(name, channels, size, classes, seed, *names)
    return network
