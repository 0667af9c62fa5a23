"""Judging finished sets. A protocol is one file in `protocols/`; registered by being there.

A protocol's file has a literal name for each configuration that it offers: `PROTOCOLS = {"name": ConfigClass}`. Read by the
planner: nothing heavy at the top.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from dd.errors import ConfigError, nearest
from dd.evaluation.protocols._protocol import Protocol

__all__ = ["config_of", "module_of", "names"]


@cache
def _found() -> dict[str, tuple[str, type[Protocol]]]:
    found: dict[str, tuple[str, type[Protocol]]] = {}
    for path in sorted((Path(__file__).parent / "protocols").glob("*.py")):
        if path.stem.startswith("_"):
            continue
        module = f"dd.evaluation.protocols.{path.stem}"
        offered = getattr(importlib.import_module(module), "PROTOCOLS", None)
        if not isinstance(offered, dict):
            raise ConfigError(f"{path}: a protocol's file must have PROTOCOLS = {{name: configuration class}} at its top level")
        for name, config in offered.items():
            if name in found:
                raise ConfigError(f"{path}: protocol {name!r} is defined in {found[name][0]} already")
            found[name] = (module, config)
    return found


def names() -> list[str]:
    """Return the names of all protocols."""
    return sorted(_found())


def config_of(name: str) -> type[Protocol]:
    """Return a protocol's configuration class; its defaults are the protocol.

    Raises:
        ConfigError: there is no such protocol.
    """
    if name not in _found():
        raise ConfigError(f"protocol: no protocol {name!r}{nearest(name, names())}")
    return _found()[name][1]


def module_of(name: str) -> str:
    """Return the dotted name of a protocol's module; see `config_of` for errors."""
    config_of(name)
    return _found()[name][0]
