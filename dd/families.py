"""What is built by name, such as the network `convnet3_in_w256`. Importing this imports no torch: plans are checked with it.

A family is one file of a package's folder. Its top level holds two literals that are read without importing it: `NAME`, a regular
expression with named groups, and `EXAMPLES`, a list of names; and a function `build(channels, size, classes, **fields)`, where
`fields` are the groups that a name fills. A file whose name starts with an underscore is no family.
"""

from __future__ import annotations

import ast
import re
from contextlib import nullcontext
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from dd.errors import ConfigError, nearest


class Family(NamedTuple):
    """What a family's file declares."""

    module: str
    pattern: re.Pattern[str]
    examples: tuple[str, ...]


class Families:
    """The families of one package.

    kind: "network" or "generator", for messages. package: its dotted name. folder: where its files are. strict: every file must be a
    family; else one with neither literal is none.
    """

    def __init__(self, kind: str, package: str, folder: Path, strict: bool = True) -> None:
        self.kind, self.package, self.folder, self.strict = kind, package, folder, strict

    @cached_property
    def all(self) -> tuple[Family, ...]:
        """The families in the order of their files."""
        files = (path for path in sorted(self.folder.glob("*.py")) if not path.name.startswith("_"))
        return tuple(family for path in files if (family := self.read(path)) is not None)

    def names(self) -> list[str]:
        """Return example names of every family: each option of each family at least once."""
        return [name for family in self.all for name in family.examples]

    def module_of(self, name: str) -> str:
        """Return the module that builds `name`, such as "dd.networks.convnet".

        Raises:
            ConfigError: no family has such a name.
        """
        return self.match(name)[0]

    def parse(self, name: str) -> dict[str, Any]:
        """Return the fields that `name` spells out, numbers as int: {"depth": 3, "norm": "in", "width": 256}.

        Options that the name leaves out are left out here too; their defaults stand in the family's `build`.

        Raises:
            ConfigError: no family has such a name; the message has the nearest example and every form.
        """
        return self.match(name)[1]

    def match(self, name: str) -> tuple[str, dict[str, Any]]:
        """Return module and fields of `name`; see `module_of` and `parse`."""
        for family in self.all:
            if found := family.pattern.fullmatch(name):
                fields = {key: text for key, text in found.groupdict().items() if text is not None}
                return family.module, {key: int(text) if text.isdecimal() else text for key, text in fields.items()}
        forms = "; ".join(_readable(family.pattern.pattern) for family in self.all)
        raise ConfigError(f"{self.kind} {name!r} is unknown{nearest(name, self.names())}; forms, [] optional: {forms}")

    def build(self, name: str, channels: int, size: tuple[int, int], classes: int, seed: int | None, *names: object) -> Any:
        """Return what the family of `name` builds for (n, channels, *size) images, on the CPU.

        Args:
            seed: the weights are a function of (seed, *names). None draws them from torch's global generator.
            names: of the random stream.

        Raises:
            ConfigError: unknown name, or what the family refuses.
        """
        module, fields = self.match(name)
        family = import_module(module)
        from dd.rng import seeded

        try:
            with nullcontext() if seed is None else seeded(seed, *names):
                return family.build(channels, (size[0], size[1]), classes, **fields)
        except ConfigError as error:
            raise ConfigError(f"{self.kind} {name!r}: {error}") from None

    def read(self, path: Path) -> Family | None:
        """Read a file's literals; None for one that is no family.

        Raises:
            ConfigError: a literal is missing, is an expression, or is no regular expression.
        """
        found: dict[str, Any] = {}
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            match node:
                case ast.Assign(targets=[ast.Name(id="NAME" | "EXAMPLES" as key)], value=value):
                    try:
                        found[key] = ast.literal_eval(value)
                    except ValueError:
                        raise ConfigError(f"{path}: {key} must be a plain literal, not an expression") from None
        if not found and not self.strict:
            return None
        if missing := {"NAME", "EXAMPLES"} - set(found):
            raise ConfigError(f"{path}: a {self.kind} family must have {' and '.join(sorted(missing))} at its top level")
        try:
            pattern = re.compile(found["NAME"])
        except re.error as error:
            raise ConfigError(f"{path}: NAME {found['NAME']!r} is not a regular expression: {error}") from None
        return Family(f"{self.package}.{path.stem}", pattern, tuple(found["EXAMPLES"]))


def _readable(pattern: str) -> str:
    """Return "convnet<depth>_(in|bn)[_w<width>]" for a family's regular expression."""
    text = re.sub(r"\(\?P<(\w+)>\[[^()]*\)", r"<\1>", pattern)
    text = re.sub(r"\(\?P<\w+>([^()]*)\)", r"(\1)", text)
    return re.sub(r"\(\?:((?:[^()]|\([^()]*\))*)\)\?", r"[\1]", text)
