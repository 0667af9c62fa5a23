"""Code identity: what a job runs, as a hash that comments and docstrings do not move.

A stage's code is its module and everything of `dd` that it imports, plus the registered files (recipe, networks, protocol,
parameterizations) that its configuration names. Registries import by file discovery, which this does not follow: so editing one
recipe changes the identity of its own jobs and of no other's.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dd.artifacts import write_json

if TYPE_CHECKING:
    from dd.plan.job import Job

CODES = Path("results/code")  # {code id}.json: which modules it stands for, and a hash of each
ROOT = Path(__file__).resolve().parents[1]

# A change in how errors are worded, progress is shown or files are described changes no result.
SILENT = {"dd", "dd.errors", "dd.progress", "dd.config", "dd.config.canonical"}


def code_id(modules: Iterable[str]) -> str:
    """Return 12 hex digits of the code that these modules run."""
    return _code_id(tuple(modules))


@cache
def _code_id(modules: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in sorted(closure(modules) - SILENT):
        digest.update(f"{name}:{_semantic(name)}\n".encode())
    return digest.hexdigest()[:12]


def modules_of(modules: Iterable[str]) -> dict[str, str]:
    """Return every module whose code these modules run, with 12 hex digits of each: what `code_id` is made of, one by one."""
    return dict(_modules_of(tuple(modules)))


@cache
def _modules_of(modules: tuple[str, ...]) -> dict[str, str]:
    return {name: _module_id(name) for name in sorted(closure(modules) - SILENT)}


@cache
def _module_id(name: str) -> str:
    return hashlib.sha256(_semantic(name).encode()).hexdigest()[:12]


def write_codes(jobs: Iterable[Job], folder: Path = CODES) -> None:
    """Write {code id}.json with `modules_of` for every code that the jobs run, where it is not there: later, it names what changed.

    Raises:
        ArtifactError: a file cannot be written.
    """
    for modules in dict.fromkeys(tuple(job.modules) for job in jobs):
        path = folder / f"{code_id(modules)}.json"
        if not path.exists():
            write_json(path, modules_of(modules))


def closure(modules: Iterable[str]) -> set[str]:
    """Return the modules and everything of `dd` that they import, also inside functions."""
    found: set[str] = set()
    open_ = list(modules)
    while open_:
        name = open_.pop()
        if name not in found and _path(name):
            found.add(name)
            open_.extend(_imports(name))
    return found


@cache
def _path(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _tree(name: str) -> ast.Module:
    path = _path(name)
    assert path is not None
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def _imports(name: str) -> frozenset[str]:
    found: set[str] = set()
    for node in _statements(_tree(name), typing=False):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.split(".")[0] == "dd")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dd":
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(module for module in found if _path(module))


def _statements(tree: ast.Module, *, typing: bool = True) -> Iterator[ast.AST]:
    """Walk over all statements, without typing over those that run; no import and no docstring stands in an expression."""
    open_: list[ast.AST] = [tree]
    while open_:
        node = open_.pop()
        if not typing and isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        for field in ("body", "orelse", "handlers", "finalbody", "cases"):
            open_.extend(getattr(node, field, ()))


@cache
def _semantic(name: str) -> str:
    """Return the module's syntax tree without docstrings, as text. It takes them out of the tree itself: nobody else reads them."""
    tree = _tree(name)
    for node in _statements(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body
            if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
                node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)
