"""Keep torch from loading its compiler, which nothing here uses: a second or more for each process that makes an optimizer.

`torch.optim` and `torch.utils.checkpoint` import torch._dynamo when they are first called, only to say that the compiler must leave some
functions alone (`disable`), and where it must cut a graph in two (`graph_break`). Without a compiler both do nothing. Checkpointing also
looks into `config`, a module that loads alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module, util
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAME = "torch._dynamo"


class _StandIn(ModuleType):
    """What torch asks torch._dynamo for where nothing is compiled; whatever else is asked for loads the real one, in this very place."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # what Python looks for in any module; of a package it asks the path
            raise AttributeError(name)
        if name == "config":
            self.__path__ = _path(self)
            try:
                return import_module(f"{NAME}.config")
            finally:
                del self.__path__
        _load(self)
        return getattr(self, name)


def without_dynamo() -> None:
    """Stand in for torch._dynamo, unless it is loaded or this torch has none. Import torch before; call it before the first optimizer."""
    spec = None if NAME in sys.modules else util.find_spec(NAME)
    if spec is None or spec.loader is None:
        return
    module = _StandIn(NAME)
    module.__spec__, module.__file__ = spec, spec.origin
    vars(module).update(disable=_disable, graph_break=_graph_break)
    sys.modules[NAME] = module
    setattr(sys.modules["torch"], NAME.partition(".")[2], module)


def _load(module: ModuleType) -> None:
    """Make the real torch._dynamo of a stand-in, which others may hold already."""
    spec = module.__spec__
    assert isinstance(spec, ModuleSpec) and spec.loader is not None
    module.__class__ = ModuleType
    del module.disable, module.graph_break  # type: ignore[attr-defined]
    module.__path__ = _path(module)
    module.__package__, module.__loader__ = NAME, spec.loader
    spec.loader.exec_module(module)


def _path(module: ModuleType) -> list[str]:
    """Return where the package's modules lie."""
    return list((module.__spec__ and module.__spec__.submodule_search_locations) or ())


def _disable(function: Callable[..., Any] | None = None, *args: Any, **options: Any) -> Any:
    """Leave a function as it is: no compiler will touch it."""
    return (lambda given: given) if function is None else function


def _graph_break(*args: Any, **options: Any) -> None:
    """Do nothing: there is no graph."""
