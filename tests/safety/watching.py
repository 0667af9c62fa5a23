"""A guard around readers: whatever unpickles, starts a program, or writes where it should not, ends the test at once."""

from __future__ import annotations

import importlib
import os
import pickle
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

STARTS = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn")
REMOVES = ("os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.mkdir", "os.truncate", "os.chmod", "shutil.rmtree")


GIVES = ("os.rename", "os.link")  # these make their second name
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Forbidden(BaseException):
    """Something that no reader may do. Not an Exception: no `except Exception` of a reader can hide it."""


class Bomb:
    """What a pickle would run: it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)

    def __repr__(self) -> str:
        return "Bomb()"


class _Refusing:
    """Stands for every Unpickler."""

    def __init__(self, *args, **kwargs) -> None:
        raise Forbidden("an Unpickler was made")


def _refuse(*args, **kwargs):
    raise Forbidden("something was unpickled")


# module -> what of it unpickles; those that are not installed are left out
UNPICKLES = {
    "pickle": ("load", "loads", "_load", "_loads", "Unpickler", "_Unpickler"),
    "_pickle": ("load", "loads", "Unpickler"),
    "shelve": ("open", "Shelf", "DbfilenameShelf"),
    "torch": ("load",),
    "torch.serialization": ("load", "_load", "_legacy_load"),
    "torch.jit": ("load",),
    "torch.hub": ("load_state_dict_from_url",),
    "joblib": ("load",),
    "cloudpickle": ("load", "loads"),
    "dill": ("load", "loads", "Unpickler"),
    "pandas": ("read_pickle",),
    "yaml": ("load_all", "full_load", "unsafe_load", "unsafe_load_all", "UnsafeLoader", "FullLoader", "Loader"),
}

_allowed: list[Path] = []  # where files may be written while a guard stands
_guarded = [False]


def _audit(event: str, args: tuple) -> None:
    if not _guarded[0]:
        return
    if event == "pickle.find_class":  # C's Unpickler reports it too
        raise Forbidden(f"a pickle asks for {args[0]}.{args[1]}")
    if event in STARTS:
        raise Forbidden(f"a program is started: {event} {args[:2]}")
    # `open` says how in words, `os.open` and `Path.touch` in flags alone. One that is opened by its number was opened before.
    if event == "open" and ((set(str(args[1] or "")) & set("wax+")) or (args[2] or 0) & WRITES):
        _inside(args[0])
    elif event in REMOVES:
        _inside(args[0])
        if event in GIVES:
            _inside(args[1])


def _inside(name: object) -> None:
    if not isinstance(name, (str, bytes, os.PathLike)):
        return
    path = Path(os.fsdecode(name)).absolute()
    if path.suffix == ".pyc" or "__pycache__" in path.parts or path == Path("/dev/null"):
        return
    if not any(path.resolve().is_relative_to(folder.resolve()) for folder in _allowed):
        raise Forbidden(f"{path} is written")


@contextmanager
def guarded(monkeypatch: pytest.MonkeyPatch, *writable: Path) -> Iterator[None]:
    """Run a block in which nothing is unpickled and no program started, and in which files are written below `writable` alone."""
    if not getattr(sys, "_dd_audited", False):  # a hook stays for ever: one is enough
        sys.addaudithook(_audit)
        sys._dd_audited = True  # type: ignore[attr-defined]
    modules = {}
    for name in UNPICKLES:
        try:
            modules[name] = importlib.import_module(name)
        except ImportError:
            continue
    with monkeypatch.context() as patch:
        for name, module in modules.items():
            for attribute in UNPICKLES[name]:
                if hasattr(module, attribute):
                    patch.setattr(module, attribute, _Refusing if attribute[:1].isupper() or attribute[1:2].isupper() else _refuse)
        _allowed[:] = writable
        _guarded[0] = True
        try:
            yield
        finally:
            _guarded[0] = False


def bomb(marker: Path) -> bytes:
    """Return a pickle that makes `marker` when it is loaded."""
    return pickle.dumps(Bomb(marker), protocol=2)


@contextmanager
def bounded(megabytes: int = 600) -> Iterator[None]:
    """Allow so much more address space than there is now: who asks for more gets a MemoryError, and the machine does not suffer."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
