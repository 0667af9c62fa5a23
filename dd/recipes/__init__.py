"""Methods, one file each: drop a file here and it is registered, planned, run, drawn and tested.

A recipe file has three parts: `Config`, a frozen configuration; `needs(config, dataset)`, what must exist before; and
`build(config, inputs)`, which returns a `Run`. The first two import nothing heavy, because the workflow reads them for every job.
Optional: `defaults(dataset, ipc)` returns fields that the method's authors set for that dataset and ipc; `work(config, classes, train,
ipc)` counts what a run costs, and `decoded(config, ipc)` the training images of a class, where they are more than are stored;
`USES_IPC = False` says that the number of images per class means nothing to it, `RANDOM = False` that every set would be the same,
`LINEAGE = "idc"` that its images are normalised as IDC's code does ("dc" is the default), or `lineage(config)` where that is configured;
`complete(fields, dataset, ipc)` fills fields that nobody gave and that depend on others; `published(config)` tells after which updates
sets are published, where the field `steps` does not; `generator_work(config, classes, ipc)` counts like `work`, of generators.

Files whose name begins with "_" are not methods, but what several of them share.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from dd.config import parse
from dd.config.stages import DistillConfig
from dd.errors import ConfigError, nearest
from dd.sources import guides
from dd.types import Need

__all__ = ["lineage_of", "load", "module_of", "names", "needs_of", "published"]

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of all methods."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def module_of(name: str) -> str:
    """Return the dotted name of a method's module.

    Raises:
        ConfigError: there is no such method.
    """
    if name not in names():
        raise ConfigError(f"method: no method {name!r}{nearest(name, names())}")
    return f"dd.recipes.{name}"


@cache
def load(name: str) -> ModuleType:
    """Import a method's file.

    Raises:
        ConfigError: there is no such method, or its file lacks `Config`, `needs` or `build`.
    """
    module = importlib.import_module(module_of(name))
    missing = [part for part in ("Config", "needs", "build") if not hasattr(module, part)]
    if missing:
        raise ConfigError(f"dd/recipes/{name}.py: has no {', '.join(missing)}; a recipe needs Config, needs and build")
    return module


def lineage_of(recipe: ModuleType, config: Any) -> str:
    """Return how a method's images are normalised: "dc", "idc" or "zca"."""
    if hasattr(recipe, "lineage"):
        return str(recipe.lineage(config))
    return str(getattr(recipe, "LINEAGE", "dc"))


def published(method: str, fields: Mapping[str, Any]) -> list[int]:
    """Return after how many updates sets are published beside the final one; 0 is the set before the first update.

    Args:
        fields: the method's own, such as `recipe` of a distillation's configuration.

    Raises:
        ConfigError: there is no such method, or it has a rule of its own and its fields are wrong.
    """
    recipe = load(method)
    if hasattr(recipe, "published"):
        return list(recipe.published(parse(recipe.Config, dict(fields), f"recipe {method}")))
    return list(fields.get("steps", ()))


def needs_of(config: DistillConfig, dataset: str) -> tuple[list[Need], list[Need]]:
    """Return what a distillation needs: its method, and the models that guide it.

    Whatever is trained on the images of the set itself sees the split that the set is made from, but for generators: they are a prior
    that was there before, and have always seen all of train.

    Raises:
        ConfigError: the recipe's or the guidance's fields are wrong.
    """
    recipe = load(config.method)
    fields = parse(recipe.Config, config.recipe, f"recipe {config.method}")
    own = [
        replace(need, split=config.split) if need.dataset == dataset and need.kind != "generator" else need
        for need in recipe.needs(fields, dataset)
    ]
    if config.guidance is None:
        return own, []
    guidance = parse(guides.Guidance, config.guidance, "guidance")
    return own, guides.needs(guidance, dataset, lineage_of(recipe, fields), config.split)
