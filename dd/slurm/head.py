"""One head a folder: the Snakemake that submits jobs holds a lock, by which others learn whether it lives.

The lock is the kernel's, so it ends with the process, however that ends. Network file systems may keep such locks on one host only, hence
the file also names the host, the process and the SLURM job of its holder.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from pathlib import Path

from dd.errors import DDError

FILE = Path(".snakemake") / "head.json"
_JOB = os.environ.get("SLURM_JOB_ID")  # now: the plugin takes it out of the environment before it submits
_held: dict[Path, TextIOWrapper] = {}


class HeadError(DDError):
    """Another Snakemake submits from this folder, or it cannot be told."""


@dataclass(frozen=True)
class Head:
    """Who submits, or did. since: local time, for people. job: the SLURM job that it runs in, if any. alive: whether it holds the lock."""

    host: str
    pid: int
    since: str
    job: str | None
    alive: bool

    def __str__(self) -> str:
        """Name it for people."""
        inside = f", SLURM job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{inside}, since {self.since}"


def take(folder: Path) -> None:
    """Become the head of a folder until this process ends.

    Raises:
        HeadError: another process is.
    """
    path = folder.resolve() / FILE
    if path in _held:
        return
    path.parent.mkdir(exist_ok=True)
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  # it is the lock, and stays open
    for attempt in range(10):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if attempt < 9:
                time.sleep(0.1)  # somebody may only be looking
                continue
            file.close()
            raise HeadError(f"another Snakemake works here: {found(folder)}; wait for its end, or stop it with one Ctrl-C") from None
    me = Head(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"), _JOB, True)
    file.truncate(0)
    json.dump({key: value for key, value in asdict(me).items() if key != "alive"}, file)
    file.flush()
    _held[path] = file
    atexit.register(_leave, file, os.getpid())


def found(folder: Path) -> Head | None:
    """Return the head of a folder: one that lives, or one that was killed. None where the last one ended by itself.

    Raises:
        HeadError: the file is damaged.
    """
    path = folder.resolve() / FILE
    try:
        with open(path, "r+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alive = False
            except BlockingIOError:
                alive = True
            text = file.read()
    except FileNotFoundError:
        return None
    if not text and not alive:
        return None
    try:
        known = json.loads(text)
        return Head(str(known["host"]), int(known["pid"]), str(known["since"]), known["job"], alive)
    except (ValueError, KeyError, TypeError):
        if alive:
            return Head("an unknown host", 0, "a moment ago", None, True)  # it is just writing its name
        raise HeadError(f"{path}: is damaged; make sure that no Snakemake works in this folder, then delete the file") from None


def _leave(file: TextIOWrapper, pid: int) -> None:
    """Take the name away at an orderly end. The file stays: whoever waits for the lock has it open."""
    if os.getpid() == pid:  # not in a child that was forked
        file.truncate(0)
