"""Who is at work in a checkout: what `dd run`, Snakemake and `dd prune` ask before they touch results, as each would spoil the other's.

Each takes its own lock first and then asks for the other's, so of two that begin at once at least one is refused.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dd.errors import DDError
from dd.slurm import head

LOCK = ".run.lock"
LOGS = Path("logs")  # in there stands the lock of a `dd run`
SNAKEMAKES = Path(".snakemake", "locks")
PATIENCE = 5.0  # seconds to wait for a lock: the jobs of a run that was killed end a moment after it


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold the lock of a folder, which is made where it is not there; yield the open file.

    Raises:
        DDError: another one holds it, or the file system has no locks.
    """
    path, file = folder / LOCK, None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        until = time.monotonic() + PATIENCE
        while not _lock(file, fcntl.LOCK_EX):
            if time.monotonic() > until:
                raise DDError(f"{path}: another `dd run` is at work here (or a `dd prune`); wait for it, or end it")
            time.sleep(0.1)
    except BaseException as error:
        if file is not None:
            os.close(file)
        if isinstance(error, OSError):
            raise DDError(f"{path}: cannot be locked: {error.strerror or error}") from error
        raise
    try:
        yield file
    finally:
        os.close(file)


def run_at_work(root: Path) -> str | None:
    """Return that a `dd run` (or `dd prune --yes`) is at work in a checkout, in words for people; None: none is."""
    path = root / LOGS / LOCK
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        free = _lock(file, fcntl.LOCK_SH)
    except OSError:
        return None  # without locks there is no `dd run`
    finally:
        os.close(file)
    return None if free else f"{path}: a `dd run` is at work here (or a `dd prune`); wait for it, or end it"


def snakemake_at_work(root: Path) -> str | None:
    """Return that a Snakemake is at work in a checkout, or was killed, in words for people; None: none is.

    Raises:
        HeadError: the note of who it is cannot be read.
    """
    last = head.found(root)
    if last and last.alive:
        return f"a Snakemake is at work here: {last}; wait for its end, or stop it with one Ctrl-C"
    folder = root / SNAKEMAKES
    if not (folder.is_dir() and any(folder.iterdir())):
        return None
    return (
        f"{folder}: a Snakemake is at work here, or was killed; after a killed one, on a cluster, where its jobs may live on: "
        "python -m dd restart wait -- ARGUMENTS; elsewhere: snakemake --unlock (in a copy of its folder: delete these files)"
    )


def _lock(file: int, how: int) -> bool:
    """Take a lock if it is free; tell whether it was."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
